# services.cc-ci.runner: takes builds from a Drone server and runs them on this host.
{ self, ... }:
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.cc-ci.runner;
  option = "services.cc-ci.runner";
  text = import ./text.nix lib;

  name = "cc-ci-runner";
  secrets = [ "DRONE_RPC_SECRET" "DRONE_UI_PASSWORD" "DRONE_SECRET_PLUGIN_TOKEN" "DRONE_ENV_PLUGIN_TOKEN" ];
  # The program looks for each as a credential of its name, such as rpc_secret.
  strangers = lib.subtractLists (map (s: lib.toLower (lib.removePrefix "DRONE_" s)) secrets) (lib.attrNames cfg.credentials);
  teardownSeconds = 120; # DRONE_RUNNER_TEARDOWN_TIMEOUT's default

  # With users of their own the steps cannot touch the runner or each other, but it takes root to become them. What root
  # may do is then bounded: change user, own and remove files, kill, make cgroups and mount namespaces.
  root = cfg.stepUsers != null;
  docker = config.virtualisation.docker.enable && cfg.settings.DRONE_RUNNER_DOCKER != "none";
  capabilities = lib.optionals root [
    "CAP_CHOWN" "CAP_DAC_OVERRIDE" "CAP_FOWNER" "CAP_KILL" "CAP_SETGID" "CAP_SETUID" "CAP_SETPCAP" "CAP_SYS_ADMIN"
    "CAP_SYS_PTRACE" "CAP_SYS_RESOURCE"
  ];
  settings = {
    DRONE_RUNNER_ROOT = "/var/cache/${name}/builds";
    DRONE_RUNNER_CAPACITY = cfg.capacity;
    DRONE_RUNNER_DRAIN_TIMEOUT = "${toString cfg.drainSeconds}s";
  } // lib.optionalAttrs root { DRONE_RUNNER_USER = cfg.stepUsers; } // cfg.settings;
  # The program for who types it; what looks at this host does so with the service's settings and secrets, which root can read.
  tool = pkgs.writeShellApplication {
    inherit name;
    text = ''
      case ''${1:-} in
      doctor | leaks)
        ${lib.concatLines (lib.mapAttrsToList (n: v: "export ${n}=${lib.escapeShellArg (text.plain v)}")
          (settings // lib.mapAttrs' (n: lib.nameValuePair "DRONE_${lib.toUpper n}_FILE") cfg.credentials))}
        ${lib.optionalString (cfg.environmentFile != null) ''set -- "$1" --config ${lib.escapeShellArg (toString cfg.environmentFile)} "''${@:2}"''}
        ;;
      esac
      exec ${lib.getExe cfg.package} "$@"
    '';
  };
in
{
  options.services.cc-ci.runner = {
    enable = lib.mkEnableOption "the Drone exec runner cc-ci-runner";
    package = mkOption {
      type = types.package;
      default = self.packages.${pkgs.stdenv.hostPlatform.system}.cc-ci-runner;
      defaultText = lib.literalExpression "cc-ci.packages.\${system}.cc-ci-runner";
      description = "The runner. The default is built with this flake's own nixpkgs.";
    };
    settings = mkOption {
      default = { };
      example = { DRONE_RPC_HOST = "drone.example.org"; DRONE_RUNNER_MEMORY = "4g"; };
      description = "The runner's variables (docs/configuration.md). Secrets do not belong here: this is readable by everyone.";
      type = types.submodule {
        freeformType = types.attrsOf text.setting;
        options.DRONE_RPC_HOST = mkOption {
          type = types.str;
          example = "drone.example.org";
          description = "Host, and port if any, of the Drone server.";
        };
        options.DRONE_RPC_PROTO = mkOption {
          type = types.enum [ "http" "https" ];
          default = "https";
          description = "How to speak to the Drone server.";
        };
        options.DRONE_RUNNER_DOCKER = mkOption {
          type = types.enum [ "proxy" "host" "none" ];
          default = if config.virtualisation.docker.enable then "proxy" else "none";
          defaultText = lib.literalExpression ''if config.virtualisation.docker.enable then "proxy" else "none"'';
          description = "Which Docker builds get: a socket of their own, the host's, or none.";
        };
      };
    };
    environmentFile = mkOption {
      type = types.nullOr types.path;
      default = null;
      example = "/run/secrets/rendered/cc-ci-runner.env";
      description = ''
        A file with secrets, such as `DRONE_RPC_SECRET=…`. Where steps run as the runner's own user (stepUsers is null) this
        is safer than a credential: the runner hides its memory, but a credential's file is readable by its user.
      '';
    };
    credentials = mkOption {
      type = types.attrsOf types.path;
      default = { };
      example = { rpc_secret = "/run/secrets/rpc_secret"; };
      description = "Secrets as files: rpc_secret, ui_password, secret_plugin_token, env_plugin_token.";
    };
    capacity = mkOption {
      type = types.ints.positive;
      default = 2;
      description = "Pipelines that run at once.";
    };
    stepUsers = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "20000-20099";
      description = ''
        A range of uids: each running build gets its own, so that builds can neither read the runner's secrets nor each
        other's files. The runner is then root, with few capabilities. Uids of a range are in no group, so builds get Docker by
        a socket of their own or not at all.
      '';
    };
    drainSeconds = mkOption {
      type = types.ints.unsigned;
      default = 3600;
      description = "How long running builds may go on after the runner was told to stop.";
    };
    path = mkOption {
      type = types.listOf (types.oneOf [ types.package types.str ]);
      default = [ ];
      example = lib.literalExpression ''[ pkgs.docker "/run/wrappers" "/run/current-system/sw" ]'';
      description = "What steps find on PATH, besides bash, coreutils and git.";
    };
    memoryMax = mkOption {
      type = types.nullOr types.str;
      default = null;
      example = "12G";
      description = "Memory of the runner and all builds together.";
    };
    tasksMax = mkOption {
      type = types.ints.positive;
      default = 16384;
      description = "Processes and threads of the runner and all builds together.";
    };
    serviceOverrides = mkOption {
      type = types.attrsOf types.anything;
      default = { };
      example = { ProtectHome = false; };
      description = "Settings of the unit that win over this module's.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.environmentFile != null || cfg.credentials ? rpc_secret || cfg.settings ? DRONE_RPC_SECRET_FILE;
        message = "${option}: the server's secret is missing; set environmentFile or credentials.rpc_secret.";
      }
      {
        assertion = ! lib.any text.inStore (lib.attrValues cfg.credentials ++ [ cfg.environmentFile ]);
        message = "${option}: a secret lies in the Nix store, which everyone can read; give its path as a string in quotes.";
      }
      {
        assertion = ! lib.any (secret: cfg.settings ? ${secret}) secrets;
        message = "${option}.settings: holds a secret, which everyone could read; use environmentFile or credentials.";
      }
      {
        assertion = strangers == [ ];
        message = "${option}.credentials: the runner does not read ${toString strangers}; look for a spelling mistake.";
      }
      {
        assertion = ! (cfg.settings ? DRONE_RUNNER_USER);
        message = "${option}.settings: DRONE_RUNNER_USER takes other rights for the unit, which only stepUsers gives; set that instead.";
      }
      {
        assertion = ! root || cfg.settings.DRONE_RUNNER_DOCKER != "host";
        message = "${option}: stepUsers and DRONE_RUNNER_DOCKER=host exclude each other; set it to proxy or none.";
      }
    ];

    environment.systemPackages = [ tool ];

    users.users.${name} = lib.mkIf (! root) {
      isSystemUser = true;
      group = name;
      home = "/var/lib/${name}";
      extraGroups = lib.optional docker "docker";
    };
    users.groups.${name} = lib.mkIf (! root) { };

    systemd.services.${name} = {
      description = "cc-ci runner (Drone exec runner)";
      documentation = [ "https://git.autonomic.zone/recipe-maintainers/cc-ci" ];
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [ "network-online.target" "docker.service" "cc-ci-swarm-init.service" ];
      # A changed unit is reloaded, that is drained: running builds end, then Restart=always starts the new one. This also
      # lets a build switch the host that it runs on.
      reloadIfChanged = true;
      unitConfig.StartLimitIntervalSec = 0;
      # PATH belongs to `path` in NixOS; setting it in the environment as well would be a conflict.
      path = [ pkgs.bash pkgs.coreutils pkgs.git ] ++ cfg.path;
      environment = lib.mapAttrs (_: text.value) ({
        HOME = "/var/lib/${name}";
        # Not PrivateTmp: dockerd would not find what a build mounts from there. Builds have a /tmp of their own.
        TMPDIR = "/var/cache/${name}/tmp";
        XDG_RUNTIME_DIR = "/run";
      } // settings);

      serviceConfig = lib.mapAttrs (_: lib.mkDefault) ({
        Type = "notify";
        NotifyAccess = "main";
        WatchdogSec = 120;
        ExecStart = "${lib.getExe cfg.package} daemon";
        # A faulty new configuration fails the reload and leaves the running process alone.
        ExecReload = [ "${lib.getExe cfg.package} doctor --settings" "${lib.getExe' pkgs.coreutils "kill"} -s USR2 $MAINPID" ];
        # Ready comes before what a crash left is torn down; a host that is busy may still take its time.
        TimeoutStartSec = 900;
        TimeoutStopSec = cfg.drainSeconds + teardownSeconds + 60;
        Restart = "always";
        RestartSec = 5;
        # A faulty configuration (2) and a missing credential (243) do not mend themselves: fail, visibly.
        RestartPreventExitStatus = "2 243";
        LoadCredential = text.credentials cfg.credentials;

        StateDirectory = name;
        StateDirectoryMode = "0700";
        CacheDirectory = [ name "${name}/tmp" "${name}/builds" ];
        CacheDirectoryMode = if root then "0711" else "0700";
        RuntimeDirectory = [ name ] ++ lib.optionals root [ "lock/cc-ci" "cc-ci-uids" ];
        RuntimeDirectoryMode = "0711";
        # Locks say which builds live; another runner of this host may hold some.
        RuntimeDirectoryPreserve = true;
        WorkingDirectory = "/var/cache/${name}/builds";

        Delegate = true;
        DelegateSubgroup = "supervisor";
        # SIGTERM reaches the runner only; whatever is left after it is killed.
        KillMode = "mixed";
        OOMPolicy = "continue";
        OOMScoreAdjust = -250;
        TasksMax = cfg.tasksMax;
        LimitNOFILE = 65536;
        CPUWeight = 50;
        IOWeight = 50;

        # Guards against accidents. Left out on purpose: RestrictNamespaces and a denied @mount (builds get cgroups by clone3
        # and mount namespaces), ProtectControlGroups (cgroups are made), MemoryDenyWriteExecute (Node, browsers).
        NoNewPrivileges = true;
        CapabilityBoundingSet = if root then capabilities else "";
        AmbientCapabilities = "";
        ProtectSystem = "strict";
        ProtectHome = true;
        PrivateDevices = true;
        PrivateMounts = true;
        ProtectClock = true;
        ProtectHostname = true;
        ProtectKernelLogs = true;
        ProtectKernelModules = true;
        ProtectKernelTunables = true;
        ProtectProc = if root then "default" else "invisible";
        RemoveIPC = ! root;
        RestrictSUIDSGID = true;
        RestrictRealtime = true;
        LockPersonality = true;
        UMask = "0077";
        RestrictAddressFamilies = [ "AF_UNIX" "AF_INET" "AF_INET6" "AF_NETLINK" ];
        SystemCallArchitectures = "native";
        SystemCallFilter = "~@clock @cpu-emulation @module @obsolete @raw-io @reboot @swap";
        SystemCallErrorNumber = "EPERM";
      } // lib.optionalAttrs (! root) {
        User = name;
        Group = name;
        SupplementaryGroups = lib.optional docker "docker";
      } // lib.optionalAttrs (cfg.environmentFile != null) { EnvironmentFile = cfg.environmentFile; }
        // lib.optionalAttrs (cfg.memoryMax != null) { MemoryMax = cfg.memoryMax; })
      // lib.mapAttrs (_: lib.mkForce) cfg.serviceOverrides;
    };
  };
}
