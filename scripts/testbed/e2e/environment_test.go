package e2e

import (
	"fmt"
	"maps"
	"runtime"
	"strings"

	"github.com/drone/drone-go/drone"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

// expected holds what a step's environment must follow from.
type expected struct {
	bed    *testbed.Bed
	repo   *drone.Repo
	build  *drone.Build
	stage  *drone.Stage
	runner string
	user   *testbed.User
}

// table is the environment of the step of printEnv: every variable that drone-runner-exec sets, and no other.
func (e expected) table() map[string]rule {
	table := map[string]rule{}
	for _, part := range []map[string]rule{
		e.system(), e.repository(), e.commit(), e.buildItself(), e.legacy(), e.stageAndStep(), e.workspace(), e.event(),
	} {
		maps.Copy(table, part)
	}
	return table
}

func (e expected) system() map[string]rule {
	host := e.bed.Drone.RPCHost()
	return map[string]rule{
		"CI": is(true), "DRONE": is(true),
		"DRONE_SYSTEM_PROTO":    is("http"),
		"DRONE_SYSTEM_HOST":     is(host),
		"DRONE_SYSTEM_HOSTNAME": is(host),
		"DRONE_SYSTEM_VERSION":  {any: true},
	}
}

func (e expected) repository() map[string]rule {
	return map[string]rule{
		"DRONE_REPO":            is(e.repo.Slug),
		"DRONE_REPO_SCM":        is(e.repo.SCM),
		"DRONE_REPO_OWNER":      is(e.repo.Namespace),
		"DRONE_REPO_NAMESPACE":  is(e.repo.Namespace),
		"DRONE_REPO_NAME":       is(e.repo.Name),
		"DRONE_REPO_LINK":       is(e.repo.Link),
		"DRONE_REPO_BRANCH":     is(e.repo.Branch),
		"DRONE_REPO_VISIBILITY": is(e.repo.Visibility),
		"DRONE_REPO_PRIVATE":    is(e.repo.Private),
		"DRONE_REMOTE_URL":      is(e.repo.HTTPURL),
		"DRONE_GIT_HTTP_URL":    is(e.repo.HTTPURL),
		"DRONE_GIT_SSH_URL":     is(e.repo.SSHURL),
		"CI_REPO":               is(e.repo.Slug),
		"CI_REPO_NAME":          is(e.repo.Slug),
		"CI_REPO_LINK":          is(e.repo.Link),
		"CI_REPO_REMOTE":        is(e.repo.HTTPURL),
		"CI_REPO_PRIVATE":       is(e.repo.Private),
		"CI_REMOTE_URL":         is(e.repo.HTTPURL),
	}
}

func (e expected) commit() map[string]rule {
	b := e.build
	return map[string]rule{
		"DRONE_BRANCH":               is(b.Target),
		"DRONE_SOURCE_BRANCH":        is(b.Source),
		"DRONE_TARGET_BRANCH":        is(b.Target),
		"DRONE_COMMIT":               is(b.After),
		"DRONE_COMMIT_SHA":           is(b.After),
		"DRONE_COMMIT_BEFORE":        is(b.Before),
		"DRONE_COMMIT_AFTER":         is(b.After),
		"DRONE_COMMIT_REF":           is(b.Ref),
		"DRONE_COMMIT_BRANCH":        is(b.Target),
		"DRONE_COMMIT_LINK":          is(b.Link),
		"DRONE_COMMIT_MESSAGE":       is(b.Message),
		"DRONE_COMMIT_AUTHOR":        is(b.Author),
		"DRONE_COMMIT_AUTHOR_EMAIL":  is(b.AuthorEmail),
		"DRONE_COMMIT_AUTHOR_AVATAR": is(b.AuthorAvatar),
		"DRONE_COMMIT_AUTHOR_NAME":   is(b.AuthorName),
	}
}

func (e expected) buildItself() map[string]rule {
	b := e.build
	return map[string]rule{
		"DRONE_BUILD_NUMBER":   is(b.Number),
		"DRONE_BUILD_PARENT":   is(b.Parent),
		"DRONE_BUILD_EVENT":    is(b.Event),
		"DRONE_BUILD_ACTION":   is(b.Action),
		"DRONE_BUILD_STATUS":   is("success"),
		"DRONE_BUILD_CREATED":  is(b.Created),
		"DRONE_BUILD_STARTED":  {any: true}, // the server may set it after the runner has asked
		"DRONE_BUILD_FINISHED": {any: true}, // never a fact yet
		"DRONE_BUILD_DEBUG":    is(false),
		"DRONE_BUILD_TRIGGER":  is(b.Trigger),
		"DRONE_BUILD_LINK":     is(fmt.Sprintf("%s/%s/%d", e.bed.Drone.URL(), e.repo.Slug, b.Number)),
		"DRONE_DEPLOY_TO":      is(b.Deploy),
		"DRONE_DEPLOY_ID":      is(b.DeployID),
	}
}

// legacy are the names of Drone 0.8.
func (e expected) legacy() map[string]rule {
	b := e.build
	return map[string]rule{
		"CI_BUILD_NUMBER":         is(b.Number),
		"CI_BUILD_CREATED":        is(b.Created),
		"CI_BUILD_STARTED":        {any: true},
		"CI_BUILD_FINISHED":       {any: true},
		"CI_BUILD_STATUS":         {any: true}, // what the server calls it at that moment
		"CI_BUILD_EVENT":          is(b.Event),
		"CI_BUILD_LINK":           is(b.Link),
		"CI_BUILD_TARGET":         is(b.Deploy),
		"CI_PARENT_BUILD_NUMBER":  is(b.Parent),
		"CI_COMMIT_SHA":           is(b.After),
		"CI_COMMIT_REF":           is(b.Ref),
		"CI_COMMIT_BRANCH":        is(b.Target),
		"CI_COMMIT_MESSAGE":       is(b.Message),
		"CI_COMMIT_AUTHOR":        is(b.Author),
		"CI_COMMIT_AUTHOR_NAME":   is(b.AuthorName),
		"CI_COMMIT_AUTHOR_EMAIL":  is(b.AuthorEmail),
		"CI_COMMIT_AUTHOR_AVATAR": is(b.AuthorAvatar),
	}
}

func (e expected) stageAndStep() map[string]rule {
	return map[string]rule{
		"DRONE_STAGE_KIND":       is("pipeline"),
		"DRONE_STAGE_TYPE":       is("exec"),
		"DRONE_STAGE_NAME":       is("default"),
		"DRONE_STAGE_NUMBER":     is(1),
		"DRONE_STAGE_MACHINE":    is(e.runner),
		"DRONE_STAGE_OS":         is("linux"),
		"DRONE_STAGE_ARCH":       is(runtime.GOARCH),
		"DRONE_STAGE_VARIANT":    is(""),
		"DRONE_STAGE_VERSION":    {any: true},
		"DRONE_STAGE_STATUS":     is("success"),
		"DRONE_STAGE_STARTED":    {any: true},
		"DRONE_STAGE_FINISHED":   {any: true},
		"DRONE_STAGE_DEPENDS_ON": is(""),
		"DRONE_STEP_NAME":        is("env"),
		"DRONE_STEP_NUMBER":      is(2),
		"DRONE_CARD_PATH":        {any: true, maybe: true},
	}
}

// workspace is what a step finds around it, beside what the shell sets itself.
func (e expected) workspace() map[string]rule {
	author := func(value, otherwise string) rule {
		if value == "" {
			value = otherwise
		}
		return is(value)
	}
	name, email := author(e.build.AuthorName, "drone"), author(e.build.AuthorEmail, "noreply@drone")
	return map[string]rule{
		"HOME": {any: true}, "HOMEPATH": {any: true}, "USERPROFILE": {any: true}, "DRONE_HOME": {any: true},
		"DRONE_WORKSPACE": {any: true}, "PATH": {any: true}, "PWD": {any: true},
		"USER": {any: true, maybe: true}, "OLDPWD": {any: true, maybe: true}, "SHLVL": {any: true, maybe: true},
		"_": {any: true, maybe: true}, "TMPDIR": {any: true, maybe: true}, "DOCKER_HOST": {any: true, maybe: true},
		"GIT_TERMINAL_PROMPT": is(0), "GIT_AUTHOR_NAME": name, "GIT_AUTHOR_EMAIL": email,
		"GIT_COMMITTER_NAME": name, "GIT_COMMITTER_EMAIL": email,
		"CC_CI_BUILD": {any: true, maybe: true}, // ours: marks the build's processes
		"LITERAL":     is("a literal"), "CC_CI_E2E_MARK": is(mark(e.runner)),
	}
}

// event is what depends on the kind of event.
func (e expected) event() map[string]rule {
	table := map[string]rule{}
	switch e.build.Event {
	case "pull_request":
		table["DRONE_PULL_REQUEST"] = is(1)
		table["DRONE_PULL_REQUEST_TITLE"] = is("Add a feature")
	case "tag":
		version := map[string]string{
			"": "1.2.3-rc.1+build.5", "_MAJOR": "1", "_MINOR": "2", "_PATCH": "3", "_PRERELEASE": "rc.1", "_BUILD": "build.5", "_SHORT": "1.2.3",
		}
		for suffix, value := range version {
			table["DRONE_SEMVER"+suffix] = is(value)
		}
		table["DRONE_SEMVER_ERROR"] = rule{any: true, maybe: true}
		table["DRONE_TAG"] = is("v1.2.3-rc.1+build.5")
		for _, suffix := range strings.Fields("_MAJOR_MINOR _MAJOR _MINOR _MICRO _MODIFIER _SHORT") {
			table["DRONE_CALVER"+suffix] = rule{any: true, maybe: true}
		}
		table["DRONE_CALVER"] = rule{any: true, maybe: true}
	case "custom":
		table["RECIPE"] = is("word press")
		table["GIT_BRANCH"] = is("kept")
		table["LD_PRELOAD"] = rule{none: true}
	}
	return table
}
