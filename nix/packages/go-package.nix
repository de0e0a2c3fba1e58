# One way to build both programs.
{ pkgs, root, version }:
{ name, description, licences ? [ ], postInstall ? "" }:
let
  inherit (pkgs) lib;
  files = lib.fileset.unions (map (path: root + "/${path}") [
    "go.mod" "go.sum" "bridge" "cmd" "engine" "linter" "runtime"
  ]);
in
# By name, so that a release whose default is older cannot build it with a Go that go.mod refuses.
pkgs.buildGo126Module {
  pname = name;
  inherit version postInstall;
  # Only what the build reads: an edit of the documentation rebuilds nothing.
  src = lib.fileset.toSource { inherit root; fileset = files; };
  vendorHash = import ./vendor-hash.nix;
  subPackages = [ "cmd/${name}" ];
  env.CGO_ENABLED = "0";
  ldflags = [ "-s" "-X main.version=${version}" ];
  # The tests want cgroups, git and free ports, which the build sandbox does not give; scripts/test runs them.
  doCheck = false;
  meta = {
    inherit description;
    homepage = "https://git.autonomic.zone/recipe-maintainers/cc-ci";
    license = [ lib.licenses.asl20 ] ++ licences;
    platforms = lib.platforms.linux;
    mainProgram = name;
  };
}
