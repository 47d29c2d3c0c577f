package lead

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/raftstore/state"
)

// A worker that comes back long after its run's end, with the acknowledgement lost, is
// asked for the log as long as the history has the run, and is left waiting while that
// can't be told.
func TestResultOfRunThatHasLeftTheState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Second)
		time.Sleep(5 * time.Second)
		kept, gone := state.RequestRunID(1, "kept"), state.RequestRunID(1, "gone")
		key := func(id state.RunID) *agentv1.AttemptKey { return &agentv1.AttemptKey{RunId: id.String(), Attempt: 1} }
		p.past.set(func(p *past) {
			p.runs = map[state.RunID]*state.Run{kept: {ID: kept, Phase: state.Succeeded, Attempts: []state.Attempt{{Number: 1, Fence: 7, Worker: "w-1"}}}}
			p.err = errors.New("the disk is broken")
		})
		p.hand.set(func() {
			for _, id := range []state.RunID{kept, gone} {
				p.hand.pending[name(key(id))] = &agentv1.Result{Key: key(id), Fence: 7, Outcome: agentv1.Outcome_OUTCOME_SUCCEEDED}
			}
		})
		p.hand.connect()
		time.Sleep(time.Second)
		p.hand.set(func() {
			if n := len(p.hand.acks); n != 0 {
				t.Errorf("%d results are acknowledged although nobody could know of them", n)
			}
		})
		p.past.set(func(p *past) { p.err = nil })
		p.hand.disconnect()
		p.hand.connect()
		time.Sleep(time.Second)
		p.hand.set(func() {
			if k := name(key(kept)); p.hand.acks[k] != 1 || p.hand.unasked[k] {
				t.Errorf("a run in the history: %d acks, its log unwanted: %v; want one, and wanted", p.hand.acks[k], p.hand.unasked[k])
			}
			if k := name(key(gone)); p.hand.acks[k] != 1 || !p.hand.unasked[k] {
				t.Errorf("a run that is nowhere: %d acks, its log unwanted: %v; want one, and unwanted", p.hand.acks[k], p.hand.unasked[k])
			}
		})
		p.close()
	})
}

// oldResult has the hand tell, as often as it is asked, of an attempt that has ended long ago.
func (h *hand) oldResult(id string) *agentv1.AttemptKey {
	key := &agentv1.AttemptKey{RunId: state.RequestRunID(1, id).String(), Attempt: 1}
	h.set(func() {
		h.pending[name(key)] = &agentv1.Result{Key: key, Fence: 7, Outcome: agentv1.Outcome_OUTCOME_SUCCEEDED}
	})
	return key
}

// wantAcks checks how often a result was acknowledged.
func (h *hand) wantAcks(when string, key *agentv1.AttemptKey, want int) {
	h.t.Helper()
	h.set(func() {
		if n := h.acks[name(key)]; n != want {
			h.t.Errorf("%s the old result is acknowledged %d times, want %d", when, n, want)
		}
	})
}

// The disk of the history hangs while a worker tells an old result, again and again. The
// leader goes on with all else, and can step down. When the disk answers so does the leader.
func TestHistoryHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Second)
		p.define(nil)
		time.Sleep(5 * time.Second)
		hang := make(chan struct{})
		p.past.set(func(p *past) { p.hang = hang })
		old := p.hand.oldResult("old")
		p.hand.connect()
		for range 10 {
			time.Sleep(time.Minute)
			p.hand.tell()
		}
		time.Sleep(5 * time.Second)
		if starts, _, acks, _ := p.hand.counts(); starts != 10 || acks != 10 {
			t.Errorf("in ten minutes %d runs began, and the ends of %d were acknowledged, want 10 of each", starts, acks)
		}

		began := time.Now()
		p.kill() // which waits for the leader to end
		if d := time.Since(began); d > time.Second {
			t.Errorf("it stepped down after %v", d)
		}
		p.start()
		time.Sleep(5 * time.Second)
		p.hand.wantAcks("while the disk hangs", old, 0)
		close(hang)
		time.Sleep(2 * maxSleep)
		p.hand.wantAcks("when it answers", old, 1)
		p.close()
	})
}

// What could not be looked up is tried again before long, though its worker is not asked for
// anything.
func TestOldResultIsLookedUpAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Second)
		time.Sleep(5 * time.Second)
		p.past.set(func(p *past) { p.err = errors.New("the disk is broken") })
		old := p.hand.oldResult("old")
		p.hand.connect()
		time.Sleep(10 * time.Minute)
		p.hand.wantAcks("while the disk is broken", old, 0)
		p.past.set(func(p *past) { p.err = nil })
		time.Sleep(lookAgain + 2*maxSleep)
		p.hand.wantAcks("a while after it was mended", old, 1)
		p.close()
	})
}

// While the history lags, nothing is forgotten, and all that is due once it has come.
func TestNothingIsForgottenBeforeItIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Second)
		p.past.set(func(p *past) { p.lags = true })
		p.hand.connect()
		p.define(nil)
		time.Sleep(30 * time.Hour) // a run each minute, kept for a day, a hundred of them
		if n := len(p.runs()); n < 1700 {
			t.Errorf("%d runs are left of 1800, and the history has none", n)
		}
		p.past.set(func(p *past) { p.lags = false })
		time.Sleep(3 * time.Minute)
		if n := len(p.runs()); n > 110 {
			t.Errorf("%d runs are left, want about a hundred", n)
		}
		p.close()
	})
}

