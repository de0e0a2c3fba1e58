package proxy

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"git.autonomic.zone/recipe-maintainers/cc-ci/engine/swarm/ledger"
)

// buildQuery are the parameters of a build. The judged ones are looked at below; the limits among the others concern the
// build's own steps.
const buildQuery = `dockerfile t extrahosts remote q nocache cachefrom pull rm forcerm memory memswap cpushares cpusetcpus
	cpusetmems cpuperiod cpuquota buildargs shmsize squash labels networkmode platform target outputs version session
	buildid isolation ulimits cgroupparent`

// build labels the image and leaves no container of a failed step behind: those carry no label. The build context, an
// archive, passes as it is: the builder unpacks it into a directory of its own. What a Dockerfile may do is the daemon's
// to confine; it has no way to privileges or to the host's files.
func build(c *call) error {
	c.bodied = true
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
	labels[LabelImage] = c.p.Build
	data, err := json.Marshal(labels)
	if err != nil {
		return err
	}
	c.query.Set("labels", string(data))
	// A step's container has no label, so none may stay. Clients ask to keep them with rm=0.
	c.query.Set("rm", "1")
	c.query.Set("forcerm", "1")
	if c.own() {
		if err := c.judgeBuild(); err != nil {
			return err
		}
	}
	// Before the build: the daemon gives the names at its end, when nothing could be refused.
	for _, tag := range c.query["t"] {
		if err := c.claimTag(tag, ""); err != nil {
			return err
		}
	}
	return c.forward(nil)
}

// judgeBuild refuses what would reach beyond the build's files and networks, under the policy Own.
func (c *call) judgeBuild() error {
	for name := range c.query {
		if !slices.Contains(strings.Fields(buildQuery), name) {
			return unknownOption(name)
		}
	}
	// The daemon fetches as root, with the host's keys and on the host's network.
	if remote := c.query.Get("remote"); remote != "" && remote != "client-session" {
		return remoteSource(remote)
	}
	// As for containers, see judgeHostField.
	if c.query.Get("cgroupparent") != "" {
		return &Refusal{"cgroup-parent", "a build must not choose a container's control group", varPolicy}
	}
	// Outputs are BuildKit's; the classic builder knows none.
	var outputs []struct {
		Type  string
		Attrs map[string]string
	}
	if text := c.query.Get("outputs"); text != "" {
		if err := json.Unmarshal([]byte(text), &outputs); err != nil {
			return &invalid{http.StatusBadRequest, "the outputs of the build cannot be read: " + err.Error()}
		}
	}
	for _, o := range outputs {
		// The two go to the client. The others can give an image any name, past the look at -t.
		if !slices.Contains([]string{"local", "tar", "cacheonly"}, o.Type) && len(o.Attrs) > 0 {
			return &Refusal{"unknown-option", "a build must not choose the output " + o.Type + "; name the image with -t", varPolicy}
		}
	}
	mode := c.query.Get("networkmode")
	id, err := c.p.useNetwork(c.ctx(), mode)
	if id != mode {
		c.query.Set("networkmode", id)
	}
	return err
}

// remoteSource refuses a source that the daemon would have to fetch: from its place it reaches what steps cannot.
func remoteSource(source string) error {
	return &Refusal{"remote-source", "a build must not let the daemon fetch " + source + " with the host's rights; fetch it in a step", varPolicy}
}

// labelChange appends the Dockerfile line that labels a committed or imported image. What a container's label says of
// it is not said of those that run from its image, so the line also empties LabelBuild, which a commit would inherit.
// It comes last and nothing may swallow it: a change that ends in an escape character would.
func (c *call) labelChange() error {
	changes := c.query["changes"]
	for _, change := range changes {
		if trimmed := strings.TrimRight(change, " \t\r\n"); strings.HasSuffix(trimmed, "\\") || strings.HasSuffix(trimmed, "`") {
			return &invalid{http.StatusBadRequest, "a change to the image must not go on in the next line: " + change}
		}
	}
	// Quoted, so that neither a name nor a build can add words to the line.
	c.query["changes"] = append(changes, "LABEL "+strconv.Quote(LabelImage)+"="+strconv.Quote(c.p.Build)+" "+strconv.Quote(LabelBuild)+`=""`)
	return c.claimTag(join(c.query.Get("repo"), c.query.Get("tag")), "")
}

