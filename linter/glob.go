package linter

import "git.autonomic.zone/recipe-maintainers/cc-ci/engine/resource"

// checkGlobs refuses patterns that would take long to compare: braces multiply. The matcher of the old runner took ten
// times as long for each further group of braces, so that a pull request of one line could keep a core busy for days;
// the limits are package resource's, which explains them. It is an error, not a warning: it must stop a build before
// anything is compared.
func checkGlobs(c *check) {
	work := 0
	for _, p := range patterns(c.pipeline) {
		ways := resource.PatternAlternatives(p.Value)
		work += ways * len(p.Value)
		switch {
		case len(p.Value) > resource.MaxPattern:
			c.report(p.Pos, "the pattern has %d bytes, more than %d", len(p.Value), resource.MaxPattern)
		case ways > resource.MaxAlternatives:
			c.report(p.Pos, "the pattern's braces can be read in more than %d ways: write a list instead", resource.MaxAlternatives)
		// Once for the pipeline: each further pattern would be at fault as well.
		case work > resource.MaxPatternWork:
			c.report(p.Pos, "the pipeline's patterns are too many to compare: remove some")
			return
		}
	}
}

// patterns are those that this runner compares, in the file's order of steps; the server compares the trigger's,
// before any runner hears of the build.
func patterns(p *resource.Pipeline) []resource.String {
	var list []resource.String
	for _, s := range p.Steps {
		for _, named := range s.When.Named() {
			list = append(list, named.Condition.Include...)
			list = append(list, named.Condition.Exclude...)
		}
	}
	return list
}
