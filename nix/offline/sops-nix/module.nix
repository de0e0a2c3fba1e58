# The options of sops-nix that this repository uses.
{ config, lib, ... }:
let
  inherit (lib) types mkOption;
  unit = mkOption { type = types.listOf types.str; default = [ ]; };
  owned = {
    owner = mkOption { type = types.str; default = "root"; };
    mode = mkOption { type = types.str; default = "0400"; };
    restartUnits = unit;
    reloadUnits = unit;
  };
in
{
  options.sops = {
    package = mkOption { type = types.package; };
    defaultSopsFile = mkOption { type = types.path; };
    validateSopsFiles = mkOption { type = types.bool; default = true; };
    age = {
      keyFile = mkOption { type = types.nullOr types.path; default = null; };
      sshKeyPaths = mkOption { type = types.listOf types.path; default = lib.optional config.services.openssh.enable "/etc/ssh/ssh_host_ed25519_key"; };
    };
    placeholder = mkOption { type = types.attrsOf types.str; default = lib.mapAttrs (n: _: "<SOPS:${n}:PLACEHOLDER>") config.sops.secrets; };
    secrets = mkOption {
      default = { };
      type = types.attrsOf (types.submodule ({ name, ... }: {
        options = owned // {
          key = mkOption { type = types.str; default = name; };
          sopsFile = mkOption { type = types.path; default = config.sops.defaultSopsFile; };
          path = mkOption { type = types.str; default = "/run/secrets/${name}"; };
        };
      }));
    };
    templates = mkOption {
      default = { };
      type = types.attrsOf (types.submodule ({ name, ... }: {
        options = owned // {
          content = mkOption { type = types.lines; };
          path = mkOption { type = types.str; default = "/run/secrets/rendered/${name}"; };
        };
      }));
    };
  };
  config.assertions = lib.optional (config.sops.secrets != { }) {
    assertion = config.sops.age.keyFile != null || config.sops.age.sshKeyPaths != [ ];
    message = "No key source configured for sops. Either set services.openssh.enable or set sops.age.keyFile";
  }
  # Each secret must be a key of its file: the real check decrypts nothing either.
  ++ lib.mapAttrsToList (name: secret: {
    assertion = lib.hasInfix "\n${secret.key}: " ("\n" + builtins.readFile secret.sopsFile);
    message = "sops.secrets.${name}: ${secret.sopsFile} has no key ${secret.key}";
  }) config.sops.secrets;
}
