# services.cc-ci.apps: Co-op Cloud apps that every boot and every switch brings to their described state, and two of them
# ready to use: services.cc-ci.traefik (a certificate of yours, no ACME) and services.cc-ci.drone (Gitea's accounts).
{ ... }:
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.cc-ci;
  text = import ./text.nix lib;

  string = description: mkOption { type = types.str; inherit description; };
  runtimePath = description: mkOption {
    type = types.path;
    inherit description;
    example = "/run/secrets/ssl_cert";
  };

  app = types.submodule ({ name, ... }: {
    options = {
      enable = mkOption { type = types.bool; default = true; description = "Whether to deploy the app."; };
      recipe = mkOption { type = types.str; default = name; description = "The Co-op Cloud recipe."; };
      version = mkOption {
        type = types.nullOr types.str;
        default = null;
        example = "3.1.0+v3.4.0";
        description = "The recipe's version; null is the newest at the first deployment.";
      };
      domain = string "Where the app is reached; it also names the app's stack.";
      env = mkOption {
        type = types.attrsOf types.str;
        default = { };
        description = "Lines of the app's env file, as the recipe's .env.sample explains them. No secrets.";
      };
      secrets = mkOption {
        default = { };
        description = "Swarm secrets of the app, by the recipe's names.";
        type = types.attrsOf (types.submodule {
          options.file = runtimePath "The file that holds the secret.";
          options.version = mkOption {
            type = types.str;
            default = "v1";
            description = "A Swarm secret cannot be changed: whoever changes the file gives it another version.";
          };
        });
      };
      after = mkOption {
        type = types.listOf types.str;
        default = [ ];
        description = "Apps that are deployed before this one.";
      };
      redeployFlags = mkOption {
        type = types.listOf types.str;
        default = [ "--force" ];
        description = "What `abra app deploy` needs to replace a running app.";
      };
      timeoutSeconds = mkOption {
        type = types.ints.positive;
        default = 900;
        description = "How long a deployment may take.";
      };
    };
  });

  apps = lib.filterAttrs (_: a: a.enable) cfg.apps;
  unit = name: "cc-ci-reconcile-${name}";
  upper = lib.toUpper;

  envFile = name: a: pkgs.writeText "${name}.env" (lib.concatLines (
    [ "TYPE=${a.recipe}${lib.optionalString (a.version != null) ":${a.version}"}" "DOMAIN=${a.domain}" ]
    ++ lib.mapAttrsToList (n: v: "${n}=${v}") a.env
    ++ lib.mapAttrsToList (n: s: "SECRET_${upper (envName n)}_VERSION=${s.version}") a.secrets
  ));
  # The wildcard recipe calls ssl_cert's version SECRET_WILDCARD_CERT_VERSION; every other name is its own.
  envName = n: { ssl_cert = "wildcard_cert"; ssl_key = "wildcard_key"; }.${n} or n;

  script = name: a: pkgs.writeShellApplication {
    name = unit name;
    runtimeInputs = [ cfg.abra config.virtualisation.docker.package pkgs.coreutils pkgs.gnugrep pkgs.git ];
    text = ''
      name=${lib.escapeShellArg name}
      domain=${lib.escapeShellArg a.domain}
      recipe=${lib.escapeShellArg (a.recipe + lib.optionalString (a.version != null) " ${a.version}")}
      env_file=${envFile name a}
      secrets=${lib.escapeShellArg (lib.concatStringsSep "\n" (lib.mapAttrsToList (n: s: "${n} ${s.version}") a.secrets))}
      redeploy_flags=${lib.escapeShellArg (toString a.redeployFlags)}

      ${lib.fileContents ./reconcile.sh}
    '';
  };

  service = name: a: {
    description = "Deploy ${a.recipe} as ${a.domain}";
    wantedBy = [ "multi-user.target" ];
    requires = [ "docker.service" "cc-ci-swarm-init.service" ];
    wants = [ "network-online.target" ];
    after = [ "docker.service" "cc-ci-swarm-init.service" "network-online.target" ] ++ map (n: "${unit n}.service") a.after;
    # Five tries in half an hour; then it stays failed until somebody looks.
    startLimitBurst = 5;
    startLimitIntervalSec = 1800;
    environment = { HOME = "/var/lib/cc-ci-apps"; ABRA_DIR = "/var/lib/cc-ci-apps/abra"; };
    # No RemainAfterExit: every switch and every boot runs it again. No Condition or Assert: systemd would call a missing
    # certificate a success.
    serviceConfig = import ./hardening.nix // {
      Type = "oneshot";
      ExecStart = lib.getExe (script name a);
      LoadCredential = lib.mapAttrsToList (n: s: "${n}:${toString s.file}") a.secrets;
      StateDirectory = "cc-ci-apps";
      StateDirectoryMode = "0700";
      # A oneshot has no limit by default, and a question of abra's would hang a switch.
      TimeoutStartSec = a.timeoutSeconds;
      Restart = "on-failure";
      RestartSec = 60;
      # abra is Go and runs git; it needs no memory that is writable and executable, but it asks for its limits.
      SystemCallFilter = [ "@system-service" "~@privileged" ];
    };
  };
