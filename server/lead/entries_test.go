package lead

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/raftstore/state"
)

// A run costs two entries of the log: one when it comes due, with the worker that it
// goes to, and one when it has ended, if it was short.
func TestShortRunCostsTwoEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Hour)
		defer p.close()
		p.hand.connect()
		p.define(nil)
		synctest.Wait()
		before := p.store.Stats()

		time.Sleep(time.Until(time.Now().Truncate(time.Minute).Add(time.Minute)))
		synctest.Wait()
		r := p.runs()[0]
		if r.Live() == nil {
			t.Fatalf("run %+v, want it on a worker", r)
		}
		time.Sleep(company + startHeld)
		synctest.Wait()
		assigned := p.store.Stats()
		if n := assigned.Entries - before.Entries; n != 2 {
			t.Errorf("%d entries until it runs, want one to give it away and one for its start", n)
		}
		time.Sleep(time.Second)

		// Another one starts and ends before the leader looks.
		key := state.JobKey{Namespace: "default", Name: "short"}
		p.propose(state.PutJob{Key: key, Definition: r.Definition, Effective: time.Now()})
		p.hand.mu.Lock()
		p.hand.takes, p.hand.together = 0, true
		p.hand.mu.Unlock()
		synctest.Wait()
		before = p.store.Stats()
		p.requestRun(key, "x")
		time.Sleep(company)
		synctest.Wait()
		after := p.store.Stats()
		if n, c := after.Entries-before.Entries, after.Commands-before.Commands; n != 3 || c != 3 {
			t.Errorf("%d entries with %d commands, want that it was asked for, given away, and has ended", n, c)
		}
		last := p.runs()[len(p.runs())-1]
		if a := last.Attempts[0]; last.Phase != state.Succeeded || a.Started.IsZero() || a.Finished.IsZero() {
			t.Errorf("run %+v, want it to have succeeded, with when it started and ended", last)
		}
	})
}

// A start waits for the end of a short run, and shares its entry if that does not say when
// it was; those of runs that last share one.
func TestStartsWait(t *testing.T) {
	asking(t, startHeld/2, overlap(state.OverlapAllow), func(t *testing.T, p *primary) {
		before := p.store.Stats()
		if a, err := p.ask("short"); err != nil || a.Err != nil {
			t.Fatalf("%+v, %v", a, err)
		}
		time.Sleep(startHeld / 2)
		synctest.Wait()
		after := p.store.Stats()
		if n, c := after.Entries-before.Entries, after.Commands-before.Commands; n != 2 || c != 4 {
			t.Errorf("%d entries with %d commands, want one until it is launched, and one for its start and end", n, c)
		}
		if r := p.runs()[0]; r.Phase != state.Succeeded || r.Attempts[0].Started.IsZero() {
			t.Errorf("run %+v, want it to have succeeded, with when it started", r)
		}

		p.hand.set(func() { p.hand.takes = time.Hour })
		for _, name := range []string{"a", "b", "c"} {
			if a, err := p.ask(name); err != nil || a.Err != nil {
				t.Fatalf("%+v, %v", a, err)
			}
			time.Sleep(startHeld / 4)
			synctest.Wait()
		}
		before = p.store.Stats()
		time.Sleep(startHeld)
		synctest.Wait()
		after = p.store.Stats()
		if n, c := after.Entries-before.Entries, after.Commands-before.Commands; n != 1 || c != 3 {
			t.Errorf("%d entries with %d commands, want one for all starts", n, c)
		}
		for _, r := range p.runs()[1:] {
			if r.Phase != state.Running {
				t.Errorf("run %v is %v, want it to run", r.ID, r.Phase)
			}
		}
	})
}

// A worker that comes back without an attempt of which the start is not on record yet has
// lost it.
func TestStartIsHeldWhileItsWorkerForgets(t *testing.T) {
	asking(t, time.Hour, overlap(state.OverlapAllow), func(t *testing.T, p *primary) {
		if a, err := p.ask("x"); err != nil || a.Err != nil {
			t.Fatalf("%+v, %v", a, err)
		}
		time.Sleep(startHeld / 2)
		synctest.Wait()
		p.hand.set(func() { clear(p.hand.known) })
		p.hand.connect()
		time.Sleep(time.Minute)
		if r := p.runs()[0]; r.Phase != state.Lost || r.Attempts[0].Started.IsZero() {
			t.Errorf("run %+v, want it lost after it has started", r)
		}
	})
}

// requestRun asks for a run by hand, as primaries of former versions do.
func (p *primary) requestRun(k state.JobKey, name string) {
	var c state.Request
	p.store.View(func(s *state.State) {
		j := s.Job(k)
		c = state.Request{
			Key: k, UID: j.UID, Version: j.Version, Activity: s.Activity(j.UID), ID: state.RequestRunID(j.UID, name),
			Birth: state.Birth{Phase: state.Pending, Nominal: time.Now()},
		}
	})
	p.propose(c)
}

// runAtOnce tells the start and the end of an attempt in one breath. The caller holds mu.
func (h *hand) runAtOnce(l *agentv1.Launch) {
	k, now := name(l.GetKey()), timestamppb.Now()
	h.known[k] = &agentv1.AttemptStatus{Key: l.GetKey(), Fence: l.GetFence(), Phase: agentv1.AttemptPhase_ATTEMPT_PHASE_ENDED}
	h.pending[k] = &agentv1.Result{Key: l.GetKey(), Fence: l.GetFence(), Outcome: agentv1.Outcome_OUTCOME_SUCCEEDED, StartedTime: now, FinishedTime: now}
	h.report(&agentv1.AgentMessage{Body: &agentv1.AgentMessage_Started{Started: &agentv1.Started{Key: l.GetKey(), Fence: l.GetFence(), Time: now}}})
	h.report(&agentv1.AgentMessage{Body: &agentv1.AgentMessage_Result{Result: h.pending[k]}})
}
