# The modules' options as rows of a Markdown table; scripts/nix-checks compares them with docs/nix.md.
let
  host = import ./eval.nix { module = { }; whole = true; };
  inherit (host) lib;

  one = text: lib.replaceStrings [ "\n" "|" ] [ " " "\\|" ] (lib.removeSuffix "\n" text);
  default = option:
    if option ? defaultText then option.defaultText.text or option.defaultText
    else if option ? default then builtins.toJSON option.default
    else "";
  # A submodule is described below its option, by options of its own.
  kind = option: if lib.hasInfix "submodule" option.type.description then "set" else one option.type.description;
  row = name: option: "| `${name}` | ${kind option} | ${let d = default option; in if d == "" then "none" else "`${one d}`"} | ${one option.description} |";
  rows = prefix: set: lib.concatMap (name:
    if set.${name}._type or null == "option" then [ (row (prefix + name) set.${name}) ] else rows "${prefix}${name}." set.${name}) (lib.attrNames set);
in
lib.concatLines (rows "" host.options.services.cc-ci)
