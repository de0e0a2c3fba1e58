# services.cc-ci.swarm: Docker with a one-node Swarm and the network that apps share.
{ ... }:
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.cc-ci.swarm;
  docker = config.virtualisation.docker.package;

  init = pkgs.writeShellApplication {
    name = "cc-ci-swarm-init";
    runtimeInputs = [ docker ];
    text = ''
      state=$(docker info --format '{{.Swarm.LocalNodeState}}') || { echo "Docker does not answer; look at docker.service" >&2; exit 1; }
      case $state in
      active) ;;
      inactive)
        docker swarm init ${lib.escapeShellArgs cfg.initFlags} >/dev/null || {
          echo "no Swarm could be made, Docker's message is above; a host with several addresses names one: services.cc-ci.swarm.initFlags = [ \"--advertise-addr\" \"192.0.2.10\" ]" >&2
          exit 1
        }
        echo "made a Swarm of this node"
        ;;
      *)
        echo "this node's Swarm is $state: unlock it (docker swarm unlock) or leave it (docker swarm leave), then start this unit again" >&2
        exit 1
        ;;
      esac
      if ! docker node ls --format '{{.ID}}' >/dev/null; then
        echo "this node is a worker of its Swarm; builds need a manager (docker node promote, on a manager)" >&2
        exit 1
      fi
      networks=(${lib.escapeShellArgs cfg.networks})
      for network in "''${networks[@]}"; do
        found=$(docker network ls --filter "name=^$network\$" --format '{{.Driver}} {{.Scope}}')
        case $found in
        "overlay swarm") ;;
        "")
          docker network create --driver overlay --attachable --scope swarm "$network" >/dev/null
          echo "made the network $network"
          ;;
        *)
          echo "network $network is $found, not an overlay of the Swarm: remove it (docker network rm $network), then start this unit again" >&2
          exit 1
          ;;
        esac
      done
    '';
  };

  idle = pkgs.writeShellApplication {
    name = "cc-ci-no-build";
    runtimeInputs = [ pkgs.util-linux ];
    text = lib.fileContents ./no-build.sh;
  };
in
{
  options.services.cc-ci.swarm = {
    enable = lib.mkEnableOption "Docker with a one-node Swarm";
    networks = mkOption {
      type = types.listOf types.str;
      default = [ "proxy" ];
      description = "Overlay networks that exist before any app does.";
    };
    initFlags = mkOption {
      type = types.listOf types.str;
      default = [ ];
      example = [ "--advertise-addr" "192.0.2.10" ];
      description = "Arguments of `docker swarm init`; a host with several addresses must say which one.";
    };
    pruneKeep = mkOption {
      type = types.str;
      default = "48h";
      description = "Images younger than this are never pruned.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [{
      assertion = ! config.virtualisation.docker.liveRestore;
      message = "services.cc-ci.swarm: Docker refuses to run a Swarm with live-restore; set virtualisation.docker.liveRestore = false.";
    }];

    virtualisation.docker = {
      enable = true;
      liveRestore = lib.mkDefault false;
      autoPrune = {
        enable = lib.mkDefault true;
        dates = lib.mkDefault "daily";
        # Never --volumes: Docker refuses it beside a filter, and apps' data is not ours to remove. What builds make is
        # removed by their teardown.
        flags = lib.mkDefault [ "--all" "--filter=until=${cfg.pruneKeep}" ];
      };
    };

    # A build that has just pulled an image must not lose it.
    systemd.services.docker-prune = lib.mkIf config.virtualisation.docker.autoPrune.enable {
      serviceConfig.ExecCondition = lib.getExe idle;
    };

    systemd.services.cc-ci-swarm-init = {
      description = "Make a Docker Swarm of this node";
      wantedBy = [ "multi-user.target" ];
      requires = [ "docker.service" ];
      wants = [ "network-online.target" ];
      after = [ "docker.service" "network-online.target" ];
      # No RemainAfterExit: every switch looks again.
      serviceConfig = import ./hardening.nix // {
        Type = "oneshot";
        ExecStart = lib.getExe init;
        TimeoutStartSec = 120;
      };
    };
  };
}
