# The modules by name; `default` is all of them. Nothing is on until it is enabled.
{ self, nixpkgs, sops-nix }:
let
  module = name: {
    # With a key a module counts once, however often it is imported.
    key = "cc-ci/${name}";
    _file = toString (./. + "/${name}.nix");
    imports = [ (import (./. + "/${name}.nix") { inherit self sops-nix; }) ];
  };
  all = nixpkgs.lib.genAttrs [ "bridge" "host" "prune" "reconcile" "runner" "secrets" "swarm" ] module;
in
all // { default = { key = "cc-ci"; imports = builtins.attrValues all; }; }
