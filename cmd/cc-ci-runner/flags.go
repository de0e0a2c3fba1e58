package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"time"

	"github.com/drone/drone-go/drone"
	"github.com/joho/godotenv"
)

// stageFlags describe a build for exec and compile as a server would; names and defaults are those of
// drone-runner-exec, but for the last five, which are new. A step sees them as DRONE_* variables, and `when` compares
// with them. Times default to the present.
type stageFlags struct {
	RepoID         int64  `default:"1" help:"Repository: the server's number." group:"Build"`
	RepoNamespace  string `help:"Repository: its owner." group:"Build"`
	RepoName       string `help:"Repository: its name without the owner." group:"Build"`
	RepoSlug       string `help:"Repository: owner/name." group:"Build"`
	RepoHTTP       string `name:"repo-http" help:"Repository: the clone address. Without one there is no clone step." group:"Build"`
	RepoSSH        string `name:"repo-ssh" help:"Repository: the clone address for ssh." group:"Build"`
	RepoLink       string `help:"Repository: its page." group:"Build"`
	RepoBranch     string `help:"Repository: the default branch." group:"Build"`
	RepoPrivate    bool   `negatable:"" help:"Repository: is private." group:"Build"`
	RepoVisibility string `help:"Repository: public, private or internal." group:"Build"`
	RepoTrusted    bool   `negatable:"" help:"Repository: is trusted." group:"Build"`
	RepoProtected  bool   `negatable:"" help:"Repository: is protected." group:"Build"`
	RepoTimeout    int64  `default:"60" help:"Repository: minutes after which the build ends." group:"Build"`
	RepoCreated    int64  `help:"Repository: creation, in Unix seconds (now)." group:"Build"`
	RepoUpdated    int64  `help:"Repository: last change, in Unix seconds (now)." group:"Build"`

	BuildID      int64  `default:"1" help:"Build: the server's id." group:"Build"`
	BuildNumber  int64  `default:"1" help:"Build: its number." group:"Build"`
	BuildParent  int64  `help:"Build: the number of the build that it restarts or promotes." group:"Build"`
	BuildEvent   string `default:"push" help:"Build: the event." group:"Build"`
	BuildAction  string `help:"Build: the event's action." group:"Build"`
	BuildCron    string `help:"Build: the name of the cron job." group:"Build"`
	BuildTarget  string `help:"Build: the target of a promotion." group:"Build"`
	BuildCreated int64  `help:"Build: creation, in Unix seconds (now)." group:"Build"`
	BuildUpdated int64  `help:"Build: last change, in Unix seconds (now)." group:"Build"`

	CommitSender  string `help:"Commit: who pushed." group:"Build"`
	CommitLink    string `help:"Commit: its page." group:"Build"`
	CommitTitle   string `help:"Commit: the title." group:"Build"`
	CommitMessage string `help:"Commit: the message." group:"Build"`
	CommitBefore  string `help:"Commit: the hash before the push." group:"Build"`
	CommitAfter   string `help:"Commit: the hash to build." group:"Build"`
	CommitRef     string `help:"Commit: the git reference." group:"Build"`
	CommitFork    string `help:"Commit: the fork of a pull request." group:"Build"`
	CommitSource  string `help:"Commit: the source branch." group:"Build"`
	CommitTarget  string `help:"Commit: the target branch." group:"Build"`

	AuthorLogin  string `help:"Author: the login." group:"Build"`
	AuthorName   string `help:"Author: the name." group:"Build"`
	AuthorEmail  string `help:"Author: the address." group:"Build"`
	AuthorAvatar string `help:"Author: the picture." group:"Build"`

	StageID      int64  `default:"1" help:"Stage: the server's id." group:"Build"`
	StageNumber  int    `default:"1" help:"Stage: its number." group:"Build"`
	StageKind    string `help:"Stage: the kind." group:"Build"`
	StageType    string `help:"Stage: the type." group:"Build"`
	StageName    string `name:"stage-name" default:"default" help:"Stage: the pipeline's name." group:"Build"`
	StageOS      string `name:"stage-os" help:"Stage: operating system." group:"Build"`
	StageArch    string `help:"Stage: architecture." group:"Build"`
	StageVariant string `help:"Stage: variant of the architecture." group:"Build"`
	StageKernel  string `help:"Stage: kernel." group:"Build"`
	StageCreated int64  `help:"Stage: creation, in Unix seconds (now)." group:"Build"`
	StageUpdated int64  `help:"Stage: last change, in Unix seconds (now)." group:"Build"`

	NetrcUsername string `help:"Clone: the login." group:"Build"`
	NetrcPassword string `help:"Clone: the password." group:"Build"`
	NetrcMachine  string `help:"Clone: the host that login and password are for." group:"Build"`

	SystemHost    string `help:"Server: the host." group:"Build"`
	SystemProto   string `help:"Server: http or https." group:"Build"`
	SystemLink    string `help:"Server: its page." group:"Build"`
	SystemVersion string `help:"Server: its version." group:"Build"`

	Pipeline   string            `help:"The pipeline to run, by name; the same as --stage-name. Not needed where the file has just one."`
	SecretFile string            `type:"existingfile" help:"Secrets, a NAME=value a line."`
	EnvFile    string            `type:"existingfile" help:"Variables for every step, a NAME=value a line."`
	Param      map[string]string `help:"A build parameter; may be repeated." placeholder:"NAME=VALUE"`
	Root       string            `help:"Where the build's directory is made (the directory for temporary files)."`
}

