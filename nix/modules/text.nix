# How settings, secrets and scripts are written into units; shared by the modules.
lib:
{
  # A setting as a module takes it, and as a unit's Environment= wants it: systemd would expand a lone %.
  setting = lib.types.oneOf [ lib.types.bool lib.types.int lib.types.str ];
  value = v: lib.replaceStrings [ "%" ] [ "%%" ] (if lib.isBool v then lib.boolToString v else toString v);

  credentials = lib.mapAttrsToList (name: file: "${name}:${toString file}");

  # A path literal, or a string that points into the store: its content would be readable by everyone.
  inStore = file: file != null && (lib.isPath file || lib.hasPrefix builtins.storeDir (toString file));
}
