# services.cc-ci.secrets: sops-nix decrypts one file at activation; every service finds its secrets, and a changed one
# reloads or restarts whoever uses it.
{ sops-nix, ... }:
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.cc-ci.secrets;
  inherit (config.services.cc-ci) runner bridge traefik drone;
  secret = name: config.sops.secrets.${name}.path;
  installer = lib.optional (config.sops.useSystemdActivation or false) "sops-install-secrets.service";
  users = lib.optional runner.enable "cc-ci-runner" ++ lib.optional bridge.enable "cc-ci-bridge"
    ++ lib.optional traefik.enable "cc-ci-reconcile-traefik" ++ lib.optional drone.enable "cc-ci-reconcile-drone";
  bridgeSecrets = [ "gitea_token" "hook_secrets" "drone_token" ];
in
{
  imports = [ sops-nix.nixosModules.sops ];

  options.services.cc-ci.secrets = {
    enable = lib.mkEnableOption "secrets from a sops file";
    file = mkOption {
      type = types.path;
      example = lib.literalExpression "./secrets.yaml";
      description = ''
        The encrypted file: rpc_secret for the runner and the Drone app, drone_client_secret for the Drone app; gitea_token,
        hook_secrets and drone_token for the bridge; ssl_cert and ssl_key for Traefik.
      '';
    };
  };

  config = lib.mkIf cfg.enable {
    sops.defaultSopsFile = cfg.file;
    # Built with this flake's nixpkgs, whose Go is new enough for it; the host's may not be.
    sops.package = lib.mkDefault sops-nix.packages.${pkgs.stdenv.hostPlatform.system}.sops-install-secrets;

    sops.secrets = lib.mkMerge [
      (lib.mkIf (runner.enable || drone.enable) { rpc_secret.restartUnits = lib.optional drone.enable "cc-ci-reconcile-drone.service"; })
      (lib.mkIf bridge.enable (lib.genAttrs bridgeSecrets (_: { restartUnits = [ "cc-ci-bridge.service" ]; })))
      (lib.mkIf traefik.enable (lib.genAttrs [ "ssl_cert" "ssl_key" ] (_: { restartUnits = [ "cc-ci-reconcile-traefik.service" ]; })))
      (lib.mkIf drone.enable { drone_client_secret.restartUnits = [ "cc-ci-reconcile-drone.service" ]; })
    ];

    # systemd reads it as root; neither the runner's user nor a step can.
    sops.templates = lib.mkIf runner.enable {
      "cc-ci-runner.env" = {
        content = "DRONE_RPC_SECRET=${config.sops.placeholder.rpc_secret}";
        reloadUnits = [ "cc-ci-runner.service" ];
      };
    };
    # Where systemd and not the activation script decrypts, the services wait for it. Not `requires`: its restart at a switch
    # would restart them too.
    systemd.services = lib.genAttrs users (_: { wants = installer; after = installer; });

    services.cc-ci = lib.mkMerge [
      (lib.mkIf runner.enable { runner.environmentFile = lib.mkDefault config.sops.templates."cc-ci-runner.env".path; })
      (lib.mkIf bridge.enable { bridge.credentials = lib.genAttrs bridgeSecrets secret; })
      (lib.mkIf traefik.enable { traefik.certificate = secret "ssl_cert"; traefik.key = secret "ssl_key"; })
      (lib.mkIf drone.enable { drone.rpcSecret = secret "rpc_secret"; drone.clientSecret = secret "drone_client_secret"; })
    ];
  };
}
