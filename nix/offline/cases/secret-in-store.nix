# a secret lies in the Nix store, which everyone can read
{ lib, ... }: { services.cc-ci.traefik.key = lib.mkForce ./secret-in-store.nix; }
