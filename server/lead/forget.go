package lead

import (
	"time"

	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/plan"
)

// crowdLeast is how many more runs have to have ended, at least, for some to be forgotten
// sooner than [pruneEvery].
const crowdLeast = 1000

// crowdAgain is how soon it is looked again while more runs are in memory than are to be:
// those that ended lately, or are not on disk yet. When nothing ends any more, nothing else
// would have them forgotten before the minute. While the history stands still, as one that
// can't be written, there is nothing to be found.
const crowdAgain = 5 * time.Second

// forget has the state forget the runs that it need not keep. To find them costs by how
// many there are, and so it is done again when there are an eighth more, or after a while:
// as fast as they end, they never are many more than have to be kept.
func (t *term) forget(s *state.State, now time.Time) {
	left, held := numEnded(s), t.History.Held()
	cmds, young := plan.Prune(s, t.Retention, held, t.SureClock())
	for _, c := range cmds {
		left -= len(c.Runs)
		t.propose(c, nil)
	}
	t.crowd, t.prune = crowdAfter(left), now.Add(pruneEvery)
	if left > t.Retention.Runs && (young || held.After(t.held)) {
		t.prune = now.Add(crowdAgain)
	}
	t.held = held
}

// numEnded returns how many runs of the state have ended.
func numEnded(s *state.State) int { return s.NumRuns() - s.NumAllActive() }

// crowdAfter returns with how many runs that have ended some are to be forgotten, when so
// many are left.
func crowdAfter(left int) int { return left + max(left/8, crowdLeast) }