in
{
  options.services.cc-ci = {
    abra = mkOption {
      type = types.package;
      default = pkgs.abra;
      defaultText = lib.literalExpression "pkgs.abra";
      description = "Co-op Cloud's command line, which deploys the apps.";
    };
    apps = mkOption {
      type = types.attrsOf app;
      default = { };
      description = "Co-op Cloud apps of this host.";
    };
    traefik = {
      enable = lib.mkEnableOption "Traefik with a wildcard certificate from files";
      domain = mkOption { type = types.str; example = "traefik.ci.example.org"; description = "Traefik's own address."; };
      certificate = runtimePath "The wildcard certificate with its chain, PEM.";
      key = runtimePath "Its private key, PEM.";
      certificateVersion = mkOption {
        type = types.str;
        default = "v1";
        description = "To be changed whenever the certificate is.";
      };
    };
    drone = {
      enable = lib.mkEnableOption "a Drone server with Gitea's accounts";
      domain = mkOption { type = types.str; example = "drone.ci.example.org"; description = "Drone's address."; };
      giteaDomain = mkOption { type = types.str; example = "git.example.org"; description = "Gitea's host."; };
      clientId = mkOption { type = types.str; description = "The id of Drone's OAuth2 application at Gitea."; };
      admin = mkOption { type = types.str; description = "The Gitea account that administers Drone."; };
      rpcSecret = runtimePath "The secret shared with the runner.";
      clientSecret = runtimePath "The secret of the OAuth2 application.";
      secretVersion = mkOption {
        type = types.str;
        default = "v1";
        description = "To be changed whenever one of the two secrets is.";
      };
    };
  };

  config = lib.mkMerge [
    (lib.mkIf cfg.traefik.enable {
      services.cc-ci.apps.traefik = {
        inherit (cfg.traefik) domain;
        # File provider mode: no certificate resolver is named, so the wildcard certificate is served.
        env = {
          LETS_ENCRYPT_ENV = "";
          WILDCARDS_ENABLED = "1";
          COMPOSE_FILE = "compose.yml:compose.wildcard.yml";
        };
        secrets.ssl_cert = { file = cfg.traefik.certificate; version = cfg.traefik.certificateVersion; };
        secrets.ssl_key = { file = cfg.traefik.key; version = cfg.traefik.certificateVersion; };
      };
    })
    (lib.mkIf cfg.drone.enable {
      services.cc-ci.apps.drone = {
        inherit (cfg.drone) domain;
        after = lib.optional cfg.traefik.enable "traefik";
        env = {
          LETS_ENCRYPT_ENV = "";
          DRONE_ADMIN_USERNAME = cfg.drone.admin;
          GITEA_DOMAIN = cfg.drone.giteaDomain;
          GITEA_CLIENT_ID = cfg.drone.clientId;
        };
        secrets.rpc_secret = { file = cfg.drone.rpcSecret; version = cfg.drone.secretVersion; };
        secrets.client_secret = { file = cfg.drone.clientSecret; version = cfg.drone.secretVersion; };
      };
    })
    (lib.mkIf (apps != { }) {
      assertions = [
        {
          assertion = cfg.swarm.enable;
          message = "services.cc-ci.apps: apps need a Swarm; set services.cc-ci.swarm.enable = true.";
        }
      ] ++ lib.mapAttrsToList (name: a: {
        assertion = ! lib.any (s: text.inStore s.file) (lib.attrValues a.secrets);
        message = "services.cc-ci.apps.${name}.secrets: a secret lies in the Nix store, which everyone can read; give its path as a string in quotes.";
      }) apps
      ++ lib.mapAttrsToList (name: a: {
        # Swarm's names end at 64 characters.
        assertion = lib.all (s: lib.stringLength "${a.domain}_${s}_${a.secrets.${s}.version}" <= 64) (lib.attrNames a.secrets);
        message = "services.cc-ci.apps.${name}: Docker takes secrets' names up to 64 characters; choose a domain shorter than ${a.domain}.";
      }) apps;
      systemd.services = lib.mapAttrs' (name: a: lib.nameValuePair (unit name) (service name a)) apps;
    })
  ];
}
