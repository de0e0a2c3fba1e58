# What working on this repository needs; scripts/test needs no more.
{ pkgs }:
{
  default = pkgs.mkShell {
    packages = [ pkgs.go pkgs.gopls pkgs.delve pkgs.git pkgs.shellcheck pkgs.jq pkgs.sops pkgs.age ];
  };
}
