// Package remote is a runner in a process of its own, both ends of it: [Serve]
// is the runner, [Open] is how an agent finds and uses it.
//
// The agent can then be killed, restarted or replaced by another version without
// touching a job: its processes are the runner's children, which keeps their
// timeouts and limits, sees how they end, and writes that down before it
// tells anybody. The next agent is told of all that runs, and of all that has
// ended and was not forgotten since. What the agent has not forgotten in a moment,
// since it is not there or could not put it on its own disk, the runner syncs to disk.
//
// They meet on a unix socket in a directory that only their user can enter, and a
// [Guest] if the agent is another user; the kernel says who has connected. Which
// of several agents counts is told by its life, a count of the starts in its data
// directory: when the runner has told a new one what there is, no start that a
// former one asked for is under way, so what was not told was not started by
// this runner.
//
// The runner may die too, by a SIGKILL or for want of memory. Then the exit codes
// of its children are lost to everybody: nobody but a parent is told them, so
// there is no taking them over. The next runner finds them in its journal, ends
// what is left of them, and says that they were interrupted. The agent starts that
// runner at once.
//
// It starts no process itself but through package runner, decides nothing about
// attempts, and never reads their output.
package remote

import "time"

// Revisions of the protocol that both ends here speak.
const (
	minRevision = 1
	maxRevision = 3
	// leaseRevision is the first one in which a runner watches leases.
	leaseRevision = 2
	// startsRevision is the first one in which starts, and what is told of attempts, share
	// messages.
	startsRevision = 3
)

const (
	// maxMessage bounds a message, in bytes. A task comes from a gateway with
	// 1 MiB at most.
	maxMessage = 16 << 20
	// maxShared bounds what shares a message, in bytes, and maxTold how many attempts are
	// told in one.
	maxShared = 256 << 10
	maxTold   = 128
	// window is how much may be under way before the other end has read it, in bytes.
	// It is fixed, or each message would be followed by a question of how fast the
	// line is.
	window = 1 << 20
	// streamWorkers are the goroutines that serve calls again and again: in a new one the
	// stack grows for each.
	streamWorkers = 16
	// crewSize is how many goroutines are kept that have started an attempt, and how many that
	// have followed one: as many as several hundred starts a second keep busy.
	crewSize = 128
	// IdleExit is how long a runner that an agent has started stays without
	// an agent and without attempts that run.
	IdleExit = 5 * time.Minute
	// overtime is what a process gets beyond its grace to be gone after KILL.
	overtime = 15 * time.Second
	// noteAfter is how long an attempt runs before its start is put on record, and how
	// long an agent has to forget one that has ended before its end is synced to disk:
	// of what is over soon nothing is left that a crash of the host could take.
	noteAfter = 200 * time.Millisecond
	// forgetWithin is how long an agent gathers what its runner may forget. It is well below
	// noteAfter, so that of what is over soon nothing is synced there.
	forgetWithin = 50 * time.Millisecond
	// farewell is how long an agent gets to hear the last words of a runner.
	farewell = 5 * time.Second
	// An agent asks its runner how it is after each checkEvery. One that has not answered
	// within checkWithin, or is not there for as long, is in trouble.
	checkEvery  = 5 * time.Second
	checkWithin = 10 * time.Second
	// hungAfter is how long the journal may take before the disk counts as hung.
	hungAfter = 10 * time.Second
	// noteAgain is how often it is tried to put on record what could not be.
	noteAgain = 5 * time.Second
	// answerWithin is how long an agent waits for the first word of a runner that
	// has taken its connection.
	answerWithin = 20 * time.Second
	// startWithin is how long a runner may take to be there.
	startWithin = 30 * time.Second
	// An agent looks for its runner after lookLeast, and then less and less
	// often, down to every lookMost.
	lookLeast = 5 * time.Millisecond
	lookMost  = time.Second
)

// Files in the directory of a runner.
const (
	lockFile    = "lock"
	socketFile  = "socket"
	journalFile = "journal"
)
