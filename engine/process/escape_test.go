//go:build linux

package process

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// An escape is a way in which a build's process may try to outlive it. The script must end by itself; its processes
// carry $TOKEN on their command line, by which the kernel is asked who survived.
var escapes = map[string]string{
	"background":   `sleep $TOKEN &`,
	"redirected":   `sleep $TOKEN >/dev/null 2>&1 </dev/null &`,
	"setsid":       `setsid sleep $TOKEN &`,
	"double fork":  `(setsid sh -c 'sleep $TOKEN & sleep $TOKEN & exit' &)`,
	"nohup":        `nohup sleep $TOKEN >/dev/null 2>&1 &`,
	"env -i":       `(env -i setsid sh -c "sleep $TOKEN & exit" $TOKEN &)`,
	"non-dumpable": `CC_CI_TEST_CHILD=hide setsid $SELF $TOKEN &`,
	"deaf":         `CC_CI_TEST_CHILD=deaf $SELF $TOKEN & sh -c 'trap "" TERM; sleep $TOKEN; sleep $TOKEN' &`,
	"stopped":      `sh -c 'kill -STOP $$' $TOKEN &`,
	// Each process lives for about a millisecond and leaves a child in a new session.
	"re-forking chain": `printf '#!/bin/sh\necho >>"$0.beat"\n(env -i /usr/bin/setsid /bin/sh "$0" "$1" &)\n' >chain; chmod +x chain
		for i in 1 2 3 4; do ./chain $TOKEN & done`,
}

// TestEscape is the escape suite: after the step if leftovers are killed, and after the build in any case, nobody is
// left, and the neighbour has not noticed.
func TestEscape(t *testing.T) {
	eachMode(t, func(t *testing.T, mode Mode) {
		for name, script := range escapes {
			for _, keep := range []bool{false, true} {
				policy := map[bool]string{false: "kill", true: "keep"}[keep]
				t.Run(name+"/"+policy, func(t *testing.T) {
					t.Parallel()
					testEscape(t, Config{Mode: mode, KeepLeftovers: keep}, script)
				})
			}
		}
	})
}

func testEscape(t *testing.T, cfg Config, script string) {
	h := openHost(t, cfg)
	neighbour := startNeighbour(t, h)
	b := newBuild(t, h, Build{Name: "victim"})
	c, token := escapeCommand(t, b, script)
	if exit, out := mustRun(t, h, c); exit.Code != 0 {
		t.Fatalf("%+v\n%s", exit, out)
	}
	chain := b.Workspace + "/chain.beat"
	await(t, "the escape", func() bool { return len(survivors(t, token, chain)) > 0 })
	left, err := h.EndStep(t.Context(), b.Name, c.Step)
	if err != nil || len(left) == 0 && size(chain) == 0 { // a chain's links are gone before they can be named
		t.Errorf("end of step: %v, %v; want the leftovers named", left, err)
	}
	if alive := survivors(t, token, chain); (len(alive) > 0) != cfg.KeepLeftovers {
		t.Errorf("after the step: %v", alive)
	}
	tearDown(t, h, b.Name)
	if alive := survivors(t, token, chain); len(alive) > 0 {
		t.Errorf("after the build: %v", alive)
	}
	neighbour(t)
}

// escapeCommand is the script as a step's command, and the text by which its processes are known.
func escapeCommand(t *testing.T, b Build, script string) (Command, string) {
	t.Helper()
	self := b.Root + "/child" // the original may lie below /tmp, which the build does not see
	if strings.Contains(script, "$SELF") {
		if err := copyFile(os.Args[0], self); err != nil {
			t.Fatal(err)
		}
	}
	// A number that no other test has, so that sleep takes it.
	token := "1" + strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, filepath.Base(b.Root)+b.Root)
	token = token[:min(len(token), 18)]
	c := shell(b, script)
	c.Env = append(c.Env, "TOKEN="+token, "SELF="+self)
	return c, token
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}

// survivors are the living processes whose command line ends in the token. Those of a chain are too short-lived for
// every scan to see one; they are known by the file that grows.
func survivors(t *testing.T, token, chain string) []string {
	t.Helper()
	before := size(chain)
	var found []string
	for range 2 {
		err := visitAll(func(p proc) {
			if args := p.args(); len(args) > 0 && strings.HasSuffix(args[len(args)-1], token) {
				found = append(found, p.item().String())
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if size(chain) > before {
		found = append(found, "a chain that goes on")
	}
	return found
}

func size(file string) int64 {
	info, err := os.Stat(file)
	if err != nil {
		return 0
	}
	return info.Size()
}

// tearDown tears a build down and asks for what remains.
func tearDown(t *testing.T, h *Host, build string) {
	t.Helper()
	if _, err := h.Teardown(context.Background(), build); err != nil {
		t.Error(err)
	}
	left, err := h.Remaining(context.Background(), build)
	if err != nil || len(left) > 0 {
		t.Errorf("remaining of %s: %v, %v", build, left, err)
	}
}

// startNeighbour runs a build that must not notice anything. The returned check ends it.
func startNeighbour(t *testing.T, h *Host) (check func(t *testing.T)) {
	t.Helper()
	b := newBuild(t, h, Build{Name: "neighbour"})
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("the test is over")
	ended := make(chan error, 1)
	out := &buffer{}
	c := shell(b, "echo ready; sleep 3600")
	c.Output = out
	go func() {
		_, err := h.Run(ctx, c)
		ended <- err
	}()
	await(t, "the neighbour", func() bool { return strings.Contains(out.String(), "ready") })
	return func(t *testing.T) {
		t.Helper()
		select {
		case err := <-ended:
			t.Errorf("the neighbour ended: %v", err)
			return
		default:
		}
		cancel(enough)
		if err := <-ended; !errors.Is(err, enough) {
			t.Errorf("the neighbour ended with %v", err)
		}
		tearDown(t, h, b.Name)
	}
}
