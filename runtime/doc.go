// Package runtime takes one stage from the server's offer to its final report.
//
// A Runner polls with as many slots as its capacity. Each slot walks a stage through the same rooms: journal the
// intent, accept, watch for a cancel, read the details, prepare the Spec, register the steps, set the engine up, run
// the step graph, tear down, report. Nothing of a stage is reported final before its teardown is done.
//
// Where to find what:
//
//	runner.go, accept.go   slots, polling, drain and stop
//	stage.go, step.go      the walk of a stage, and what the server is told of a step while it runs
//	build.go, graph.go     the part of it that needs no server: the steps in their order, timeout, teardown, result
//	local.go               that part alone, for a pipeline without a server
//	guard.go               how a cancel is noticed
//	report.go, ending.go   what the server is told, under which version, and for how long it is tried
//	journal.go, state.go   what survives a crash of the runner, and how a stage stands
//	recover.go, outbox.go  what is done with it after a restart, and with what the server did not take
package runtime
