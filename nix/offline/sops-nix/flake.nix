# A stand-in for sops-nix: its options and the paths it promises.
{
  description = "stand-in for sops-nix";
  inputs.nixpkgs.url = "path:../nixpkgs";
  outputs = { self, nixpkgs }: {
    nixosModules.sops = ./module.nix;
    packages = nixpkgs.lib.genAttrs [ "x86_64-linux" "aarch64-linux" ]
      (system: { sops-install-secrets = nixpkgs.legacyPackages.${system}.sops; });
  };
}
