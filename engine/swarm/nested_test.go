package swarm_test

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/ledger"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/swarmtest"
)

// named is a service, a secret or a config.
func named(name string, labels map[string]string) any {
	return map[string]any{"ID": name, "CreatedAt": time.Now(), "Spec": map[string]any{"Name": name, "Labels": labels}}
}

// in is the label of a stack.
func in(stack string) map[string]string {
	return map[string]string{"com.docker.stack.namespace": stack}
}

// stacked is a daemon with a service and a volume of these stacks, and with secrets.
func stacked(services, volumes []string, secrets []any) daemon {
	d := daemon{"/secrets": secrets}
	for _, empty := range []string{"/tasks", "/configs", "/containers/json", "/networks", "/images/json"} {
		d[empty] = []any{}
	}
	made, kept := []any{}, []any{}
	for _, stack := range services {
		made = append(made, named(stack+"_app", in(stack)))
	}
	for _, stack := range volumes {
		kept = append(kept, map[string]any{"Name": stack + "_data", "Labels": in(stack)})
	}
	d["/services"], d["/volumes"] = made, map[string]any{"Volumes": kept}
	return d
}

// holdLock holds the lock of an app until the file is closed.
func holdLock(t *testing.T, dir, app string) *os.File {
	t.Helper()
	held, err := os.Create(filepath.Join(dir, "cc-ci-app-"+app+".lock"))
	check(t, err)
	check(t, unix.Flock(int(held.Fd()), unix.LOCK_EX))
	return held
}

// TestNestedDomains has a dead app whose domain begins that of a live one. What belongs to the live one stays, also a
// secret that nothing but its name gives to one of the two.
func TestNestedDomains(t *testing.T) {
	ended := `^[a-z]+\.org(\.uk)?$`
	for _, c := range []struct {
		name, pattern, locked string
		services, volumes     []string // the stacks that have one
		secrets               []any
		want                  map[string]string // stack: the secrets found with it
	}{
		{"the longer is locked", ended, "shop.org.uk", nil, nil, []any{named("shop_org_pw_v1", nil), named("shop_org_uk_pw_v1", nil)},
			map[string]string{"shop_org": "shop_org_pw_v1", "shop_org_uk": "shop_org_uk_pw_v1"}},
		{"the longer is deployed and no app of builds", `^[a-z]+\.org$`, "", []string{"shop_org_uk"}, nil,
			[]any{named("shop_org_pw_v1", nil), named("shop_org_uk_pw_v1", nil)}, map[string]string{"shop_org": "shop_org_pw_v1"}},
		{"the longer has a volume", `^[a-z]+\.org$`, "", nil, []string{"shop_org_uk"},
			[]any{named("shop_org_pw_v1", nil), named("shop_org_uk_pw_v1", nil)}, map[string]string{"shop_org": "shop_org_pw_v1"}},
		{"the longer has a label", `^[a-z]+\.org$`, "", nil, nil,
			[]any{named("shop_org_pw_v1", nil), named("shop_org_uk_pw_v1", in("shop_org_uk"))}, map[string]string{"shop_org": "shop_org_pw_v1"}},
		{"the label is the shorter's", ended, "", nil, nil,
			[]any{named("shop_org_uk_pw_v1", in("shop_org"))}, map[string]string{"shop_org": "shop_org_uk_pw_v1"}},
		{"the shorter is locked, the longer a guess", ended, "shop.org", nil, nil, []any{named("shop_org_uk_v1", nil)}, nil},
		{"the shorter is deployed, the longer a guess", ended, "", []string{"shop_org"}, nil, []any{named("shop_org_uk_v1", nil)}, nil},
		{"a pattern without an end", `^shop.*`, "shop.example", nil, nil, []any{named("shop_example_pw_v1", nil)}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, locks := stacked(c.services, c.volumes, c.secrets), t.TempDir()
			held := holdLock(t, locks, c.locked)
			s, err := swarm.Open(t.Context(), swarm.Config{Mode: swarm.ModeProxy, Endpoint: d.serve(t), AppPattern: c.pattern, LockDir: locks})
			check(t, err)
			apps, err := s.FindApps(t.Context())
			check(t, err)
			got := map[string]string{}
			for _, app := range apps {
				var secrets []string
				for _, item := range app.Items {
					if item.Kind == "secret" {
						secrets = append(secrets, item.Name)
					}
				}
				if len(secrets) > 0 {
					got[app.Stack] = strings.Join(secrets, " ")
				}
				if live := strings.ReplaceAll(app.Stack, "_", ".") == c.locked; app.Live != live {
					t.Errorf("%s: live %v", app.Stack, app.Live)
				}
			}
			if !maps.Equal(got, c.want) {
				t.Errorf("found %v, want %v", got, c.want)
			}
			check(t, errors.Join(s.Close(), held.Close()))
		})
	}
}

