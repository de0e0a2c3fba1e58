# For those who want pkgs.cc-ci-runner and pkgs.cc-ci-bridge; the modules do not need it.
{ self, ... }:
final: prev: {
  inherit (self.packages.${prev.stdenv.hostPlatform.system}) cc-ci-runner cc-ci-bridge;
}
