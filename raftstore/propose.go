package raftstore

import (
	"context"
	"fmt"
	"sync"
	"time"

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

// gone tells whether nobody waits for the answer any more.
func (p *proposal) gone() bool {
	select {
	case <-p.cancelled:
		return true
	default:
		return false
	}
}

type answer struct {
	results []state.Result
	index   uint64 // of the entry
	err     error
}

// queue holds the proposals that wait for their turn. What gathers here while an
// entry is written becomes the next one.
type queue struct {
	mu       sync.Mutex
	cond     sync.Cond   // of what follows having changed
	waiting  []*proposal // oldest first
	closed   error       // why it takes no more; nil while it does
	taken    int         // how many entries were made
	written  int         // so many of which the disk is done with
	answered int         // and so many of which have come to their end
	company  company
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
	q.company.joined()
	q.cond.Signal()
	return nil
}

// take waits until there are proposals and it is time for an entry, and takes as many
// as fit one, the oldest first; none when the queue is closed. Those whose proposer has
// gone are dropped.
func (q *queue) take() []*proposal {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		for q.closed == nil && (len(q.waiting) == 0 || q.written < q.taken || q.taken-q.answered >= maxInFlight) {
			q.cond.Wait()
		}
		if q.closed != nil {
			return nil
		}
		q.gather()
		if batch := q.batch(); len(batch) > 0 {
			q.taken++
			q.company.taken(len(batch), time.Now())
			return batch
		}
	}
}

// gather gives those who are about to propose a moment to do so.
func (q *queue) gather() {
	patience := q.company.patience()
	if patience == 0 {
		return
	}
	over := false
	timer := time.AfterFunc(patience, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		over = true
		q.cond.Signal()
	})
	defer timer.Stop()
	for q.closed == nil && !over && q.few() && q.company.expected() > 0 {
		q.cond.Wait()
	}
}

// few tells whether those who wait are not enough for an entry.
func (q *queue) few() bool {
	n := 0
	for _, p := range q.waiting {
		if n += max(1, len(p.commands)); n >= enoughCompany {
			return false
		}
	}
	return true
}

func (q *queue) batch() []*proposal {
	var batch []*proposal
	commands, size := 0, 0
	for len(q.waiting) > 0 {
		p := q.waiting[0]
		if p.gone() {
			q.pop()
			continue
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

// write takes note that the disk is done with what there was to write, however that
// went.
func (q *queue) write() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.written < q.taken {
		q.company.written(time.Now())
	}
	q.written = q.taken
	q.wake()
}

// answer takes note that the oldest entry, which was made of n proposals, has come to its
// end. Raft may have refused it, so that it never came to the disk.
func (q *queue) answer(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.answered++
	q.company.answered(n)
	q.written = max(q.written, q.answered)
	q.wake()
}

func (q *queue) wake() {
	if len(q.waiting) > 0 {
		q.cond.Signal()
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
