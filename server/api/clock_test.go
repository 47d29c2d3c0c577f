package api

import (
	"testing"
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

// A clock that was a day ahead for a moment, and is right again, does not keep
// a new job from running today: nothing of it has been decided.
func TestNewJobAfterAClockThatWasAheadRunsToday(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		p.store.ahead = 24 * time.Hour
		p.store.apply(state.InitCluster{ClusterID: "x"}) // any entry
		p.store.ahead = 0
		j := p.put(aJob("j"))
		if in := time.Until(j.GetNextTime().AsTime()); in > 2*time.Minute {
			t.Errorf("a job that is due each minute comes next in %v", in)
		}
	})
}
