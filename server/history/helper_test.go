package history

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
)

// TestMain puts files in memory where that is possible: the clock of a bubble stands
// still during an fsync, so a slow disk proves nothing and only takes time.
func TestMain(m *testing.M) {
	const memory = "/dev/shm"
	if probe, err := os.CreateTemp(memory, "history"); err == nil && os.Getenv("TMPDIR") == "" {
		_ = probe.Close()
		_ = os.Remove(probe.Name())
		_ = os.Setenv("TMPDIR", memory)
	}
	os.Exit(m.Run())
}

var start = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// begin opens and starts a history on what is in dir. Close it, or abandon it.
func begin(dir string, keep Retention, st *shared) *Store {
	s := New(Config{Dir: dir, Keep: keep, Clock: time.Now, Filled: func() {}, Log: quiet()})
	s.Start(st.View)
	return s
}

// abandon ends a history as SIGKILL does: what is not on disk is lost.
func (s *Store) abandon() error {
	s.turn <- struct{}{} // between two transactions
	s.mu.Lock()
	s.queue, s.copy, s.told = newQueue(), false, s.kept
	s.mu.Unlock()
	<-s.turn
	return s.Close()
}

// shared is a state that somebody looks at while it changes.
type shared struct {
	mu    sync.RWMutex
	state *state.State
}

func newShared() *shared { return &shared{state: state.New()} }

func (s *shared) View(f func(*state.State)) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	f(s.state)
}

// failer is a test, of whatever kind.
type failer interface {
	Helper()
	Fatal(args ...any)
}

// flush waits until all that was handed over is on disk.
func flush(t failer, s *Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s.mu.Lock()
	index := s.told.Index
	s.mu.Unlock()
	if err := s.Flush(ctx, index); err != nil {
		t.Fatal(err)
	}
}

// aRun returns a run that ended, the n-th of all.
func aRun(n int) *state.Run {
	job := n % 7
	r := &state.Run{
		Job: state.JobKey{Namespace: "default", Name: fmt.Sprintf("job-%d", job)}, UID: uint64(job + 1), Version: 1,
		Trigger: "s", Phase: allFinal[n%len(allFinal)], Serial: uint64(n + 1),
		Created: start.Add(time.Duration(n) * time.Second), Finished: start.Add(time.Duration(n)*time.Second + 5*time.Second),
	}
	r.Nominal = r.Created
	r.ID = state.OccurrenceRunID(r.UID, r.Trigger, r.Nominal)
	if r.Phase != state.Skipped && r.Phase != state.Missed {
		w := n % 11
		r.Attempts = []state.Attempt{{
			Number: 1, Fence: uint64(n + 1), Worker: state.WorkerID(fmt.Sprintf("w-%026d", w)), WorkerName: fmt.Sprintf("worker-%d", w),
			Assigned: r.Created, Started: r.Created.Add(time.Second), Finished: r.Finished, Outcome: state.OutcomeSucceeded, LogBytes: 1234,
			CPUTime: 40 * time.Millisecond, MaxRSS: 12 << 20,
		}}
	}
	return r
}

// at is the point at which run n ended.
func at(n int) raftstore.Point {
	return raftstore.Point{Index: uint64(n + 1), Now: start.Add(time.Duration(n)*time.Second + 5*time.Second), Cluster: "c"}
}
