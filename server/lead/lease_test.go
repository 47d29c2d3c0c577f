package lead

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/raftstore/state"
)

// ask pings in a session, for leases of some fences.
func (h *hand) ask(epoch, seq uint64, fences ...uint64) {
	h.inbox.Report(h.id, epoch, &agentv1.AgentMessage{Body: &agentv1.AgentMessage_Ping{Ping: &agentv1.Ping{Seq: seq, Fences: fences}}})
}

// given returns the pings that were answered with a lease of a fence.
func (h *hand) given(fence uint64) (seqs []uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range h.leases {
		if slices.Contains(l.GetFences(), fence) {
			seqs = append(seqs, l.GetSeq())
		}
	}
	return seqs
}

// leasing tells a story of a run that needs leases, on a worker that is connected with
// epoch 1.
func leasing(t *testing.T, tell func(p *primary, r *state.Run, fence uint64)) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Hour)
		p.hand.connect()
		p.define(func(d *state.Definition) {
			d.Triggers = []*state.Trigger{{ID: "once", At: time.Now().Add(time.Minute)}}
			d.Policy.KillAfter, d.Policy.LostAfter, d.Policy.OnLost = 2*time.Minute, 3*time.Minute, state.OnLostRetry
		})
		time.Sleep(65 * time.Second)
		r := p.runs()[0]
		if r.Phase != state.Running {
			t.Fatalf("the run is %v because %q", r.Phase, r.Reason)
		}
		tell(p, r, r.Live().Fence)
		p.close()
	})
}

// wantGiven checks which pings were answered.
func (p *primary) wantGiven(fence uint64, want ...uint64) {
	p.t.Helper()
	if got := p.hand.given(fence); !slices.Equal(got, want) {
		p.t.Errorf("the pings %v were answered with a lease, want %v", got, want)
	}
}

// A lease is given only when it is on the disk of a majority, after the ping was heard,
// that this primary leads. One that dies before it is has given none.
func TestLeaseNeedsAMajority(t *testing.T) {
	leasing(t, func(p *primary, r *state.Run, fence uint64) {
		p.hand.ask(1, 1, fence)
		time.Sleep(2 * time.Second)
		p.wantGiven(fence, 1)
		p.disk.BeforeWrite(func() { time.Sleep(5 * time.Second) })
		p.hand.ask(1, 2, fence)
		time.Sleep(4 * time.Second)
		p.wantGiven(fence, 1)
		p.kill()
		p.disk.BeforeWrite(nil)
		p.wantGiven(fence, 1)
		p.start()
		time.Sleep(5 * time.Second)
		p.wantGiven(fence, 1)
		p.hand.ask(1, 3, fence)
		time.Sleep(2 * time.Second)
		p.wantGiven(fence, 1, 3)
	})
}