// While records are known to be lost, a result of a run that is nowhere is acknowledged
// all the same: nobody will ever know more. Its log is asked for, as it may be all that is
// left of a run.
func TestResultOfRunThatMayBeLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Second)
		time.Sleep(5 * time.Second)
		key := &agentv1.AttemptKey{RunId: state.RequestRunID(1, "lost").String(), Attempt: 1}
		p.past.set(func(p *past) { p.err = fmt.Errorf("it is not known, and %w", state.ErrLost) })
		p.hand.set(func() {
			p.hand.pending[name(key)] = &agentv1.Result{Key: key, Fence: 7, Outcome: agentv1.Outcome_OUTCOME_SUCCEEDED}
		})
		p.hand.connect()
		time.Sleep(time.Second)
		p.hand.set(func() {
			if k := name(key); p.hand.acks[k] != 1 || p.hand.unasked[k] {
				t.Errorf("%d acks, its log unwanted: %v; want one, and wanted", p.hand.acks[k], p.hand.unasked[k])
			}
		})
		p.close()
	})
}

// However fast runs end, or are skipped, the leader has the state forget them as fast, and
// does not wait for the minute: they are never many more than are to be kept.
func TestOverloadDoesNotFillTheState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Second)
		const jobs, most = 500, 1500 // in five seconds there are many more to be forgotten
		p.keep.MostRuns, p.keep.Runs = most, 500
		p.kill()
		p.start()
		for i := range jobs { // no worker: each is skipped each second, as its first run waits
			p.defineAs(state.JobKey{Namespace: "default", Name: fmt.Sprint("j", i)}, func(d *state.Definition) {
				d.Triggers[0].Every.Interval = time.Second
			})
		}
		largest := 0
		for range 60 {
			time.Sleep(time.Second)
			p.store.View(func(s *state.State) { largest = max(largest, s.NumRuns()) })
		}
		if bound := most + crowdLeast + 2*jobs; largest > bound || largest < most {
			t.Errorf("the state had up to %d runs, want %d to %d", largest, most, bound)
		}
		p.close()
	})
}

// When a load is over, the state has no more of it than is to be kept as soon as that may
// be, though nothing ends any more that would have the leader look; also when the leader
// ended with the load, and another one leads later.
func TestLoadSoonLeavesTheState(t *testing.T) {
	for name, away := range map[string]time.Duration{"the same leader": 0, "another leader": 2 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPrimary(t, time.Second)
				const jobs, seconds = 30, 60
				p.keep.Runs = 500
				p.kill()
				p.start()
				end := time.Now().Add(seconds * time.Second)
				for i := range jobs { // no worker: each is skipped each second, as its first run waits
					p.defineAs(state.JobKey{Namespace: "default", Name: fmt.Sprint("j", i)}, func(d *state.Definition) {
						d.Triggers[0].Every.Interval = time.Second
						d.Triggers[0].End = end
					})
				}
				time.Sleep(time.Until(end))
				ended := func() (n int) {
					p.store.View(func(s *state.State) { n = numEnded(s) })
					return n
				}
				if n := ended(); n < 2*p.keep.Runs {
					t.Errorf("%d runs that have ended are left right after the load, want those of the last minute", n)
				}
				soon := 70 * time.Second
				if away > 0 {
					p.kill()
					time.Sleep(away)
					p.start()
					soon = 10 * time.Second
				}
				time.Sleep(soon)
				if n := ended(); n > p.keep.Runs {
					t.Errorf("%d runs that have ended are left after %v, want %d at most", n, soon, p.keep.Runs)
				}
				p.close()
			})
		})
	}
}

// While the history can't be written no run may be forgotten, however many there are: it is
// looked for them each minute, and not all the time. Soon after it can they are.
func TestNothingIsLookedForThatCannotBeForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Second)
		p.keep.Runs = 500
		p.past.set(func(p *past) { p.lags = true })
		p.kill()
		p.start()
		end := time.Now().Add(time.Minute)
		for i := range 30 { // no worker: each is skipped each second, as its first run waits
			p.defineAs(state.JobKey{Namespace: "default", Name: fmt.Sprint("j", i)}, func(d *state.Definition) {
				d.Triggers[0].Every.Interval = time.Second
				d.Triggers[0].End = end
			})
		}
		time.Sleep(2 * time.Minute)
		ended := func() (n int) {
			p.store.View(func(s *state.State) { n = numEnded(s) })
			return n
		}
		before := 0
		p.past.set(func(p *past) { before = p.asks })
		time.Sleep(time.Hour)
		p.past.set(func(p *past) {
			if n := p.asks - before; n < 59 || n > 61 {
				t.Errorf("it was looked %d times in an hour, want each minute", n)
			}
			p.lags = false
		})
		if n := ended(); n < 3*p.keep.Runs {
			t.Errorf("%d runs that have ended are left, and the history has none", n)
		}
		time.Sleep(70 * time.Second)
		if n := ended(); n > p.keep.Runs {
			t.Errorf("%d runs that have ended are left, want %d at most", n, p.keep.Runs)
		}
		p.close()
	})
}
