package proxy

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/ledger"
)

// build labels the image and leaves no container of a failed step behind: those carry no label.
func build(c *call) error {
	if c.p.Policy == Keep {
		return c.forward(nil)
	}
	labels := map[string]string{}
	if text := c.query.Get("labels"); text != "" {
		if err := json.Unmarshal([]byte(text), &labels); err != nil {
			return &invalid{http.StatusBadRequest, "the labels of the build cannot be read: " + err.Error()}
		}
	}
	for k := range labels {
		if strings.HasPrefix(k, LabelPrefix) {
			delete(labels, k)
		}
	}
	labels[LabelBuild] = c.p.Build
	data, err := json.Marshal(labels)
	if err != nil {
		return err
	}
	c.query.Set("labels", string(data))
	// A step's container has no label, so none may stay.
	c.query.Set("rm", "1")
	c.query.Set("forcerm", "1")
	if c.own() {
		// The daemon fetches as root, with the host's keys and on the host's network.
		if remote := c.query.Get("remote"); remote != "" && remote != "client-session" {
			return &Refusal{"remote-source", "a build must not let the daemon fetch " + remote + " with the host's rights; fetch it in a step", varPolicy}
		}
		if c.query.Get("cgroupparent") != "" {
			return &Refusal{"cgroup-parent", "a build must not choose a container's control group", varPolicy}
		}
		if err := c.p.useNetwork(c.ctx(), c.query.Get("networkmode")); err != nil {
			return err
		}
	}
	for _, tag := range c.query["t"] {
		if err := c.claimTag(tag, ""); err != nil {
			return err
		}
	}
	return c.forward(nil)
}

// change is the Dockerfile line that labels a committed or imported image. One label is enough: each is a layer.
func (c *call) change() string {
	return "LABEL " + strconv.Quote(LabelBuild) + "=" + strconv.Quote(c.p.Build)
}

// commit labels an image made from a container.
func commit(c *call) error {
	if c.p.Policy == Keep {
		return c.forward(nil)
	}
	f, err := c.p.need(c.ctx(), container, c.query.Get("container"))
	if err != nil {
		return err
	}
	c.query.Set("container", f.id)
	c.query["changes"] = append(c.query["changes"], c.change())
	if err := c.claimTag(join(c.query.Get("repo"), c.query.Get("tag")), ""); err != nil {
		return err
	}
	return c.forward(nil)
}

// createImage labels an imported image; a pulled one is only written down, unless it was there before.
func createImage(c *call) error {
	if c.p.Policy == Keep {
		return c.forward(nil)
	}
	if source := c.query.Get("fromSrc"); source != "" {
		if c.own() && source != "-" {
			return &Refusal{"remote-source", "a build must not let the daemon fetch " + source + " with the host's rights; fetch it in a step", varPolicy}
		}
		c.query["changes"] = append(c.query["changes"], c.change())
		if err := c.claimTag(join(c.query.Get("repo"), c.query.Get("tag")), ""); err != nil {
			return err
		}
		return c.forward(nil)
	}
	// An image that was there before is not the build's to remove.
	ref := join(c.query.Get("fromImage"), c.query.Get("tag"))
	_, err := c.p.look(c.ctx(), image, ref)
	if absent(err) {
		err = c.p.Ledger.Add(ledger.Entry{Kind: string(image), Name: ref, Note: "pulled"})
	}
	if err != nil {
		return err
	}
	return c.forward(nil)
}

// join makes a reference from a repository and a tag or digest.
func join(repo, tag string) string {
	switch {
	case repo == "" || tag == "":
		return repo
	case strings.Contains(tag, ":"):
		return repo + "@" + tag
	}
	return repo + ":" + tag
}

// tagged is the short and whole form of a reference: with the tag it stands for, without the default registry.
func tagged(ref string) string {
	ref = strings.TrimPrefix(strings.TrimPrefix(ref, "docker.io/"), "library/")
	if strings.Contains(ref, "@") || strings.Contains(ref[strings.LastIndex(ref, "/")+1:], ":") {
		return ref
	}
	return ref + ":latest"
}

// claimTag writes down that the build gives an image a name, and refuses names that images of others have.
// The id is that of an image which is not the build's own: it tells later whether the name still is.
func (c *call) claimTag(ref, id string) error {
	if ref == "" {
		return nil
	}
	ref = tagged(ref)
	if !c.p.Ledger.Knows(string(image), ref) {
		f, err := c.p.look(c.ctx(), image, ref)
		if err != nil && !absent(err) {
			return err
		}
		if err == nil && !c.p.mine(image, f) {
			return refuseUnless(!c.own(), "own-objects", "the image "+ref+" is not this build's to replace")
		}
	}
	return c.p.Ledger.Add(ledger.Entry{Kind: string(image), Name: ref, ID: id, Note: "tag"})
}

// tagImage gives an image another name.
func tagImage(c *call) error {
	if c.p.Policy == Keep {
		return c.forward(nil)
	}
	source, err := c.p.look(c.ctx(), image, c.args[0])
	if err != nil {
		return err
	}
	if err := c.claimTag(join(c.query.Get("repo"), c.query.Get("tag")), source.id); err != nil {
		return err
	}
	return c.forward(nil)
}

// removeImage removes images that the build made, and names that it gave.
func removeImage(c *call) error {
	if c.own() && !c.p.Ledger.Knows(string(image), tagged(c.args[0])) {
		if _, err := c.p.need(c.ctx(), image, c.args[0]); err != nil {
			return err
		}
	}
	return c.forward(nil)
}

// loadImages takes saved images, but none whose name stands for an image of somebody else.
func loadImages(c *call) error {
	if !c.own() {
		return c.forward(nil)
	}
	return c.guarded(&imageNames{c: c, sums: map[string]string{}, texts: map[string]*bytes.Buffer{}})
}
