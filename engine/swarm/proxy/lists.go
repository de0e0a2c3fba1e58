package proxy

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/moby/moby/client"
)

// list narrows a list to the build's own objects by one more label filter. The daemon then does the work, and an answer
// is not held in memory.
func list(c *call) error {
	if c.own() {
		if err := c.addLabelFilter(LabelBuild); err != nil {
			return err
		}
	}
	return c.forward(nil)
}

// prune narrows a prune to the build's own objects, whether the policy is enforced or not: `docker system prune` in
// one build must not hit another.
func prune(c *call) error { return pruneBy(c, LabelBuild) }

// pruneImages is prune for images, which have a label of their own. Pulled ones have none and so are never pruned.
func pruneImages(c *call) error { return pruneBy(c, LabelImage) }

func pruneBy(c *call, label string) error {
	if c.p.Policy != Keep {
		if err := c.addLabelFilter(label); err != nil {
			return err
		}
	}
	return c.forward(nil)
}

// pruneBuild answers that the build has no build cache of its own: the builder's cache is everybody's and has no
// labels.
func pruneBuild(c *call) error {
	if c.p.Policy == Keep {
		return c.forward(nil)
	}
	c.w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(c.w).Encode(map[string]any{"CachesDeleted": []string{}, "SpaceReclaimed": 0})
}

// addLabelFilter adds the build's label to the call's filters (the parameter filters: a JSON object of terms, each with a
// set of values). The daemon wants all label filters to match, so what
// the client filters by can only narrow it further. The Swarm's lists are the exception: of two values of one label
// they take either, so the client's own word on the build's label does not go through.
func (c *call) addLabelFilter(label string) error {
	own := label + "=" + c.p.Build
	filters := client.Filters{}
	if text := c.query.Get("filters"); text != "" {
		terms := map[string]json.RawMessage{}
		if err := json.Unmarshal([]byte(text), &terms); err != nil {
			return &invalid{http.StatusBadRequest, "the filters of the call cannot be read: " + err.Error()}
		}
		for term, raw := range terms {
			values, err := filterValues(raw)
			if err != nil {
				return err
			}
			for _, v := range values {
				name, _, _ := strings.Cut(v, "=")
				switch {
				case term != "label" || name != label:
					filters.Add(term, v)
				case v != label && v != own && c.own():
					return &Refusal{"own-objects", "a build must not ask for what other builds made", varPolicy}
				}
			}
		}
	}
	filters.Add("label", own)
	data, err := json.Marshal(filters)
	if err != nil {
		return err
	}
	c.query.Set("filters", string(data))
	return nil
}

// filterValues reads both forms of a filter term: {"a":true} and ["a"]. The second is what clients before API 1.22 send,
// and daemons still take it.
func filterValues(raw json.RawMessage) ([]string, error) {
	var values []string
	if json.Unmarshal(raw, &values) == nil {
		return values, nil
	}
	set := map[string]bool{}
	if err := json.Unmarshal(raw, &set); err != nil {
		return nil, &invalid{http.StatusBadRequest, "the filters of the call cannot be read: " + err.Error()}
	}
	for v, on := range set {
		if on {
			values = append(values, v)
		}
	}
	return values, nil
}

// raw is a JSON object of an answer: what is not asked for keeps its value to the byte. Keys are compared as the daemon
// spells them, for it is not the daemon that would cheat.
type raw map[string]json.RawMessage

// str reads a string field.
func (r raw) str(name string) string {
	var s string
	// A field of another type is not what is looked for, and reads as empty.
	_ = json.Unmarshal(r[name], &s)
	return s
}

// labels reads the Labels field.
func (r raw) labels() map[string]string {
	m := map[string]string{}
	// As above.
	_ = json.Unmarshal(r["Labels"], &m)
	return m
}

// keep keeps the elements of an array in an answer that the function accepts. One that is absent or null stays so.
func (r raw) keep(name string, accept func(raw) bool) error {
	var items []raw
	if len(r[name]) == 0 {
		return nil
	}
	if err := json.Unmarshal(r[name], &items); err != nil || items == nil {
		return err
	}
	data, err := json.Marshal(slices.DeleteFunc(items, func(i raw) bool { return !accept(i) }))
	r[name] = data
	return err
}

// keepItems is keep for the Items of an object, the newer form of /system/df.
func (r raw) keepItems(name string, accept func(raw) bool) error {
	inner := raw{}
	if len(r[name]) == 0 {
		return nil
	}
	if err := json.Unmarshal(r[name], &inner); err != nil {
		return err
	}
	if err := inner.keep("Items", accept); err != nil {
		return err
	}
	data, err := json.Marshal(inner)
	r[name] = data
	return err
}

// ownVolume says whether a listed volume is the build's: by its label, or as an anonymous one by the ledger.
func (p *Proxy) ownVolume(v raw) bool {
	return p.mine(volume, found{id: v.str("Name"), labels: v.labels()})
}

// edit forwards a call whose answer is narrowed to what the build may see. The answer is held in memory meanwhile.
func edit[T any](c *call, narrow func(T) (T, error)) error {
	if !c.own() {
		return c.forward(nil)
	}
	return c.forward(func(resp *http.Response) error {
		if resp.StatusCode != http.StatusOK {
			return nil
		}
		var answer T
		if err := readAnswer(resp, &answer); err != nil {
			return err
		}
		answer, err := narrow(answer)
		if err != nil {
			return err
		}
		return writeAnswer(resp, answer)
	})
}

// listVolumes keeps the build's volumes. A filter would lose the anonymous ones, which carry no label. The client's own
// filters apply as ever.
func listVolumes(c *call) error {
	return edit(c, func(answer raw) (raw, error) { return answer, answer.keep("Volumes", c.p.ownVolume) })
}

// listNetworks keeps the build's networks, the allowed ones and those that every daemon has. A label filter would lose
// the latter, and docker-compose wants to see a network that it is told to use. Who sits on a shared one is left out.
func listNetworks(c *call) error {
	return edit(c, func(items []raw) ([]raw, error) {
		out := []raw{}
		for _, n := range items {
			own := c.p.labelled(n.labels())
			if !own {
				n["Containers"] = json.RawMessage("{}")
			}
			if own || c.p.sharedNetwork(n.str("Name")) {
				out = append(out, n)
			}
		}
		return out, nil
	})
}

// diskUsage keeps the build's own containers and volumes; images and the build cache are everybody's. Newer daemons
// put each list into an object; what neither form knows is left out.
func diskUsage(c *call) error {
	return edit(c, func(answer raw) (raw, error) {
		for name := range answer {
			switch name {
			case "LayersSize", "BuilderSize", "Images", "ImageUsage", "BuildCache", "BuildCacheUsage", "Volumes", "Containers":
			case "VolumeUsage", "ContainerUsage":
			default:
				delete(answer, name)
			}
		}
		ownContainer := func(r raw) bool { return c.p.labelled(r.labels()) }
		return answer, errors.Join(answer.keep("Volumes", c.p.ownVolume), answer.keep("Containers", ownContainer),
			answer.keepItems("VolumeUsage", c.p.ownVolume), answer.keepItems("ContainerUsage", ownContainer))
	})
}
