# services.cc-ci.host: the rest of a CI host: one network manager, and a firewall with web ports.
{ ... }:
{ config, lib, pkgs, ... }:
let
  cfg = config.services.cc-ci.host;
in
{
  options.services.cc-ci.host.enable = lib.mkEnableOption "the network and firewall of a CI host";

  config = lib.mkIf cfg.enable {
    assertions = [{
      assertion = ! (config.systemd.network.enable && config.networking.dhcpcd.enable);
      message = "services.cc-ci.host: networkd and dhcpcd would both manage the interfaces; set networking.useDHCP = false and describe them in systemd.network.networks.";
    }];

    networking = {
      useNetworkd = lib.mkDefault true;
      # Not for every interface: Docker's come and go. The host's own is named in systemd.network.networks.
      useDHCP = lib.mkDefault false;
      firewall.enable = lib.mkDefault true;
      firewall.allowedTCPPorts = [ 80 443 ];
    };
    systemd.network = {
      # Without this networkd would configure, and wait for, what belongs to Docker.
      networks."05-docker" = {
        matchConfig.Name = "veth* docker* br-*";
        linkConfig.Unmanaged = true;
      };
      wait-online.anyInterface = lib.mkDefault true;
    };
    nix.settings.experimental-features = [ "nix-command" "flakes" ];
    environment.systemPackages = [ pkgs.git pkgs.curl pkgs.jq ];
  };
}
