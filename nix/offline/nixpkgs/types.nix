# Option types: a description, a check and a way to merge definitions.
lib:
let
  inherit (builtins) all attrNames concatMap elem head isAttrs isBool isFloat isInt isList isPath isString length map toJSON;
  inherit (lib) show files;

  type = description: check: merge: { inherit description check merge; _type = "option-type"; };

  equal = loc: defs:
    if all (d: d.value == (head defs).value) defs then (head defs).value
    else throw "The option `${show loc}' has conflicting definition values: in ${files defs}";

  isPathLike = x: (isPath x) || (isString x && lib.hasPrefix "/" x) || lib.isDerivation x;

  deep = loc: defs:
    if length defs == 1 then (head defs).value
    else if all (d: isAttrs d.value) defs then
      lib.genAttrs (lib.unique (concatMap (d: attrNames d.value) defs)) (n: lib.mergeDefs (loc ++ [ n ]) types.anything (lib.children defs n))
    else if all (d: isList d.value) defs then concatMap (d: d.value) defs
    else equal loc defs;

  types = rec {
    anything = type "anything" (_: true) deep;
    raw = anything;
    attrs = type "attribute set" isAttrs deep;
    bool = type "boolean" isBool equal;
    int = type "signed integer" isInt equal;
    float = type "floating point number" isFloat equal;
    number = either int float;
    str = type "string" isString equal;
    singleLineStr = str;
    nonEmptyStr = type "non-empty string" (x: isString x && x != "") equal;
    lines = type "strings concatenated with \"\\n\"" isString (_: defs: lib.concatStringsSep "\n" (map (d: d.value) defs));
    path = type "absolute path" isPathLike equal;
    package = type "package" (x: lib.isDerivation x || (isString x && lib.hasPrefix builtins.storeDir x)) equal;
    shellPackage = package;
    ints = {
      positive = type "positive integer, meaning >0" (x: isInt x && x > 0) equal;
      unsigned = type "unsigned integer, meaning >=0" (x: isInt x && x >= 0) equal;
      between = a: b: type "integer between ${toString a} and ${toString b} (both inclusive)" (x: isInt x && x >= a && x <= b) equal;
    };
    port = type "16 bit unsigned integer; between 0 and 65535 (both inclusive)" (x: isInt x && x >= 0 && x < 65536) equal;
    enum = values: type "one of ${lib.concatMapStringsSep ", " toJSON values}" (x: elem x values) equal;
    strMatching = pattern: type "string matching the pattern ${pattern}" (x: isString x && builtins.match pattern x != null) equal;
    nullOr = t: type "null or ${t.description}" (x: x == null || t.check x)
      (loc: defs: if all (d: d.value == null) defs then null else t.merge loc defs);
    either = a: b: type "${a.description} or ${b.description}" (x: a.check x || b.check x)
      (loc: defs: if all (d: a.check d.value) defs then a.merge loc defs else b.merge loc defs);
    oneOf = ts: lib.foldl' either (head ts) (lib.tail ts);
    listOf = t: type "list of ${t.description}" isList (loc: defs:
      concatMap (d: lib.imap1 (i: v: lib.mergeDefs (loc ++ [ "[definition ${toString i}]" ]) t [ (lib.fresh d.file v) ]) d.value) defs);
    attrsOf = t: type "attribute set of ${t.description}" isAttrs (loc: defs:
      lib.filterAttrs (_: v: v != absent) (lib.genAttrs (lib.unique (concatMap (d: concatMap attrNames (lib.pushDown d.value)) defs))
        (n: let own = lib.children (map (d: d // { priority = 100; order = 1000; }) defs) n; in
          if concatMap lib.discharge own == [ ] then absent else lib.mergeDefs (loc ++ [ n ]) t own)));
    lazyAttrsOf = attrsOf;
    submodule = modules: submoduleWith { modules = lib.toList modules; };
    submoduleWith = { modules, ... }: type "submodule" (x: isAttrs x || lib.isFunction x) (loc: defs:
      (lib.evalModules {
        modules = modules ++ map (d: if lib.isFunction d.value then d.value else { _file = d.file; config = d.value; }) defs;
        specialArgs.name = lib.elemAt loc (length loc - 1);
        prefix = loc;
      }).config);
    # A setting of a unit: lists are concatenated, everything else must agree.
    unit = type "systemd option" (x: isBool x || isInt x || isFloat x || isString x || isList x || isPathLike x || x == null)
      (loc: defs: if lib.any (d: isList d.value) defs then concatMap (d: lib.toList d.value) defs else equal loc defs);
  };
  absent = { _type = "absent"; };
in
types