// commit labels an image made from a container. Its body is a container's configuration for the image to have; there it
// has no effect on the host, so that only reserved labels have to go.
func commit(c *call) error {
	if c.p.Policy == Keep {
		return c.forward(nil)
	}
	f, err := c.p.need(c.ctx(), container, c.query.Get("container"))
	if err != nil {
		return err
	}
	c.query.Set("container", f.id)
	if err := c.labelChange(); err != nil {
		return err
	}
	body, err := c.body()
	if err != nil {
		return err
	}
	if err := body.label(nil); err != nil { // only drops the reserved ones
		return err
	}
	return c.send(body, nil)
}

// createImage pulls or imports an image. An imported one is labelled; a pulled one is only written down, unless it was
// there before. Pulled images stay at the build's end, as the host's cache; the entry lets the build remove or replace
// the image's name itself.
func createImage(c *call) error {
	c.bodied = true
	ref := join(c.query.Get("fromImage"), c.query.Get("tag"))
	if c.p.Policy == Keep {
		return c.forward(nil)
	}
	if ref == "" { // the daemon pulls where both are given
		// A dash stands for the body; anything else is an address.
		if source := c.query.Get("fromSrc"); c.own() && source != "-" {
			return remoteSource(source)
		}
		if err := c.labelChange(); err != nil {
			return err
		}
		return c.forward(nil)
	}
	// An image that was there before is not the build's to remove.
	_, err := c.p.look(c.ctx(), image, ref)
	if absent(err) {
		// Newer clients send docker.io/library/busybox for busybox (moby, client/image_pull.go).
		err = c.p.Ledger.Add(ledger.Entry{Kind: string(image), Name: tagged(ref), Note: "pulled"})
	}
	if err != nil {
		return err
	}
	return c.forward(nil)
}

// join makes a reference from a repository and a tag or digest. Only a digest has a colon (sha256:...).
func join(repo, tag string) string {
	switch {
	case repo == "" || tag == "":
		return repo
	case strings.Contains(tag, ":"):
		return repo + "@" + tag
	}
	return repo + ":" + tag
}

// tagged is the short and whole form of a reference: with the tag it stands for, without the default registry. Events
// and RepoTags use it, and older clients; so one name has one spelling in the ledger.
func tagged(ref string) string {
	ref = strings.TrimPrefix(strings.TrimPrefix(ref, "docker.io/"), "library/")
	if strings.Contains(ref, "@") || strings.Contains(ref[strings.LastIndex(ref, "/")+1:], ":") {
		return ref
	}
	return ref + ":latest"
}

// claimTag writes down that the build gives an image a name, and refuses names that images of others have: the next who
// runs an image by that name would run the build's. The id is that of an image which is not the build's own: it tells
// later whether the name still is. It is empty for images that carry the build's label.
func (c *call) claimTag(ref, id string) error {
	if ref == "" {
		return nil
	}
	ref = tagged(ref)
	f, err := c.p.look(c.ctx(), image, ref)
	// A name that cannot be one is refused here, by the daemon's own words.
	if err != nil && !absent(err) {
		return err
	}
	if err == nil && c.own() && !c.p.mayReplace(ref, f) {
		return &Refusal{"own-objects", "the image " + ref + " is not this build's to replace", varPolicy}
	}
	return c.p.Ledger.Add(ledger.Entry{Kind: string(image), Name: ref, ID: id, Note: "tag"})
}

// mayReplace says whether the build may take a name away from the image that has it, by a build, a load, a tag or a
// removal: one that it made, pulled or
// named. A name in the ledger alone is no proof: the build may have asked for it first, and another one made the image.
func (p *Proxy) mayReplace(ref string, f found) bool {
	return p.mine(image, f) || (f.pulled || f.labels[LabelImage] == "") && p.Ledger.Knows(string(image), ref)
}

// tagImage gives an image another name. Any image may be the source, as any may be read.
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

// removeImage removes images that the build made, and names that it gave. The path keeps the reference: a name in place
// of the id removes that name only.
func removeImage(c *call) error {
	if c.own() {
		f, err := c.p.look(c.ctx(), image, c.args[0])
		if err != nil {
			return err
		}
		if !c.p.mayReplace(tagged(c.args[0]), f) {
			return &Refusal{"own-objects", "this build did not make the image " + c.args[0], varPolicy}
		}
	}
	return c.forward(nil)
}

// loadImages takes saved images, but none whose name stands for an image of somebody else. They get no label, as their
// content and so their ids would change: like pulled ones they stay.
func loadImages(c *call) error {
	if !c.own() {
		return c.forward(nil)
	}
	return c.guarded(&imageNames{c: c, sums: map[string]string{}, texts: map[string]*bytes.Buffer{}})
}
