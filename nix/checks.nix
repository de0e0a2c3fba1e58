# `nix flake check`: the programs, the example host and, where there is KVM, a virtual machine.
{ self, nixpkgs, system, ... }:
let
  pkgs = nixpkgs.legacyPackages.${system};
in
removeAttrs self.packages.${system} [ "default" ]
  // nixpkgs.lib.optionalAttrs (system == "x86_64-linux") {
    example = self.nixosConfigurations.example.config.system.build.toplevel;
    vm = pkgs.testers.runNixOSTest (import ./tests/host.nix { inherit self; });
  }
