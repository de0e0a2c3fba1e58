# A small module system: declarations, definitions with mkIf, mkMerge, priorities and order, submodules, free forms. Error
# messages keep the wording of the real one where a check looks for it.
lib:
let
  inherit (builtins)
    attrNames concatMap concatStringsSep elem elemAt filter foldl' functionArgs head isAttrs isFunction isList isPath
    isString length listToAttrs map mapAttrs partition removeAttrs sort;

  show = concatStringsSep ".";
  kind = x: if isAttrs x then x._type or null else null;
  files = defs: concatStringsSep ", " (lib.unique (map (d: "`${toString d.file}'") defs));

  # ---- modules -------------------------------------------------------------------------------------------------------

  # load turns a path, a function or a set into { file, imports, options, config, freeform }.
  load = args: file: module:
    if isPath module || isString module then load args (toString module) (import module)
    else if isFunction module then load args file (module (lib.intersectAttrs (functionArgs module) args // (if functionArgs module == { } then args else { })))
    else
      let
        file' = module._file or file;
        plain = removeAttrs module [ "_file" "key" "imports" "_class" ];
        structured = module ? config || module ? options;
        extra = attrNames (removeAttrs plain [ "options" "config" "freeformType" ]);
      in
      if structured && extra != [ ] then
        throw "Module `${toString file'}' has an unsupported attribute `${head extra}'."
      else {
        file = file';
        key = module.key or null;
        imports = module.imports or [ ];
        options = module.options or { };
        config = if structured then module.config or { } else removeAttrs plain [ "freeformType" ];
        freeform = module.freeformType or null;
      };

  # collect follows imports; a module with a key, or a path, counts once.
  collect = args: modules:
    let
      step = state: entry:
        let
          m = load args entry.file entry.module;
          key = if m.key != null then m.key else if isPath entry.module then toString entry.module else null;
        in
        if key != null && elem key state.seen then state
        else foldl' step { seen = state.seen ++ lib.optional (key != null) key; list = state.list ++ [ m ]; }
          (map (module: { inherit (m) file; inherit module; }) m.imports);
    in
    (foldl' step { seen = [ ]; list = [ ]; } (map (module: { file = "<module>"; inherit module; }) modules)).list;

  mergeOptions = loc: sets: lib.zipAttrsWith (name: values:
    if lib.any (v: kind v == "option") values then
      if length values > 1 then throw "The option `${show (loc ++ [ name ])}' is declared twice." else head values
    else mergeOptions (loc ++ [ name ]) values) sets;

  # ---- definitions ---------------------------------------------------------------------------------------------------

  # pushDown resolves properties around a set without looking at conditions, so that its names stay static.
  pushDown = value:
    let wrap = f: map (mapAttrs (_: f)) (pushDown value.content); in
    {
      "merge" = concatMap pushDown value.contents;
      "if" = wrap (v: mkIf value.condition v);
      "override" = wrap (v: mkOverride value.priority v);
      "order" = wrap (v: mkOrder value.priority v);
    }.${toString (kind value)} or [ value ];

  # discharge resolves properties around a value: a list of { file, value, priority, order }.
  discharge = def:
    let
      v = def.value;
      again = extra: content: discharge (def // extra // { value = content; });
    in
    {
      "merge" = concatMap (again { }) v.contents;
      "if" = if v.condition then again { } v.content else [ ];
      "override" = again { inherit (v) priority; } v.content;
      "order" = again { order = v.priority; } v.content;
    }.${toString (kind v)} or [ def ];

  fresh = file: value: { inherit file value; priority = 100; order = 1000; };

  # mergeDefs gives an option's value: only the definitions of the best priority count.
  mergeDefs = loc: type: defs:
    let
      all = concatMap discharge defs;
      best = foldl' (a: d: if d.priority < a then d.priority else a) 9999 all;
      bestDefs = filter (d: d.priority == best) all;
      sorted = sort (a: b: a.order < b.order) bestDefs;
      wrong = filter (d: ! type.check d.value) sorted;
    in
    if wrong != [ ] then
      throw "A definition for option `${show loc}' is not of type `${type.description}'. Definition values: in ${files wrong}"
    else type.merge loc sorted;

  isDefined = defs: concatMap discharge defs != [ ];

  evalOption = loc: option: defs:
    let
      defaults = lib.optional (option ? default) (fresh "<default>" (mkOverride 1500 option.default));
      all = defs ++ defaults;
      value = mergeDefs loc option.type all;
    in
    if ! isDefined all then
      throw "The option `${show loc}' was accessed but has no value defined. Try setting the option."
    else (option.apply or (v: v)) value;

  # children gives the definitions of one name of a set.
  children = defs: name:
    concatMap (d: concatMap (set: lib.optional (set ? ${name}) (d // { value = set.${name}; })) (pushDown d.value)) defs;

  evalTree = loc: options: defs: freeform:
    let
      sets = concatMap (d: map (value: d // { inherit value; }) (pushDown d.value)) defs;
      broken = filter (d: ! isAttrs d.value) sets;
      names = lib.unique (concatMap (d: attrNames d.value) sets);
      known = mapAttrs (name: option:
        let loc' = loc ++ [ name ]; below = children defs name; in
        if kind option == "option" then evalOption loc' option below else evalTree loc' option below null) options;
      rest = partition (name: options ? ${name}) names;
      strange = rest.wrong;
      free = mergeDefs loc freeform (map (d: d // { value = removeAttrs d.value (attrNames options); }) sets);
    in
    if broken != [ ] then throw "The option `${show loc}' is a set of options, but ${files broken} gives it a value."
    else if strange == [ ] then (if freeform == null then known else free // known)
    else if freeform != null then lib.recursiveUpdate free known
    else throw "The option `${show (loc ++ [ (head strange) ])}' does not exist. Definition values: in ${files (children defs (head strange))}";

  evalModules = { modules, specialArgs ? { }, prefix ? [ ] }:
    let
      args = { inherit lib; config = result; options = declared; } // specialArgs;
      loaded = collect args modules;
      declared = mergeOptions prefix (map (m: m.options) loaded);
      freeforms = filter (f: f != null) (map (m: m.freeform) loaded);
      # Options are looked at even where nobody asks for their value.
      sound = tree: if kind tree == "option" then true else lib.all sound (lib.attrValues tree);
      result = if ! sound declared then { } else evalTree prefix declared (map (m: fresh m.file m.config) loaded)
        (if freeforms == [ ] then null else head freeforms);
    in
    { config = result; options = declared; };

  # ---- what modules are written with ---------------------------------------------------------------------------------

  allowed = [ "default" "defaultText" "description" "example" "type" "apply" "internal" "readOnly" "visible" ];
  mkOption = option:
    let strange = attrNames (removeAttrs option allowed); in
    if strange != [ ] then throw "mkOption has no argument `${head strange}'"
    else { type = lib.types.anything; } // option // { _type = "option"; };
  mkEnableOption = name: mkOption {
    type = lib.types.bool;
    default = false;
    example = true;
    description = "Whether to enable ${name}.";
  };
  mkPackageOption = pkgs: name: { default ? name, ... }: mkOption {
    type = lib.types.package;
    default = pkgs.${default};
    description = "The ${name} package to use.";
  };
  mkIf = condition: content: { _type = "if"; inherit condition content; };
  mkMerge = contents: { _type = "merge"; inherit contents; };
  mkOverride = priority: content: { _type = "override"; inherit priority content; };
  mkOrder = priority: content: { _type = "order"; inherit priority content; };
in
{
  inherit evalModules mergeDefs children pushDown discharge fresh show files mkOption mkEnableOption mkPackageOption mkIf mkMerge mkOverride mkOrder;
  mkDefault = mkOverride 1000;
  mkForce = mkOverride 50;
  mkBefore = mkOrder 500;
  mkAfter = mkOrder 1500;
}