// details is the build that the flags describe, in the server's words: what the answer to GET /rpc/v2/stage/ID would
// hold.
type details struct {
	repo   *drone.Repo
	build  *drone.Build
	stage  *drone.Stage
	system *drone.System
	netrc  *drone.Netrc
}

// details fills in the rest as a server would have it for a stage that has just begun.
func (f *stageFlags) details(now time.Time) details {
	name := f.StageName
	if f.Pipeline != "" {
		name = f.Pipeline
	}
	when := func(seconds int64) int64 {
		if seconds == 0 {
			return now.Unix()
		}
		return seconds
	}
	d := details{
		repo: &drone.Repo{
			ID: f.RepoID, Namespace: f.RepoNamespace, Name: f.RepoName, Slug: f.RepoSlug, HTTPURL: f.RepoHTTP,
			SSHURL: f.RepoSSH, Link: f.RepoLink, Branch: f.RepoBranch, Private: f.RepoPrivate,
			Visibility: f.RepoVisibility, Trusted: f.RepoTrusted, Protected: f.RepoProtected, Timeout: f.RepoTimeout,
			Created: when(f.RepoCreated), Updated: when(f.RepoUpdated),
		},
		build: &drone.Build{
			ID: f.BuildID, Number: f.BuildNumber, Parent: f.BuildParent, Event: f.BuildEvent, Action: f.BuildAction,
			Cron: f.BuildCron, Deploy: f.BuildTarget, Created: when(f.BuildCreated), Updated: when(f.BuildUpdated),
			Status: drone.StatusRunning, Started: now.Unix(),
			Sender: f.CommitSender, Link: f.CommitLink, Title: f.CommitTitle, Message: f.CommitMessage,
			Before: f.CommitBefore, After: f.CommitAfter, Ref: f.CommitRef, Fork: f.CommitFork,
			Source: f.CommitSource, Target: f.CommitTarget, Author: f.AuthorLogin, AuthorName: f.AuthorName,
			AuthorEmail: f.AuthorEmail, AuthorAvatar: f.AuthorAvatar, Params: f.Param,
		},
		stage: &drone.Stage{
			ID: f.StageID, BuildID: f.BuildID, Number: f.StageNumber, Kind: f.StageKind, Type: f.StageType, Name: name,
			OS: f.StageOS, Arch: f.StageArch, Variant: f.StageVariant, Kernel: f.StageKernel,
			Created: when(f.StageCreated), Updated: when(f.StageUpdated), Started: now.Unix(), Status: drone.StatusRunning,
		},
		system: &drone.System{Host: f.SystemHost, Proto: f.SystemProto, Link: f.SystemLink, Version: f.SystemVersion},
	}
	// A clone without credentials has no netrc at all, as when the server sends null.
	if f.NetrcMachine != "" {
		d.netrc = &drone.Netrc{Machine: f.NetrcMachine, Login: f.NetrcUsername, Password: f.NetrcPassword}
	}
	return d
}

// secrets reads the file of --secret-file. They are for pull requests, too: whoever runs exec means them for this very
// build.
func (f *stageFlags) secrets() ([]*drone.Secret, error) {
	vars, err := readEnvFile("--secret-file", f.SecretFile)
	if err != nil {
		return nil, err
	}
	var list []*drone.Secret
	for name, value := range vars {
		list = append(list, &drone.Secret{Name: name, Data: value, PullRequest: true})
	}
	return list, nil
}

// readEnvFile reads NAME=value lines, with the quotes and comments of godotenv. No path is no variables. Its errors
// name flag, a flag or variable, and never quote the file, which may hold secrets. The map is the caller's to change.
func readEnvFile(flag, path string) (map[string]string, error) {
	vars := map[string]string{}
	if path == "" {
		return vars, nil
	}
	read, err := godotenv.Read(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, errNoContent(path, err))
	}
	maps.Copy(vars, read)
	return vars, nil
}

// errNoContent drops the text of parse errors, which quotes the file's lines.
func errNoContent(path string, err error) error {
	var pathError *os.PathError
	if errors.As(err, &pathError) {
		return err
	}
	return fmt.Errorf("%s is not of the form NAME=value, a line each", path)
}
