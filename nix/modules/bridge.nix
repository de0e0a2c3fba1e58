# services.cc-ci.bridge: starts Drone builds for comments on Gitea's pull requests.
{ self, ... }:
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.cc-ci.bridge;
  option = "services.cc-ci.bridge";
  text = import ./text.nix lib;

  name = "cc-ci-bridge";
  prefix = "CC_CI_BRIDGE_";
  needed = [ "gitea_token" "hook_secrets" "drone_token" ];
  missing = lib.filter (c: ! (cfg.credentials ? ${c})) needed;
  strangers = lib.subtractLists (needed ++ [ "drone_webhook_secret" ]) (lib.attrNames cfg.credentials);
  isSecret = n: lib.hasSuffix "_TOKEN" n || lib.hasSuffix "_SECRET" n || lib.hasSuffix "_SECRETS" n;

  host = lib.head (lib.splitString ":" (lib.head cfg.listenStreams));
  port = lib.last (lib.splitString ":" (lib.head cfg.listenStreams));

  # Traefik finds what it serves by the labels of Swarm services, so a container passes hooks on to the host. It is made of
  # the Nix store: no registry has to be reached.
  socat = "cc-ci-hooks:${pkgs.socat.version}";
  image = pkgs.dockerTools.buildLayeredImage {
    name = "cc-ci-hooks";
    tag = pkgs.socat.version;
    config = { Entrypoint = [ (lib.getExe pkgs.socat) ]; User = "65534:65534"; };
  };
  labels = {
    "traefik.enable" = "true";
    "traefik.http.routers.cc-ci-hooks.rule" = "Host(`${cfg.hookDomain}`)";
    "traefik.http.routers.cc-ci-hooks.entrypoints" = "web-secure";
    "traefik.http.routers.cc-ci-hooks.tls" = "true";
    "traefik.http.services.cc-ci-hooks.loadbalancer.server.port" = "8080";
  };
  forwarder = [ "--name" "cc-ci-hooks" "--network" "proxy" "--no-resolve-image" "--limit-memory" "64M" "--read-only" "--quiet" ]
    ++ lib.concatLists (lib.mapAttrsToList (n: v: [ "--label" "${n}=${v}" ]) labels)
    ++ [ socat "TCP-LISTEN:8080,fork,reuseaddr,max-children=256" "TCP:${lib.head cfg.listenStreams}" ];
  forward = pkgs.writeShellApplication {
    name = "cc-ci-hooks";
    runtimeInputs = [ config.virtualisation.docker.package ];
    text = ''
      wanted=${builtins.hashString "sha256" (toString forwarder)}
      docker info --format '{{.Swarm.LocalNodeState}}' >/dev/null || { echo "Docker does not answer; look at docker.service" >&2; exit 1; }
      gateway=$(docker network inspect docker_gwbridge --format '{{(index .IPAM.Config 0).Gateway}}')
      if [ "$gateway" != ${lib.escapeShellArg host} ]; then
        echo "containers reach this host at $gateway (docker_gwbridge), but the bridge listens elsewhere: set ${option}.listenStreams = [ \"$gateway:${port}\" ]" >&2
        exit 1
      fi
      docker image inspect ${socat} >/dev/null 2>&1 || docker load --quiet --input ${image} >/dev/null
      have=$(docker service ls --filter name=cc-ci-hooks --format '{{.Name}}')
      if [ -n "$have" ]; then
        if [ "$(docker service inspect --format '{{index .Spec.Labels "cc-ci.wanted"}}' cc-ci-hooks)" = "$wanted" ]; then
          echo "hooks are passed on as described"
          exit 0
        fi
        docker service rm cc-ci-hooks >/dev/null
      fi
      docker service create --label "cc-ci.wanted=$wanted" ${lib.escapeShellArgs forwarder} >/dev/null
      echo "hooks for ${toString cfg.hookDomain} are passed on to ${lib.head cfg.listenStreams}"
    '';
  };
  environment = lib.mapAttrs' (n: lib.nameValuePair (prefix + n)) ({ STATE_DIR = "/var/lib/${name}"; } // cfg.settings);
  files = lib.mapAttrs' (n: lib.nameValuePair "${prefix}${lib.toUpper n}_FILE") cfg.credentials;
  # The program for who types it: with the service's settings and secrets, which root can read.
  tool = pkgs.writeShellApplication {
    inherit name;
    text = ''
      ${lib.concatLines (lib.mapAttrsToList (n: v: "export ${n}=${lib.escapeShellArg (text.plain v)}") (environment // files))}
      exec ${lib.getExe cfg.package} "$@"
    '';
  };
  required = example: description: mkOption { type = types.str; inherit example description; };
in
{
  options.services.cc-ci.bridge = {
    enable = lib.mkEnableOption "the comment bridge cc-ci-bridge";
    package = mkOption {
      type = types.package;
      default = self.packages.${pkgs.stdenv.hostPlatform.system}.cc-ci-bridge;
      defaultText = lib.literalExpression "cc-ci.packages.\${system}.cc-ci-bridge";
      description = "The bridge. The default is built with this flake's own nixpkgs.";
    };
    listenStreams = mkOption {
      type = types.listOf types.str;
      default = [ "127.0.0.1:3001" ];
      example = [ "172.18.0.1:3001" ];
      description = ''
        Where hooks arrive; a second one is for health and metrics. Traefik in the Swarm reaches the host by the address of
        docker_gwbridge; the socket binds it even before Docker has made it.
      '';
    };
    openInterfaces = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "docker_gwbridge" ];
      description = "Interfaces on which the firewall lets hooks in.";
    };
    hookDomain = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "hooks.ci.example.org";
      description = ''
        Under this name Traefik in the Swarm takes hooks and passes them on to the first of listenStreams, through a small
        forwarder in the network `proxy`. null leaves the way to the bridge to you.
      '';
    };
    settings = mkOption {
      default = { };
      description = "The bridge's variables without `CC_CI_BRIDGE_` (docs/configuration.md). Secrets belong into credentials.";
      type = types.submodule {
        freeformType = types.attrsOf text.setting;
        options = {
          GITEA_URL = required "https://git.example.org" "Gitea's address, as the bridge and the builds reach it.";
          DRONE_URL = required "https://drone.example.org" "Drone's address, as the bridge and people reach it.";
          CI_REPO = required "ci/tests" "The repository whose pipeline is run.";
          HOOK_URL = mkOption {
            type = types.str;
            default = if cfg.hookDomain != null then "https://${cfg.hookDomain}/hook" else "";
            defaultText = "from hookDomain";
            description = "The address under which Gitea reaches the bridge.";
          };
          REPOS = required "recipes" "Who may ask for builds: owners, or owner/name, separated by commas.";
        };
      };
    };
    credentials = mkOption {
      type = types.attrsOf types.path;
      default = { };
      example = { gitea_token = "/run/secrets/gitea_token"; };
      description = "Secrets as files: gitea_token, hook_secrets, drone_token, and drone_webhook_secret if results are pushed.";
    };
    serviceOverrides = mkOption {
      type = types.attrsOf types.anything;
      default = { };
      description = "Settings of the unit that win over this module's.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = missing == [ ];
        message = "${option}.credentials: ${toString missing} is missing; name the file that holds it.";
      }
      {
        assertion = strangers == [ ];
        message = "${option}.credentials: the bridge does not read ${toString strangers}; look for a spelling mistake.";
      }
      {
        assertion = ! lib.any text.inStore (lib.attrValues cfg.credentials);
        message = "${option}.credentials: a secret lies in the Nix store, which everyone can read; give its path as a string in quotes.";
      }
      {
        assertion = ! lib.any isSecret (lib.attrNames cfg.settings);
        message = "${option}.settings: holds a secret, which everyone could read; use credentials.";
      }
      {
        assertion = cfg.hookDomain == null || config.services.cc-ci.swarm.enable;
        message = "${option}.hookDomain: the forwarder needs a Swarm; set services.cc-ci.swarm.enable = true, or leave hookDomain out.";
      }
    ];

    environment.systemPackages = [ tool ];

    networking.firewall.interfaces = lib.genAttrs cfg.openInterfaces (_: {
      allowedTCPPorts = [ (lib.toInt port) ];
    });

    systemd.sockets.${name} = {
      description = "Hooks for the cc-ci bridge";
      wantedBy = [ "sockets.target" ];
      inherit (cfg) listenStreams;
      socketConfig = { FreeBind = true; Backlog = 1024; };
    };

    systemd.services.${name} = {
      description = "cc-ci comment bridge";
      documentation = [ "https://git.autonomic.zone/recipe-maintainers/cc-ci" ];
      # The socket alone would start it; comments that came while the host was down are read at start.
      wantedBy = [ "multi-user.target" ];
      requires = [ "${name}.socket" ];
      wants = [ "network-online.target" ];
      after = [ "network-online.target" "${name}.socket" ];
      # A switch restarts the service and leaves the socket: a hook waits there and is not refused.
      stopIfChanged = false;
      unitConfig.StartLimitIntervalSec = 0;
      environment = lib.mapAttrs (_: text.value) environment;

      serviceConfig = lib.mapAttrs (_: lib.mkDefault) (import ./hardening.nix // {
        Type = "notify";
        NotifyAccess = "main";
        ExecStart = "${lib.getExe cfg.package} serve";
        LoadCredential = text.credentials cfg.credentials;
        DynamicUser = true;
        StateDirectory = name;
        StateDirectoryMode = "0700";
        Restart = "always";
        RestartSec = 5;
        # Wrong settings (2) and a missing credential (243) do not mend themselves: fail, visibly.
        RestartPreventExitStatus = "2 243";
        TimeoutStopSec = 30;
        MemoryMax = "256M";
        TasksMax = 64;
        LimitNOFILE = 4096;
        PrivateUsers = true;
        ProcSubset = "pid";
        RemoveIPC = true;
        AmbientCapabilities = "";
      }) // lib.mapAttrs (_: lib.mkForce) cfg.serviceOverrides;
    };

    systemd.services.cc-ci-hooks = lib.mkIf (cfg.hookDomain != null) {
      description = "Pass hooks from Traefik to the cc-ci bridge";
      wantedBy = [ "multi-user.target" ];
      requires = [ "docker.service" "cc-ci-swarm-init.service" ];
      after = [ "docker.service" "cc-ci-swarm-init.service" ];
      serviceConfig = import ./hardening.nix // {
        Type = "oneshot";
        ExecStart = lib.getExe forward;
        TimeoutStartSec = 300;
      };
    };
  };
}
