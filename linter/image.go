package linter

// checkImage refuses images: steps run on the host. The sentence begins as the old runner's did, which people search
// for.
func checkImage(c *check) {
	for _, s := range c.pipeline.Steps {
		if s.Image.Value != "" {
			c.report(s.Image.Pos, "cannot define images for an exec pipeline: steps run on the host")
		}
	}
}
