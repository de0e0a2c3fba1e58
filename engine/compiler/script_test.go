package compiler

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/resource"
)

// runScript writes the script of some commands and runs it as a step would.
func runScript(t *testing.T, shell string, commands ...string) (output string, code int) {
	t.Helper()
	var list []resource.String
	for _, c := range commands {
		list = append(list, resource.String{Value: c})
	}
	path := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(path, script(list), 0o600); err != nil {
		t.Fatal(err)
	}
	args := shellArgs(shell, path)
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Dir, cmd.Env = t.TempDir(), []string{"PATH=" + os.Getenv("PATH"), "WORD=expanded"}
	out, err := cmd.CombinedOutput()
	if _, failed := err.(*exec.ExitError); err != nil && !failed {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func TestScriptPrintsCommandsAndRunsThem(t *testing.T) {
	tests := map[string]struct{ command, output string }{
		"plain":             {"echo hello", "+ echo hello\nhello\n"},
		"variable":          {"echo $WORD ${WORD}", "+ echo $WORD ${WORD}\nexpanded expanded\n"},
		"double quotes":     {`echo "a  b"`, "+ echo \"a  b\"\na  b\n"},
		"single quotes":     {`echo 'a  $WORD' it\'s`, "+ echo 'a  $WORD' it\\'s\na  $WORD it's\n"},
		"percent and slash": {`printf '%s-%%\n' 'a\tb'`, "+ printf '%s-%%\\n' 'a\\tb'\na\\tb-%\n"},
		"two lines":         {"echo a\necho b", "+ echo a\necho b\na\nb\n"},
		"dash":              {"-n 2>/dev/null || echo no", "+ -n 2>/dev/null || echo no\nno\n"},
		"umlaut":            {"echo ä", "+ echo ä\nä\n"},
		"here document":     {"cat <<EOF\nx $WORD\nEOF", "+ cat <<EOF\nx $WORD\nEOF\nx expanded\n"},
		"empty":             {"", "+ \n"},
	}
	for name, test := range tests {
		for _, shell := range []string{"", "sh", "bash"} {
			t.Run(name+"/"+shell, func(t *testing.T) {
				output, code := runScript(t, shell, test.command)
				if output != test.output || code != 0 {
					t.Errorf("code %d, output %q, want %q", code, output, test.output)
				}
			})
		}
	}
}

// The old runner ran what stands in backticks once more to print it.
func TestScriptRunsBackticksOnce(t *testing.T) {
	for _, command := range []string{"echo `echo run >>count` done; cat count", "echo $(echo run >>count) done; cat count"} {
		output, code := runScript(t, "sh", command)
		if want := "+ " + command + "\ndone\nrun\n"; output != want || code != 0 {
			t.Errorf("code %d, output %q, want %q", code, output, want)
		}
	}
}

func TestScriptEndsAtTheFirstFailure(t *testing.T) {
	output, code := runScript(t, "sh", "echo a", "exit_with() { return $1; }; exit_with 3", "echo never")
	if code != 3 || !strings.HasPrefix(output, "+ echo a\na\n+ exit_with()") || strings.Contains(output, "never") {
		t.Errorf("code %d, output %q", code, output)
	}
	if _, code := runScript(t, "sh", "exit 78"); code != 78 {
		t.Errorf("code %d, want 78", code)
	}
}

func TestShellOfStep(t *testing.T) {
	in := sample(pipeline("- {name: a, commands: [x]}\n- {name: b, shell: bash, commands: [x]}\n- {name: c, shell: sh, commands: [x]}\n- {name: d}\n"))
	spec := prepared(t, in)
	for i, want := range []string{"/bin/sh -e", "bash -e", "/bin/sh -e"} {
		args := spec.Steps[i].Commands[0].Args
		if got := strings.Join(args[:2], " "); got != want || args[2] != spec.Steps[i].Files[0].Path {
			t.Errorf("step %d runs %q", i, args)
		}
	}
	if d := spec.Steps[3]; len(d.Commands) != 0 || len(d.Files) != 0 {
		t.Errorf("a step without commands has %+v", d)
	}
}

// On the old runner two steps with the names `build 1` and `build-1` ran one script, and a step `clone` ran in place of
// the clone.
func TestScriptsOfSimilarNamesDiffer(t *testing.T) {
	long := strings.Repeat("ä", 300)
	names := []string{"build 1", "build-1", "Build-1", "../../etc/passwd", "..", "a/b", long, long + "x", "'", "日本", "x\ty"}
	seen := map[string]string{}
	for i, name := range names {
		file := scriptName(i, name)
		if before, twice := seen[file]; twice {
			t.Errorf("%q and %q share %s", before, name, file)
		}
		seen[file] = name
		if len(file) > 60 || filepath.Base(file) != file || strings.ContainsAny(file, " '\t") {
			t.Errorf("%q becomes %q", name, file)
		}
	}
	spec := prepared(t, sample("kind: pipeline\ntype: exec\nclone: {disable: true}\nsteps:\n"+
		"- {name: clone, commands: [echo ONE]}\n- {name: build 1, commands: [echo TWO]}\n- {name: build-1, commands: [echo THREE]}\n"))
	paths := map[string]bool{}
	for i, want := range []string{"echo ONE", "echo TWO", "echo THREE"} {
		file := spec.Steps[i].Files[0]
		if paths[file.Path] || !strings.Contains(string(file.Data), want) || file.Mode != 0o700 {
			t.Errorf("step %d: %s (%o): %q", i, file.Path, file.Mode, file.Data)
		}
		paths[file.Path] = true
	}
}
