package raftstore

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/schedd/schedd/raftstore/state"
)

// fsm hands the log to the state. Raft calls its methods from one goroutine, save
// Restore while it starts; the lock is for View.
//
// Raft has no way to tell that an entry can't be applied, and going on without
// it would make this primary disagree with the others. So the first such entry
// is the last one: what comes after it is refused, and no snapshot is taken that
// would claim to have seen it.
type fsm struct {
	observer Observer
	archive  Archive // nil: none
	log      *slog.Logger
	onFail   func(error) // called once, by the goroutine that applies
	onGroup  func()      // called by it when the group has changed
	failed   chan struct{}
	level    uint32 // of commands that it knows

	mu       sync.RWMutex // guards what follows
	state    *state.State
	fault    error
	shared   shared               // of the jobs; of the goroutine that applies
	incoming *incoming            // the parts of a snapshot that came last; nil: none
	waiting  map[*waiter]struct{} // calls of await
	goal     goal

	subMu sync.Mutex // guards subs
	subs  []*subscriber

	// restoreErr is why the last Restore failed; for Open, which Raft does not
	// tell.
	restoreErr error
}

type subscriber struct{ f func([]state.Change) }

// waiter waits for the state to come to an index. One that has been told is no
// longer waiting.
type waiter struct {
	index   uint64
	reached chan struct{}
}

// response is what Raft carries from apply to Propose.
type response struct {
	results []state.Result
	err     error
}

func (r response) get() ([]state.Result, error) { return r.results, r.err }

func newFSM(c Config, onFail func(error)) *fsm {
	return &fsm{observer: c.Observer, archive: c.Archive, log: c.Log, onFail: onFail, onGroup: func() {}, failed: make(chan struct{}), level: cmp.Or(c.Level, Level), state: state.New(), shared: newShared(), waiting: map[*waiter]struct{}{}}
}

func (f *fsm) err() error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.fault
}

// fail stops everything, unless that was done. err has to tell the operator what to do.
func (f *fsm) fail(err error) {
	f.mu.Lock()
	again := f.fault != nil
	if !again {
		f.fault = err
	}
	f.mu.Unlock()
	if again {
		return
	}
	close(f.failed)
	f.onFail(err)
}

// Apply implements [raft.FSM].
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements [raft.BatchingFSM]: entries that are committed together
// are applied under one lock.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	answers := make([]any, len(logs))
	entries := make([]entry, 0, len(logs))
	fault := f.err()
	had := fault != nil
	for _, l := range logs {
		var e entry
		if l.Type == raft.LogCommand && fault == nil {
			var err error
			if e, err = decodeEntry(l.Data, f.shared); err == nil {
				err = knownTo(f.level, e.Commands)
			}
			if err != nil {
				fault = fmt.Errorf("log entry %d %w", l.Index, err)
			}
		}
		if fault != nil {
			break
		}
		entries = append(entries, e)
	}
	changes, replaced, panicked := f.apply(logs, entries, answers)
	if panicked != nil {
		fault = panicked
	}
	if fault != nil && !had {
		f.fail(fault)
	}
	for i := range answers {
		if answers[i] == nil {
			answers[i] = response{err: fault}
		}
	}
	if slices.ContainsFunc(logs, func(l *raft.Log) bool { return l.Type == raft.LogConfiguration }) {
		f.onGroup()
	}
	if replaced {
		f.publish(nil)
	} else if len(changes) > 0 {
		f.publish(changes)
	}
	last := logs[len(logs)-1]
	if fault != nil {
		return answers
	}
	f.tell(func(g *goal) bool { return g.applied(last.Index, last.Term) })
	return answers
}

// tell tells those who wait that the state has come further, and that the goal is
// reached if it is.
func (f *fsm) tell(isReached func(*goal) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.waiting {
		if w.index <= f.state.Index() {
			delete(f.waiting, w)
			close(w.reached)
		}
	}
	if isReached(&f.goal) && f.goal.reached != nil {
		f.goal.reached()
		f.goal.reached = nil
	}
}

// index returns that of the last entry that the state was given.
func (f *fsm) index() uint64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.state.Index()
}

// await returns a channel that is closed once the state has come to index. Who
// asked has to cancel.
func (f *fsm) await(index uint64) (reached <-chan struct{}, cancel func()) {
	w := &waiter{index: index, reached: make(chan struct{})}
	f.mu.Lock()
	defer f.mu.Unlock()
	if index <= f.state.Index() {
		close(w.reached)
		return w.reached, func() {}
	}
	f.waiting[w] = struct{}{}
	return w.reached, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.waiting, w)
	}
}

