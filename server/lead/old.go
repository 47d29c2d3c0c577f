package lead

import (
	"context"
	"errors"
	"time"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/raftstore/state"
)

// A worker may tell the result of an attempt that has left the state: it was on record
// before, and the acknowledgement was lost. Whether anybody still wants its log the history
// knows. That is on a disk, which may take its time, or hang; so it is looked up beside the
// leader's loop, which waits for no disk but for the log's.
const (
	// lookAgain is when what could not be looked up is tried again.
	lookAgain = time.Minute

	// maxOld bounds the results that wait to be looked up. What is over it is told again by
	// its worker, with its next inventory.
	maxOld = 10_000
)

// oldKey names a result of an attempt that is not in the state.
type oldKey struct {
	worker state.WorkerID
	run    string // as it was told
	number uint32
	fence  uint64
}

// oldResult is one that waits to be looked up.
type oldResult struct {
	oldKey
	id    state.RunID // zero for what is none
	after time.Time   // when to look
}

func (o *oldResult) ack(unwanted bool) *agentv1.GatewayMessage {
	return resultAck(&agentv1.Result{Key: &agentv1.AttemptKey{RunId: o.run, Attempt: o.number}, Fence: o.fence}, unwanted)
}

// lookup is what the history had of it.
type lookup struct {
	oldResult
	found *state.Run // nil: nothing
	err   error
}

// olds are the results of attempts that are not in the state.
type olds struct {
	waiting map[oldKey]oldResult
	due     time.Time     // when the first of them is; zero: none waits
	looking chan struct{} // holds one while somebody looks, be it for who has led before
	looked  chan []lookup // what it has found; holds one
	found   []lookup      // likewise, for the present step
}

func newOlds(looking chan struct{}) olds {
	return olds{waiting: map[oldKey]oldResult{}, looking: looking, looked: make(chan []lookup, 1)}
}

// wait takes note of a result to be looked up, from an instant on. One that is told again
// is looked up at once.
func (o *olds) wait(r oldResult) {
	if _, there := o.waiting[r.oldKey]; !there && len(o.waiting) >= maxOld {
		return
	}
	o.waiting[r.oldKey] = r
	if o.due.IsZero() || r.after.Before(o.due) {
		o.due = r.after
	}
}

// take takes out what is due at now.
func (o *olds) take(now time.Time) (all []oldResult) {
	o.due = time.Time{}
	for k, r := range o.waiting {
		switch {
		case !r.after.After(now):
			all = append(all, r)
			delete(o.waiting, k)
		case o.due.IsZero() || r.after.Before(o.due):
			o.due = r.after
		}
	}
	return all
}

// lookUp has what is due looked up, unless somebody looks already. What is found is sent to
// looked, by which the leader steps.
func (t *term) lookUp(ctx context.Context, now time.Time) {
	o := &t.old
	if o.due.IsZero() || now.Before(o.due) {
		return
	}
	select {
	case o.looking <- struct{}{}:
	default:
		o.due = now.Add(maxSleep)
		return
	}
	if len(o.looked) > 0 {
		<-o.looking // the next step takes that first
		return
	}
	history, looking, looked, all := t.History, o.looking, o.looked, o.take(now)
	go func() {
		found := make([]lookup, len(all))
		for i, r := range all {
			run, err := history.Run(ctx, r.id)
			found[i] = lookup{r, run, err}
		}
		looked <- found // there is room, and nobody need be there any more
		<-looking
	}()
}

// ackOld acknowledges what was looked up. When the history has the run, its log is still
// wanted, and when the record may be lost: it may be all that is left. Otherwise nobody asks
// for it any more.
func (t *term) ackOld(s *state.State, now time.Time) {
	failed := 0
	var why error
	for _, l := range t.old.found {
		switch {
		case s.Run(l.id) != nil: // it was not there when it was told
			t.send(l.worker, inventoryRequest)
		case l.err != nil && !errors.Is(l.err, state.ErrLost):
			failed, why = failed+1, l.err
			if _, again := t.old.waiting[l.oldKey]; !again {
				l.after = now.Add(lookAgain)
				t.old.wait(l.oldResult)
			}
			continue
		case l.err == nil && l.found == nil:
			t.send(l.worker, l.ack(true))
		case l.err != nil || t.owns(l.worker, l.found, l.fence):
			t.send(l.worker, l.ack(false))
		}
		delete(t.old.waiting, l.oldKey) // it may have been told again meanwhile
	}
	t.old.found = nil
	if failed > 0 {
		t.Log.Warn("results are left unanswered until the history can be read", "results", failed, "again", lookAgain, "err", why)
	}
}
