# The packages that this repository names. Those without a meaning here are empty; docker, abra and coreutils' df record their calls
# and answer from files (fakes/), so that generated scripts can be run.
{ system ? "x86_64-linux", config ? { }, overlays ? [ ] }:
let
  lib = import ./lib.nix;

  # The last command is a shell builtin: a program that bash replaces itself with would close the builder's output early,
  # and Nix 2.8 takes that for its end.
  derive = name: text: attrs: derivation ({
    inherit name system;
    builder = "/bin/bash";
    args = [ "-ec" "export PATH=/usr/bin:/bin\n${text}\n:" ];
  } // attrs);

  package = name: text: attrs:
    derive name "mkdir -p $out/bin\n${text}" { } // { pname = name; meta = { }; } // attrs;
  empty = name: package name "" { };
  executable = file: "cp ${file} $out/bin/${baseNameOf file}; chmod 755 $out/bin/${baseNameOf file}";
  fake = name: package name "cp ${./fakes + "/${name}"} $out/bin/${name}; chmod 755 $out/bin/${name}" { };

  # nixpkgs refuses a package whose licence is not free unless the configuration allows it; so does this.
  checkLicence = p:
    let unfree = lib.any (l: ! (l.free or true)) (lib.toList (p.meta.license or [ ])); in
    if unfree && ! (config.allowUnfreePredicate or (_: false)) p
    then throw "Package ‘${p.name}’ has an unfree license, refusing to evaluate." else p;

  buildGoModule = { pname, version, src, vendorHash, subPackages, env ? { }, ldflags ? [ ], doCheck ? true, postInstall ? "", meta ? { } }:
    assert lib.all (p: builtins.pathExists (src + "/${p}/main.go")) subPackages;
    assert vendorHash == null || lib.hasPrefix "sha256-" vendorHash;
    checkLicence (derive "${pname}-${version}" ''
      mkdir -p $out/bin
      for p in ${toString subPackages}; do
        printf '#!/bin/sh\nexit 0\n' > $out/bin/''${p##*/}; chmod 755 $out/bin/''${p##*/}
      done
      ${postInstall}
    '' { } // { inherit pname version meta vendorHash; go = { version = "1.26.0"; }; });

  self = lib.genAttrs [
    "age" "bash" "curl" "delve" "findutils" "gawk" "git" "gnugrep" "gnused" "go" "gopls" "iproute2" "jq" "nixfmt-tree"
    "openssl" "shellcheck" "sops" "ssh-to-age" "systemd" "util-linux" "gnutar" "gzip" "nettools"
  ] empty // {
    inherit lib system config buildGoModule;
    buildGo126Module = buildGoModule;
    stdenv.hostPlatform.system = system;
    stdenv.isLinux = true;
    # df is all that scripts ask of it and that must be told what to say.
    coreutils = package "coreutils" "cp ${./fakes/df} $out/bin/df; chmod 755 $out/bin/df; ln -s /bin/kill $out/bin/kill" { };
    socat = empty "socat" // { version = "1.8.0"; };
    dockerTools.buildLayeredImage = { name, tag, config }: derive "${name}.tar.gz" "echo ${name}:${tag} ${toString config.Entrypoint} > $out" { };
    docker = fake "docker";
    abra = fake "abra";

    writeText = name: text: builtins.toFile name text;
    writeTextFile = { name, text, ... }: builtins.toFile name text;
    writeShellScript = name: text: script name text;
    writeShellApplication = { name, text, runtimeInputs ? [ ] }:
      let
        body = ''
          #!/bin/bash
          set -o errexit
          set -o nounset
          set -o pipefail
          export PATH="${lib.makeBinPath runtimeInputs}:$PATH"

          ${text}
        '';
        file = package name "printf '%s' \"$text\" > $out/bin/${name}; chmod 755 $out/bin/${name}" { };
      in
      derive name "mkdir -p $out/bin; printf '%s' \"$text\" > $out/bin/${name}; chmod 755 $out/bin/${name}" { text = body; }
      // { pname = name; meta.mainProgram = name; };
    mkShell = attrs: derive "shell" "mkdir $out" { } // { inherit (attrs) packages; };
    runCommand = name: attrs: text: derive name text attrs;
    callPackage = callWith self;
    formats.keyValue = _: { generate = name: value: builtins.toFile name (lib.concatLines (lib.mapAttrsToList (n: v: "${n}=${toString v}") value)); };
    testers.runNixOSTest = test:
      let
        nodes = lib.mapAttrs (_: node: (lib.nixosSystem { inherit system; modules = [ node ]; }).config.system.build.toplevel) test.nodes;
        text = if lib.isFunction test.testScript then test.testScript { inherit nodes; } else test.testScript;
      in
      derive "vm-test-${test.name}" "mkdir $out; printf '%s' \"$text\" > $out/test.py; ln -s $nodes $out/" {
        nodes = lib.attrValues nodes;
        inherit text;
      };
  };

  script = name: text: derive name "printf '%s' \"$text\" > $out; chmod 755 $out" { text = "#!/bin/bash\n${text}"; };
  callWith = scope: f: extra:
    let function = if lib.isFunction f then f else import f; in
    function (lib.intersectAttrs (lib.functionArgs function) scope // extra);
  final = lib.foldl' (pkgs: overlay: pkgs // overlay (pkgs // { callPackage = callWith pkgs; }) pkgs) self overlays;
in
final
