# nixosSystem: the options of NixOS that this repository sets or reads, and a toplevel that holds the units as files.
lib:
{ system ? null, modules, specialArgs ? { } }:
let
  inherit (lib) types mkOption;
  option = type: default: mkOption { inherit type default; };
  flag = option types.bool;
  any = option types.attrs { };
  texts = option (types.listOf types.str) [ ];
  set = options: option (types.attrsOf (types.submodule { inherit options; })) { };

  section = option (types.attrsOf types.unit) { };
  common = {
    enable = flag true;
    description = option types.str "";
    documentation = texts;
    after = texts; before = texts; requires = texts; wants = texts; wantedBy = texts; bindsTo = texts; partOf = texts;
    conflicts = texts; requiredBy = texts; upholds = texts; onFailure = texts;
    unitConfig = section;
    startLimitBurst = option (types.nullOr types.int) null;
    startLimitIntervalSec = option (types.nullOr types.int) null;
  };
  service = common // {
    serviceConfig = section;
    environment = option (types.attrsOf (types.nullOr (types.oneOf [ types.str types.path types.package ]))) { };
    path = option (types.listOf (types.oneOf [ types.package types.str ])) [ ];
    script = option types.lines "";
    startAt = option (types.either types.str (types.listOf types.str)) [ ];
    restartTriggers = option (types.listOf types.anything) [ ];
    reloadTriggers = option (types.listOf types.anything) [ ];
    restartIfChanged = flag true;
    reloadIfChanged = flag false;
    stopIfChanged = flag true;
    unitConfig = section;
  };

  # NixOS gives every unit a PATH; a second definition of it must be a conflict here too.
  base = { config, ... }: {
    config.systemd.services = { };
  };

  options = {
    assertions = option (types.listOf types.attrs) [ ];
    warnings = texts;
    environment.systemPackages = option (types.listOf types.package) [ ];
    environment.etc = any;
    users.users = option (types.attrsOf types.attrs) { };
    users.groups = option (types.attrsOf types.attrs) { };
    systemd.services = option (types.attrsOf (types.submodule ({ config, ... }: {
      options = service;
      config.environment.PATH = lib.concatMapStringsSep ":" (p: "${p}/bin") config.path;
    }))) { };
    systemd.sockets = set (common // { socketConfig = section; listenStreams = texts; });
    systemd.timers = set (common // { timerConfig = section; });
    systemd.tmpfiles.rules = texts;
    systemd.network = {
      enable = flag false;
      networks = option (types.attrsOf types.attrs) { };
      wait-online = { enable = flag true; anyInterface = flag false; };
    };
    systemd.settings = any;
    virtualisation.docker = {
      enable = flag false;
      liveRestore = flag true;
      package = mkOption { type = types.package; default = pkgs.docker; };
      daemon.settings = any;
      autoPrune = { enable = flag false; dates = option types.str "weekly"; flags = texts; persistent = flag true; };
    };
    virtualisation.memorySize = option types.int 1024;
    virtualisation.diskSize = option types.int 1024;
    networking = {
      hostName = option types.str "nixos";
      domain = option (types.nullOr types.str) null;
      useNetworkd = flag false;
      useDHCP = flag true;
      dhcpcd.enable = flag true;
      nftables.enable = flag false;
      firewall = {
        enable = flag true;
        allowedTCPPorts = option (types.listOf types.port) [ ];
        interfaces = option (types.attrsOf types.attrs) { };
      };
    };
    services.openssh = { enable = flag false; settings = any; };
    services.journald.extraConfig = option types.lines "";
    nix.gc = { automatic = flag false; dates = option types.str "weekly"; options = option types.str ""; };
    nix.settings = any;
    boot.loader = {
      grub = { enable = flag true; device = option types.str ""; configurationLimit = option types.int 100; };
      systemd-boot = { enable = flag false; configurationLimit = option (types.nullOr types.int) null; };
      efi.canTouchEfiVariables = flag false;
    };
    boot.kernel.sysctl = any;
    fileSystems = option (types.attrsOf types.attrs) { };
    nixpkgs.hostPlatform = option types.str "x86_64-linux";
    nixpkgs.overlays = option (types.listOf types.raw) [ ];
    system.stateVersion = option types.str "26.05";
    system.build = any;
    time.timeZone = option (types.nullOr types.str) null;
    security.sudo.enable = flag true;
  };

  platform = if system != null then system else "x86_64-linux";
  pkgs = import ./default.nix { system = platform; };

  evaluated = lib.evalModules {
    modules = [ { _file = "nixos"; inherit options; } base ./toplevel.nix ] ++ modules;
    specialArgs = { inherit pkgs; modulesPath = ./.; } // specialArgs;
  };
in
evaluated // { inherit pkgs; }
