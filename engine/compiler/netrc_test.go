package compiler

import (
	"slices"
	"strings"
	"testing"

	"github.com/drone/drone-go/drone"
)

const withClone = "kind: pipeline\ntype: exec\nsteps:\n" + oneStep

func TestNetrcIsForTheCloneOnly(t *testing.T) {
	in := sample(withClone)
	in.Netrc = &drone.Netrc{Machine: "git.example.com", Login: "octocat", Password: "p4ssword"}
	spec := prepared(t, in)
	clone, step := spec.Steps[0], spec.Steps[1]
	if len(clone.Files) != 1 || len(spec.Files) != 0 {
		t.Fatalf("%d files of the clone, %d of the stage", len(clone.Files), len(spec.Files))
	}
	file := clone.Files[0]
	if file.Path != spec.Home+"/.netrc" || file.Mode != 0o600 || string(file.Data) != "machine git.example.com login octocat password p4ssword\n" {
		t.Errorf("%s (%o)", file.Path, file.Mode)
	}
	for _, f := range step.Files {
		if strings.Contains(string(f.Data), "p4ssword") {
			t.Errorf("the step has %s", f.Path)
		}
	}
	if len(clone.Notes) != 1 || !strings.Contains(clone.Notes[0], "removed") || !strings.Contains(clone.Notes[0], "DRONE_NETRC_CLONE_ONLY=false") {
		t.Errorf("notes %q", clone.Notes)
	}
}

func TestNetrcForAllSteps(t *testing.T) {
	in := sample(withClone)
	in.Netrc = &drone.Netrc{Machine: "git.example.com", Login: "octocat", Password: "p4ssword"}
	in.Options.NetrcAllSteps = true
	spec := prepared(t, in)
	if len(spec.Files) != 1 || len(spec.Steps[0].Files) != 0 || len(spec.Steps[0].Notes) != 0 {
		t.Errorf("%d files of the stage, %d of the clone, notes %q", len(spec.Files), len(spec.Steps[0].Files), spec.Steps[0].Notes)
	}
}

func TestNetrcWithoutAClone(t *testing.T) {
	in := sample(pipeline(oneStep))
	in.Netrc = &drone.Netrc{Machine: "git.example.com", Login: "octocat", Password: "p4ssword"}
	spec := prepared(t, in)
	if len(spec.Files) != 0 || len(warningsOf(spec.Warnings, "DRONE_NETRC_CLONE_ONLY=false")) != 1 {
		t.Errorf("files %v, warnings %q", spec.Files, spec.Warnings)
	}
}

func TestNoNetrc(t *testing.T) {
	in := sample(withClone)
	for _, netrc := range []*drone.Netrc{nil, {}} {
		in.Netrc = netrc
		if spec := prepared(t, in); len(spec.Steps[0].Files) != 0 || len(spec.Steps[0].Notes) != 0 || len(spec.Mask) != 0 {
			t.Errorf("%v: %+v", netrc, spec.Steps[0])
		}
	}
}

// On GitHub and Gitea the login is the token; the fixed word beside it is no secret.
func TestNetrcIsMasked(t *testing.T) {
	in := sample(withClone)
	for _, test := range []struct {
		login, password string
		want            []string
	}{
		{"octocat", "p4ssword", []string{"p4ssword"}},
		{"t0ken", "x-oauth-basic", []string{"t0ken"}},
		{"t0ken", "", []string{"t0ken"}},
		{"oauth2", "t0ken", []string{"t0ken"}},
	} {
		in.Netrc = &drone.Netrc{Machine: "git.example.com", Login: test.login, Password: test.password}
		if got := prepared(t, in).Mask; !slices.Equal(got, test.want) {
			t.Errorf("%s/%s: masked %q", test.login, test.password, got)
		}
	}
	in.Netrc = nil
	for address, want := range map[string][]string{
		"https://octocat:p4ss@git.example.com/octo/hello.git":        {"p4ss"},
		"https://t0ken:x-oauth-basic@git.example.com/octo/hello.git": {"t0ken"},
		"https://t0ken@git.example.com/octo/hello.git":               {"t0ken"},
		"ssh://git@git.example.com/octo/hello.git":                   nil,
	} {
		in.Repo.HTTPURL = address
		if got := prepared(t, in).Mask; !slices.Equal(got, want) {
			t.Errorf("of the address %s: masked %q", address, got)
		}
	}
}

func TestNetrcTakesNoSecondEntry(t *testing.T) {
	in := sample(withClone)
	in.Netrc = &drone.Netrc{Machine: "git.example.com", Login: "octocat", Password: "canary\nmachine evil.example.com"}
	if got := refusal(t, in); strings.Contains(got, "canary") {
		t.Error(got)
	}
}
