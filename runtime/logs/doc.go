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
package logs
