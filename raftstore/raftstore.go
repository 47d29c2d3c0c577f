// Package raftstore keeps the state of package state on every primary, the same
// on all of them.
//
// It is the only package that knows Raft. Above it there are three things to
// do: [Store.Propose] a change, [Store.View] what is agreed, and [Store.Lead]
// while this primary is the leader.
//
// Who belongs together is Raft's to keep, and told here: [Store.Form] a group,
// [Store.AddServer], [Store.RemoveServer], [Store.TransferTo] another leader. A read
// on any primary sees what was acknowledged on another one after [Store.ReadIndex]
// there and [Store.WaitApplied] here. [Store.SaveSnapshot], [Store.RestoreSnapshot]
// and [Recover] are for the day when something is lost.
//
// It decides nothing: what a change means is up to package state, and which
// changes to propose is up to whoever leads. It never ends the program; when it
// can't go on it says so by [Store.Failed].
package raftstore

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/schedd/schedd/raftstore/state"
)

var (
	// ErrNotLeader is returned when this primary may not propose: it isn't the
	// leader, or is handing over. Nothing was proposed; ask the leader.
	ErrNotLeader = errors.New("not the leader")

	// ErrUnknown is returned when this primary can't tell what became of a
	// proposal: it lost the leadership, or its disk, meanwhile. It may have been
	// agreed, or yet be. Look before proposing it again.
	ErrUnknown = errors.New("outcome unknown")

	// ErrStopped is returned when the store is closed, or has failed. Nothing was
	// proposed.
	ErrStopped = errors.New("store stopped")

	// ErrTooLarge is returned when a proposal is larger than [MaxProposal].
	// Nothing was proposed; propose less at a time.
	ErrTooLarge = errors.New("proposal too large")
)

// Config says how to open a store. NodeID, Log, and Dir or Memory are
// needed; the rest is for tests and for groups of several primaries.
type Config struct {
	// NodeID names this primary in the cluster. It has to stay the same for the
	// life of its data.
	NodeID string

	// Dir is where the Raft log and its snapshots are kept. It is made when it is
	// missing, and locked while the store is open.
	Dir string

	// Memory is a disk for tests. When it is set, Dir is not used.
	Memory *Memory

	// Address is where the others will reach this primary, for the record of a
	// group that it forms alone; "": NodeID. With Streams or a Transport, theirs
	// counts.
	Address string

	// Streams is how this primary reaches the others; nil, with no Transport
	// either: it reaches none, and has to be the only one. The store closes it,
	// also when it can't be opened.
	Streams StreamLayer

	// Transport is in place of Streams, for tests in this package. The store closes
	// it.
	Transport raft.Transport

	// Bootstrap is the group that this primary forms when it has no data yet;
	// nil: itself alone. The primaries that form a group together must all be
	// given the same one.
	Bootstrap []Server

	// Join makes a primary that has no data yet wait until the leader of a group
	// adds it, or until it is told to form one, see [Store.Form].
	Join bool

	// Levels returns up to which level of commands each primary has said that it can
	// apply, by id; see [Level]. It is asked on the leader, and must not block. nil:
	// nothing is known of any other.
	Levels func() map[string]uint32

	// Level is up to which this primary knows commands, for tests of groups in which one is
	// of an older version; 0: [Level].
	Level uint32

	// Clock reads the wall clock, by which entries are stamped; nil: time.Now.
	Clock func() time.Time

	// Tuning, each with a good default for 0.
	SnapshotThreshold uint64        // entries after which a snapshot is taken; 16,384
	SnapshotInterval  time.Duration // how often to look whether to take one; 2 minutes
	TrailingLogs      uint64        // entries kept behind a snapshot; 32,768
	MaxLog            int64         // bytes of the log beyond which one is taken at once, unless the last one has more; 64 MiB
	Room              int64         // bytes that the log's file has from the beginning, so that writing it is quicker; none
	HeartbeatTimeout  time.Duration // silence of the leader after which another is elected; 500 ms, and none when alone. With more, all of Raft is slower

	// Archive is handed the runs that have ended; nil: nobody is.
	Archive Archive

	// Observer is told what happens, for metrics.
	Observer Observer

	// Log is told what an operator should know, and at debug all that Raft says.
	Log *slog.Logger
}

// Observer is told what a store does. Its functions are called in the midst of
// it, so they must return at once; those that are nil are not called.
type Observer struct {
	// Proposed tells that this primary got an answer to an entry of so many
	// commands and bytes, and how long that took. err is nil when it was agreed.
	Proposed func(commands, bytes int, took time.Duration, err error)
	// Applied tells that so many commands were applied to the state under one
	// lock, and for how long that was held.
	Applied func(commands int, took time.Duration)
	// Snapshotted tells that a snapshot of so many bytes was written.
	Snapshotted func(bytes int64, took time.Duration)
}

// Server is one primary of the group.
type Server struct {
	ID      string // its NodeID
	Address string // where the others reach it
	Voter   bool
}

