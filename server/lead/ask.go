package lead

import (
	"context"
	"errors"
	"fmt"

	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/plan"
)

// maxTries bounds how often the leader decides on an ask: others change jobs and runs
// beside it, and what is decided meanwhile is refused.
const maxTries = 10

// Answer is what becomes of a run that is asked for.
type Answer struct {
	Run *state.Run
	// Agreed tells that the primaries have agreed on it after it was asked for. Otherwise
	// nothing had to change, and the answer is as good as what this primary knew.
	Agreed bool
	// Err is why there is no such run: *[plan.OverlapError], [state.ErrNotFound], or
	// [state.ErrStale] when what it depends on changes all the time.
	Err error
}

// asked is an ask on its way.
type asked struct {
	plan.Ask
	gone   <-chan struct{} // who asked has gone
	tries  int
	answer chan reply // holds one, so that nobody waits for who has gone
}

type reply struct {
	Answer
	err error
}

// Ask has the leader decide on a run by hand: beside all else that it decides, so that
// those who ask for the same job at once don't refuse each other, and together with who
// gets it, so that it is agreed once. The errors are those of [raftstore.Store.Propose].
func (b *Inbox) Ask(ctx context.Context, a plan.Ask) (Answer, error) {
	q := &asked{Ask: a, gone: ctx.Done(), answer: make(chan reply, 1)}
	if !b.ask(q) {
		return Answer{}, q.failed(raftstore.ErrNotLeader)
	}
	select {
	case r := <-q.answer:
		return r.Answer, r.err
	case <-ctx.Done():
		return Answer{}, q.failed(ctx.Err())
	}
}

func (q *asked) failed(err error) error {
	return fmt.Errorf("asking for a run of job %v: %w", q.Job, err)
}

// fail answers that nothing was decided, or that it is not known what was.
func (q *asked) fail(err error) {
	if errors.Is(err, context.Canceled) {
		err = fmt.Errorf("%w: this primary's term has ended meanwhile", raftstore.ErrUnknown)
	}
	q.answer <- reply{err: q.failed(err)}
}

// left tells whether nobody waits for the answer.
func (q *asked) left() bool {
	select {
	case <-q.gone:
		return true
	default:
		return false
	}
}

// ask takes an ask while somebody leads, and tells whether it did.
func (b *Inbox) ask(q *asked) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.leading {
		b.asks = append(b.asks, q)
		signal(b.asked)
	}
	return b.leading
}

// takeAsks returns what was asked for since it was last called, in order.
func (b *Inbox) takeAsks() []*asked {
	b.mu.Lock()
	defer b.mu.Unlock()
	asks := b.asks
	b.asks = nil
	settle(b.asked)
	return asks
}

// request decides on the runs that are asked for.
func (t *term) request(s *state.State, m mark) {
	asks := t.wanted
	t.wanted = nil
	for _, q := range asks {
		if q.left() {
			continue
		}
		c, there, err := plan.Request(t.outlook, q.Ask, t.wall)
		if err != nil || there != nil {
			q.answer <- reply{Answer: Answer{Run: there, Err: err}}
			continue
		}
		t.queue.Expect(s, c, m.shown)
		t.commands = append(t.commands, command{Command: c, done: t.requested(q), failed: q.fail})
	}
}

// requested returns what to do with the answer to a request: when something else has
// changed the job first, it is decided anew.
func (t *term) requested(q *asked) func(state.Result) {
	return func(r state.Result) {
		q.tries++
		switch stale := errors.Is(r.Err, state.ErrStale); {
		case stale && q.tries < maxTries:
			t.wanted = append(t.wanted, q)
			return
		case stale:
			r.Err = fmt.Errorf("it changed %d times while this was tried, try again: %w", maxTries, r.Err)
		}
		q.answer <- reply{Answer: Answer{Run: r.Run, Agreed: true, Err: r.Err}}
	}
}

// turnAway answers those on whose asks nothing was decided.
func turnAway(asks []*asked) {
	for _, q := range asks {
		q.fail(raftstore.ErrNotLeader)
	}
}
