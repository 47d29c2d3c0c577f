package raftstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

// quiet is a log that nobody reads.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// alone opens the only primary of a group and waits until it leads.
func alone(t *testing.T, m *Memory, id ...string) *Store {
	t.Helper()
	s := open(t, Config{NodeID: append(id, "a")[0], Memory: m})
	awaitLeader(t, s)
	return s
}

// open opens a store that is closed with the test, if not before.
func open(t *testing.T, c Config) *Store {
	t.Helper()
	if c.Log == nil {
		c.Log = quiet()
	}
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// awaitLeader returns the one that leads and may propose. Only in a bubble.
func awaitLeader(t *testing.T, stores ...*Store) *Store {
	t.Helper()
	for range 600 {
		for _, s := range stores {
			if s.Status().Role == "leader" && s.barrier() == nil {
				return s
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("no leader within a minute")
	return nil
}

// putWorker is a command that is told from others by its number.
func putWorker(n int) state.Command {
	return state.PutWorker{ID: state.WorkerID(fmt.Sprintf("w%06d", n)), Says: state.WorkerInfo{Name: "w", Slots: n + 1}}
}

func numWorkers(s *Store) (n int) {
	s.View(func(st *state.State) { n = len(st.Workers()) })
	return n
}

func propose(t *testing.T, s *Store, commands ...state.Command) []state.Result {
	t.Helper()
	results, err := s.Propose(t.Context(), commands...)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

func TestProposeAndView(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := alone(t, NewMemory())
		results := propose(t, s, putWorker(1), state.SetOffline{ID: "nobody"}, putWorker(2))
		if len(results) != 3 || results[0].Worker.ID != "w000001" || results[2].Worker.ID != "w000002" {
			t.Errorf("results = %+v", results)
		}
		if !errors.Is(results[1].Err, state.ErrNotFound) {
			t.Errorf("err of the second = %v, want not found", results[1].Err)
		}
		if n := numWorkers(s); n != 2 {
			t.Errorf("%d workers, want 2", n)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := s.Propose(context.Background(), putWorker(3)); !errors.Is(err, ErrStopped) {
			t.Errorf("err = %v, want ErrStopped", err)
		}
	})
}
