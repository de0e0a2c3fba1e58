# The part of nixpkgs' library that this repository uses. Written for Nix 2.8 and newer.
let
  inherit (builtins)
    all any attrNames attrValues concatLists concatMap concatStringsSep elem elemAt filter foldl' functionArgs genList
    getAttr hasAttr head intersectAttrs isAttrs isBool isFunction isInt isFloat isList isPath isString length listToAttrs
    map mapAttrs removeAttrs replaceStrings stringLength substring tail throw toString toJSON;

  lists = rec {
    inherit all any concatLists concatMap elem elemAt filter foldl' head length map tail;
    flatten = x: if isList x then concatMap flatten x else [ x ];
    optional = cond: x: if cond then [ x ] else [ ];
    optionals = cond: xs: if cond then xs else [ ];
    subtractLists = without: filter (x: ! elem x without);
    unique = foldl' (acc: x: if elem x acc then acc else acc ++ [ x ]) [ ];
    last = xs: elemAt xs (length xs - 1);
    toList = x: if isList x then x else [ x ];
    imap1 = f: xs: genList (i: f (i + 1) (elemAt xs i)) (length xs);
    zipAttrsWith = f: sets: listToAttrs (map (name: {
      inherit name;
      value = f name (map (getAttr name) (filter (hasAttr name) sets));
    }) (unique (concatMap attrNames sets)));
  };

  attrsets = rec {
    inherit attrNames attrValues intersectAttrs isAttrs mapAttrs removeAttrs;
    nameValuePair = name: value: { inherit name value; };
    mapAttrs' = f: set: listToAttrs (map (n: f n set.${n}) (attrNames set));
    mapAttrsToList = f: set: map (n: f n set.${n}) (attrNames set);
    filterAttrs = keep: set: removeAttrs set (filter (n: ! keep n set.${n}) (attrNames set));
    genAttrs = names: f: listToAttrs (map (n: nameValuePair n (f n)) names);
    optionalAttrs = cond: set: if cond then set else { };
    recursiveUpdate = a: b:
      if isAttrs a && isAttrs b && ! (isDerivation a || isDerivation b)
      then a // mapAttrs (n: v: if a ? ${n} then recursiveUpdate a.${n} v else v) b
      else b;
    isDerivation = x: isAttrs x && x.type or null == "derivation";
    mergeAttrsList = foldl' (a: b: a // b) { };
  };

  strings = rec {
    inherit concatStringsSep isString replaceStrings stringLength substring toJSON;
    concatMapStringsSep = sep: f: xs: concatStringsSep sep (map f xs);
    concatLines = concatMapStringsSep "" (line: line + "\n");
    optionalString = cond: text: if cond then text else "";
    hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
    hasSuffix = suffix: text:
      let from = stringLength text - stringLength suffix; in from >= 0 && substring from (-1) text == suffix;
    hasInfix = infix: text: replaceStrings [ infix ] [ "" ] text != text;
    removePrefix = prefix: text:
      if hasPrefix prefix text then substring (stringLength prefix) (-1) text else text;
    removeSuffix = suffix: text:
      if hasSuffix suffix text then substring 0 (stringLength text - stringLength suffix) text else text;
    toInt = text: builtins.fromJSON text;
    splitString = separator: text: filter isString (builtins.split (replaceStrings [ "." ] [ "[.]" ] separator) text);
    letters = text: genList (i: substring i 1 text) (stringLength text);
    toUpper = replaceStrings (letters "abcdefghijklmnopqrstuvwxyz") (letters "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    toLower = replaceStrings (letters "ABCDEFGHIJKLMNOPQRSTUVWXYZ") (letters "abcdefghijklmnopqrstuvwxyz");
    escapeShellArg = x: "'" + replaceStrings [ "'" ] [ "'\\''" ] (toString x) + "'";
    escapeShellArgs = concatMapStringsSep " " escapeShellArg;
    boolToString = b: if b then "true" else "false";
    makeBinPath = concatMapStringsSep ":" (package: "${package}/bin");
    fileContents = file: removeSuffix "\n" (builtins.readFile file);
  };

  meta = {
    getName = package: package.pname or (builtins.parseDrvName package.name).name;
    getExe = package: "${package}/bin/${package.meta.mainProgram or (meta.getName package)}";
    getExe' = package: name: "${package}/bin/${name}";
    licenses = {
      asl20 = { spdxId = "Apache-2.0"; free = true; };
    };
    platforms.linux = [ "x86_64-linux" "aarch64-linux" ];
  };

  # The real one copies only what is named; a name that does not exist is an error in both.
  fileset = {
    unions = paths: assert all builtins.pathExists paths; paths;
    toSource = { root, fileset }: builtins.seq (all builtins.pathExists fileset) root;
  };

  modules = import ./modules.nix lib;
  types = import ./types.nix lib;

  lib = lists // attrsets // strings // meta // modules // {
    inherit lists attrsets strings meta fileset types isFunction functionArgs isInt isFloat isBool isPath throw;
    inherit (builtins) toFile readFile pathExists compareVersions;
    literalExpression = text: { _type = "literalExpression"; inherit text; };
    throwIfNot = cond: message: value: if cond then value else throw message;
    versionAtLeast = a: b: builtins.compareVersions a b != -1;
    version = "26.05";
    nixosSystem = import ./nixos.nix lib;
  };
in
lib
