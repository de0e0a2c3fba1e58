# A stand-in for nixpkgs with what this repository uses of it, so that it can be checked without a network.
{
  description = "stand-in for nixpkgs";
  outputs = { self }:
    let
      lib = import ./lib.nix;
      systems = [ "x86_64-linux" "aarch64-linux" ];
    in
    {
      inherit lib;
      legacyPackages = lib.genAttrs systems (system: import ./default.nix { inherit system; });
    };
}
