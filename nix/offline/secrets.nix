# The variables among these, which hold secrets, that a module's settings would take all the same: they would lie in the
# Nix store, which everyone can read. scripts/nix-checks reads the names from docs/configuration.md.
{ runner, bridge }:
let
  host = settings: import ./eval.nix { module.services.cc-ci = settings; whole = true; };
  inherit (host { }) lib;
  words = text: lib.filter (word: word != "") (lib.splitString " " text);
  taken = module: lib.filter (name:
    lib.all (a: a.assertion) (host { ${module}.settings.${name} = "known"; }).config.assertions);
in
lib.concatStringsSep " " (taken "runner" (words runner) ++ taken "bridge" (words bridge))
