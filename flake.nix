{
  description = "cc-ci: a Drone exec runner for a Docker Swarm host, and a Gitea comment bridge";

  # The revisions and hashes in flake.lock are as others publish them for this pair; they were not downloaded where this was
  # written (docs/nix.md). Move both together: sops-nix is built with this nixpkgs, whose Go it must accept.
  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
    sops-nix.url = "github:Mic92/sops-nix";
    sops-nix.inputs.nixpkgs.follows = "nixpkgs";
  };

  outputs = { self, nixpkgs, sops-nix }:
    let
      inputs = { inherit self nixpkgs sops-nix; };
      each = nixpkgs.lib.genAttrs [ "x86_64-linux" "aarch64-linux" ];
    in
    {
      packages = each (system: import ./nix/packages (inputs // { inherit system; }));
      overlays.default = import ./nix/overlay.nix inputs;
      nixosModules = import ./nix/modules inputs;
      nixosConfigurations.example = nixpkgs.lib.nixosSystem {
        modules = [ self.nixosModules.default ./nix/hosts/example.nix ];
      };
      checks = each (system: import ./nix/checks.nix (inputs // { inherit system; }));
      devShells = each (system: import ./nix/shell.nix { pkgs = nixpkgs.legacyPackages.${system}; });
      formatter = each (system: nixpkgs.legacyPackages.${system}.nixfmt-tree);
    };
}
