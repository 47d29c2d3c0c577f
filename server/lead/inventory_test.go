package lead

import (
	"testing"
	"testing/synctest"
	"time"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/raftstore/state"
)

// comesAndGoes has the hand come without its inventory, and come again a moment after its
// session was ended, for some time. It returns how often that was.
func (p *primary) comesAndGoes(d time.Duration) (cuts int) {
	connect := func() {
		p.hand.set(func() { p.hand.epoch++ })
		p.inbox.Attach(p.hand.session())
	}
	connect()
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(time.Second)
		var ended bool
		p.hand.set(func() {
			ended, p.hand.cuts = len(p.hand.cuts) > 0, nil
			p.hand.deaf = true // it tells nothing when it is asked, either
		})
		if ended {
			cuts++
			p.hand.disconnect()
			time.Sleep(time.Second)
			connect()
		}
	}
	return cuts
}

// A worker comes back and does not tell what it has, again and again. It is as good as
// away: what it had is lost by lost_after, and ends by total_timeout. When it tells, it is
// given runs again.
func TestSessionWithoutAnInventory(t *testing.T) {
	for name, test := range map[string]struct {
		edit func(*state.Definition)
		want state.Phase
		by   time.Duration
	}{
		"it is lost":         {func(d *state.Definition) { d.Policy.LostAfter = 3 * time.Minute }, state.Lost, 3*time.Minute + syncWithin},
		"it takes too long":  {func(d *state.Definition) { d.Policy.LostAfter, d.Policy.TotalTimeout = 6*time.Minute, time.Minute }, state.TimedOut, 6*time.Minute + syncWithin},
		"its job would wait": {func(d *state.Definition) { d.Policy.OnLost = state.OnLostWait }, state.Running, 10 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPrimary(t, time.Hour)
				defer p.close()
				p.hand.connect()
				p.define(func(d *state.Definition) {
					d.Triggers = []*state.Trigger{{ID: "once", At: time.Now().Add(time.Second)}}
					test.edit(d)
				})
				time.Sleep(5 * time.Second)
				p.hand.disconnect()
				cuts := p.comesAndGoes(test.by)
				if r := p.runs()[0]; r.Phase != test.want {
					t.Errorf("the run is %v because %q, want %v", r.Phase, r.Reason, test.want)
				}
				if want := int(test.by / syncWithin); cuts < want-1 || cuts > want {
					t.Errorf("its session was ended %d times, want each %v", cuts, syncWithin)
				}

				p.hand.disconnect()
				p.hand.set(func() { p.hand.deaf = false })
				p.hand.connect()
				time.Sleep(2 * syncWithin)
				p.hand.set(func() {
					if len(p.hand.cuts) > 0 {
						t.Errorf("the session of a worker that has told all was ended: %q", p.hand.cuts)
					}
				})
				id := state.JobKey{Namespace: "default", Name: "next"}
				p.defineAs(id, func(d *state.Definition) { d.Triggers = nil })
				p.requestRun(id, "x")
				time.Sleep(5 * time.Second)
				rs := p.runs()
				if r := rs[len(rs)-1]; r.Job != id || r.Phase != state.Running {
					t.Errorf("the next run of the worker is %v because %q", r.Phase, r.Reason)
				}
			})
		})
	}
}

// While it is not known what a worker has, it counts as silent, and is given no leases. What
// it has asked for meanwhile it is given when it is known.
func TestNoLeaseWithoutAnInventory(t *testing.T) {
	leasing(t, func(p *primary, _ *state.Run, fence uint64) {
		p.hand.set(func() { p.hand.epoch++ })
		p.inbox.Attach(p.hand.session()) // beside the one before
		for seq := range uint64(60) {
			p.hand.ask(2, seq+1, fence)
			time.Sleep(time.Second)
		}
		p.wantGiven(fence)
		p.hand.tell()
		time.Sleep(2 * time.Second)
		p.wantGiven(fence, 60)
		p.hand.ask(2, 61, fence)
		time.Sleep(2 * time.Second)
		p.wantGiven(fence, 60, 61)
	})
}

// An inventory without an end, in pages of nothing, is no inventory.
func TestInventoryOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Hour)
		defer p.close()
		time.Sleep(5 * time.Second)
		p.hand.set(func() { p.hand.epoch++ })
		p.inbox.Attach(p.hand.session())
		for page := range uint32(syncWithin/time.Second) + 5 {
			p.hand.report(&agentv1.AgentMessage{Body: &agentv1.AgentMessage_Inventory{Inventory: &agentv1.Inventory{Page: page, More: true}}})
			time.Sleep(time.Second)
		}
		p.hand.set(func() {
			if len(p.hand.cuts) != 1 || p.hand.cuts[0] != unsyncedReason {
				t.Errorf("its session was ended with %q, want once, and %q", p.hand.cuts, unsyncedReason)
			}
		})
	})
}
