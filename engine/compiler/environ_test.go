package compiler

import (
	"maps"
	"slices"
	"testing"

	"github.com/drone/drone-go/drone"
	"github.com/drone/runner-go/secret"
)

// pushEnvironment is every variable of a step of sample's push, group by group.
func pushEnvironment() map[string]string {
	const root, sha = "/var/lib/cc-ci/cc-ci-00000000-21", "2222222222222222222222222222222222222222"
	const link, clone = "https://git.example.com/octo/hello", "https://git.example.com/octo/hello.git"
	return map[string]string{
		// The host's, and the build's directories.
		"PATH": "/usr/bin:/bin", "USER": "root",
		"HOME": root + "/home/drone", "HOMEPATH": root + "/home/drone", "USERPROFILE": root + "/home/drone",
		"DRONE_HOME": root + "/drone/src", "DRONE_WORKSPACE": root + "/drone/src",
		// System and link.
		"CI": "true", "DRONE": "true", "DRONE_SYSTEM_PROTO": "https", "DRONE_SYSTEM_HOST": "drone.example.com",
		"DRONE_SYSTEM_HOSTNAME": "drone.example.com", "DRONE_SYSTEM_VERSION": "2.0.0",
		"DRONE_BUILD_LINK": "https://drone.example.com/octo/hello/7",
		// Repository.
		"DRONE_REPO": "octo/hello", "DRONE_REPO_SCM": "git", "DRONE_REPO_OWNER": "octo", "DRONE_REPO_NAMESPACE": "octo",
		"DRONE_REPO_NAME": "hello", "DRONE_REPO_LINK": link, "DRONE_REPO_BRANCH": "main", "DRONE_REPO_VISIBILITY": "public",
		"DRONE_REPO_PRIVATE": "false", "DRONE_REMOTE_URL": clone, "DRONE_GIT_HTTP_URL": clone,
		"DRONE_GIT_SSH_URL": "git@git.example.com:octo/hello.git",
		"CI_REPO":           "octo/hello", "CI_REPO_NAME": "octo/hello", "CI_REPO_LINK": link, "CI_REPO_REMOTE": clone,
		"CI_REPO_PRIVATE": "false", "CI_REMOTE_URL": clone,
		// Build.
		"DRONE_BRANCH": "main", "DRONE_SOURCE_BRANCH": "topic", "DRONE_TARGET_BRANCH": "main", "DRONE_COMMIT": sha,
		"DRONE_COMMIT_SHA": sha, "DRONE_COMMIT_BEFORE": "1111111111111111111111111111111111111111", "DRONE_COMMIT_AFTER": sha,
		"DRONE_COMMIT_REF": "refs/heads/main", "DRONE_COMMIT_BRANCH": "main", "DRONE_COMMIT_LINK": link + "/compare/1...2",
		"DRONE_COMMIT_MESSAGE": "first line", "DRONE_COMMIT_AUTHOR": "octocat", "DRONE_COMMIT_AUTHOR_EMAIL": "octocat@example.com",
		"DRONE_COMMIT_AUTHOR_AVATAR": "https://a.example.com/1", "DRONE_COMMIT_AUTHOR_NAME": "The Octocat",
		"DRONE_BUILD_NUMBER": "7", "DRONE_BUILD_PARENT": "3", "DRONE_BUILD_EVENT": "push", "DRONE_BUILD_ACTION": "",
		"DRONE_BUILD_STATUS": "success", "DRONE_BUILD_CREATED": "1500000000", "DRONE_BUILD_STARTED": "1500000001",
		"DRONE_BUILD_FINISHED": "1500000002", "DRONE_BUILD_DEBUG": "false", "DRONE_BUILD_TRIGGER": "@hook",
		"DRONE_DEPLOY_TO": "", "DRONE_DEPLOY_ID": "0",
		"CI_BUILD_NUMBER": "7", "CI_BUILD_CREATED": "1500000000", "CI_BUILD_STARTED": "1500000001", "CI_BUILD_FINISHED": "1500000002",
		"CI_BUILD_STATUS": "running", "CI_BUILD_EVENT": "push", "CI_BUILD_LINK": link + "/compare/1...2", "CI_BUILD_TARGET": "",
		"CI_PARENT_BUILD_NUMBER": "3", "CI_COMMIT_SHA": sha, "CI_COMMIT_REF": "refs/heads/main", "CI_COMMIT_BRANCH": "main",
		"CI_COMMIT_MESSAGE": "first line", "CI_COMMIT_AUTHOR": "octocat", "CI_COMMIT_AUTHOR_NAME": "The Octocat",
		"CI_COMMIT_AUTHOR_EMAIL": "octocat@example.com", "CI_COMMIT_AUTHOR_AVATAR": "https://a.example.com/1",
		// Stage.
		"DRONE_STAGE_KIND": "pipeline", "DRONE_STAGE_TYPE": "exec", "DRONE_STAGE_NAME": "default", "DRONE_STAGE_NUMBER": "1",
		"DRONE_STAGE_MACHINE": "host1", "DRONE_STAGE_OS": "linux", "DRONE_STAGE_ARCH": "amd64", "DRONE_STAGE_VARIANT": "",
		"DRONE_STAGE_VERSION": "9", "DRONE_STAGE_STATUS": "success", "DRONE_STAGE_STARTED": "1500000003",
		"DRONE_STAGE_FINISHED": "1500000004", "DRONE_STAGE_DEPENDS_ON": "lint,unit",
		// Git.
		"GIT_AUTHOR_NAME": "The Octocat", "GIT_AUTHOR_EMAIL": "octocat@example.com",
		"GIT_COMMITTER_NAME": "The Octocat", "GIT_COMMITTER_EMAIL": "octocat@example.com", "GIT_TERMINAL_PROMPT": "0",
	}
}

