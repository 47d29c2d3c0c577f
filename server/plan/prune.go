package plan

import (
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

// Retention bounds what the state keeps of the past, which is what each primary has in
// memory: the history, on disk, has the rest. A run that has not ended is always kept.
type Retention struct {
	RunsPerJob int           // finished runs kept of each job; as many again that never ran
	Runs       int           // finished runs kept in all
	RunAge     time.Duration // how long a finished run is kept
	// LostAge is how long one is kept, beyond the bounds above, whose worker has not
	// said how it ended: its result may still come, late.
	LostAge time.Duration
	// MostRuns is how many finished runs are kept when the history can't take them.
	// More are forgotten although they are nowhere else: a full memory would end
	// the scheduling, too.
	MostRuns  int
	LedgerAge time.Duration // how long the ledger is kept
}

// DefaultRetention is what a primary keeps when it isn't told otherwise.
var DefaultRetention = Retention{
	RunsPerJob: 100,
	Runs:       20_000,
	RunAge:     24 * time.Hour,
	LostAge:    30 * 24 * time.Hour,
	MostRuns:   200_000,
	LedgerAge:  400 * 24 * time.Hour,
}

const (
	// maxPrune bounds the runs that one command forgets.
	maxPrune = 1000

	// linger is how long each run is kept after its end, at least: who reads page
	// after page, of the state first and then of the history, finds it in one of
	// them.
	linger = time.Minute
)

// Prune returns the commands that forget the runs which are older or more than is to be
// kept. held is up to when the history has all that ended; what ended later stays. young
// tells whether there are such runs that have only ended too lately to be forgotten.
func Prune(s *state.State, keep Retention, held, now time.Time) (cmds []state.Prune, young bool) {
	var gone []state.RunID
	type kind struct {
		uid uint64
		ran bool // what was skipped or missed must not drive out what ran
	}
	perJob := map[kind]int{}
	kept := 0
	for r := range s.RunsBefore(0) { // the newest first
		if !r.Phase.Final() {
			continue
		}
		age := now.Sub(r.Finished)
		k, crowded := kind{r.UID, len(r.Attempts) > 0}, kept >= keep.Runs
		if !crowded { // else it is over anyway, as are all that are older
			perJob[k]++
		}
		kept++
		over := crowded || age > keep.RunAge || perJob[k] > keep.RunsPerJob
		may := over && r.Finished.Before(held) && (age > keep.LostAge || !awaited(r))
		if may && age > linger || kept > keep.MostRuns {
			gone = append(gone, r.ID)
			kept--
			if !crowded {
				perJob[k]--
			}
		} else if may {
			young = true
		}
	}
	for len(gone) > 0 {
		n := min(len(gone), maxPrune)
		cmds = append(cmds, state.Prune{Runs: gone[:n]})
		gone = gone[n:]
	}
	return cmds, young
}

// PruneLedger returns the command that forgets the ledger which is older than is to be
// kept.
func PruneLedger(keep Retention, now time.Time) state.Command {
	return state.Prune{LedgerBefore: now.Add(-keep.LedgerAge)}
}

// awaited tells whether a worker has not said how an attempt of a run ended.
func awaited(r *state.Run) bool {
	for i := range r.Attempts {
		if !r.Attempts[i].Reported() {
			return true
		}
	}
	return false
}
