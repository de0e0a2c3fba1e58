// Package compiler turns a pipeline and a build into the Spec of a stage.
//
// Prepare is the one way from a configuration file to a Spec: the daemon, `exec` and `compile` all use it. It guards,
// substitutes variables, parses, picks the stage's pipeline, lints and compiles. It reads no file, no environment and
// no clock of its own; a secret may be fetched by the provider that is handed in.
package compiler
