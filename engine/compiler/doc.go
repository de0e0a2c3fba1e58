// Package compiler turns a pipeline and a build into the Spec of a stage.
//
// Prepare is the one way from a configuration file to a Spec: the daemon, `exec` and `compile` all use it. It guards,
// substitutes variables, parses, picks the stage's pipeline, lints and compiles. It reads no file, no environment and
// no clock of its own; a secret may be fetched by the provider that is handed in.
//
// prepare.go is the way through, compile.go the making of the Spec, in order: layout, environments (environ.go,
// params.go), credentials (netrc.go), the clone (clone.go, refs.go), the steps (script.go), their order (order.go), their
// secrets (secrets.go, providers.go). Everything that comes from a build is taken for hostile: whoever may open a pull
// request or start a build chooses names of branches, titles, parameters and the file itself.
//
// What a step sees (paths, variables, their precedence) is what drone-runner-exec showed it, unless
// docs/compatibility.md says otherwise; names and values of variables come from runner-go's environ.
package compiler
