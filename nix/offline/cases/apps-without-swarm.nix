# services.cc-ci.apps: apps need a Swarm; set services.cc-ci.swarm.enable = true.
{ lib, ... }: { services.cc-ci.swarm.enable = lib.mkForce false; }
