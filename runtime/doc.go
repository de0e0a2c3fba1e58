// Package runtime takes one stage from the server's offer to its final report.
//
// A Runner polls with as many slots as its capacity. Each slot walks a stage through the same rooms: journal the
// intent, accept, watch for a cancel, read the details, prepare the Spec, register the steps, set the engine up, run
// the step graph, tear down, report. Nothing of a stage is reported final before its teardown is done.
//
// The walk is in stage.go, the step graph in graph.go, what the server is told in report.go, how a cancel is noticed in
// guard.go, and what survives a crash of the runner in journal.go and recover.go.
package runtime
