// Package runtime takes one stage from the server's offer to its final report.
//
// A Runner polls with as many slots as its capacity. Each slot walks a stage through the same rooms: journal the
// intent, accept, watch for a cancel, read the details, prepare the Spec, register the steps, set the engine up, run
// the step graph, tear down, report. Nothing of a stage is reported final before its teardown is done.
//
// cmd/cc-ci-runner makes a Runner for the daemon, and a Local for `exec`, and hands in the parts: client, engine, the
// function that turns YAML into a Spec. So nothing here reads the environment, parses YAML or knows Docker.
//
// Every stage that was accepted is reported final: by this process, or by the next one on the same state directory; it
// is given up only when the server has refused that for days. A stage is run once at most: what a crash cut short ends
// with an error and is not begun anew. A cancel is noticed at once where a watch is open, and else within half a minute
// of a server that answers. Every goroutine ends before Run returns.
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
//	config.go, server.go   what a Runner is made of, and what it wants of the engine and of the server
//	limits.go, peers.go    whose stages may run, and which of them wait for another to be torn down
//	env.go, frame.go       what is laid over a step's environment, and what is added to its log
//	status.go, hooks.go    what metrics and pages are told
//	timing.go              every wait, and why it is as long as it is
package runtime
