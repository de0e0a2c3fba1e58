package resource

import (
	"errors"
	"path"
	"strings"
)

// The directories of a build, below its root.
const (
	HomeDir    = "home/drone"
	SourceDir  = "drone/src"
	ScriptsDir = "opt"
	TmpDir     = "tmp"
)

// WorkspaceDir is the working directory of the steps below the build's root for a `workspace.path`. An absolute path
// counts from the root too, so that the docker runner's usual /drone/src means the same as none.
func WorkspaceDir(workspace string) (string, error) {
	if workspace == "" {
		return SourceDir, nil
	}
	if strings.ContainsAny(workspace, "\x00\n\r") {
		return "", errors.New("holds a control character")
	}
	// Even where a `..` would stay inside, it is refused: symbolic links decide where it leads.
	for part := range strings.SplitSeq(workspace, "/") {
		if part == ".." {
			return "", errors.New("leaves the build's directory: remove the `..`")
		}
	}
	dir := strings.TrimPrefix(path.Clean("/"+workspace), "/")
	// None of the build's own directories may be the workspace or lie in it, and nothing may lie among the scripts.
	// A workspace inside of the home directory is common (GOPATH) and does no harm.
	for _, own := range []string{HomeDir, ScriptsDir, TmpDir} {
		if dir == "" || dir == own || strings.HasPrefix(own, dir+"/") || own == ScriptsDir && strings.HasPrefix(dir, own+"/") {
			return "", errors.New("is a directory that the build needs itself: choose another")
		}
	}
	return dir, nil
}
