// Package resource reads the YAML of `kind: pipeline, type: exec` and of the documents beside it.
//
// Nothing in a file can make it panic, run away or read past a limit: Parse refuses what is too large, too deep or
// too often aliased before it looks at the meaning. What it accepts it accepts as the old runner did: scalars of any
// type where a string is wanted, a string or a list or {include, exclude} in conditions, anchors and merge keys.
//
// Problems that leave a readable pipeline (a null step, an unknown key) are kept with the pipeline, each with its
// line and column; package linter decides what they mean.
//
// resource.go has the types, parse.go the way from bytes to them, guard.go the limits, decoder.go how values are read,
// pipeline.go the keys there are; condition.go reads and evaluates `when`. Who calls Parse: engine/compiler for a build,
// after variables were substituted, and `cc-ci-runner lint` for a file as it is written. Parse keeps no state.
package resource
