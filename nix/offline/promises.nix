# What the modules promise, read off the example host: the names of the promises that do not hold.
let
  host = import ./eval.nix { module = { }; whole = true; };
  inherit (host) config lib;
  runner = config.systemd.services.cc-ci-runner;
  bridge = config.systemd.services.cc-ci-bridge;
  ours = lib.filterAttrs (name: _: lib.hasPrefix "cc-ci-" name) config.systemd.services;
  each = test: lib.all test (lib.attrValues ours);
  oneshots = lib.filter (unit: unit.serviceConfig.Type == "oneshot") (lib.attrValues ours);

  promises = {
    "a changed runner is reloaded, which drains it" =
      runner.reloadIfChanged && runner.serviceConfig.KillMode == "mixed" && runner.serviceConfig.Restart == "always"
      && lib.hasSuffix "-s USR2 $MAINPID" (lib.last runner.serviceConfig.ExecReload);
    "a changed secret reloads or restarts who uses it" =
      config.sops.templates."cc-ci-runner.env".reloadUnits == [ "cc-ci-runner.service" ]
      && runner.serviceConfig.EnvironmentFile == config.sops.templates."cc-ci-runner.env".path
      && lib.all (name: config.sops.secrets.${name}.restartUnits != [ ]) (lib.attrNames config.sops.secrets);
    "a missing secret fails the unit" =
      each (unit: ! lib.any (key: lib.hasPrefix "Condition" key || lib.hasPrefix "Assert" key) (lib.attrNames unit.unitConfig))
      && ! lib.hasPrefix "-" (toString runner.serviceConfig.EnvironmentFile)
      && lib.all (name: config.systemd.services."cc-ci-reconcile-${name}".serviceConfig.LoadCredential != [ ]) [ "traefik" "drone" ];
    "the unit has its own directory" = runner.serviceConfig.WorkingDirectory == "/var/cache/cc-ci-runner/builds";
    "builds have a Docker socket of their own" = runner.environment.DRONE_RUNNER_DOCKER == "proxy";
    "sops-nix is built by this flake" = toString config.sops.package == toString host.sops;
    "Docker's own pruning waits for builds" =
      config.systemd.services.docker-prune.serviceConfig ? ExecCondition && ! lib.elem "--volumes" config.virtualisation.docker.autoPrune.flags;
    "live-restore is off" = ! config.virtualisation.docker.liveRestore;
    "networkd alone, and not for Docker's interfaces" =
      config.systemd.network.enable && ! config.networking.dhcpcd.enable && config.systemd.network.networks."05-docker".linkConfig.Unmanaged
      && config.systemd.network.wait-online.anyInterface;
    "80 and 443 are open, the bridge's port to containers only" =
      config.networking.firewall.allowedTCPPorts == [ 80 443 ]
      && config.networking.firewall.interfaces == { docker_gwbridge.allowedTCPPorts = [ 3001 ]; };
    "a hook waits while the bridge restarts" =
      ! bridge.stopIfChanged && bridge.serviceConfig.DynamicUser && config.systemd.sockets.cc-ci-bridge.listenStreams == [ "172.18.0.1:3001" ];
    "every boot and every switch reconciles" =
      lib.all (unit: ! (unit.serviceConfig ? RemainAfterExit) && unit.serviceConfig ? TimeoutStartSec) oneshots
      && lib.all (name: lib.elem "multi-user.target" ours."cc-ci-${name}".wantedBy && lib.elem "docker.service" ours."cc-ci-${name}".requires)
        [ "swarm-init" "reconcile-traefik" "reconcile-drone" "hooks" ]
      && lib.elem "cc-ci-reconcile-traefik.service" ours.cc-ci-reconcile-drone.after
      && lib.all (name: lib.elem "network-online.target" ours."cc-ci-reconcile-${name}".after) [ "traefik" "drone" ];
    "namespaces, cgroups and mounts are left to builds" =
      ! (runner.serviceConfig ? RestrictNamespaces) && ! (runner.serviceConfig ? ProtectControlGroups) && ! (runner.serviceConfig ? PrivateTmp)
      && ! lib.hasInfix "@mount" runner.serviceConfig.SystemCallFilter && runner.serviceConfig.Delegate && runner.serviceConfig.DelegateSubgroup == "supervisor";
    "nothing is on until it is enabled" = host.untouched;
  };
in
lib.concatLines (lib.attrNames (lib.filterAttrs (_: holds: ! holds) promises))
