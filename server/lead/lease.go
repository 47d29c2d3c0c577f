package lead

import (
	"context"
	"time"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/plan"
)

// confirmEvery is how often at most this primary has the others confirm that it leads,
// for the sake of leases alone: all that are asked for meanwhile share it, and so an
// idle group writes one entry a second for them, however many workers it has. What is
// agreed for another reason confirms it as well.
const confirmEvery = time.Second

// ask is a ping that asks for leases and has no answer yet.
type ask struct {
	epoch uint64 // of the session
	ping  *agentv1.Ping
}

// leases are the part of a term that has to do with leases. Why what is done here is
// enough for no two attempts to overlap, package plan says beside plan.LeastLostAfter.
type leases struct {
	asks    map[state.WorkerID]ask // the last one of each worker
	given   map[uint64]bool        // the fences of which a lease was given in this term
	missing map[uint64]time.Time   // since when the worker says that it has no attempt of that fence, which runs there or may
	tried   time.Time              // when it was last confirmed that this primary leads, or tried in vain
}

func newLeases() leases {
	return leases{asks: map[state.WorkerID]ask{}, given: map[uint64]bool{}, missing: map[uint64]time.Time{}}
}

// asksFor takes note of a ping that asks for leases. It takes the place of an earlier
// one, which asked for less or was sent before.
func (l *leases) asksFor(w state.WorkerID, epoch uint64, p *agentv1.Ping) {
	if len(p.GetFences()) > 0 {
		l.asks[w] = ask{epoch, p}
	}
}

// absent returns since when the worker has said that it does not have an attempt; zero
// when it has not.
func (l *leases) absent(a *state.Attempt) time.Time { return l.missing[a.Fence] }

// begun tells whether the process of a run's live attempt was seen to run, or may run
// without that, since the worker was given a lease of it: then who says that it does not
// have the attempt is a twin of the worker, or has lost its data directory.
func (l *leases) begun(r *state.Run) bool {
	return r.Phase == state.Running || l.given[r.Live().Fence]
}

// forgetEnded drops what is known of attempts that have ended.
func (l *leases) forgetEnded(r *state.Run) {
	if len(l.missing) == 0 && len(l.given) == 0 {
		return
	}
	live := r.Live()
	for i := range r.Attempts {
		if a := &r.Attempts[i]; a != live {
			delete(l.missing, a.Fence)
			delete(l.given, a.Fence)
		}
	}
}

// grant answers the pings that ask for leases, once it is confirmed that this primary
// led after they were sent: by what was agreed in this step, which was proposed after
// they had been heard, or else by an entry for the purpose.
//
// Raft's own lease of the leader would be cheaper, and is not enough: it goes by clocks,
// and who was stopped for a while (SIGSTOP, a paused virtual machine) believes in it
// until it has looked at one. See [raftstore.Store.ReadIndex].
//
// When it can't be confirmed there are no leases, and the pings wait for the next time.
// It is no reason to lead anew, by which all silent workers would be waited for from the
// beginning: that it leads can't be confirmed for a second, too, whenever it has tried to
// hand over. When it does lead no more, ctx ends.
func (t *term) grant(ctx context.Context, agreed bool, now time.Time) {
	if len(t.asks) == 0 || !agreed && now.Sub(t.tried) < confirmEvery {
		return
	}
	t.tried = now
	if !agreed {
		if _, err := t.Store.ReadIndex(ctx); err != nil {
			t.Log.Debug("no leases are given until it is confirmed that this primary leads", "err", err)
			return
		}
	}
	t.Store.View(func(s *state.State) {
		for w, a := range t.asks {
			t.answer(s, w, a)
		}
	})
	clear(t.asks)
}

// answer gives a worker the leases that it asks for and may have, if the session in
// which it has asked is still the one that counts, and it is known what the worker has.
func (t *term) answer(s *state.State, w state.WorkerID, a ask) {
	if sess := t.sessions[w]; sess == nil || sess.Epoch != a.epoch || !sess.synced {
		return
	}
	has := func(a *state.Attempt) bool { return t.absent(a).IsZero() }
	given := plan.Leases(s, w, a.ping.GetFences(), has)
	if len(given) == 0 {
		return
	}
	for _, f := range given {
		t.given[f] = true
	}
	t.send(w, lease(a.ping, given))
}

// canStart tells whether a worker can be told to start a run's attempt. One that was
// given it and has since come back as an older version, which keeps no leases, can't: it
// would start it, and go on without any.
func (t *term) canStart(w state.WorkerID, r *state.Run) bool {
	sess := t.sessions[w]
	return sess != nil && (r.Definition.Policy.KillAfter == 0 || sess.Hello.GetLeases())
}

// nextGrant is when leases that are asked for can be given; zero when none are.
func (t *term) nextGrant() time.Time {
	if len(t.asks) == 0 {
		return time.Time{}
	}
	return t.tried.Add(confirmEvery)
}
