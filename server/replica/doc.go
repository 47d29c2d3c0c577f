// Package replica keeps the output of attempts on several primaries alike, so
// that a log survives each of them, whole, and can be read from any other.
//
// The [runlog.Store] of each primary is the truth about what that primary has;
// this package compares such truths and moves bytes. It decides neither which
// runs are remembered nor how long a log is, writes no file of its own, and
// never goes through Raft. It is no consensus: a byte at an offset of an
// attempt's output is what the attempt printed there, whoever sends it and
// however often, so copies can be short but never differ.
//
// # Holders
//
// A log is kept by its [Holders]: all primaries of a group of three, three of
// those of a larger one. What two of them have synced is durable, and its worker
// may forget it; on a primary that is alone, what that one has synced. A primary
// that is no holder and takes output from a worker, or shows it to somebody,
// keeps what it has, which counts for nothing.
//
// # Pushing
//
// The primary that a worker sends to, its gateway, pushes. What it has, beyond what
// another is known to have, is sent by offset and answered with what that one
// has then; so nothing depends on the calls before. In memory there are only the
// keys of the logs that another primary lacks something of, and how far it is;
// bytes are read from the local log. A primary that fails rests, and when it
// answers again it is asked first how far it is, since it may have lost
// something.
//
// # Asking first
//
// A worker may forget what is durable, wherever its next session is. So a gateway
// that sees a log for the first time, or is asked about one, or sees output
// beyond the end of what it has, asks the others before it answers, and pulls
// what they have and it lacks. As many holders must answer as it takes to see at
// least one of any two; as long as they don't, output is refused with
// [ErrUnreachable], and the worker tries again later. All that is asked while an
// answer is under way goes into the next question.
//
// # Repair
//
// Soon after a log was sealed, when the group changes or a primary is back, and
// every ten minutes, its holders compare what they have. Who lacks something pulls it; the first of
// those who lack nothing pushes to those who do. So a primary that begins with an
// empty disk has all its copies back after a while. Until then [Store.Missing] counts
// what it lacks.
package replica