// apply applies the entries, of which there may be fewer than logs. Should the
// state panic, then on every primary, at the same entry. replaced tells that a
// snapshot took the place of the state.
func (f *fsm) apply(logs []*raft.Log, entries []entry, answers []any) (changes []state.Change, replaced bool, fault error) {
	begin, commands := time.Now(), 0
	f.mu.Lock()
	i := 0
	defer func() {
		changes = f.state.TakeChanges()
		if p := recover(); p != nil {
			fault = fmt.Errorf("log entry %d can't be applied, please report this: %v", logs[i].Index, p)
			f.log.Error("applying a log entry panicked", "index", logs[i].Index, "stack", string(debug.Stack()))
		} else {
			f.file()
		}
		f.mu.Unlock()
		if o := f.observer.Applied; o != nil && commands > 0 {
			o(commands, time.Since(begin))
		}
	}()
	for ; i < len(entries); i++ {
		if logs[i].Type != raft.LogCommand {
			answers[i] = response{} // the group has changed; Raft keeps that itself
			continue
		}
		if entries[i].part != nil {
			was := f.state
			answers[i], fault = f.takePart(logs[i].Index, entries[i])
			if replaced = replaced || f.state != was; fault != nil {
				break
			}
			continue
		}
		f.incoming = nil
		answers[i] = response{results: f.state.Apply(logs[i].Index, entries[i].Entry)}
		commands += len(entries[i].Commands)
	}
	return nil, replaced, fault
}

// takePart takes a part of a snapshot; with the last one, the state that it is of
// takes the place of this one. The caller holds the lock.
func (f *fsm) takePart(index uint64, e entry) (any, error) {
	if f.incoming == nil || e.part.GetFirst() == 0 {
		f.incoming = newIncoming(f.shared)
	}
	n, err := f.incoming.take(e.part)
	if n != nil || err != nil {
		f.incoming = nil
	}
	switch {
	case errors.Is(err, errNewer):
		return nil, fmt.Errorf("log entry %d is part of a snapshot: %w", index, err)
	case n != nil:
		f.file()
		f.state = n.Replace(f.state, index, e.Now)
		f.fileAll(n, false)
	}
	return response{results: []state.Result{{Err: err}}}, nil
}

func (f *fsm) subscribe(g func([]state.Change)) (cancel func()) {
	s := &subscriber{g}
	f.subMu.Lock()
	defer f.subMu.Unlock()
	f.subs = append(slices.Clip(f.subs), s)
	return func() {
		f.subMu.Lock()
		defer f.subMu.Unlock()
		f.subs = slices.DeleteFunc(slices.Clone(f.subs), func(t *subscriber) bool { return s == t })
	}
}

func (f *fsm) publish(changes []state.Change) {
	f.subMu.Lock()
	subs := f.subs // never changed in place
	f.subMu.Unlock()
	for _, s := range subs {
		s.f(changes)
	}
}

// Snapshot implements [raft.FSM]. It copies pointers only.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.fault != nil {
		return nil, fmt.Errorf("taking a snapshot: %w", f.fault)
	}
	if f.incoming != nil {
		return nil, errors.New("taking a snapshot: one is being restored; try again later")
	}
	return &snapshot{content: f.state.Snapshot(), observer: f.observer, flush: f.flush}, nil
}

// Restore implements [raft.FSM]. When it fails the state is as it was.
func (f *fsm) Restore(r io.ReadCloser) error {
	n, err := readSnapshot(r)
	f.restoreErr = err
	if err != nil {
		if errors.Is(err, errNewer) && f.err() == nil {
			f.fail(fmt.Errorf("restoring: %w", err))
		}
		return err
	}
	s := n.Restore()
	f.mu.Lock()
	f.state, f.incoming = s, nil
	f.fileAll(n, true)
	f.mu.Unlock()
	f.publish(nil)
	f.tell((*goal).restored)
	return nil
}

// snapshot is a state on its way to the disk.
type snapshot struct {
	content  *state.Snapshot
	observer Observer
	flush    func(index uint64)
}

// Persist implements [raft.FSMSnapshot]. It runs beside Apply.
func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	begin := time.Now()
	s.flush(s.content.Index)
	n, err := writeSnapshot(sink, s.content)
	if err != nil {
		return errors.Join(fmt.Errorf("writing snapshot %s: %w", sink.ID(), err), sink.Cancel())
	}
	if err := sink.Close(); err != nil {
		return fmt.Errorf("closing snapshot %s: %w", sink.ID(), err)
	}
	if f := s.observer.Snapshotted; f != nil {
		f(n, time.Since(begin))
	}
	return nil
}

// Release implements [raft.FSMSnapshot].
func (s *snapshot) Release() {}