const oneStep = "- {name: a, commands: [x]}\n"

// differences compares a step's environment with what is wanted; extra variables count.
func differences(t *testing.T, got, want map[string]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if value, found := got[name]; !found || value != want[name] {
			t.Errorf("%s = %q (set: %v), want %q", name, value, found, want[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, known := want[name]; !known {
			t.Errorf("%s = %q is set, and nobody asked for it", name, got[name])
		}
	}
}

func TestEnvironmentOfPush(t *testing.T) {
	spec := prepared(t, sample(pipeline(oneStep)))
	differences(t, spec.Steps[0].Env, pushEnvironment())
}

func TestEnvironmentByEvent(t *testing.T) {
	tests := map[string]struct {
		change func(*Input)
		want   map[string]string
	}{
		"pull request": {
			func(in *Input) {
				in.Build.Event, in.Build.Ref, in.Build.Title = drone.EventPullRequest, "refs/pull/42/head", "A title"
			},
			map[string]string{
				"DRONE_PULL_REQUEST": "42", "DRONE_PULL_REQUEST_TITLE": "A title", "DRONE_BUILD_EVENT": "pull_request",
				"DRONE_COMMIT_REF": "refs/pull/42/head", "CI_BUILD_EVENT": "pull_request", "CI_COMMIT_REF": "refs/pull/42/head",
			},
		},
		"tag with a version": {
			func(in *Input) { in.Build.Event, in.Build.Ref = "tag", "refs/tags/v1.2.3-rc.1+b5" },
			map[string]string{
				"DRONE_TAG": "v1.2.3-rc.1+b5", "DRONE_SEMVER": "1.2.3-rc.1+b5", "DRONE_SEMVER_MAJOR": "1", "DRONE_SEMVER_MINOR": "2",
				"DRONE_SEMVER_PATCH": "3", "DRONE_SEMVER_PRERELEASE": "rc.1", "DRONE_SEMVER_BUILD": "b5", "DRONE_SEMVER_SHORT": "1.2.3",
				"DRONE_BUILD_EVENT": "tag", "CI_BUILD_EVENT": "tag",
				"DRONE_COMMIT_REF": "refs/tags/v1.2.3-rc.1+b5", "CI_COMMIT_REF": "refs/tags/v1.2.3-rc.1+b5",
			},
		},
		"promotion": {
			func(in *Input) { in.Build.Event, in.Build.Deploy, in.Build.DeployID = "promote", "production", 8 },
			map[string]string{
				"DRONE_BUILD_EVENT": "promote", "CI_BUILD_EVENT": "promote", "DRONE_DEPLOY_TO": "production",
				"DRONE_DEPLOY_ID": "8", "CI_BUILD_TARGET": "production",
			},
		},
		"failing build": {
			func(in *Input) {
				in.Build.Stages = []*drone.Stage{{Name: "other", Status: drone.StatusFailing}}
				in.Stage.Steps = []*drone.Step{{Name: "unit", Status: drone.StatusFailing}}
			},
			map[string]string{
				"DRONE_BUILD_STATUS": "failure", "DRONE_FAILED_STAGES": "other",
				"DRONE_STAGE_STATUS": "failure", "DRONE_FAILED_STEPS": "unit",
			},
		},
		"author without a name": {
			func(in *Input) { in.Build.AuthorName, in.Build.AuthorEmail = "", "" },
			map[string]string{
				"GIT_AUTHOR_NAME": "drone", "GIT_AUTHOR_EMAIL": "noreply@drone",
				"GIT_COMMITTER_NAME": "drone", "GIT_COMMITTER_EMAIL": "noreply@drone", "DRONE_COMMIT_AUTHOR_NAME": "",
				"DRONE_COMMIT_AUTHOR_EMAIL": "", "CI_COMMIT_AUTHOR_NAME": "", "CI_COMMIT_AUTHOR_EMAIL": "",
			},
		},
		"zero byte in a title": {
			func(in *Input) { in.Build.Message = "a\x00b" },
			map[string]string{"DRONE_COMMIT_MESSAGE": "ab", "CI_COMMIT_MESSAGE": "ab"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			in := sample(pipeline(oneStep))
			test.change(&in)
			want := pushEnvironment()
			maps.Copy(want, test.want)
			differences(t, prepared(t, in).Steps[0].Env, want)
		})
	}
}

func TestEnvironmentOfCloneSettings(t *testing.T) {
	in := sample("kind: pipeline\ntype: exec\nclone: {skip_verify: true, trace: true}\nsteps:\n" + oneStep)
	spec := prepared(t, in)
	want := pushEnvironment()
	want["GIT_SSL_NO_VERIFY"], want["GIT_TRACE"] = "true", "true"
	for _, step := range spec.Steps {
		differences(t, step.Env, want)
	}
}

// Each layer sets one variable that only it and those below set, and one that all of them set.
func TestEnvironmentPrecedence(t *testing.T) {
	in := sample(pipeline("- name: a\n  commands: [x]\n  environment: {FROM: step, USER: step, HOME: /elsewhere, CI: step, SECRET: literal}\n"))
	in.Options.Environ = map[string]string{"FROM": "environ", "PATH": "/environ", "A": "environ", "http_proxy": "environ", "CI": "no"}
	in.Build.Params = map[string]string{"A": "param", "B": "param", "http_proxy": "param", "CI": "param", "DRONE_REPO": "param", "HOME": "param"}
	in.Options.Proxy = map[string]string{"http_proxy": "proxy", "HTTP_PROXY": "proxy"}
	spec := prepared(t, in)
	env := spec.Steps[0].Env
	for name, want := range map[string]string{
		"PATH": "/environ", "A": "param", "B": "param", "http_proxy": "proxy", "HTTP_PROXY": "proxy", "DRONE_REPO": "octo/hello",
		"FROM": "step", "USER": "step", "HOME": "/elsewhere", "CI": "step",
	} {
		if env[name] != want {
			t.Errorf("%s = %q, want %q", name, env[name], want)
		}
	}
	in.Options.Path = "/runner/path"
	if got := prepared(t, in).Steps[0].Env["PATH"]; got != "/runner/path" {
		t.Errorf("with a PATH for all steps it is %q", got)
	}
}

func TestSecretsBeatEverything(t *testing.T) {
	in := sample(pipeline("- name: a\n  commands: [x]\n  environment: {CI: {from_secret: token}}\n"))
	in.Secrets = secret.StaticVars(map[string]string{"TOKEN": "s3cr3t"})
	step := prepared(t, in).Steps[0]
	if len(step.Secrets) != 1 || step.Secrets[0].Env != "CI" || step.Secrets[0].Value != "s3cr3t" {
		t.Errorf("secrets: %+v", step.Secrets)
	}
}

// The old runner expanded a step's PATH with its own environment.
func TestPathExpandsAgainstTheStepOnly(t *testing.T) {
	t.Setenv("DRONE_RPC_SECRET", "canary-rpc")
	in := sample(pipeline("- name: a\n  commands: [x]\n  environment: {GOPATH: /go, PATH: \"$GOPATH/bin:$PATH:/x$DRONE_RPC_SECRET\"}\n"))
	if got := prepared(t, in).Steps[0].Env["PATH"]; got != "/go/bin:/usr/bin:/bin:/x" {
		t.Errorf("PATH = %q", got)
	}
}

func TestHostVariablesArePathAndUserOnly(t *testing.T) {
	in := sample(pipeline(oneStep))
	in.Options.Host["LD_PRELOAD"] = "canary"
	for name, value := range prepared(t, in).Steps[0].Env {
		if value == "canary" || value == "canary-rpc" {
			t.Errorf("%s of the runner reaches the step", name)
		}
	}
}
