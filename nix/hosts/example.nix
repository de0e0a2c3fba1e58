# A complete CI host. Copy it, replace every example.org, and see docs/install.md.
{ ... }:
{
  # ---- the machine: what nixos-generate-config wrote for yours goes here ----
  nixpkgs.hostPlatform = "x86_64-linux";
  boot.loader.grub.device = "/dev/vda";
  fileSystems."/" = { device = "/dev/disk/by-label/nixos"; fsType = "ext4"; };
  system.stateVersion = "26.05";
  networking.hostName = "ci";
  networking.domain = "example.org";
  systemd.network.networks."10-uplink" = {
    matchConfig.Name = "en*";
    networkConfig.DHCP = "yes";
  };
  services.openssh.enable = true;
  services.openssh.settings.PasswordAuthentication = false;

  # ---- the CI ----
  services.cc-ci = {
    host.enable = true;
    prune.enable = true;
    swarm.enable = true;

    # Edit with `sops nix/hosts/secrets.example.yaml`; docs/install.md says how to make your own.
    secrets.enable = true;
    secrets.file = ./secrets.example.yaml;

    traefik.enable = true;
    traefik.domain = "traefik.ci.example.org";

    drone.enable = true;
    drone.domain = "drone.ci.example.org";
    drone.giteaDomain = "git.example.org";
    drone.clientId = "00000000-0000-0000-0000-000000000000";
    drone.admin = "admin";

    runner.enable = true;
    # Builds that must not see each other, nor the runner's secrets: every build gets a uid of its own.
    # runner.stepUsers = "20000-20099";
    runner.settings = {
      DRONE_RPC_HOST = "drone.ci.example.org";
      DRONE_HTTP_BIND = "127.0.0.1:3000";
    };
    runner.path = [ "/run/current-system/sw" ];

    bridge.enable = true;
    # docker_gwbridge's address, at which Traefik reaches the host; cc-ci-hooks.service says if it is another one.
    bridge.listenStreams = [ "172.18.0.1:3001" ];
    bridge.openInterfaces = [ "docker_gwbridge" ];
    bridge.hookDomain = "hooks.ci.example.org";
    bridge.settings = {
      GITEA_URL = "https://git.example.org";
      DRONE_URL = "https://drone.ci.example.org";
      CI_REPO = "ci/tests";
      REPOS = "recipes";
    };
  };
}
