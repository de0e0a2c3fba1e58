package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// probeMounts finds out whether steps can have a mount namespace, by making one for a command that does nothing. A
// runner that is not root needs a user namespace for it, which many hosts forbid (kernel.unprivileged_userns_clone,
// user.max_user_namespaces, AppArmor); in a container it may be the seccomp profile that does.
func (h *Host) probeMounts(ctx context.Context) {
	if h.cfg.ShareMounts {
		return
	}
	h.report.PrivateMounts = true
	b := &build{Build: Build{Name: probePrefix + "mounts"}, steps: map[string]*step{}}
	o := h.orderFor(b, &step{}, Command{Args: []string{"/proc/self/exe", pauseRole}, Dir: "/"})
	o.Mounts.Tmp = "/tmp" // over itself
	o.Reaper, o.Join = false, nil
	r, err := h.spawn(b, &step{}, o, nil)
	if err == nil {
		err = r.awaitProbe(ctx)
	}
	if err != nil {
		h.report.PrivateMounts = false
		h.warn("steps share this host's /tmp and see its cgroups and Docker socket as they are, because no mount "+
			"namespace can be made: %v", err)
	}
}

// awaitProbe waits for a command that ends by itself.
func (r *run) awaitProbe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, killWait)
	defer cancel()
	var err error
	select {
	case res := <-r.ended:
		err = res.err
		if err == nil && res.exit.Code != 0 {
			err = fmt.Errorf("the test command ended with code %d", res.exit.Code)
		}
	case <-ctx.Done():
		err = context.Cause(ctx)
		// Below a launcher first: without it they would be orphans that nobody looks for.
		visitBelow(r.cmd.Process.Pid, func(p proc) { err = errors.Join(err, p.signal(unix.SIGKILL)) })
		err = errors.Join(err, r.cmd.Process.Kill())
	}
	err = errors.Join(err, r.letGo())
	<-r.gone
	return errors.Join(err, r.out.close())
}

// warn adds a sentence to the report.
func (h *Host) warn(format string, args ...any) {
	h.report.Warnings = append(h.report.Warnings, fmt.Sprintf(format, args...))
}

// describe writes down what does not hold on this host, and what would mend it.
func (h *Host) describe() {
	root := os.Geteuid() == 0
	h.report.Isolated = (h.users != nil || !root) && h.report.PrivateMounts
	switch {
	case root && h.users == nil:
		h.warn("steps run as root: what a build does is attributed to it, but a hostile one is not held back; " +
			"set DRONE_RUNNER_USER to a user or a range of uids to run the steps as")
	case h.users == nil:
		h.warn("steps run as the runner's own user: a hostile one can signal the runner and other builds; " +
			"only a runner that is root can give each build a user")
	case h.users.shared != nil:
		h.warn("builds that run at once share a user and can signal each other's processes; " +
			"set DRONE_RUNNER_USER to a range of uids, such as 20000-20099, to keep them apart")
	}
	if h.tree != nil {
		for _, p := range h.tree.problems {
			h.warn("%s", p)
		}
	}
	h.report.Warnings = append(h.report.Warnings, h.unenforced(h.cfg.Limits)...)
}

// unenforced is a sentence for each limit that has no controller here.
func (h *Host) unenforced(l Limits) []string {
	var sentences []string
	for _, s := range l.settings() {
		if !slices.Contains(h.report.Controllers, s.controller) {
			sentences = append(sentences, fmt.Sprintf(
				"the %s limit is set but cannot be enforced: no cgroup controller %s can be used here", s.controller, s.controller))
		}
	}
	return sentences
}

// Probe finds out what [Open] would, for a person who asks (`cc-ci-runner doctor`), and closes the Host again. It may be
// called beside a runner of the same name, whose folders are left alone.
func Probe(ctx context.Context, cfg Config) (Report, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	h, err := Open(ctx, cfg)
	if err != nil {
		return Report{}, err
	}
	return h.Report(), h.Close()
}
