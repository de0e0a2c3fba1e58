# services.cc-ci.runner: the server's secret is missing; set environmentFile or credentials.rpc_secret.
{ lib, ... }: { services.cc-ci.runner.environmentFile = lib.mkForce null; }
