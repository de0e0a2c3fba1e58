package compiler

import (
	"encoding/json"
	"maps"
	"reflect"
	"strings"
	"testing"
)

func TestLayout(t *testing.T) {
	in := sample(pipeline(oneStep))
	in.Options.Symlinks = map[string]string{"/srv/cache": "cache", "/srv/go": "/home/drone/go"}
	spec := prepared(t, in)
	root := "/var/lib/cc-ci/cc-ci-00000000-21"
	for _, pair := range [][2]string{
		{spec.Root, root}, {spec.Home, root + "/home/drone"}, {spec.Workspace, root + "/drone/src"}, {spec.Scripts, root + "/opt"},
		{spec.Tmp, root + "/tmp"}, {spec.Steps[0].Dir, root + "/drone/src"}, {spec.Build, "cc-ci-00000000-21"}, {spec.Repo, "octo/hello"},
	} {
		equal(t, "path", pair[0], pair[1])
	}
	if want := map[string]string{root + "/cache": "/srv/cache", root + "/home/drone/go": "/srv/go"}; !maps.Equal(spec.Links, want) {
		t.Errorf("links %v", spec.Links)
	}
	if want := map[string]string{"repo": "octo/hello", "number": "7", "stage": "default"}; !maps.Equal(spec.Labels, want) {
		t.Errorf("labels %v", spec.Labels)
	}
}

func TestSymlinksStayBelowTheRoot(t *testing.T) {
	in := sample(pipeline(oneStep))
	for _, target := range []string{"../x", "a/../../x", "", ".", "/.."} {
		in.Options.Symlinks = map[string]string{"/srv": target}
		if got := refusal(t, in); !strings.Contains(got, "symlink /srv:") {
			t.Errorf("%q: %s", target, got)
		}
	}
}

func TestRootIsAbsolute(t *testing.T) {
	in := sample(pipeline(oneStep))
	in.Root = "relative"
	if got := refusal(t, in); !strings.Contains(got, "relative") {
		t.Error(got)
	}
}

func TestWorkspacePath(t *testing.T) {
	for path, want := range map[string]string{"/drone/src": "/drone/src", "go/src/x": "/go/src/x", "/x/": "/x", "home/drone/go/src/a": "/home/drone/go/src/a"} {
		spec := prepared(t, sample("kind: pipeline\ntype: exec\nworkspace: {path: "+path+"}\nsteps:\n"+oneStep))
		for _, step := range spec.Steps {
			if step.Dir != spec.Root+want || step.Env["DRONE_WORKSPACE"] != step.Dir || step.Env["DRONE_HOME"] != step.Dir {
				t.Errorf("%s: %s runs in %s", path, step.Name, step.Dir)
			}
		}
	}
}

func TestPickThePipeline(t *testing.T) {
	named := func(name string) string {
		return "---\nkind: pipeline\ntype: exec\n" + name + "clone: {disable: true}\nsteps: [{name: \"" + name + "\"}]\n"
	}
	file := "kind: pipeline\ntype: docker\nname: default\nsteps: [{name: docker, image: alpine, unknown: {x: [1]}}]\n" +
		named("name: one, ") + "---\nkind: signature\nhmac: 123\n---\n"
	file = strings.ReplaceAll(file, "name: one, clone", "name: one\nclone")
	for stage, want := range map[string]string{"one": "name: one, ", "default": "", "": ""} {
		in := sample(file + named(""))
		in.Stage.Name = stage
		if want == "" {
			// An unnamed pipeline is the server's `default`; its only step has no name, which the linter says.
			if got := refusal(t, in); !strings.Contains(got, "the step has no `name` (step-name)") {
				t.Errorf("%q: %s", stage, got)
			}
			continue
		}
		equal(t, stage, prepared(t, in).Steps[0].Name, want)
	}
	in := sample(file)
	in.Stage.Name = "two"
	equal(t, "missing", refusal(t, in), ".drone.yml:1:1: no exec pipeline is named `two` (there are: one) (pipeline)")
	in.Config = []byte("kind: pipeline\ntype: docker\nname: two\n")
	equal(t, "none", refusal(t, in), ".drone.yml:1:1: no document is of `kind: pipeline, type: exec` (pipeline)")
}

func TestUnknownKeysWarnAndStrictRefuses(t *testing.T) {
	in := sample(pipeline("- name: a\n  comands: [x]\n  when: {brnach: main}\n  settings: {a: b}\n"))
	in.File = "ci/build.yml"
	want := []string{
		"ci/build.yml:7:3: the key `comands` is not known in a `step` and is ignored (`commands` was meant?) (unknown-key)",
		"ci/build.yml:8:10: the key `brnach` is not known in a `when` and is ignored: everything matches (`branch` was meant?) (unknown-key)",
		"ci/build.yml:9:3: `settings` has no effect in an exec pipeline (no-effect)",
	}
	if got := prepared(t, in).Warnings; !reflect.DeepEqual(got, want) {
		t.Errorf("warnings:\n%s", strings.Join(got, "\n"))
	}
	in.Options.Strict = true
	equal(t, "strict", refusal(t, in), strings.Join(want, "\n"))
}

// Nothing but the arguments decides, so two runs of one input give one Spec.
func TestPrepareIsRepeatable(t *testing.T) {
	in := sample(withClone)
	in.Build.Params = map[string]string{"A": "1", "B": "2", "PATH": "x", "IFS": "y"}
	first, err := json.Marshal(prepared(t, in))
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		again, err := json.Marshal(prepared(t, in))
		if err != nil || string(again) != string(first) {
			t.Fatalf("%v\n%s\n%s", err, first, again)
		}
	}
}

func TestPrepareWithoutABuild(t *testing.T) {
	in := Input{Config: []byte(pipeline(oneStep)), Root: "/x"}
	if got := edges(prepared(t, in)); got != "a<" {
		t.Errorf("steps %s", got)
	}
}

func TestNoCloneWhateverThePipelineSays(t *testing.T) {
	in := sample("kind: pipeline\ntype: exec\nsteps: [{name: a, depends_on: [clone]}, {name: b}]\n")
	in.Options.NoClone = true
	in.Repo.HTTPURL, in.Repo.SSHURL = "", ""
	equal(t, "steps", edges(prepared(t, in)), "a< b<")
}
