package compiler

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/drone/drone-go/drone"
)

// FuzzPrepare: whatever the file, the ref and a parameter are, Prepare refuses or makes a Spec that stays in its
// directory.
func FuzzPrepare(f *testing.F) {
	f.Add(pipeline("- {name: a, commands: [\"echo ${DRONE_BRANCH}\"]}\n"), "refs/heads/main", "x")
	f.Add("kind: pipeline\ntype: exec\nworkspace: {path: a}\nsteps: [{name: a, depends_on: [clone], shell: bash}]\n", "refs/pull/1/head", "a\nb")
	f.Add("kind: pipeline\ntype: exec\nsteps: [{name: a, when: {ref: \"{a,b}*\"}, environment: {X: {from_secret: y}}}]\n", "refs/tags/v1", "${P}")
	f.Add("a: &a [*a]\n--- \n<<: {kind: pipeline}\n", "", "")
	f.Add("steps: ${P//a/${P:0:-1}}", "refs/heads/a;b", "aaa")
	f.Fuzz(func(t *testing.T, config, ref, param string) {
		in := sample(config)
		in.Build.Ref, in.Build.Target = ref, strings.TrimPrefix(ref, "refs/heads/")
		in.Build.Params = map[string]string{"P": param}
		in.Build.Event = drone.EventPullRequest
		spec, err := Prepare(t.Context(), in)
		if err != nil {
			return
		}
		for _, step := range spec.Steps {
			for _, file := range step.Files {
				if dir := filepath.Dir(file.Path); dir != spec.Scripts && dir != spec.Home {
					t.Errorf("writes %s", file.Path)
				}
			}
			if !strings.HasPrefix(step.Dir, spec.Root+"/") || step.Name == "" {
				t.Errorf("step %q runs in %s", step.Name, step.Dir)
			}
		}
	})
}