// Store is one primary's copy of the state. Its methods may be called from any
// goroutine.
type Store struct {
	id        string
	log       *slog.Logger
	observer  Observer
	clock     func() time.Time
	raft      *raft.Raft
	transport raft.Transport
	fsm       *fsm
	disk      *disk
	queue     *queue
	turn      chan struct{} // holds one while somebody puts something in the log
	restoring chan struct{} // holds one while a snapshot is on its way to be restored
	watchers  *watchers
	stats     counters
	level     uint32 // of commands that this primary knows
	levels    func() map[string]uint32

	maxSnapshot int64                      // of this package; tests have another
	levelOf     func(state.Command) uint32 // likewise

	stopping chan struct{} // closed when Close begins
	down     chan struct{} // closed when Raft has ended
	stopped  chan struct{} // closed when Close has ended
	caughtUp chan struct{} // closed by catchUp
	once     sync.Once     // guards the closing of caughtUp
	running  sync.WaitGroup

	mu       sync.Mutex     // guards what follows
	closing  bool           //
	closeErr error          // of Close, once stopped is closed
	inflight sync.WaitGroup // calls that wait for Raft; Add is guarded, Wait is not
}

// counters are what [Store.Stats] returns.
type counters struct {
	proposals, entries, commands, bytes, failures atomic.Uint64
}

// View calls f with the state as of the last entry applied here. f must be quick,
// change nothing, and not keep the state, but may keep the jobs, runs, workers
// and tracks that it finds in it. It must not call the store.
//
// A store that has failed goes on showing what it last knew.
func (s *Store) View(f func(*state.State)) {
	s.fsm.mu.RLock()
	defer s.fsm.mu.RUnlock()
	f(s.fsm.state)
}

// Subscribe has f called with what changed, after each entry, or several, that
// were applied, in their order, and before their proposers get the answer. A nil
// slice means that everything may have changed: a snapshot took the place of the
// state. f is called from the goroutine that applies, with no lock held, so it
// may View; it must not block and must not change the slice. It may be called
// once more while cancel is being called.
func (s *Store) Subscribe(f func([]state.Change)) (cancel func()) {
	return s.fsm.subscribe(f)
}

// CaughtUp is closed once this primary has applied all that its log held when it
// was opened. Raft learns only from a leader how much of its log is agreed, so
// until then View shows the last snapshot, and what was acknowledged after it
// seems never to have been: whoever answers people waits for it. One that was
// opened without data comes to it with the first that it gets from a leader, and
// that is not all: it waits for [Store.WaitApplied] too, with the leader's index.
func (s *Store) CaughtUp() <-chan struct{} { return s.caughtUp }

func (s *Store) catchUp() { s.once.Do(func() { close(s.caughtUp) }) }

// Failed is closed when this primary can't go on: its log holds what it can't
// apply. It then neither applies nor proposes anything; close the store, end the
// program and show [Store.Err].
func (s *Store) Failed() <-chan struct{} { return s.fsm.failed }

// Err tells why the store failed; nil when it has not.
func (s *Store) Err() error { return s.fsm.err() }

// Stopped tells whether this primary takes no part in the group any more, since it
// is closed, or is being closed.
func (s *Store) Stopped() bool { return s.raft.State() == raft.Shutdown }

// Close stops this primary. Proposals that wait for their turn get [ErrStopped];
// the one in flight is answered first. Whoever is in [Store.Lead] is told to end,
// but not waited for. Closing again waits for the first and returns the same.
func (s *Store) Close() error {
	s.mu.Lock()
	first := !s.closing
	s.closing = true
	s.mu.Unlock()
	if !first {
		<-s.stopped
		return s.closeErr
	}
	close(s.stopping)
	s.queue.close(ErrStopped)
	// Raft forgets to answer what it has committed but not applied when it is
	// shut down (hashicorp/raft#498), so let it answer first. What can't be agreed on it
	// answers only then: the others may have no room for it, or this disk be gone.
	s.awaitAnswers()
	down := s.raft.Shutdown()
	// Raft would wait for the answers of others that are gone, each for so long as
	// it may take, before it closes what they come by.
	s.closeErr = errors.Join(closeTransport(s.transport), down.Error())
	close(s.down)
	s.running.Wait()
	s.inflight.Wait()
	s.closeErr = errors.Join(s.closeErr, s.disk.close())
	close(s.stopped)
	return s.closeErr
}

// lastAnswers is how long a store that is closed waits for Raft to answer: longer than a
// leader that nobody follows goes on to lead.
const lastAnswers = 5 * time.Second

// awaitAnswers waits until Raft has answered what it will, but not for ever.
func (s *Store) awaitAnswers() {
	all := make(chan struct{})
	go func() {
		defer close(all)
		s.running.Wait()
		if !s.disk.guard.ended.Load() {
			s.inflight.Wait()
			return
		}
		// Who would answer has ended because of the disk. What has got as far as the log
		// is answered, since whoever put it there has given back the turn.
		s.turn <- struct{}{}
		<-s.turn
	}()
	patience := time.NewTimer(lastAnswers)
	defer patience.Stop()
	select {
	case <-all:
	case <-patience.C:
	}
}

// enter counts one call that waits for Raft, unless the store is closing. Who
// entered has to leave.
func (s *Store) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.inflight.Add(1)
	return true
}

func (s *Store) leave() { s.inflight.Done() }

// Snapshot writes a snapshot of the state now, so that the log can be cut behind
// it. It is done without asking often enough.
func (s *Store) Snapshot(ctx context.Context) error {
	return s.ask(ctx, "take a snapshot", func() error {
		err := s.raft.Snapshot().Error()
		if errors.Is(err, raft.ErrNothingNewToSnapshot) {
			return nil
		}
		return err
	})
}
