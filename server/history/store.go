package history

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
)

// ErrUnavailable is returned while the file can't be used, wrapped with the reason.
// The same call may work later, or on another primary.
var ErrUnavailable = errors.New("the history of this primary can't be read")

// Config is what a [Store] is made of. All of it is required.
type Config struct {
	// Dir is where the file is. It is made when it is missing.
	Dir string
	// Keep bounds what is kept.
	Keep Retention
	// Clock reads the time by which runs grow old. It should not show what is in doubt:
	// what was deleted can't be had back.
	Clock func() time.Time
	// Filled is called when the history knows of older runs than before, or may
	// no longer hope to. It must not block.
	Filled func()
	// Log is told when the file can't be used, and of gaps.
	Log *slog.Logger
}

// Store is the history on one primary. It is a [raftstore.Archive] from the
// beginning, and writes once it was started. All methods may be called at any time
// from any goroutine.
type Store struct {
	Config

	view    func(func(*state.State))
	batch   int           // how many items go into one transaction
	wake    chan struct{} // holds a token: there is something to write
	hurry   chan struct{} // likewise: now
	holes   chan struct{} // likewise: there is a gap to fill
	turn    chan struct{} // holds one while somebody writes
	closing chan struct{} // closed by Close
	writer  sync.WaitGroup

	mu       sync.Mutex // guards what follows
	db       *database  // nil: the file can't be opened
	queue    queue
	copy     bool                  // all that has ended in the state is to be put in the queue first
	spoilt   bool                  // the file was found to be damaged
	altered  map[int64][]time.Time // runs that were found to be changed in it, by serial number: when they may have ended
	told     raftstore.Point       // up to where all was handed over
	kept     raftstore.Point       // up to where all is on disk
	gaps     []Gap                 // as in the file
	begun    uint64                // likewise: the greatest serial number when the latest gap was lost
	fault    error                 // why the latest write failed; nil: it did not
	flushers map[*flusher]struct{}
}

// New returns a store that takes what it is handed. Whoever makes one has to Close it.
func New(c Config) *Store {
	return &Store{
		Config: c, wake: make(chan struct{}, 1), hurry: make(chan struct{}, 1), holes: make(chan struct{}, 1),
		turn: make(chan struct{}, 1), closing: make(chan struct{}), batch: batch,
		queue: newQueue(), flushers: map[*flusher]struct{}{}, altered: map[int64][]time.Time{},
	}
}

// Start opens the file, and begins to write what is handed over. Nobody else may use
// the directory. A file that can't be used is no reason not to be a primary: that is
// told by [Store.Fault], and tried again. view shows the replicated state.
func (s *Store) Start(view func(func(*state.State))) {
	s.view = view
	if err := s.open(context.Background()); err != nil {
		s.fail(err)
	}
	signal(s.wake)
	s.writer.Go(s.run)
}

// Close writes what is left, and closes the file. Nothing may be handed over any
// more.
func (s *Store) Close() error {
	close(s.closing)
	s.writer.Wait()
	return s.shut()
}

// shut closes the file.
func (s *Store) shut() error {
	s.mu.Lock()
	db := s.db
	s.db = nil
	s.mu.Unlock()
	if db == nil {
		return nil
	}
	if err := db.close(); err != nil {
		return fmt.Errorf("closing the history: %w", err)
	}
	return nil
}

// Held returns up to when, by the leaders' clocks, all that ended is on this primary's
// disk: what ended before may be forgotten. It is zero while nothing can be written.
func (s *Store) Held() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault != nil || s.copy {
		return time.Time{}
	}
	return s.kept.Now
}

// Fault tells why the history can't be written; nil when it can.
func (s *Store) Fault() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault
}

// Gaps returns the times of which the history may lack runs, in their order.
func (s *Store) Gaps() []Gap {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.gaps)
}

// Missing says in a sentence what a list of runs that ended may lack; "" when it lacks
// nothing that any primary has. What none has is told by [Store.Lost].
func (s *Store) Missing() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.db == nil && s.fault != nil:
		return fmt.Sprintf("the history of this primary can't be opened (%v): ask another primary", s.fault)
	case s.db == nil || s.copy || s.spoilt:
		return "the history of this primary is being made anew: ask another primary, or again later"
	}
	for _, g := range s.gaps {
		if g.Lost {
			continue
		}
		return fmt.Sprintf("this primary is still being given the runs that ended %s: ask another primary, or again later", g)
	}
	return ""
}

// maxSpans is how many spans of time a sentence names.
const maxSpans = 3

// Lost says in a sentence which of the runs that were created after a time, zero for
// all, no primary may have any more; "" when none is known to be lost.
func (s *Store) Lost(after time.Time) string {
	var spans []string
	for _, g := range s.Gaps() {
		if g.Lost && g.Last.After(after) { // what ended in it began before its end
			spans = append(spans, g.String())
		}
	}
	if len(spans) == 0 {
		return ""
	}
	if n := len(spans) - maxSpans; n > 0 {
		spans = append(spans[:maxSpans], fmt.Sprintf("in %d more spans of time", n))
	}
	return fmt.Sprintf("no primary may have all runs that ended %s, since their records are lost: put a copy of the history in place, or confirm the loss, as the manual says under \"What is lost\"",
		strings.Join(spans, ", and "))
}

// MayLack tells whether the attempt of that fence may be one of a run whose record is
// lost: fences and serial numbers are one sequence, so one that is greater than all were
// then began later.
func (s *Store) MayLack(fence uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fence <= s.begun && anyLost(s.gaps)
}

// Stats is what there is to watch.
type Stats struct {
	Queued int   // runs that wait to be written
	Bytes  int64 // of the file, and its log
	Gaps   int   // that are being filled
	Lost   int   // gaps that nobody can fill
	Failed bool  // it can't be written
}

// Stats returns what there is to watch.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	st := Stats{Queued: len(s.queue.runs), Failed: s.fault != nil}
	for _, g := range s.gaps {
		if g.Lost {
			st.Lost++
		} else {
			st.Gaps++
		}
	}
	s.mu.Unlock()
	for _, suffix := range []string{"", "-wal"} {
		if i, err := os.Stat(filepath.Join(s.Dir, fileName+suffix)); err == nil {
			st.Bytes += i.Size()
		}
	}
	return st
}

// handle returns the open file.
func (s *Store) handle() (*database, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db != nil {
		return s.db, nil
	}
	if s.fault != nil {
		return nil, s.fault
	}
	return nil, errClosed
}

// fail takes note that the file can't be used, and says so when it is news.
func (s *Store) fail(err error) {
	s.mu.Lock()
	was := s.fault
	s.fault = err
	s.mu.Unlock()
	if was == nil || was.Error() != err.Error() {
		s.Log.Error("the history can't be written; scheduling goes on, and what ended is kept in memory until it can", "dir", s.Dir, "err", err)
	}
}

// heal takes note that it can be used again.
func (s *Store) heal() {
	s.mu.Lock()
	was := s.fault
	s.fault = nil
	s.mu.Unlock()
	if was != nil {
		s.Log.Info("the history can be written again", "dir", s.Dir)
	}
}
