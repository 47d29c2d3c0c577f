// Package slack lets the timers of a process that runs for long come late together.
//
// Go's runtime has a thread of its own that looks again and again whether another one hangs
// in a system call, each 20 µs while there is work. By what Linux allows a timer otherwise,
// that is each 70: a timer to arm, an interrupt, and a processor that is taken from whoever
// works on it, each of which costs more where the processor is a virtual one. With [Late] for
// all of them it looks no more than once in that time, and what else is due comes with it.
//
// It is for programs that wait for disks and networks, and whose shortest promise is a second.
package slack

import "time"

// Late is by how much each timer of such a process may be late, beyond what was asked for.
// While there is work, a thread that hangs in a system call keeps its share of the processors
// from those who have some for up to twice that.
const Late = time.Millisecond

// usual is by how much Linux lets a timer be late of whoever asked for nothing else
// (PR_SET_TIMERSLACK(2const)).
const usual = 50 * time.Microsecond
