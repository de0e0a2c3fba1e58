# The programs, built from this flake's own nixpkgs: a host on another release still gets what was tested together.
{ self, nixpkgs, system, ... }:
let
  pkgs = import nixpkgs {
    inherit system;
    # The runner's binary holds runner-go, whose licence is not a free one (docs/decisions/0001-libraries-and-licences.md).
    # Only this package of this flake is allowed; no host has to allow anything.
    config.allowUnfreePredicate = package: nixpkgs.lib.getName package == "cc-ci-runner";
  };
  build = import ./go-package.nix {
    inherit pkgs;
    root = ../..;
    version = self.shortRev or self.dirtyShortRev or "dirty";
  };
in
rec {
  cc-ci-runner = build {
    name = "cc-ci-runner";
    description = "Drone exec runner that proves each build gone";
    licences = [ { spdxId = "LicenseRef-PolyForm-Shield-1.0.0"; fullName = "PolyForm Shield License 1.0.0"; free = false; } ];
    # Units and scripts that start drone-runner-exec start this instead.
    postInstall = "ln -s cc-ci-runner $out/bin/drone-runner-exec";
  };
  cc-ci-bridge = build {
    name = "cc-ci-bridge";
    description = "Starts Drone builds for comments on Gitea's pull requests";
  };
  default = cc-ci-runner;
}
