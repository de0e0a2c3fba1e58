package swarm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/leftover"
	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/ledger"
)

// removeEnvFiles removes the env files of the apps that the build deployed: without them abra no longer lists the
// apps. Only files of domains that match the configured pattern are touched.
func (s *Swarm) removeEnvFiles(build string) ([]leftover.Item, error) {
	_, entries, err := ledger.Read(s.cfg.LedgerDir, build)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var out []leftover.Item
	for _, e := range entries {
		if e.Kind != "stack" || !s.appStack(e.Name) {
			continue
		}
		for _, dir := range s.cfg.EnvDirs {
			path := filepath.Join(dir, filepath.Base(domain(e.Name))+".env")
			rmErr := os.Remove(path)
			if rmErr == nil {
				out = append(out, leftover.Item{Kind: "file", Name: path, Detail: "the app's env file"})
			} else if !errors.Is(rmErr, os.ErrNotExist) {
				err = errors.Join(err, fmt.Errorf("remove an app's env file: %w", rmErr))
			}
		}
	}
	return out, err
}
