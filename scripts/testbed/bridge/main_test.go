package bridge_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"code.gitea.io/sdk/gitea"

	"git.autonomic.zone/recipe-maintainers/cc-ci/scripts/testbed"
)

// world is what every test shares: the servers, the accounts, the CI repository and the bridge's program.
type world struct {
	bed     *testbed.Bed
	program string
	ci      testbed.Repo
	hand    *hand
	relay   *relay
	token   string // the bot's at Drone

	maint *testbed.User // owns the organisation "recipes" and the CI repository
	bot   *testbed.User
	wim   *testbed.User // writes
	rita  *testbed.User // reads
	tina  *testbed.User // in a team that writes code
	odo   *testbed.User // owns the organisation too
	stan  *testbed.User // a stranger
	fred  *testbed.User // owns the forks
}

// pipelines are the CI repository's branches, by what becomes of a build.
func pipelines() map[string]string {
	const good = "kind: pipeline\ntype: exec\nname: test\ntrigger: {event: [custom]}\nsteps:\n" +
		"- name: run\n  commands: ['test \"$(printf %s \"$REF\" | wc -c)\" = 40', 'test -z \"$FAIL\"']\n"
	return map[string]string{
		"main": good,
		"null": "kind: pipeline\ntype: exec\nname: test\ntrigger: {event: [push]}\nsteps:\n- name: run\n  commands: ['true']\n",
		"real": "kind: pipeline\ntype: exec\nname: test\nnode: {bed: real}\nclone: {disable: true}\ntrigger: {event: [custom]}\nsteps:\n" +
			"- name: fetch\n  commands: ['git init -q', 'git fetch -q \"$SRC\" \"$REF\"', 'test \"$(git rev-parse FETCH_HEAD)\" = \"$REF\"', 'git checkout -q FETCH_HEAD']\n" +
			"- name: check\n  commands: ['test ! -e bad']\n",
		"yaml": "kind: pipeline\ntype: exec\nname: test\nsteps: {nonsense\n",
	}
}

// the is set by TestMain before any test runs and not changed afterwards.
var the *world

func TestMain(m *testing.M) {
	flag.Parse()
	// The tests wait more than they work.
	if err := flag.Set("test.parallel", "16"); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	relay := &relay{}
	server := httptest.NewServer(relay)
	defer server.Close()
	bed, err := testbed.Start(ctx, testbed.Options{Log: os.Stderr, DroneEnv: map[string]string{
		"DRONE_WEBHOOK_ENDPOINT": server.URL + "/drone", "DRONE_WEBHOOK_SECRET": droneSecret}})
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, bed.Stop(context.WithoutCancel(ctx))) }()
	the = &world{bed: bed, relay: relay}
	if err := the.settle(ctx); err != nil {
		return 1, err
	}
	the.hand = startHand(bed)
	defer the.hand.stop()
	return m.Run(), nil
}

// droneSecret signs Drone's webhook.
const droneSecret = "e2e-drone-secret-canary-0123456789abcdef"

// relay is where Drone sends its webhook: to the bridge that asks for it, if any does.
type relay struct {
	mu  sync.Mutex
	url string
}

// to makes the relay pass hooks on to a bridge; an empty address drops them.
func (r *relay) to(url string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.url = url
}

// ServeHTTP passes a hook on as it came.
func (r *relay) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	target := r.url
	r.mu.Unlock()
	u, err := url.Parse(target)
	if err != nil || target == "" {
		return
	}
	httputil.NewSingleHostReverseProxy(u).ServeHTTP(w, req)
}

// settle makes accounts and the CI repository.
func (w *world) settle(ctx context.Context) (err error) {
	for name, user := range map[string]**testbed.User{"maint": &w.maint, "bot": &w.bot, "wim": &w.wim, "rita": &w.rita,
		"tina": &w.tina, "odo": &w.odo, "stan": &w.stan, "fred": &w.fred} {
		if *user, err = w.bed.Gitea.NewUser(ctx, name); err != nil {
			return err
		}
	}
	if err := w.maint.NewOrg(ctx, "recipes"); err != nil {
		return err
	}
	if err := w.teams(ctx); err != nil {
		return err
	}
	if w.ci, err = w.maint.NewRepo(ctx, testbed.RepoSpec{Name: "ci", Files: map[string]string{"README": "ci"}}); err != nil {
		return err
	}
	// Branches start from main, so the one without a pipeline comes first.
	if _, err := w.maint.Push(ctx, w.ci, testbed.Commit{Branch: "missing", Message: "no pipeline"}); err != nil {
		return err
	}
	for branch, text := range pipelines() {
		files := map[string]string{".drone.yml": text}
		if _, err := w.maint.Push(ctx, w.ci, testbed.Commit{Branch: branch, Message: branch, Files: files}); err != nil {
			return err
		}
	}
	if err := w.maint.AddCollaborator(ctx, w.ci, w.bot, gitea.AccessModeWrite); err != nil {
		return err
	}
	if err := w.bed.Drone.Activate(ctx, w.maint, w.ci, testbed.Settings{Timeout: 5}); err != nil {
		return err
	}
	if w.token, err = w.bed.Drone.Login(ctx, w.bot); err != nil {
		return err
	}
	if _, err := w.bed.Drone.Client(ctx, w.token).RepoListSync(); err != nil {
		return fmt.Errorf("let Drone read the bot's repositories: %w", err)
	}
	w.program, err = w.bed.BuildProduct(ctx, "cc-ci-bridge")
	return err
}

// teams makes tina a writer of code by team, odo an owner, and the bot a member who can ask who is in a team.
func (w *world) teams(ctx context.Context) error {
	err := w.maint.NewTeam(ctx, testbed.Team{Org: "recipes", Name: "coders", Access: gitea.AccessModeWrite,
		Members: []*testbed.User{w.tina, w.bot}})
	if err != nil {
		return err
	}
	client, err := w.maint.Client(ctx)
	if err != nil {
		return err
	}
	teams, _, err := client.ListOrgTeams("recipes", gitea.ListTeamsOptions{})
	if err != nil {
		return err
	}
	for _, team := range teams {
		if team.Name == "Owners" {
			_, err := client.AddTeamMember(team.ID, w.odo.Name)
			return err
		}
	}
	return errors.New("organisation without owners")
}
