# What NixOS itself adds: its assertions that matter here, the units of enabled features, and the toplevel.
{ config, lib, pkgs, ... }:
let
  inherit (lib) concatLines concatMap mapAttrsToList optional toList;

  value = v: if lib.isBool v then lib.boolToString v else toString v;
  lines = section: concatLines (concatMap (n:
    map (v: "${n}=${value v}") (lib.filter (v: v != null) (toList section.${n}))) (lib.attrNames section));
  words = name: list: lib.optionalString (list != [ ]) "${name}=${toString list}\n";

  header = unit: ''
    [Unit]
    ${lib.optionalString (unit.description != "") "Description=${unit.description}\n"}${words "After" unit.after}${words "Before" unit.before}${words "Requires" unit.requires}${words "Wants" unit.wants}${words "BindsTo" unit.bindsTo}${words "PartOf" unit.partOf}${words "OnFailure" unit.onFailure}${words "Conflicts" unit.conflicts}${lib.optionalString (unit.startLimitBurst != null) "StartLimitBurst=${toString unit.startLimitBurst}\n"}${lib.optionalString (unit.startLimitIntervalSec != null) "StartLimitIntervalSec=${toString unit.startLimitIntervalSec}\n"}${lines unit.unitConfig}
  '';
  # NixOS makes .wants links; a section of its own says the same and can be verified.
  footer = unit: lib.optionalString (unit.wantedBy ++ unit.requiredBy != [ ]) "\n[Install]\n${words "WantedBy" unit.wantedBy}${words "RequiredBy" unit.requiredBy}";

  escape = text: lib.replaceStrings [ "\\" "\"" ] [ "\\\\" "\\\"" ] (toString text);
  service = name: s:
    let
      start = if s.script == "" then { } else { ExecStart = toString (pkgs.writeShellScript "${name}-start" "set -e\n${s.script}"); };
      environment = concatLines (mapAttrsToList (n: v: "Environment=\"${n}=${escape v}\"") (lib.filterAttrs (_: v: v != null) s.environment));
      switch = concatLines (optional s.reloadIfChanged "X-ReloadIfChanged=true" ++ optional (! s.restartIfChanged) "X-RestartIfChanged=false"
        ++ optional (! s.stopIfChanged) "X-StopIfChanged=false");
    in
    header s + switch + "\n[Service]\n" + environment + lines (s.serviceConfig // start) + footer s;
  socket = _: s: header s + "\n[Socket]\n" + concatLines (map (l: "ListenStream=${l}") s.listenStreams) + lines s.socketConfig + footer s;
  timer = _: t: header t + "\n[Timer]\n" + lines t.timerConfig + footer t;

  files = kind: render: set: lib.mapAttrs' (n: u: lib.nameValuePair "${n}.${kind}" (render n u)) (lib.filterAttrs (_: u: u.enable) set);
  units = files "service" service config.systemd.services // files "socket" socket config.systemd.sockets
    // files "timer" timer config.systemd.timers;

  failed = map (a: a.message) (lib.filter (a: ! a.assertion) config.assertions);
  # units/ holds the units; every package of the system is built with them.
  system = pkgs.runCommand "nixos-system-${config.networking.hostName}" {
    names = lib.attrNames units;
    texts = mapAttrsToList (n: text: pkgs.runCommand (lib.replaceStrings [ "@" ] [ "-" ] n) { inherit text; } "printf '%s' \"$text\" > $out") units;
    packages = config.environment.systemPackages;
  } ''
    mkdir -p $out/units
    set -- $texts
    for name in $names; do cp $1 $out/units/$name; shift; done
  '';
in
{
  config = lib.mkMerge [
    {
      systemd.network.enable = lib.mkDefault config.networking.useNetworkd;
      networking.dhcpcd.enable = lib.mkDefault config.networking.useDHCP;
      system.build.units = units;
      system.build.toplevel =
        if failed == [ ] then system else throw "\nFailed assertions:\n${concatLines (map (m: "- ${m}") failed)}";
    }
    (lib.mkIf config.virtualisation.docker.enable {
      environment.systemPackages = [ config.virtualisation.docker.package ];
      users.groups.docker = { };
      systemd.services.docker.serviceConfig.ExecStart = "/bin/true";
      virtualisation.docker.daemon.settings.live-restore = config.virtualisation.docker.liveRestore;
    })
    (lib.mkIf config.virtualisation.docker.autoPrune.enable {
      systemd.services.docker-prune = {
        serviceConfig = {
          Type = "oneshot";
          ExecStart = "${config.virtualisation.docker.package}/bin/docker system prune -f ${toString config.virtualisation.docker.autoPrune.flags}";
        };
        startAt = config.virtualisation.docker.autoPrune.dates;
        after = [ "docker.service" ];
      };
    })
  ];
}