// TestNestedStacks looks for what a build made past its socket. The secrets of an app whose domain begins with that of
// the build's app are not the build's, while that app is in use or has a volume.
func TestNestedStacks(t *testing.T) {
	secrets := []any{named("shop_org_pw_v1", nil), named("shop_org_uk_pw_v1", nil)}
	for name, c := range map[string]struct {
		locked  string
		volumes []string
		want    int
	}{
		"locked": {"shop.org.uk", nil, 1}, "has a volume": {"", []string{"shop_org_uk"}, 1},
		"only the name": {"", nil, 2}, "the build's own volume of before": {"", []string{"shop_org"}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			d, dir := stacked(nil, c.volumes, secrets), t.TempDir()
			l, err := ledger.Open(dir, ledger.Header{Build: "b1", Started: time.Now().Add(-time.Hour)})
			check(t, err)
			check(t, errors.Join(l.Add(ledger.Entry{Kind: "stack", Name: "shop_org"}), l.Close()))
			held := holdLock(t, dir, c.locked)
			s, err := swarm.Open(t.Context(), swarm.Config{Mode: swarm.ModeProxy, Endpoint: d.serve(t), LedgerDir: dir, LockDir: dir,
				AppPattern: `^[a-z]+\.org(\.uk)?$`})
			check(t, err)
			left, err := s.Remaining(t.Context(), "b1")
			check(t, err)
			if len(left) != c.want || left[0].Name != "shop_org_pw_v1" {
				t.Errorf("left %v, want %d", left, c.want)
			}
			check(t, errors.Join(s.Close(), held.Close()))
		})
	}
}

// TestRemoveNested removes a dead app on a real Swarm, beside a live one whose domain begins with the dead one's.
func TestRemoveNested(t *testing.T) {
	locks := t.TempDir()
	h := newHost(t, func(c *swarm.Config) { c.AppPattern, c.LockDir = `^nest\.example(\.org)?$`, locks })
	h.quiet()
	before := h.objects()
	for _, stack := range []string{"nest_example", "nest_example_org"} {
		label := "com.docker.stack.namespace=" + stack
		h.direct("service", "create", "--detach", "--name", stack+"_app", "--label", label, "--container-label", label, swarmtest.Image)
		h.direct("volume", "create", "--label", label, stack+"_data")
		for _, args := range [][]string{{"secret", "create", stack + "_pw_v1", "-"}, {"config", "create", "--label", label, stack + "_conf_v1", "-"}} {
			if out, err := run(t, h.d.Host, "x", args...); err != nil {
				t.Fatal(err, out)
			}
		}
		h.running(stack+"_app", 1)
	}
	held := holdLock(t, locks, "nest.example.org")
	apps, err := h.swarm.FindApps(t.Context())
	if err != nil || len(apps) != 2 || apps[0].Stack != "nest_example" || apps[0].Live || !apps[1].Live {
		t.Fatalf("found %+v, %v", apps, err)
	}
	removed, err := h.swarm.Remove(t.Context(), apps[0])
	check(t, err)
	if left := h.objects(); len(removed) != 5 || left["secret nest_example_pw_v1"] || !left["secret nest_example_org_pw_v1"] ||
		!left["config nest_example_org_conf_v1"] || !left["volume nest_example_org_data"] || !left["service nest_example_org_app"] {
		t.Errorf("removed %v, left %v", removed, left)
	}
	check(t, held.Close())
	apps[1].Live = false // its lock is free now
	if _, err := h.swarm.Remove(t.Context(), apps[1]); err != nil {
		t.Error(err)
	}
	for key := range h.objects() {
		if !before[key] && !strings.HasPrefix(key, "task") {
			t.Errorf("%s is left", key)
		}
	}
}
