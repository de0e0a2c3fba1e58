# services.cc-ci.bridge.hookDomain: the forwarder needs a Swarm
{ lib, ... }: { services.cc-ci.swarm.enable = lib.mkForce false; }
