package resource

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// parsePipeline reads a document. It always returns a pipeline; what it could not read is among the faults.
func parsePipeline(root *yaml.Node) *Pipeline {
	p := &Pipeline{Pos: posOf(root)}
	d := new(decoder)
	d.mapping(root, section{name: InPipeline, fields: fields{
		"version": nil, "kind": nil, "type": nil,
		"name": d.str(&p.Name),
		// These decide when and where a stage runs. The server has done so by now; the linter looks for typing errors.
		"depends_on": d.strs(&p.DependsOn),
		"node":       nil,
		"platform": d.sub(section{name: InPlatform, fields: fields{
			"os": nil, "arch": nil, "variant": nil, "version": nil,
		}}),
		"concurrency": d.sub(section{name: InConcurrency, fields: fields{"limit": nil}}),
		"trigger":     d.conditions(InTrigger, &p.Trigger),
		"workspace":   d.sub(section{name: InWorkspace, fields: fields{"path": d.str(&p.Workspace)}}),
		"clone": d.sub(section{name: InClone, fields: fields{
			"disable":     d.flag(&p.Clone.Disable),
			"depth":       d.number(&p.Clone.Depth),
			"retries":     d.number(&p.Clone.Retries),
			"tags":        d.flag(&p.Clone.Tags),
			"skip_verify": d.flag(&p.Clone.SkipVerify),
			"trace":       d.flag(&p.Clone.Trace),
		}}),
		"steps": d.steps(&p.Steps),
	}})
	p.Faults, p.Unknown = d.faults, d.unknown
	return p
}

// steps stores a list of steps, and never a nil one.
func (d *decoder) steps(to *[]*Step) setter {
	return func(n *yaml.Node) {
		if n.Kind != yaml.SequenceNode {
			d.fault(FaultType, n, "expected a list of steps, found %s", kindName(n))
			return
		}
		for _, item := range n.Content {
			if isNull(follow(item)) {
				d.fault(FaultNull, item, "the step is empty: give it a `name` and `commands`, or remove it")
				continue
			}
			*to = append(*to, d.step(follow(item)))
		}
	}
}

// step reads one step. An image is read only so that it can be refused with its place.
func (d *decoder) step(n *yaml.Node) *Step {
	s := &Step{Pos: posOf(n)}
	d.mapping(n, section{name: InStep, fields: fields{
		"name":        d.str(&s.Name),
		"commands":    d.strs(&s.Commands),
		"environment": d.environment(&s.Environment),
		"depends_on":  d.strs(&s.DependsOn),
		"detach":      d.flag(&s.Detach),
		"failure":     d.str(&s.Failure),
		"shell":       d.str(&s.Shell),
		"image":       d.str(&s.Image),
		"when":        d.conditions(InWhen, &s.When),
	}})
	return s
}

// environment stores the variables of a step in the file's order.
func (d *decoder) environment(to *[]Variable) setter {
	return func(n *yaml.Node) {
		for _, p := range d.pairs(n) {
			v := Variable{Name: String{p.key.Value, posOf(p.key)}}
			switch {
			// At a null in here the old runner crashed, with all of its builds.
			case isNull(p.value):
				// Empty or forgotten? A build with the wrong one of the two is harder to find than this line.
				d.fault(FaultNull, p.key, "the variable %s has no value: write %s: \"\" for an empty one", p.key.Value, p.key.Value)
				continue
			case p.value.Kind == yaml.ScalarNode:
				v.Value = p.value.Value
			case p.value.Kind == yaml.MappingNode:
				d.mapping(p.value, section{name: InVariable, fields: fields{
					"from_secret": d.str(&v.Secret),
					"value":       text(&v.Value),
				}})
				if v.Secret.Value = strings.TrimSpace(v.Secret.Value); v.Secret.Value == "" && v.Value == "" {
					d.fault(FaultNull, p.key, "the variable %s names no secret in `from_secret`", p.key.Value)
				}
			default:
				d.fault(FaultType, p.value, "expected text or `from_secret: NAME`, found %s", kindName(p.value))
				continue
			}
			*to = append(*to, v)
		}
	}
}
