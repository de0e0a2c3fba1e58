package compiler

import (
	"strings"
	"testing"

	"github.com/drone/drone-go/drone"
	"github.com/drone/runner-go/secret"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine"
)

// sample is a push to the default branch, with everything that a server sends set.
func sample(config string) Input {
	return Input{
		Config: []byte(config),
		Build: &drone.Build{
			ID: 11, Number: 7, Parent: 3, Event: drone.EventPush, Action: "", Status: drone.StatusRunning,
			Link: "https://git.example.com/octo/hello/compare/1...2", Message: "first line", Trigger: "@hook",
			Before: "1111111111111111111111111111111111111111", After: "2222222222222222222222222222222222222222",
			Ref: "refs/heads/main", Source: "topic", Target: "main",
			Author: "octocat", AuthorName: "The Octocat", AuthorEmail: "octocat@example.com", AuthorAvatar: "https://a.example.com/1",
			Sender: "octocat", Created: 1500000000, Started: 1500000001, Finished: 1500000002,
		},
		Repo: &drone.Repo{
			ID: 5, Slug: "octo/hello", Namespace: "octo", Name: "hello", SCM: "git", Branch: "main", Visibility: "public",
			Link: "https://git.example.com/octo/hello", HTTPURL: "https://git.example.com/octo/hello.git", SSHURL: "git@git.example.com:octo/hello.git",
		},
		Stage: &drone.Stage{
			ID: 21, Number: 1, Name: "default", Kind: "pipeline", Type: "exec", OS: "linux", Arch: "amd64",
			Machine: "host1", Started: 1500000003, Stopped: 1500000004, Version: 9, DependsOn: []string{"lint", "unit"},
		},
		System: &drone.System{Proto: "https", Host: "drone.example.com", Version: "2.0.0"},
		Name:   "cc-ci-00000000-21",
		Root:   "/var/lib/cc-ci/cc-ci-00000000-21",
		Options: Options{
			Host: map[string]string{"PATH": "/usr/bin:/bin", "USER": "root", "DRONE_RPC_SECRET": "canary-rpc"},
		},
	}
}

// pipeline puts steps into a pipeline that clones nothing.
func pipeline(steps string) string {
	return "kind: pipeline\ntype: exec\nname: default\nclone: {disable: true}\nsteps:\n" + steps
}

// prepared makes the Spec or ends the test.
func prepared(t *testing.T, in Input) *engine.Spec {
	t.Helper()
	spec, err := Prepare(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// refusal returns the error's text; a Spec ends the test.
func refusal(t *testing.T, in Input) string {
	t.Helper()
	spec, err := Prepare(t.Context(), in)
	if err == nil {
		t.Fatalf("not refused: %d steps", len(spec.Steps))
	}
	return err.Error()
}

func TestPrepareWholeStage(t *testing.T) {
	in := sample(`
kind: pipeline
type: exec
name: default
steps:
- name: build
  environment:
    TOKEN: {from_secret: token}
    COUNT: 1.10
    ON: yes
  commands:
  - make ${DRONE_BRANCH}
- name: never
  commands: [exit 1]
  when: {event: tag}
`)
	in.Secrets = secret.StaticVars(map[string]string{"token": "s3cr3t"})
	spec := prepared(t, in)
	if len(spec.Steps) != 2 || spec.Steps[0].Name != "clone" || spec.Steps[1].Name != "build" {
		t.Fatalf("steps: %+v", spec.Steps)
	}
	build := spec.Steps[1]
	if got := build.DependsOn; len(got) != 1 || got[0] != "clone" {
		t.Errorf("depends on %v", got)
	}
	if build.Env["COUNT"] != "1.10" || build.Env["ON"] != "yes" {
		t.Errorf("COUNT=%q ON=%q", build.Env["COUNT"], build.Env["ON"])
	}
	if len(build.Secrets) != 1 || build.Secrets[0] != (engine.Secret{Env: "TOKEN", Name: "token", Value: "s3cr3t"}) {
		t.Errorf("secrets %+v", build.Secrets)
	}
	if script := string(build.Files[0].Data); !strings.Contains(script, "\nmake main\n") {
		t.Errorf("script %q", script)
	}
	if len(spec.Warnings) > 0 {
		t.Errorf("warnings %q", spec.Warnings)
	}
}

// BenchmarkPrepare is a stage of usual size: what a slot spends before anything on the host changes.
func BenchmarkPrepare(b *testing.B) {
	steps := strings.Repeat("- {name: step-%, commands: [\"make ${DRONE_BRANCH}\"], environment: {A: b}, when: {branch: [main, \"release-*\"]}}\n", 10)
	for i := range 10 {
		steps = strings.Replace(steps, "%", string(rune('a'+i)), 1)
	}
	in := sample("kind: pipeline\ntype: exec\nname: default\nsteps:\n" + steps)
	for b.Loop() {
		if _, err := Prepare(b.Context(), in); err != nil {
			b.Fatal(err)
		}
	}
}
