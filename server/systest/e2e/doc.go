// Package e2e tests the programs as their operators run them: real processes of
// schedd and schedagent, on loopback, that are killed, stopped and fed bad
// input. It holds tests only, behind the build tag e2e; "make e2e" builds the
// programs and runs them.
//
// It never looks inside: what it knows of a primary and a worker it knows from
// the API, from exit codes, from what they print, and from what the processes of
// jobs leave behind. How the parts behave over simulated days is the business of
// the package above.
//
// Nothing here sleeps, and no test passes or fails by how fast something was. A
// test waits for what has to happen, and gives up after a time that only a
// broken program takes.
package e2e
