# One machine with a Swarm, the runner, the bridge and the way from Traefik to it; nobody is at the addresses of Gitea and
# Drone, which none of them waits for. It needs KVM and the real nixpkgs: nix build .#checks.x86_64-linux.vm. Our own CI has
# neither and does not run it; it only evaluates it.
{ self }:
{
  name = "cc-ci-host";

  nodes.ci = { pkgs, ... }: {
    imports = [ self.nixosModules.default ];
    virtualisation.memorySize = 2048;
    virtualisation.diskSize = 4096;

    services.cc-ci.swarm.enable = true;
    # Test machines have two interfaces, and the first one's network is in the range that Swarm would use.
    services.cc-ci.swarm.initFlags = [ "--advertise-addr" "127.0.0.1" "--default-addr-pool" "10.200.0.0/16" ];
    services.cc-ci.prune.enable = true;
    services.cc-ci.runner = {
      enable = true;
      settings = {
        DRONE_RPC_HOST = "127.0.0.1:8080";
        DRONE_RPC_PROTO = "http";
        DRONE_HTTP_BIND = "127.0.0.1:3000";
      };
      environmentFile = "/etc/runner.env";
      drainSeconds = 60;
    };
    services.cc-ci.bridge = {
      enable = true;
      listenStreams = [ "172.18.0.1:3001" ];
      openInterfaces = [ "docker_gwbridge" ];
      hookDomain = "hooks.example.org";
      settings = {
        GITEA_URL = "http://127.0.0.1:8080";
        DRONE_URL = "http://127.0.0.1:8080";
        CI_REPO = "ci/tests";
        REPOS = "recipes";
      };
      credentials = {
        gitea_token = "/etc/bridge-secret";
        hook_secrets = "/etc/bridge-secret";
        drone_token = "/etc/bridge-secret";
      };
    };
    # Secrets for a test may be known; real ones come from services.cc-ci.secrets.
    environment.etc."runner.env" = { text = "DRONE_RPC_SECRET=test"; mode = "0400"; };
    environment.etc."bridge-secret" = { text = "0123456789abcdef0123456789abcdef"; mode = "0400"; };
  };

  testScript = ''
    ci.start()
    ci.wait_for_unit("multi-user.target")

    with subtest("the Swarm is made once"):
        ci.wait_until_succeeds("docker network inspect proxy --format '{{.Driver}}' | grep overlay")
        before = ci.succeed("docker info --format '{{.Swarm.NodeID}}'")
        ci.succeed("systemctl start cc-ci-swarm-init.service")
        assert before == ci.succeed("docker info --format '{{.Swarm.NodeID}}'")

    with subtest("the runner is up, in its subgroup, and contains builds by cgroups"):
        ci.wait_for_unit("cc-ci-runner.service")
        ci.succeed("systemctl show -P ControlGroup cc-ci-runner | grep cc-ci-runner.service")
        ci.succeed("grep supervisor /proc/$(systemctl show -P MainPID cc-ci-runner)/cgroup")
        ci.succeed("curl -sf http://127.0.0.1:3000/healthz")
        ci.succeed("journalctl -u cc-ci-runner | grep 'containment: cgroup-v2-delegated'")

    with subtest("a build runs inside the unit and leaves nothing"):
        ci.succeed(
            "printf 'kind: pipeline\\ntype: exec\\nname: default\\nclone: {disable: true}\\n"
            "steps:\\n- name: a\\n  commands: [\"sleep 300 &\", \"docker version\"]\\n' > /tmp/p.yml"
        )
        ci.succeed(
            "systemd-run --same-dir --wait --pipe --collect -p User=cc-ci-runner -p Delegate=yes -p SupplementaryGroups=docker "
            "--setenv=PATH=/run/current-system/sw/bin "
            "${self.packages.x86_64-linux.cc-ci-runner}/bin/cc-ci-runner exec /tmp/p.yml"
        )
        ci.fail("pgrep -x sleep")
        ci.succeed("cc-ci-runner leaks | grep 'nothing is left'")

    with subtest("a faulty configuration fails the reload and changes nothing"):
        pid = ci.succeed("systemctl show -P MainPID cc-ci-runner").strip()
        ci.succeed("mv /etc/runner.env /etc/runner.env.good && echo DRONE_RPC_SECRET= > /etc/runner.env")
        ci.fail("systemctl reload cc-ci-runner")
        ci.succeed("mv /etc/runner.env.good /etc/runner.env")
        assert pid == ci.succeed("systemctl show -P MainPID cc-ci-runner").strip()

    with subtest("reload drains and a new process takes over"):
        pid = ci.succeed("systemctl show -P MainPID cc-ci-runner").strip()
        ci.succeed("systemctl reload cc-ci-runner")
        ci.wait_until_succeeds(f"test $(systemctl show -P MainPID cc-ci-runner) != {pid}")
        ci.wait_for_unit("cc-ci-runner.service")

    with subtest("a missing secret fails visibly"):
        ci.succeed("mv /etc/bridge-secret /etc/bridge-secret.away")
        ci.succeed("systemctl restart cc-ci-bridge || true")
        ci.wait_until_succeeds("systemctl --failed | grep cc-ci-bridge.service")
        ci.succeed("mv /etc/bridge-secret.away /etc/bridge-secret && systemctl restart cc-ci-bridge")

    with subtest("the bridge refuses an unsigned hook, and a hook waits while it restarts"):
        ci.wait_for_unit("cc-ci-bridge.service")
        ci.succeed("test $(curl -s -o /dev/null -w '%{http_code}' -d '{}' http://172.18.0.1:3001/hook) -ge 400")
        ci.succeed("systemctl stop cc-ci-bridge.service; curl -s -m 20 -o /dev/null -d '{}' http://172.18.0.1:3001/hook")

    with subtest("a hook that reaches the forwarder reaches the bridge"):
        ci.succeed("systemctl start cc-ci-hooks.service")
        container = ci.wait_until_succeeds("docker ps --quiet --filter name=cc-ci-hooks | grep .").strip()
        pid = ci.succeed("docker inspect --format '{{.State.Pid}}' " + container).strip()
        ci.wait_until_succeeds(
            f"test $(nsenter -t {pid} -n curl -s -o /dev/null -w '%{{http_code}}' -d '{{}}' http://127.0.0.1:8080/hook) -ge 400"
        )
  '';
}
