// Package logs carries the output of one step to the server: bytes are masked, cut into numbered lines, spooled to
// disk, shown live and uploaded whole when the step has ended.
//
//	step -> Log.Write -> Writer (masks) -> splitter (lines) -> spool (disk)  -> Sink.Upload, once, at Close
//	                                                        -> live (memory) -> Sink.Batch, once a second
//
// Nothing after the masking ever sees a secret: neither the disk nor the server. The server is never waited for
// while a step writes: what cannot be sent live is left out there and is still in the upload. Memory is bounded
// whatever a step writes and however long the server is away. What a process that was killed left on disk is
// uploaded by the next one (Resume); at most the last second of output, which nobody had seen, is lost with it.
//
// Masking is by known values, so it helps against accidents: a step that means to show a secret can spell it in a
// way that no list of encodings contains.
//
// Start reading at log.go, which puts the parts together; console.go is the same for a runner without a server. The
// masking is masker.go (which forms of a value are looked for: forms.go), automaton.go (how they are found in one pass)
// and writer.go (how that is done over a stream); spool.go writes what spoolread.go and resume.go read. Package runtime
// makes one Masker a stage and one Log a step.
package logs
