# services.cc-ci.bridge.credentials: gitea_token is missing; name the file that holds it.
{ lib, ... }: { services.cc-ci.bridge.credentials = lib.mkForce { hook_secrets = "/run/a"; drone_token = "/run/b"; }; }
