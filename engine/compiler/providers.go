package compiler

import (
	"context"
	"fmt"
	"time"

	"github.com/drone/drone-go/drone"
	plugin "github.com/drone/drone-go/plugin/secret"
	"github.com/drone/runner-go/manifest"
	"github.com/drone/runner-go/secret"
)

// Secrets looks a secret up where the old runner did, in its order: what the server sent, what the file holds
// encrypted, the external provider (nil for none). The first that is not empty counts. Each withholds by a rule of its own:
// what the server sent is checked for pull requests once more, what is encrypted in the file is kept from forks of public
// repositories.
func Secrets(sent []*drone.Secret, external secret.Provider) secret.Provider {
	providers := []secret.Provider{secret.Static(present(sent)), secret.Encrypted()}
	if external != nil {
		providers = append(providers, external)
	}
	return secret.Combine(providers...)
}

// present leaves out the nulls of a list: the library follows every pointer that it is given.
func present(list []*drone.Secret) []*drone.Secret {
	var kept []*drone.Secret
	for _, s := range list {
		if s != nil {
			kept = append(kept, s)
		}
	}
	return kept
}

// externalTimeout bounds one question to the external provider.
const externalTimeout = time.Minute

// External asks the secret extension at an endpoint for the secrets that a file names with `get`. A secret that the
// extension does not release to pull requests is withheld from them; runner-go's own client of it leaves that out, which
// is why this one exists. The protocol is a signed POST (drone-go's plugin/secret).
func External(endpoint, token string, skipVerify bool) secret.Provider {
	return external{plugin.Client(endpoint, token, skipVerify)}
}

type external struct {
	client plugin.Plugin
}

// Find implements secret.Provider.
func (e external) Find(ctx context.Context, in *secret.Request) (*drone.Secret, error) {
	for _, r := range in.Conf.Resources {
		s, ok := r.(*manifest.Secret)
		if !ok || s.Name != in.Name || s.Get.Name == "" && s.Get.Path == "" {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, externalTimeout)
		defer cancel()
		found, err := e.client.Find(ctx, &plugin.Request{
			Name: s.Get.Name, Path: s.Get.Path, Repo: *in.Repo, Build: *in.Build,
		})
		if err != nil {
			return nil, fmt.Errorf("ask the external secret provider: %w", err)
		}
		// The library answers a provider that knows nothing (204) with an empty secret.
		if found == nil || found.Data == "" || !found.Pull && in.Build.Event == drone.EventPullRequest {
			return nil, nil
		}
		return &drone.Secret{Name: in.Name, Data: found.Data, PullRequest: found.Pull}, nil
	}
	return nil, nil
}
