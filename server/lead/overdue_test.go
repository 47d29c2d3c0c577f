package lead

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/raftstore/state"
)

// once has a job run once, in a minute.
func once(d *state.Definition) {
	d.Triggers = []*state.Trigger{{ID: "once", At: time.Now().Add(time.Minute)}}
}

// busy has the leader be held up by something else for five seconds, from two seconds
// before an instant on; then it takes a second more until that.
func (p *primary) busy(until time.Time) {
	time.Sleep(time.Until(until.Add(-3 * time.Second)))
	p.slow.Store(int64(5 * time.Second))
	other := p.hand.session()
	other.Worker, other.Epoch = "w-9", 1
	p.inbox.Attach(other)
	time.Sleep(time.Second)
}

// What starts in time, and says so in time, is not killed because its leader, which was
// held up, reads that after the time.
func TestStartedInTimeIsNotKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Hour)
		p.hand.connect()
		p.define(func(d *state.Definition) { once(d); d.Policy.StartWithin = 20 * time.Second })
		p.hand.set(func() { p.hand.deaf = true })
		time.Sleep(65 * time.Second)
		r := p.runs()[0]
		if r.Phase != state.Assigned {
			t.Fatalf("the run is %v, want assigned", r.Phase)
		}
		p.busy(r.Live().Assigned.Add(20*time.Second + 5*time.Second))
		k := &agentv1.AttemptKey{RunId: r.ID.String(), Attempt: 1}
		p.hand.set(func() {
			p.hand.deaf = false
			p.hand.known[name(k)] = &agentv1.AttemptStatus{Key: k, Fence: r.Live().Fence, Phase: agentv1.AttemptPhase_ATTEMPT_PHASE_RUNNING}
			p.hand.report(&agentv1.AgentMessage{Body: &agentv1.AgentMessage_Started{Started: &agentv1.Started{Key: k, Fence: r.Live().Fence, Time: timestamppb.Now()}}})
		})
		time.Sleep(30 * time.Second)
		p.slow.Store(0)
		time.Sleep(10 * time.Second)
		if r := p.runs()[0]; r.Phase != state.Running || kills(p) > 0 {
			t.Errorf("%d kills; the run is %v because %q, want it to run", kills(p), r.Phase, r.Reason)
		}
		p.close()
	})
}

// The same of a worker that is back meanwhile: it tells what it has, starts it in time, and
// says so, and its leader reads all of that at once, after the time.
func TestStartedInTimeByOneThatIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Hour)
		p.hand.connect()
		p.define(func(d *state.Definition) { once(d); d.Policy.StartWithin = 20 * time.Second })
		p.hand.set(func() { p.hand.deaf = true })
		time.Sleep(65 * time.Second)
		r := p.runs()[0]
		if r.Phase != state.Assigned {
			t.Fatalf("the run is %v, want assigned", r.Phase)
		}
		p.busy(r.Live().Assigned.Add(20*time.Second + 5*time.Second))
		k := &agentv1.AttemptKey{RunId: r.ID.String(), Attempt: 1}
		has := func(phase agentv1.AttemptPhase) {
			p.hand.known[name(k)] = &agentv1.AttemptStatus{Key: k, Fence: r.Live().Fence, Phase: phase}
		}
		p.hand.set(func() { has(agentv1.AttemptPhase_ATTEMPT_PHASE_ACCEPTED) })
		p.hand.disconnect()
		p.hand.connect()
		p.hand.set(func() {
			p.hand.deaf = false
			has(agentv1.AttemptPhase_ATTEMPT_PHASE_RUNNING)
			p.hand.report(&agentv1.AgentMessage{Body: &agentv1.AgentMessage_Started{Started: &agentv1.Started{Key: k, Fence: r.Live().Fence, Time: timestamppb.Now()}}})
		})
		time.Sleep(30 * time.Second)
		p.slow.Store(0)
		time.Sleep(10 * time.Second)
		if r := p.runs()[0]; r.Phase != state.Running || kills(p) > 0 {
			t.Errorf("%d kills; the run is %v because %q, want it to run", kills(p), r.Phase, r.Reason)
		}
		p.close()
	})
}

// A leader is held up between having it agreed who makes an attempt and telling him, for
// longer than that may take to start and word of it to arrive. It is not told any more: the
// attempt ends unsent, and the run is tried again.
func TestHeldUpForLongerThanAStartMayTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Hour)
		p.hand.connect()
		p.define(func(d *state.Definition) {
			once(d)
			d.Policy.StartWithin, d.Policy.Retry.MaxAttempts = 20*time.Second, 2
		})
		time.Sleep(55 * time.Second)
		p.halts.Store(int64(26 * time.Second))
		time.Sleep(20 * time.Second)
		p.halts.Store(0)
		time.Sleep(time.Minute)
		r := p.runs()[0]
		if len(r.Attempts) != 2 || r.Phase != state.Running || r.Attempts[0].Outcome != state.OutcomeTimedOut || !r.Attempts[0].Started.IsZero() {
			t.Errorf("the run is %v because %q, with %+v; want its second attempt to run", r.Phase, r.Reason, r.Attempts)
		}
		p.hand.set(func() {
			if n := p.hand.starts[name(&agentv1.AttemptKey{RunId: r.ID.String(), Attempt: 1})]; n != 0 {
				t.Errorf("the first attempt was started %d times", n)
			}
		})
		p.close()
	})
}

