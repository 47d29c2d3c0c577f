package raftstore

import (
	"runtime"
	"testing"
	"testing/synctest"
	"weak"

	"github.com/schedd/schedd/raftstore/state"
)

// Entries that are kept in memory for others do not keep what applying them has returned.
func TestRecentEntriesKeepNoAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const entries = 20
		s := alone(t, NewMemory())
		var answers []weak.Pointer[state.Worker]
		for i := range entries { // each takes the place of the one before
			answers = append(answers, weak.Make(propose(t, s, largeWorker(i, 1000))[0].Worker))
		}
		runtime.GC()
		kept := 0
		for _, a := range answers {
			if a.Value() != nil {
				kept++
			}
		}
		if kept > entries/2 { // the latest are on somebody's stack
			t.Errorf("%d answers of %d are still in memory, want those of the latest few", kept, entries)
		}
	})
}
