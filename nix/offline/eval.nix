# The example host and one more module, evaluated with the stand-ins and without a lock file; for checks that change
# something (cases/).
{ module }:
let
  lib = import ./nixpkgs/lib.nix;
  nixpkgs = (import ./nixpkgs/flake.nix).outputs { self = nixpkgs; } // { outPath = ./nixpkgs; };
  sops-nix = (import ./sops-nix/flake.nix).outputs { self = sops-nix; inherit nixpkgs; };
  self = (import ../../flake.nix).outputs { inherit self nixpkgs sops-nix; } // { shortRev = "offline"; };
in
(lib.nixosSystem {
  modules = [ self.nixosModules.default ../hosts/example.nix module ];
}).config.system.build.toplevel
