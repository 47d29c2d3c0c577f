package plan

import (
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

// Retention bounds what is kept of the past. A run that has not ended is always
// kept.
type Retention struct {
	RunsPerJob int           // finished runs kept of each job; as many again that never ran
	Runs       int           // finished runs kept in all
	RunAge     time.Duration // how long a finished run is kept
	LedgerAge  time.Duration // how long the ledger is kept
}

// DefaultRetention is what a primary keeps when it isn't told otherwise.
var DefaultRetention = Retention{
	RunsPerJob: 1000,
	Runs:       200_000,
	RunAge:     90 * 24 * time.Hour,
	LedgerAge:  400 * 24 * time.Hour,
}

// maxPrune bounds the runs that one command forgets.
const maxPrune = 1000

// Prune returns the commands that forget what is older or more than is to be
// kept.
func Prune(s *state.State, keep Retention, now time.Time) []state.Command {
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
		k := kind{r.UID, len(r.Attempts) > 0}
		perJob[k]++
		kept++
		if perJob[k] > keep.RunsPerJob || kept > keep.Runs || now.Sub(r.Finished) > keep.RunAge {
			gone = append(gone, r.ID)
			kept--
		}
	}
	cmds := []state.Command{state.Prune{LedgerBefore: now.Add(-keep.LedgerAge)}}
	for len(gone) > 0 {
		n := min(len(gone), maxPrune)
		cmds = append(cmds, state.Prune{Runs: gone[:n]})
		gone = gone[n:]
	}
	return cmds
}
