package raftstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/schedd/schedd/raftstore/state"
)

const (
	// batchCommands and batchBytes bound what group commit puts into one entry:
	// enough that the disk's fsync is shared by many, and little enough that the
	// next ones don't wait for long. A single proposal may be larger.
	batchCommands = 256
	batchBytes    = 64 << 10

	// MaxProposal is the most that one proposal may hold, in encoded bytes. Much
	// larger entries delay the heartbeats behind them.
	MaxProposal = 1 << 20
)

// Propose asks the primaries to agree on the commands, and waits until this one
// has applied them. They stay together and in order, with nothing between them,
// but each is accepted or rejected on its own: results tells that of each of
// them, in order.
//
// The errors are [ErrNotLeader], [ErrUnknown], [ErrStopped], [ErrTooLarge],
// [ErrOldPrimary] and ctx's own, with which nothing is known, just as with
// ErrUnknown: what has been proposed can't be called back. Any other means that a command can't be stored,
// and that nothing was proposed.
func (s *Store) Propose(ctx context.Context, commands ...state.Command) (results []state.Result, err error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("proposing: %w", err)
	}
	if len(commands) == 0 {
		return nil, nil
	}
	p := &proposal{commands: make([][]byte, len(commands)), cancelled: ctx.Done(), answer: make(chan answer, 1)}
	var level uint32
	for i, c := range commands {
		if p.commands[i], err = encodeCommand(c); err != nil {
			return nil, fmt.Errorf("proposing: %w", err)
		}
		p.size += len(p.commands[i])
		level = max(level, s.levelOf(c))
	}
	if err := s.admit(level); err != nil {
		return nil, fmt.Errorf("proposing: %w", err)
	}
	if p.size > MaxProposal {
		return nil, fmt.Errorf("proposing %d commands of %d bytes, of %d allowed: %w", len(commands), p.size, MaxProposal, ErrTooLarge)
	}
	a, err := s.propose(ctx, p)
	return a.results, err
}

// propose has p put in the log, and waits for the answer.
func (s *Store) propose(ctx context.Context, p *proposal) (answer, error) {
	if err := s.queue.put(p); err != nil {
		return answer{}, fmt.Errorf("proposing: %w", err)
	}
	s.stats.proposals.Add(1)
	select {
	case a := <-p.answer:
		return a, a.err
	case <-ctx.Done():
		return answer{}, fmt.Errorf("proposing: %w", ctx.Err())
	}
}

// proposal is what one call of Propose wants; without commands, of ReadIndex.
type proposal struct {
	commands  [][]byte
	size      int             // of all commands
	cancelled <-chan struct{} // who proposed has gone
	answer    chan answer     // holds one, so that nobody waits for who has gone
}

type answer struct {
	results []state.Result
	index   uint64 // of the entry
	err     error
}

// queue holds the proposals that wait for their turn. What gathers here while an
// entry is in flight becomes the next one.
type queue struct {
	mu      sync.Mutex
	cond    sync.Cond   // of waiting or closed having changed
	waiting []*proposal // oldest first
	closed  error       // why it takes no more; nil while it does
}

func newQueue() *queue {
	q := &queue{}
	q.cond.L = &q.mu
	return q
}

func (q *queue) put(p *proposal) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed != nil {
		return q.closed
	}
	q.waiting = append(q.waiting, p)
	q.cond.Signal()
	return nil
}

// take waits until there are proposals, and takes as many as fit one entry, the
// oldest first; none when the queue is closed. Those whose proposer has gone are
// dropped.
func (q *queue) take() []*proposal {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		for len(q.waiting) == 0 && q.closed == nil {
			q.cond.Wait()
		}
		if q.closed != nil {
			return nil
		}
		if batch := q.batch(); len(batch) > 0 {
			return batch
		}
	}
}

func (q *queue) batch() []*proposal {
	var batch []*proposal
	commands, size := 0, 0
	for len(q.waiting) > 0 {
		p := q.waiting[0]
		select {
		case <-p.cancelled:
			q.pop()
			continue
		default:
		}
		commands, size = commands+len(p.commands), size+p.size
		if len(batch) > 0 && (commands > batchCommands || size > batchBytes) {
			break
		}
		batch = append(batch, p)
		q.pop()
	}
	return batch
}

func (q *queue) pop() {
	q.waiting[0] = nil
	if q.waiting = q.waiting[1:]; len(q.waiting) == 0 {
		q.waiting = nil
	}
}

// close answers those who wait, and all who still come, with err.
func (q *queue) close(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed != nil {
		return
	}
	q.closed = err
	for _, p := range q.waiting {
		p.answer <- answer{err: fmt.Errorf("proposing: %w", err)}
	}
	q.waiting = nil
	q.cond.Broadcast()
}

// commit makes entries of what is proposed, one at a time, until the queue is
// closed. It never waits in the hope of more. The turn may be taken from it:
// whoever has that knows that nothing is proposed.
func (s *Store) commit() {
	for {
		batch := s.queue.take()
		if batch == nil {
			return
		}
		var commands [][]byte
		for _, p := range batch {
			commands = append(commands, p.commands...)
		}
		s.turn <- struct{}{}
		results, index, err := s.apply(commands)
		<-s.turn
		for _, p := range batch {
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

// apply puts one entry in the log and waits until it is applied.
func (s *Store) apply(commands [][]byte) (results []state.Result, index uint64, err error) {
	begin := time.Now()
	entry, err := joinEntry(s.clock(), commands)
	if err != nil {
		return nil, 0, fmt.Errorf("proposing: %w", err)
	}
	future := s.put(entry)
	if err = future.Error(); err == nil {
		results, err = future.Response().(response).get()
	}
	s.stats.count(len(commands), len(entry), err)
	if f := s.observer.Proposed; f != nil {
		f(len(commands), len(entry), time.Since(begin), err)
	}
	switch err := ours(err); {
	case err == nil:
		return results, future.Index(), nil
	case errors.Is(err, ErrNotLeader), errors.Is(err, ErrStopped), errors.Is(err, ErrUnknown):
		return nil, 0, fmt.Errorf("proposing: %w", err)
	default:
		return nil, 0, fmt.Errorf("proposing: %w: %w", ErrUnknown, err)
	}
}

// putAgain is how often who waits for Raft to take an entry looks whether it ever will.
const putAgain = time.Second

// put gives Raft an entry for the log. Raft's own goroutine takes it, which may be
// waiting for the disk, or have ended because of it.
func (s *Store) put(entry []byte) raft.ApplyFuture {
	for {
		f := s.raft.Apply(entry, putAgain)
		if !errors.Is(f.Error(), raft.ErrEnqueueTimeout) || s.disk.guard.ended.Load() {
			return f
		}
		select {
		case <-s.stopping:
			return f
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
