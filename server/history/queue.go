package history

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
)

const (
	// maxQueue bounds what waits while the file can't be written. Beyond it the
	// queue is dropped, and what is still in the state is copied anew later.
	maxQueue = 200_000

	// batch is how many runs go into one transaction.
	batch = 10_000

	// markEvery is how long the log may go on, by the leaders' clock, while no run
	// ends, before it is written how far it is.
	markEvery = 30 * time.Second
)

// item is a run to be written, or a mark: all that ended up to there came before.
type item struct {
	run    *state.Run // nil: a mark
	at     raftstore.Point
	unseen bool   // of a mark: more may have ended since the one before it
	undone uint64 // of a mark: what was born later, and came before it, never was; 0: nothing
}

// plain tells whether it is a mark that says only how far the log is.
func (i item) plain() bool { return i.run == nil && !i.unseen && i.undone == 0 }

// queue is what was handed over and is not on disk. The store's lock guards it.
type queue struct {
	items []item
	runs  map[state.RunID]*state.Run
}

func newQueue() queue { return queue{runs: map[state.RunID]*state.Run{}} }

// add puts runs and the mark that follows them at the end. A mark after a mark
// takes its place.
func (q *queue) add(m item, runs []*state.Run) {
	for _, r := range runs {
		q.items = append(q.items, item{run: r})
		q.runs[r.ID] = r
	}
	if n := len(q.items); n > 0 && q.items[n-1].plain() && m.plain() {
		q.items[n-1] = m
		return
	}
	q.items = append(q.items, m)
}

// undo lets nobody see any more what waits and never was. It is still written, and
// removed from there. It looks at all that waits, so not without need: what ends is handed
// over a hundred times a second, while the state is held, and a hundred thousand may wait.
func (q *queue) undo(after uint64) {
	if after == 0 {
		return
	}
	for id, r := range q.runs {
		if r.Serial > after {
			delete(q.runs, id)
		}
	}
}

// prepend puts runs, and the mark that follows them, before all others.
func (q *queue) prepend(m item, runs []*state.Run) {
	rest := q.items
	q.items = make([]item, 0, len(runs)+1+len(rest))
	for _, r := range runs {
		q.items = append(q.items, item{run: r})
		if q.runs[r.ID] == nil { // what waits already is as new
			q.runs[r.ID] = r
		}
	}
	q.items = append(append(q.items, m), rest...)
}

// next returns the first n, or all there are. They stay in the queue.
func (q *queue) next(n int) []item { return slices.Clone(q.items[:min(len(q.items), n)]) }

// drop takes out the first n.
func (q *queue) drop(n int) {
	for _, i := range q.items[:n] {
		if i.run != nil && q.runs[i.run.ID] == i.run {
			delete(q.runs, i.run.ID)
		}
	}
	clear(q.items[:n]) // so that what was written can be freed
	if q.items = q.items[n:]; len(q.items) == 0 {
		*q = newQueue() // also since a map that was large stays so
	}
}

// Ended implements [raftstore.Archive].
func (s *Store) Ended(at raftstore.Point, runs []*state.Run) {
	s.hand(item{at: at}, runs)
}

// Restored implements [raftstore.Archive].
func (s *Store) Restored(r raftstore.Restoration) {
	if r.Undone != 0 {
		s.hand(item{at: r.At, undone: r.Undone}, nil)
	}
	s.hand(item{at: r.At, unseen: r.Unseen}, r.Runs)
}

// hand takes what is handed over. It returns at once.
func (s *Store) hand(m item, runs []*state.Run) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = m.at
	early := s.db == nil || m.at.Now.Sub(s.kept.Now) < markEvery
	if len(runs) == 0 && len(s.queue.items) == 0 && len(s.flushers) == 0 && m.plain() && early {
		return // how far the log is goes with the next run, with a later mark, with Flush, or with Close
	}
	s.queue.undo(m.undone)
	s.queue.add(m, runs)
	if len(s.queue.items) > maxQueue {
		s.queue, s.copy = newQueue(), true
	}
	signal(s.wake)
	if len(s.queue.items) >= batch || len(s.flushers) > 0 {
		signal(s.hurry)
	}
}

// mark has it written how far the log is.
func (s *Store) mark() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue.items) == 0 && s.told.Index > s.kept.Index {
		s.queue.add(item{at: s.told}, nil)
	}
}

// flusher waits until all up to an index is on disk.
type flusher struct {
	index uint64
	done  chan struct{}
}

// errClosed is returned by calls after Close.
var errClosed = errors.New("the history is closed")

// Flush implements [raftstore.Archive].
func (s *Store) Flush(ctx context.Context, index uint64) error {
	f := &flusher{index: index, done: make(chan struct{})}
	s.mu.Lock()
	if s.kept.Index >= index && len(s.queue.items) == 0 && !s.copy {
		s.mu.Unlock()
		return nil
	}
	if len(s.queue.items) == 0 {
		s.queue.add(item{at: s.told}, nil)
	}
	s.flushers[f] = struct{}{}
	s.mu.Unlock()
	signal(s.wake)
	signal(s.hurry)
	select {
	case <-f.done:
		return nil
	case <-s.closing:
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.flushers, f)
	select {
	case <-s.closing:
		return errClosed
	default:
	}
	if s.fault != nil {
		return s.fault
	}
	return fmt.Errorf("writing the history up to entry %d, of which %d is done: %w", index, s.kept.Index, ctx.Err())
}

// signal puts a token where at most one is.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it has been told already
	}
}
