package systest

import (
	"cmp"
	"flag"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"
)

// long is how long each world of the simulation lives; see make sim.
var long = flag.Duration("long", 0, "let each world of the simulation live for so long")

// moments are what worlds of the simulation are born shortly before, so that they live to see
// it: clocks that change somewhere, a leap day, the end of a year, and nothing in particular.
var moments = []time.Time{
	time.Date(2000, 2, 29, 0, 0, 0, 0, time.UTC),
	time.Date(2000, 3, 25, 15, 0, 0, 0, time.UTC), // Lord Howe Island, by half an hour; Sydney an hour later
	time.Date(2000, 3, 26, 1, 0, 0, 0, time.UTC),  // Europe
	time.Date(2000, 4, 2, 7, 0, 0, 0, time.UTC),   // New York
	time.Date(2000, 7, 14, 9, 30, 0, 0, time.UTC),
	time.Date(2000, 8, 26, 15, 30, 0, 0, time.UTC), // Lord Howe Island; Sydney half an hour later
	time.Date(2000, 10, 29, 1, 0, 0, 0, time.UTC),  // Europe; New York five hours later
	time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC),
}

// simHeartbeat is how long a leader may be silent in the simulation. What Raft says when
// there is nothing to say, which is much of what a world costs, is an eighth of what it is
// in production then, and the beats of PeerLinks are half. Elections take eight times as
// long, and are over well before anything else gives up: a worker's session, or what checks
// that a world has healed. All other stories have all that as it is in production.
const simHeartbeat = 4 * time.Second

// How many primaries and workers a world has. Most are small: what goes wrong among fifty
// workers goes wrong among three as well, most of it, and that costs a fraction.
var (
	groups = []int{3, 3, 3, 3, 5}
	fleets = []int{2, 2, 3, 3, 3, 5, 5, 10, 10, 50}
)

// TestSimulation lets worlds of all sizes live, in which anything happens. Half an
// hour of one of them is for each change; make sim is for more.
func TestSimulation(t *testing.T) {
	life := cmp.Or(*long, 30*time.Minute)
	h := seeds(t, 1, func(w *world, dice *rand.Rand) {
		time.Sleep(time.Until(one(dice, moments...)) - upTo(dice, life))
		w.born = time.Now()
		w.heartbeat = simHeartbeat
		if dice.IntN(6) == 0 {
			w.settings = shortMemory // what has ended is in histories only, soon
		}
		w.older = dice.IntN(4) == 0
		began := cost()
		primaries, workers, direct := one(dice, groups...), one(dice, fleets...), dice.IntN(3)
		c := newGroupChaos(w, dice, primaries, workers, direct, 8)
		c.live(life, life/3)
		c.judge()
		w.Logf("measured: %d primaries, %d workers and %d in direct mode lived for %v: %d runs, %d faults; an hour took %.1f s of a processor",
			primaries, workers, direct, life, len(c.final), c.faults(), (cost()-began).Seconds()/life.Hours())
	})
	t.Cleanup(func() { h.report(t) })
}

// cost is what this process, and so all worlds in it, has taken of processors.
func cost() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // it can't fail for oneself
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