// However often workers ask, the log has one entry a second for it, and none when
// nobody does. The last ping of a worker is the one that is answered.
func TestLeasesAreCheap(t *testing.T) {
	leasing(t, func(p *primary, r *state.Run, fence uint64) {
		time.Sleep(10 * time.Second)
		entries := func() uint64 { return p.store.AppliedIndex() }
		idle := entries()
		time.Sleep(30 * time.Second)
		if n := entries() - idle; n != 0 {
			t.Errorf("%d entries though nobody asks", n)
		}
		begin := entries()
		for seq := range uint64(3000) {
			p.hand.ask(1, seq+1, fence)
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		if n := entries() - begin; n < 20 || n > 32 {
			t.Errorf("%d entries in half a minute", n)
		}
		given := p.hand.given(fence)
		if len(given) < 20 || len(given) > 32 || given[len(given)-1] != 3000 || !slices.IsSorted(given) {
			t.Errorf("answered are %v", given)
		}
	})
}

// Only who has the session that counts is given leases, and only of what it is to run.
func TestLeaseIsForTheSessionThatCounts(t *testing.T) {
	leasing(t, func(p *primary, r *state.Run, fence uint64) {
		p.hand.ask(7, 1, fence) // of another session
		p.hand.ask(1, 2, fence+1000)
		time.Sleep(2 * time.Second)
		p.wantGiven(fence)
		p.hand.ask(1, 3, fence)
		p.hand.disconnect() // in the same moment
		time.Sleep(2 * time.Second)
		p.wantGiven(fence)
		p.hand.connect()
		p.hand.ask(1, 4, fence) // comes late
		p.hand.ask(2, 5, fence+1000, fence)
		time.Sleep(2 * time.Second)
		p.wantGiven(fence, 5)

		p.hand.disconnect()
		time.Sleep(4 * time.Minute)
		if r := p.runs()[0]; r.Phase != state.Pending {
			t.Fatalf("the run is %v because %q, want given up", r.Phase, r.Reason)
		}
		p.hand.connect()
		p.hand.ask(3, 6, fence)
		time.Sleep(2 * time.Second)
		p.wantGiven(fence, 5)
	})
}

// A twin of the worker comes and says that it has no such attempt. It is not given up
// before who has it must have ended it; the twin is given no lease of it; and when who
// has it is back all is as it was.
func TestLeaseAndATwin(t *testing.T) {
	for name, back := range map[string]bool{"who has it comes back": true, "nobody does": false} {
		t.Run(name, func(t *testing.T) {
			leasing(t, func(p *primary, r *state.Run, fence uint64) {
				p.hand.ask(1, 1, fence)
				time.Sleep(2 * time.Second)
				p.hand.mu.Lock()
				known := p.hand.known
				p.hand.known = map[string]*agentv1.AttemptStatus{}
				p.hand.mu.Unlock()
				p.hand.connect() // epoch 2
				time.Sleep(2*time.Minute + 50*time.Second)
				p.hand.ask(2, 2, fence)
				time.Sleep(2 * time.Second)
				p.wantGiven(fence, 1)
				if r := p.runs()[0]; r.Phase != state.Running {
					t.Fatalf("the run is %v because %q, and its first attempt may run", r.Phase, r.Reason)
				}
				if back {
					p.hand.set(func() { p.hand.known = known })
					p.hand.connect() // epoch 3
					p.hand.ask(3, 3, fence)
					time.Sleep(4 * time.Minute)
					p.wantGiven(fence, 1, 3)
					if r := p.runs()[0]; r.Phase != state.Running || len(r.Attempts) != 1 {
						t.Errorf("the run is %v because %q, with %d attempts", r.Phase, r.Reason, len(r.Attempts))
					}
					return
				}
				time.Sleep(30 * time.Second)
				if r := p.runs()[0]; r.Attempts[0].Outcome != state.OutcomeLost || len(r.Attempts) != 2 {
					t.Errorf("the run is %v because %q, with %d attempts", r.Phase, r.Reason, len(r.Attempts))
				}
			})
		})
	}
}

// A worker is launched, asks for its lease and has it, and its session is replaced before
// it can say that it has started. Who comes in its place is a twin, which has nothing. It
// is not told to start what the other one may run: that is given up when the lease is over.
func TestNoLaunchForATwin(t *testing.T) {
	for name, back := range map[string]bool{"who has it comes back": true, "nobody does": false} {
		t.Run(name, func(t *testing.T) {
			assigned(t, func(p *primary, r *state.Run, fence uint64) {
				p.hand.set(func() { p.hand.deaf = false })
				p.hand.ask(1, 1, fence)
				time.Sleep(2 * time.Second)
				p.wantGiven(fence, 1)
				p.hand.connect() // epoch 2
				p.hand.ask(2, 2, fence)
				time.Sleep(2*time.Minute + 50*time.Second)
				if starts, kills, _, _ := p.hand.counts(); starts != 0 || kills != 0 {
					p.t.Errorf("the twin was sent %d launches and %d kills of what another one may run", starts, kills)
				}
				p.wantGiven(fence, 1)
				if r := p.runs()[0]; r.Phase != state.Assigned || len(r.Attempts) != 1 {
					p.t.Errorf("the run is %v because %q, with %d attempts", r.Phase, r.Reason, len(r.Attempts))
				}
				if back {
					p.hand.set(func() { p.hand.runs(r) })
					p.hand.connect() // epoch 3
					p.hand.ask(3, 3, fence)
					time.Sleep(4 * time.Minute)
					p.wantGiven(fence, 1, 3)
					if r := p.runs()[0]; r.Phase != state.Running || len(r.Attempts) != 1 {
						p.t.Errorf("the run is %v because %q, with %d attempts", r.Phase, r.Reason, len(r.Attempts))
					}
					return
				}
				time.Sleep(30 * time.Second)
				if r := p.runs()[0]; r.Attempts[0].Outcome != state.OutcomeLost || len(r.Attempts) != 2 {
					p.t.Errorf("the run is %v because %q, with %d attempts", r.Phase, r.Reason, len(r.Attempts))
				}
			})
		})
	}
}

// A worker was launched, and has asked for no lease, or had none, when its session is
// replaced. Nothing runs then without the leader's word, so it is launched again.
func TestLaunchIsSentAgainWithoutALease(t *testing.T) {
	assigned(t, func(p *primary, r *state.Run, fence uint64) {
		p.hand.ask(7, 1, fence) // in no session that counts
		time.Sleep(2 * time.Second)
		p.hand.set(func() { p.hand.deaf = false })
		p.hand.connect()
		time.Sleep(2 * time.Second)
		if starts, _, _, _ := p.hand.counts(); starts != 1 {
			p.t.Errorf("%d were started, want 1", starts)
		}
	})
}

// assigned tells a story of a run that needs leases, and was given to a worker with epoch
// 1, which has not said yet that it has heard of it.
func assigned(t *testing.T, tell func(p *primary, r *state.Run, fence uint64)) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Hour)
		p.hand.connect()
		p.define(func(d *state.Definition) {
			d.Triggers = []*state.Trigger{{ID: "once", At: time.Now().Add(time.Minute)}}
			d.Policy.KillAfter, d.Policy.LostAfter, d.Policy.OnLost = 2*time.Minute, 3*time.Minute, state.OnLostRetry
		})
		time.Sleep(30 * time.Second)
		p.hand.set(func() { p.hand.deaf = true })
		time.Sleep(31 * time.Second)
		r := p.runs()[0]
		if r.Phase != state.Assigned {
			t.Fatalf("the run is %v because %q", r.Phase, r.Reason)
		}
		tell(p, r, r.Live().Fence)
		p.close()
	})
}

