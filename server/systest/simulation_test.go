package systest

import (
	"cmp"
	"flag"
	"math/rand/v2"
	"testing"
	"time"
)

// long is how long each world of the simulation lives; see make sim.
var long = flag.Duration("long", 0, "let each world of the simulation live for so long")

// moments are when worlds of the simulation begin: on days on which clocks change
// somewhere, at the end of a year, in a leap day, and on days like any other.
var moments = []time.Time{
	time.Date(2000, 2, 28, 21, 0, 0, 0, time.UTC),
	time.Date(2000, 3, 25, 14, 0, 0, 0, time.UTC),
	time.Date(2000, 3, 25, 23, 0, 0, 0, time.UTC),
	time.Date(2000, 4, 2, 5, 0, 0, 0, time.UTC),
	time.Date(2000, 7, 14, 9, 30, 0, 0, time.UTC),
	time.Date(2000, 10, 28, 23, 0, 0, 0, time.UTC),
	time.Date(2000, 12, 31, 22, 0, 0, 0, time.UTC),
}

// simHeartbeat is how long a leader may be silent in the simulation. All that Raft does
// when nothing happens takes a third of the time that it would otherwise, and its
// elections three times as long; those of production are in all other stories.
const simHeartbeat = 3 * time.Second

// TestSimulation lets worlds of all sizes live, in which anything happens. Half an
// hour of one of them is for each change; make sim is for more.
func TestSimulation(t *testing.T) {
	life := cmp.Or(*long, 30*time.Minute)
	seeds(t, 1, func(w *world, dice *rand.Rand) {
		time.Sleep(time.Until(one(dice, moments...)) + upTo(dice, time.Hour))
		w.heartbeat = simHeartbeat
		primaries, workers, direct := one(dice, 3, 3, 3, 5), one(dice, 2, 3, 3, 5, 5, 10, 10, 50), dice.IntN(3)
		c := newGroupChaos(w, dice, primaries, workers, direct, 8)
		c.live(life, life/10)
		c.judge()
		w.Logf("measured: %d primaries, %d workers and %d in direct mode lived for %v: %d runs, %d faults", primaries, workers, direct, life, len(c.final), c.faults())
	})
}
