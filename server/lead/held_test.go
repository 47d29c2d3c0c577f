package lead

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/plan"
)

// pauseBefore has somebody pause the job just before an instant, by his clock.
func (p *primary) pauseBefore(at time.Time) {
	p.t.Helper()
	at = at.Add(-time.Millisecond)
	var cmds []state.Command
	var err error
	p.store.View(func(s *state.State) { cmds, err = plan.Settle(s, jobKey, plan.DefaultBounds, at) })
	if err != nil {
		p.t.Fatal(err)
	}
	p.propose(append(cmds, state.PauseJob{Key: jobKey, Effective: at})...)
}

// What comes due is given to the worker that has just come, before an older run of its job,
// which waits in another line. The job is paused before that is agreed, so it never comes.
// The older run goes at once, and does not wait for the end of one that never was.
func TestRunThatWaitsForOneThatNeverCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Second)
		defer p.close()
		queues := func(how state.Strategy) func(*state.Definition) {
			return func(d *state.Definition) { d.Policy.Overlap, d.Target.Strategy = state.OverlapQueue, how }
		}
		other := state.JobKey{Namespace: "default", Name: "other"}
		p.defineAs(other, queues(state.PreferFirst))
		p.define(queues(state.Spread))
		minute := time.Now().Truncate(time.Minute).Add(time.Minute)
		p.requestRun(other, "x")
		p.requestRun(jobKey, "x")
		p.define(queues(state.PreferFirst)) // what comes from here on is in the line of other
		waits := p.runs()[1]
		if waits.Job != jobKey || waits.Phase != state.Pending {
			t.Fatalf("%+v, want a run that waits", waits)
		}

		// The leader is held up while the worker comes and the minute is over, and does both
		// at once then.
		time.Sleep(time.Until(minute.Add(-2 * time.Second)))
		p.slow.Store(int64(5 * time.Second))
		p.hand.connect()
		time.Sleep(time.Until(minute.Add(5 * time.Second)))
		p.pauseBefore(minute)
		p.slow.Store(0)
		time.Sleep(20 * time.Second)
		if r := p.runs()[1]; r.ID != waits.ID || r.Phase != state.Succeeded {
			t.Errorf("the run that waited is %v because %q, want it to have succeeded", r.Phase, r.Reason)
		}
		for _, r := range p.runs() {
			if r.Job == jobKey && r.ID != waits.ID {
				t.Errorf("there is %+v, which was to be refused", r)
			}
		}
	})
}
