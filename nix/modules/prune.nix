# services.cc-ci.prune: a guard against a disk that is full, of bytes or of inodes, which Nix's and Docker's own clean-up
# does not look at.
{ ... }:
{ config, lib, pkgs, ... }:
let
  inherit (lib) mkOption types;
  cfg = config.services.cc-ci.prune;
  percent = default: description: mkOption { type = types.ints.between 1 99; inherit default description; };

  guard = pkgs.writeShellApplication {
    name = "cc-ci-prune";
    runtimeInputs = [ config.virtualisation.docker.package pkgs.coreutils pkgs.util-linux ];
    text = ''
      full=
      paths=(${lib.escapeShellArgs cfg.paths})
      for path in "''${paths[@]}"; do
        read -r bytes inodes < <(df --output=pcent,ipcent "$path" | tail -n 1 | tr -d '%')
        # A file system without a fixed number of inodes (btrfs) says "-".
        [ "$inodes" != - ] || inodes=0
        echo "$path: $bytes% of bytes, $inodes% of inodes"
        if [ "$bytes" -ge ${toString cfg.bytes} ] || [ "$inodes" -ge ${toString cfg.inodes} ]; then full=$path; fi
      done
      [ -n "$full" ] || exit 0
      (
        ${lib.fileContents ./no-build.sh}
      ) || exit 0
      { docker builder prune --force && docker image prune --all --force && docker container prune --force; } >/dev/null || {
        echo "Docker could not prune, its message is above; look at docker.service" >&2
        exit 1
      }
      read -r bytes inodes < <(df --output=pcent,ipcent "$full" | tail -n 1 | tr -d '%')
      [ "$inodes" != - ] || inodes=0
      echo "$full after pruning: $bytes% of bytes, $inodes% of inodes"
      if [ "$bytes" -ge ${toString cfg.bytes} ] || [ "$inodes" -ge ${toString cfg.inodes} ]; then
        echo "$full is still full: look for what fills it (du -xh --max-depth=2 $full; du --inodes), or make it larger" >&2
        exit 1
      fi
    '';
  };
in
{
  options.services.cc-ci.prune = {
    enable = lib.mkEnableOption "a guard against a full disk";
    paths = mkOption {
      type = types.listOf types.str;
      default = [ "/var/lib/docker" "/nix" ];
      description = "Where to look.";
    };
    bytes = percent 85 "From this share of bytes on, in percent, unused images, containers and build caches go.";
    inodes = percent 80 "The same for inodes, of which small files use up many.";
    dates = mkOption {
      type = types.str;
      default = "hourly";
      description = "When to look.";
    };
  };

  config = lib.mkIf cfg.enable {
    systemd.services.cc-ci-prune = {
      description = "Look for a full disk and prune Docker";
      after = [ "docker.service" ];
      serviceConfig = import ./hardening.nix // {
        Type = "oneshot";
        ExecStart = lib.getExe guard;
        TimeoutStartSec = 1800;
        # It reads locks of other users, and df must see the mounts.
        CapabilityBoundingSet = [ "CAP_DAC_READ_SEARCH" ];
      };
    };
    systemd.timers.cc-ci-prune = {
      description = "Look for a full disk";
      wantedBy = [ "timers.target" ];
      timerConfig = { OnCalendar = cfg.dates; RandomizedDelaySec = 300; Persistent = true; };
    };

    nix.gc = {
      automatic = lib.mkDefault true;
      dates = lib.mkDefault "daily";
      options = lib.mkDefault "--delete-older-than 14d";
    };
    boot.loader.grub.configurationLimit = lib.mkDefault 20;
    boot.loader.systemd-boot.configurationLimit = lib.mkDefault 20;
    services.journald.extraConfig = "SystemMaxUse=2G";
  };
}
