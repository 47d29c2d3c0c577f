// Package systest tells stories about all of schedd in one process: a primary,
// workers with processes that only take time, and people who use the public API,
// over real gRPC, in a bubble of testing/synctest. A day takes seconds there, a
// primary can be killed in the middle of a write, and at the end of each story
// the promises are held against what happened.
//
// It holds tests only and exports nothing. It starts no real process and opens
// no socket; what needs these is tested in e2e.
package systest
