package plan

import (
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

// An attempt of a job with a kill_after goes on only with leases, so that it has ended
// before the leader gives it up and another is made. The argument, in real time:
//
//  1. A lease answers a ping of the worker. The leader hears that ping, and only then
//     has a majority agree on an entry of its term. Whoever leads a later term was
//     elected by a majority, one of which had agreed to that entry before it voted: so
//     the later term began after the ping was sent.
//  2. A leader gives a lease only of an attempt that the state, with that entry
//     applied, has as the live one of that worker, over the session that counts.
//  3. A leader gives an attempt up no sooner than lost_after after it began to do
//     without the worker: since the session that counts ended, or since the worker
//     said in it that it has no such attempt. From then on it gives no lease of it,
//     unless the worker is back with the attempt. And no sooner than lost_after after
//     its term began.
//  4. So whoever gives it up does so more than lost_after after the last ping was sent
//     that a lease of it has answered, whichever leader gave that lease.
//  5. The worker ends the attempt when kill_after is over since that ping was sent, by
//     a clock that counts a suspend, and kills it kill_grace later.
//
// What lies between the two is [LeastLostAfter]: the two times are measured by two
// clocks, and to see the end of a lease and to kill takes a moment.

const (
	// leaseDrift is the part of what the worker's clock measures, kill_after and then
	// kill_grace, by which the leader's may be ahead meanwhile: a tenth. chrony, when it
	// has a large error to mend, has a clock run fast or slow by up to 8.3 %; ntpd and
	// the crystal by less than 0.1 %.
	leaseDrift = 10
	// leaseSlack is what it may take to notice that a lease is over, and for a process
	// to be gone after SIGKILL.
	leaseSlack = 5 * time.Second
)

// LeastLostAfter is the shortest lost_after with which the attempts of a job that has
// kill_after and kill_grace have ended before they are given up.
func LeastLostAfter(killAfter, killGrace time.Duration) time.Duration {
	d := killAfter + killGrace
	return d + d/leaseDrift + leaseSlack
}

// Leases returns for which attempts a worker is to have a lease, of those that it asks
// for by their fences: those that need one and are the worker's. has is false of an
// attempt that the worker has said it does not have.
func Leases(s *state.State, w state.WorkerID, fences []uint64, has func(*state.Attempt) bool) []uint64 {
	asked := make(map[uint64]bool, len(fences))
	for _, f := range fences {
		asked[f] = true
	}
	var given []uint64
	for _, r := range s.RunsOn(w) {
		live := r.Live()
		if r.Definition.Policy.KillAfter > 0 && asked[live.Fence] && has(live) {
			given = append(given, live.Fence)
		}
	}
	return given
}

// checkAbsent says what to do about a run whose worker has said since a moment that it
// does not have it, though its process was seen to run, or may run with a lease. With a
// kill_after that is not enough to give it up: who had a lease of it may be a twin of who
// says so.
func checkAbsent(r *state.Run, since, now time.Time) Look {
	p := r.Definition.Policy
	if deadline := since.Add(p.LostAfter); p.KillAfter > 0 && now.Before(deadline) {
		return Look{Next: deadline}
	}
	return Look{Command: forgotten(r, now)}
}
