package raftstore

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/schedd/schedd/raftstore/state"
)

// maxInFlight is how many entries may be on their way at once. Alone there are two: one
// that is written, and one that is applied and answered. In a group an entry also waits
// for the others, while the next ones are written here.
const maxInFlight = 4

// commit makes entries of what is proposed, until the queue is closed. It waits for the
// disk, and for the company of those who are likely to come: the next entry is made of all
// that has gathered while the one before was written here, and is written in turn while
// that one is agreed, applied and answered. Nothing is answered before its own entry is applied. The
// turn may be taken from it: what whoever has that puts in the log comes after all that was
// put there before, with nothing between.
func (s *Store) commit() {
	flights := make(chan *flight, maxInFlight)
	s.running.Go(func() { s.arrive(flights) })
	defer close(flights)
	for {
		batch := s.queue.take()
		if batch == nil {
			return
		}
		s.turn <- struct{}{}
		f := s.depart(batch)
		<-s.turn
		flights <- f
	}
}

// arrive answers the entries that are on their way, in the order in which they were made,
// until there are no more. In the log one that Raft did not take at once may come after the
// next: whoever needs an order waits for the answer.
func (s *Store) arrive(flights <-chan *flight) {
	for f := range flights {
		results, index, err := s.answer(f)
		s.queue.answer(f.taken)
		for _, p := range f.batch {
			if err != nil {
				p.answer <- answer{err: err}
				continue
			}
			n := len(p.commands)
			p.answer <- answer{results: results[:n:n], index: index}
			results = results[n:]
		}
	}
}

// flight is an entry on its way.
type flight struct {
	batch    []*proposal // those that it is made of
	taken    int         // how many were taken for it, with those that have gone since
	begin    time.Time
	commands int
	entry    []byte
	future   raft.ApplyFuture
	err      error // why there is no entry
}

// depart makes an entry and gives it to Raft. The caller has the turn.
func (s *Store) depart(batch []*proposal) *flight {
	f := &flight{batch: batch, taken: len(batch), begin: time.Now()}
	if s.load(f); f.err == nil {
		f.future = s.raft.Apply(f.entry, putAgain)
	}
	return f
}

// load makes an entry of what is proposed by who has not gone. The caller has the turn, and
// keeps it until Raft has the entry: a leader whose term is over has gone before the next one
// begins, which takes the turn, too, so nothing of the old one comes behind its beginning.
func (s *Store) load(f *flight) {
	f.batch = slices.DeleteFunc(f.batch, (*proposal).gone)
	if len(f.batch) == 0 {
		f.err = errAllGone
		return
	}
	var commands [][]byte
	for _, p := range f.batch {
		commands = append(commands, p.commands...)
	}
	f.commands = len(commands)
	f.entry, f.err = joinEntry(s.clock(), commands)
}

// errAllGone is why there is no entry for those who have gone; nobody is told.
var errAllGone = errors.New("nobody waits for it any more")

// answer waits until an entry is applied, or it is known that it may not be.
func (s *Store) answer(f *flight) (results []state.Result, index uint64, err error) {
	if f.err != nil {
		return nil, 0, fmt.Errorf("proposing: %w", f.err)
	}
	if err = s.await(f.future); errors.Is(err, raft.ErrEnqueueTimeout) {
		s.turn <- struct{}{}
		if s.load(f); f.err == nil {
			f.future, err = s.put(f.entry)
		}
		<-s.turn
		if f.err != nil {
			return nil, 0, fmt.Errorf("proposing: %w", f.err)
		}
	}
	if err == nil {
		results, err = f.future.Response().(response).get()
	}
	s.stats.count(f.commands, len(f.entry), err)
	if o := s.observer.Proposed; o != nil {
		o(f.commands, len(f.entry), time.Since(f.begin), err)
	}
	if errors.Is(err, raft.ErrRaftShutdown) { // which it also says of what it has committed
		err = errUnanswered
	}
	switch err := ours(err); {
	case err == nil:
		return results, f.future.Index(), nil
	case errors.Is(err, ErrNotLeader), errors.Is(err, ErrStopped), errors.Is(err, ErrUnknown):
		return nil, 0, fmt.Errorf("proposing: %w", err)
	default:
		return nil, 0, fmt.Errorf("proposing: %w: %w", ErrUnknown, err)
	}
}

// errUnanswered is what becomes of an entry that Raft had when it ended.
var errUnanswered = fmt.Errorf("%w: this primary was stopped before it was agreed", ErrUnknown)

// await returns what Raft answers, or that nobody knows when it has ended without an answer
// (hashicorp/raft#498). A future is awaited once: who was sent to wait for one without an
// answer may still be there.
func (s *Store) await(future raft.Future) error {
	answered := make(chan error, 1)
	go func() { answered <- future.Error() }()
	select {
	case err := <-answered:
		return err
	case <-s.down:
		return errUnanswered
	}
}

// putAgain is how often who waits for Raft to take an entry looks whether it ever will.
const putAgain = time.Second

// put gives Raft an entry for the log, and returns what became of it as [Store.await] does.
// Raft's own goroutine takes it, which may be waiting for the disk, or have ended because
// of it. The caller has the turn.
func (s *Store) put(entry []byte) (raft.ApplyFuture, error) {
	for {
		f := s.raft.Apply(entry, putAgain)
		err := s.await(f)
		if !errors.Is(err, raft.ErrEnqueueTimeout) || s.disk.guard.ended.Load() {
			return f, err
		}
		select {
		case <-s.stopping:
			return f, err
		default:
		}
	}
}

func (c *counters) count(commands, bytes int, err error) {
	if err != nil {
		c.failures.Add(1)
		return
	}
	c.entries.Add(1)
	c.commands.Add(uint64(commands))
	c.bytes.Add(uint64(bytes))
}
