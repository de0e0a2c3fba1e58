package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// oldVariables are what drone-runner-exec 1.0.0-beta.10 reads, and what its documentation says that it reads.
const oldVariables = `
DRONE_DEBUG DRONE_TRACE
DRONE_LOG_FILE DRONE_LOG_FILE_MAX_AGE DRONE_LOG_FILE_MAX_BACKUPS DRONE_LOG_FILE_MAX_SIZE
DRONE_RPC_PROTO DRONE_RPC_HOST DRONE_RPC_SECRET DRONE_RPC_SKIP_VERIFY DRONE_RPC_DUMP_HTTP DRONE_RPC_DUMP_HTTP_BODY
DRONE_PLATFORM_OS DRONE_PLATFORM_ARCH DRONE_PLATFORM_KERNEL DRONE_PLATFORM_VARIANT
DRONE_UI_DISABLE DRONE_UI_USERNAME DRONE_UI_PASSWORD DRONE_UI_REALM
DRONE_HTTP_BIND DRONE_HTTP_PROTO DRONE_HTTP_HOST DRONE_ACME_EMAIL DRONE_ACME_ENABLED
DRONE_RUNNER_NAME DRONE_RUNNER_CAPACITY DRONE_RUNNER_MAX_PROCS DRONE_RUNNER_LABELS DRONE_RUNNER_ENVIRON DRONE_RUNNER_ENVFILE
DRONE_RUNNER_PATH DRONE_RUNNER_ROOT DRONE_RUNNER_SYMLINKS
DRONE_LIMIT_REPOS DRONE_LIMIT_EVENTS DRONE_LIMIT_TRUSTED
DRONE_SECRET_PLUGIN_ENDPOINT DRONE_SECRET_PLUGIN_TOKEN DRONE_SECRET_PLUGIN_SKIP_VERIFY
DRONE_ENV_PLUGIN_ENDPOINT DRONE_ENV_PLUGIN_TOKEN DRONE_ENV_PLUGIN_SKIP_VERIFY`

// TestMigrationNamesEveryVariable: whoever comes from drone-runner-exec finds each of its variables in the table, once, and
// the table promises none that this runner does not read.
func TestMigrationNamesEveryVariable(t *testing.T) {
	text, err := os.ReadFile("../../docs/migrating-from-drone-runner-exec.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "| Variable | What changes |")
	table, _, ended := strings.Cut(table, "\n\n")
	if !found || !ended {
		t.Fatal("the table is not there")
	}
	rows := map[string]int{}
	name := regexp.MustCompile("`(DRONE_[A-Z_]+)`")
	for row := range strings.Lines(table) {
		column, _, _ := strings.Cut(strings.TrimPrefix(row, "|"), "|")
		for _, match := range name.FindAllStringSubmatch(column, -1) {
			rows[match[1]]++
		}
	}
	old, known := strings.Fields(oldVariables), variableNames()
	for _, variable := range old {
		if rows[variable] != 1 {
			t.Errorf("%s is in %d rows of the table, want 1", variable, rows[variable])
		}
	}
	for variable := range rows {
		if !slices.Contains(old, variable) {
			t.Errorf("the table has %s, which drone-runner-exec does not know", variable)
		}
		if _, reads := known[variable]; !reads {
			t.Errorf("the table promises %s, which this runner does not read", variable)
		}
	}
}
