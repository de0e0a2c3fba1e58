# The example host and one more module, evaluated with the stand-ins and without a lock file, for checks that change
# something (cases/): what the host is built as or, with `whole`, all that a check may want to look at.
{ module, whole ? false }:
let
  lib = import ./nixpkgs/lib.nix;
  nixpkgs = (import ./nixpkgs/flake.nix).outputs { self = nixpkgs; } // { outPath = ./nixpkgs; };
  sops-nix = (import ./sops-nix/flake.nix).outputs { self = sops-nix; inherit nixpkgs; };
  self = (import ../../flake.nix).outputs { inherit self nixpkgs sops-nix; } // { shortRev = "offline"; };
  host = modules: lib.nixosSystem { modules = [ self.nixosModules.default ] ++ modules; };
  inherit (host [ ../hosts/example.nix module ]) config options;
  # A host that imports the modules and enables none has no unit of ours.
  bare = (host [ ]).config;
in
if whole then {
  inherit config options lib;
  sops = sops-nix.packages.x86_64-linux.sops-install-secrets;
  untouched = ! lib.any (lib.hasPrefix "cc-ci-") (lib.attrNames (bare.systemd.services // bare.systemd.sockets // bare.systemd.timers))
    && ! bare.virtualisation.docker.enable && bare.networking.firewall.allowedTCPPorts == [ ];
} else config.system.build.toplevel
