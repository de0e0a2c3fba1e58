# How settings, secrets and scripts are written into units; shared by the modules.
lib:
rec {
  # A setting as a module takes it, as the programs read it, and as a unit's Environment= wants it: systemd would expand a
  # lone %.
  setting = lib.types.oneOf [ lib.types.bool lib.types.int lib.types.str ];
  plain = v: if lib.isBool v then lib.boolToString v else toString v;
  value = v: lib.replaceStrings [ "%" ] [ "%%" ] (plain v);

  credentials = lib.mapAttrsToList (name: file: "${name}:${toString file}");

  # A path literal, or a string that points into the store: its content would be readable by everyone.
  inStore = file: file != null && (lib.isPath file || lib.hasPrefix builtins.storeDir (toString file));
}