// A worker starts its attempt too late, and is not heard before. The leader has it killed.
// Nobody has cancelled the run, so it is not cancelled: it is tried again.
func TestStartedTooLateIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Hour)
		p.hand.connect()
		p.define(func(d *state.Definition) {
			once(d)
			d.Policy.StartWithin, d.Policy.Retry.MaxAttempts = 20*time.Second, 2
		})
		p.hand.set(func() { p.hand.deaf = true })
		time.Sleep(65 * time.Second)
		r := p.runs()[0]
		k := &agentv1.AttemptKey{RunId: r.ID.String(), Attempt: 1}
		p.hand.set(func() { // it runs there, and what says so gets lost
			p.hand.deaf = false
			p.hand.known[name(k)] = &agentv1.AttemptStatus{Key: k, Fence: r.Live().Fence, Phase: agentv1.AttemptPhase_ATTEMPT_PHASE_RUNNING}
			p.hand.starts[name(k)]++
		})
		time.Sleep(time.Minute)
		r = p.runs()[0]
		if len(r.Attempts) != 2 || r.Phase != state.Running || r.Attempts[0].Outcome != state.OutcomeTimedOut {
			t.Errorf("the run is %v because %q, with %+v; want its second attempt to run", r.Phase, r.Reason, r.Attempts)
		}
		p.close()
	})
}

// An attempt fails at the moment at which its run has taken too long in all. Nobody has
// cancelled it.
func TestFailedAsItsTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Hour)
		p.hand.connect()
		p.define(func(d *state.Definition) {
			once(d)
			d.Policy.TotalTimeout = 20 * time.Second
			d.Policy.Retry = state.Retry{MaxAttempts: 3, InitialDelay: time.Hour, MaxDelay: time.Hour, Multiplier: 1}
		})
		time.Sleep(65 * time.Second)
		r := p.runs()[0]
		p.busy(r.Created.Add(20 * time.Second))
		p.hand.set(func() {
			p.hand.end(&agentv1.AttemptKey{RunId: r.ID.String(), Attempt: 1}, r.Live().Fence, agentv1.Outcome_OUTCOME_FAILED)
		})
		time.Sleep(30 * time.Second)
		p.slow.Store(0)
		time.Sleep(10 * time.Second)
		if r := p.runs()[0]; r.Phase != state.TimedOut {
			t.Errorf("the run is %v because %q, want timed out", r.Phase, r.Reason)
		}
		p.close()
	})
}

// Somebody cancels a run while it is being agreed that it is tried again.
func TestCancelledAsItIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Hour)
		p.hand.connect()
		p.define(func(d *state.Definition) { once(d); d.Policy.Retry.MaxAttempts = 3 })
		time.Sleep(65 * time.Second)
		r := p.runs()[0]
		p.slow.Store(int64(5 * time.Second))
		p.hand.set(func() {
			p.hand.end(&agentv1.AttemptKey{RunId: r.ID.String(), Attempt: 1}, r.Live().Fence, agentv1.Outcome_OUTCOME_FAILED)
		})
		time.Sleep(time.Second)
		p.propose(state.Cancel{Run: r.ID, Note: "no longer needed"})
		time.Sleep(10 * time.Second)
		p.slow.Store(0)
		time.Sleep(10 * time.Second)
		if r := p.runs()[0]; r.Phase != state.Cancelled || r.Reason != "no longer needed" || len(r.Attempts) != 1 {
			t.Errorf("the run is %v because %q with %d attempts, want cancelled with one", r.Phase, r.Reason, len(r.Attempts))
		}
		p.close()
	})
}

// A worker refuses whatever it is given. That neither prolongs how long a run may wait, nor
// ends it before, nor fills its record.
func TestRefusedForLong(t *testing.T) {
	for _, queue := range []time.Duration{time.Minute, 6 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			p := newPrimary(t, time.Second)
			p.hand.set(func() { p.hand.leaves = true })
			p.hand.connect()
			p.define(func(d *state.Definition) { once(d); d.Policy.QueueTimeout = queue })
			time.Sleep(time.Minute + queue - time.Second)
			r := p.runs()[0]
			if r.Phase.Final() {
				t.Fatalf("after %v the run is %v because %q with %d attempts, want that it waits", time.Since(r.Created), r.Phase, r.Reason, len(r.Attempts))
			}
			time.Sleep(12 * time.Second)
			r = p.runs()[0]
			if r.Phase != state.TimedOut || !strings.Contains(r.Reason, "queue_timeout") {
				t.Errorf("after its queue_timeout of %v the run is %v because %q", queue, r.Phase, r.Reason)
			}
			if n := len(r.Attempts); n < 2 || n > 100 {
				t.Errorf("in %v it was refused %d times, want some tens", queue, n)
			}
			p.close()
		})
	}
}