// runs has a worker know of a run's attempt as one that runs. The caller holds mu.
func (h *hand) runs(r *state.Run) {
	key := &agentv1.AttemptKey{RunId: r.ID.String(), Attempt: uint32(r.Live().Number)}
	h.known[name(key)] = &agentv1.AttemptStatus{Key: key, Fence: r.Live().Fence, Phase: agentv1.AttemptPhase_ATTEMPT_PHASE_RUNNING, StartedTime: timestamppb.Now()}
}

// The others take long to confirm that this primary leads. A lease has to wait for that, and
// what is to be sent beside it has not: an attempt that nobody knows of is killed at once.
func TestLettersDoNotWaitForALease(t *testing.T) {
	leasing(t, func(p *primary, r *state.Run, fence uint64) {
		p.disk.BeforeWrite(func() { time.Sleep(time.Second) })
		p.hand.connect() // a step of a second, in which more is said
		time.Sleep(500 * time.Millisecond)
		p.disk.BeforeWrite(func() { time.Sleep(5 * time.Second) })
		key := &agentv1.AttemptKey{RunId: state.RunID{1}.String(), Attempt: 1}
		p.hand.set(func() {
			p.hand.known[name(key)] = &agentv1.AttemptStatus{Key: key, Fence: 1, Phase: agentv1.AttemptPhase_ATTEMPT_PHASE_RUNNING}
		})
		p.hand.tell()
		p.hand.ask(2, 1, fence)
		time.Sleep(3 * time.Second)
		p.wantGiven(fence)
		if _, kills, _, _ := p.hand.counts(); kills != 1 {
			p.t.Errorf("%d attempts were killed while a lease waits, want 1", kills)
		}
		time.Sleep(4 * time.Second)
		p.wantGiven(fence, 1)
		p.disk.BeforeWrite(nil)
	})
}

// A new term gives all workers their lost_after anew: what the one before has let go on
// has not been forgotten sooner.
func TestLostAfterBeginsWithTheTerm(t *testing.T) {
	leasing(t, func(p *primary, r *state.Run, fence uint64) {
		p.hand.disconnect()
		time.Sleep(2*time.Minute + 50*time.Second)
		p.kill()
		p.start()
		began := time.Now()
		time.Sleep(2*time.Minute + 50*time.Second)
		if r := p.runs()[0]; r.Phase != state.Running {
			t.Errorf("%v after the term began the run is %v because %q", time.Since(began), r.Phase, r.Reason)
		}
		time.Sleep(20 * time.Second)
		if r := p.runs()[0]; r.Phase != state.Pending {
			t.Errorf("%v after the term began the run is %v", time.Since(began), r.Phase)
		}
	})
}

// A worker is given an attempt, and before it starts it is downgraded to a version that
// keeps no leases. It is not told to start it, and nobody runs it without one.
func TestNoLaunchForWhoKeepsNoLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Hour)
		p.hand.connect()
		p.define(func(d *state.Definition) {
			d.Triggers = []*state.Trigger{{ID: "once", At: time.Now().Add(time.Minute)}}
			d.Policy.KillAfter, d.Policy.LostAfter, d.Policy.StartWithin = 2*time.Minute, 3*time.Minute, time.Minute
		})
		p.hand.set(func() { p.hand.deaf = true })
		time.Sleep(65 * time.Second)
		p.hand.disconnect()
		p.hand.set(func() { p.hand.deaf, p.hand.old = false, true })
		p.hand.connect()
		time.Sleep(30 * time.Second)
		if r := p.runs()[0]; r.Phase != state.Assigned {
			t.Errorf("the run is %v because %q", r.Phase, r.Reason)
		}
		time.Sleep(time.Minute)
		if starts, kills, _, _ := p.hand.counts(); starts != 0 || kills == 0 {
			t.Errorf("%d were started and %d kills sent", starts, kills)
		}
		p.close()
	})
}
