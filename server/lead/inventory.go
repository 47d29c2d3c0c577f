package lead

import (
	"fmt"
	"time"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/raftstore/state"
)

// What runs on a worker is known when it has told its inventory. It does so as the first
// thing of a session, and what it has is judged by nothing else before. So one that tells
// none, for whatever reason, would keep its runs as they are for as long as it is connected:
// no timeout would end them, and nobody could cancel them. Its session ends instead, and it
// stays silent, however often it comes again: by lost_after its runs are lost. For as long it
// is given no leases either: who may have another attempt beside his own by then must not
// hold one.

// syncWithin is how long a worker may take to tell its inventory, which is the first thing
// that goes over its line: much longer than it takes, and less than lost_after usually is.
const syncWithin = 2 * time.Minute

// unsyncedReason is why the session ends of a worker that takes longer.
var unsyncedReason = fmt.Sprintf("it has not told within %v which attempts it has", syncWithin)

// maxInventory is how many attempts a worker may say that it has: ten times as many as it
// may have slots. What it says is in the leader's memory until it has said all.
const maxInventory = 100_000

// errMaxInventory is why the session of a worker is ended that says that it has more.
var errMaxInventory = fmt.Errorf("it says that it has more attempts than any worker can have, %d", maxInventory)

// takePage takes a page of an inventory, and reports whether that is all of it
// now. One whose first pages were said before this term, or before there was a
// link, is of no use: what is missing in it would be taken for lost. The worker
// has been asked for another.
func (t *term) takePage(sess *session, i *agentv1.Inventory) (whole bool, err error) {
	if i.GetPage() == 0 {
		sess.has, sess.pages = map[attempt]*agentv1.AttemptStatus{}, 0
	}
	if i.GetPage() != sess.pages {
		return false, nil
	}
	if len(sess.has)+len(i.GetAttempts()) > maxInventory {
		sess.has, sess.pages = nil, 0
		return false, errMaxInventory
	}
	sess.pages++
	t.noteTrouble(sess, clipped(i.GetTrouble()))
	for _, a := range i.GetAttempts() {
		if id, err := state.ParseRunID(a.GetKey().GetRunId()); err == nil {
			sess.has[attempt{id, int(a.GetKey().GetAttempt()), a.GetFence()}] = &agentv1.AttemptStatus{Phase: a.GetPhase(), StartedTime: a.GetStartedTime()}
		}
	}
	return !i.GetMore(), nil
}

// disown has a session end of which it can't be known what its worker has. From here on the
// worker counts as not there.
func (t *term) disown(s *state.State, sess *session, why string, now time.Time) {
	w := state.WorkerID(sess.Worker)
	t.Log.Warn("the session of a worker is ended, and its runs are lost unless it comes back as it should", "worker", w, "name", sess.Hello.GetName(), "reason", why)
	sess.synced, sess.by = false, now
	t.takes(w, sess, false)
	t.noteSilence(w, now)
	t.cut(w, why)
	t.workers.Set(w, now.Add(syncWithin)) // in case that is not heard
	for _, r := range s.RunsOn(w) {
		t.look(s, r, now)
	}
}

// sync takes note that a worker's inventory is known.
func (t *term) sync(w state.WorkerID, sess *session) {
	delete(t.silent, w)
	if sess.synced {
		return
	}
	sess.synced = true
	t.workers.Remove(w)
	if sess.asks != nil {
		t.asksFor(w, sess.Epoch, sess.asks)
		sess.asks = nil
	}
}

// ping takes note of a ping that asks for leases. They wait for the inventory.
func (t *term) ping(sess *session, p *agentv1.Ping) {
	if !sess.synced {
		sess.asks = p
		return
	}
	t.asksFor(state.WorkerID(sess.Worker), sess.Epoch, p)
}