// A worker is back with an attempt that was given up as lost. While its successor waits,
// the process may go on; when that has a worker, it is ended, whatever becomes of that.
func TestReturningAttemptAndItsSuccessor(t *testing.T) {
	for name, test := range map[string]struct {
		takes time.Duration // of the first attempt
		then  func(p *primary, r *state.Run)
		late  state.Outcome
		kills int
	}{
		"ends before its successor begins": {6 * time.Minute, nil, state.OutcomeSucceeded, 0},
		"runs when its successor begins":   {time.Hour, nil, state.OutcomeCancelled, 1},
		"its run is cancelled meanwhile": {time.Hour, func(p *primary, r *state.Run) {
			p.propose(state.Cancel{Run: r.ID})
		}, state.OutcomeCancelled, 1},
		"its successor is refused": {time.Hour, func(p *primary, _ *state.Run) {
			p.hand.set(func() { p.hand.leaves = true })
		}, state.OutcomeCancelled, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPrimary(t, test.takes)
				p.hand.connect()
				p.define(func(d *state.Definition) {
					once(d)
					d.Policy.OnLost = state.OnLostRetry
					d.Policy.Retry = state.Retry{MaxAttempts: 2, InitialDelay: 10 * time.Minute, MaxDelay: 10 * time.Minute, Multiplier: 1}
				})
				time.Sleep(65 * time.Second)
				p.hand.disconnect()
				time.Sleep(4 * time.Minute)
				p.hand.connect()
				time.Sleep(time.Minute)
				r := p.runs()[0]
				if r.Phase != state.Pending || kills(p) != 0 {
					t.Fatalf("with its successor to come, the run is %v and its first attempt was killed %d times", r.Phase, kills(p))
				}
				if test.then != nil {
					test.then(p, r)
				}
				time.Sleep(12 * time.Minute)
				r = p.runs()[0]
				if r.Attempts[0].Late != test.late || kills(p) != test.kills {
					t.Errorf("the first attempt ended as %v after %d kills, want %v after %d", r.Attempts[0].Late, kills(p), test.late, test.kills)
				}
				if refused := len(r.Attempts) > 1 && r.Attempts[1].Outcome == state.OutcomeRefused; refused != p.hand.leaves {
					t.Errorf("that the second attempt was refused: %v; %+v", refused, r.Attempts)
				}
				if test.then == nil && len(r.Attempts) != 2 {
					t.Errorf("the run has %d attempts, want 2", len(r.Attempts))
				}
				p.hand.startedOnce()
				p.close()
			})
		})
	}
}

// A job with kill_after wants no two processes at any time: one that is still there after
// it was given up does not wait for its successor, which may be long in coming, or may be
// another run. Of a run that has ended it is the job that says so, if that is as it was.
func TestReturningAttemptWithKillAfter(t *testing.T) {
	leases := func(d *state.Definition) {
		d.Triggers = nil
		d.Policy.KillAfter, d.Policy.LostAfter = 2*time.Minute, 3*time.Minute
	}
	for name, test := range map[string]struct {
		onLost state.OnLost
		change func(p *primary) // while the worker is away, after the run was given up
		phase  state.Phase
		kills  int
	}{
		"its successor is to come": {state.OnLostRetry, nil, state.Pending, 1},
		"it is lost":               {state.OnLostFail, nil, state.Lost, 1},
		"and its job was changed": {state.OnLostFail, func(p *primary) {
			p.define(func(d *state.Definition) { leases(d); d.Task.Argv = []string{"false"} })
		}, state.Lost, 0},
		"and its job wants no leases any more": {state.OnLostFail, func(p *primary) {
			p.define(func(d *state.Definition) { d.Triggers = nil })
		}, state.Lost, 0},
		"and its job was deleted": {state.OnLostFail, func(p *primary) {
			p.propose(state.DeleteJob{Key: jobKey, Effective: time.Now()})
		}, state.Lost, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPrimary(t, time.Hour)
				p.hand.connect()
				p.define(func(d *state.Definition) {
					leases(d)
					d.Policy.OnLost = test.onLost
					d.Policy.Retry = state.Retry{MaxAttempts: 2, InitialDelay: 10 * time.Minute, MaxDelay: 10 * time.Minute, Multiplier: 1}
				})
				p.requestRun(jobKey, "x")
				time.Sleep(5 * time.Second)
				fence := p.runs()[0].Live().Fence
				p.hand.disconnect()
				time.Sleep(4 * time.Minute)
				if test.change != nil {
					test.change(p)
				}
				time.Sleep(time.Minute)
				p.hand.connect()
				time.Sleep(time.Second)
				p.hand.ask(2, 1, fence)
				time.Sleep(time.Minute)
				if r := p.runs()[0]; r.Phase != test.phase || kills(p) != test.kills {
					t.Errorf("the run is %v and its first attempt was killed %d times, want %v and %d", r.Phase, kills(p), test.phase, test.kills)
				}
				p.wantGiven(fence) // so its worker ends it, if nobody else does
				p.close()
			})
		})
	}
}
