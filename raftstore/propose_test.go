package raftstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/schedd/schedd/raftstore/state"
)

// entries records what one primary puts in the log.
type entries struct {
	mu   sync.Mutex
	list [][2]int // commands and bytes
}

func (e *entries) observer() Observer {
	return Observer{Proposed: func(commands, bytes int, _ time.Duration, err error) {
		e.mu.Lock()
		defer e.mu.Unlock()
		if err == nil {
			e.list = append(e.list, [2]int{commands, bytes})
		}
	}}
}

func (e *entries) commands() (n []int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, v := range e.list {
		n = append(n, v[0])
	}
	return n
}

// busy opens a store whose disk takes a second for each entry, and has one entry
// in flight, so that what is proposed next gathers.
func busy(t *testing.T, e *entries) (s *Store, first chan error) {
	t.Helper()
	m := NewMemory()
	s = open(t, Config{NodeID: "a", Memory: m, Observer: e.observer()})
	awaitLeader(t, s)
	m.BeforeWrite(func() { time.Sleep(time.Second) })
	first = make(chan error, 1)
	go func() {
		_, err := s.Propose(context.Background(), putWorker(0))
		first <- err
	}()
	synctest.Wait()
	return s, first
}

// What is proposed while an entry is in flight becomes the next one, in order.
func TestGroupCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var e entries
		s, first := busy(t, &e)
		begin := time.Now()
		var order []string
		s.Subscribe(func(changes []state.Change) {
			for _, c := range changes {
				order = append(order, string(c.Worker))
			}
		})
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				results, err := s.Propose(context.Background(), putWorker(2*i+1), putWorker(2*i+2))
				if err != nil || len(results) != 2 || results[0].Worker.Says.Slots != 2*i+2 || results[1].Worker.Says.Slots != 2*i+3 {
					t.Errorf("proposal %d: %+v, %v", i, results, err)
				}
			})
			synctest.Wait() // so that the order is known
		}
		all.Wait()
		if err := <-first; err != nil {
			t.Error(err)
		}
		if got, want := e.commands(), []int{1, 200}; !slices.Equal(got, want) {
			t.Errorf("entries of %v commands, want %v", got, want)
		}
		if took := time.Since(begin); took != 2*time.Second {
			t.Errorf("took %v, want 2 s: one entry after the other", took)
		}
		if !slices.IsSorted(order) || len(order) != 201 {
			t.Errorf("applied %d in the order %v", len(order), order)
		}
		st := s.Stats()
		if st.Proposals != 101 || st.Entries != 2 || st.Commands != 201 || st.Failures != 0 {
			t.Errorf("stats = %+v", st)
		}
	})
}

// An entry has at most 256 commands and 64 KiB, unless one proposal alone has
// more: that stays whole.
func TestGroupCommitLimits(t *testing.T) {
	large := func(kib int) state.Command {
		return state.PutWorker{ID: "large", PublicKey: make([]byte, kib<<10)}
	}
	many := make([]state.Command, 300)
	for i := range many {
		many[i] = putWorker(i)
	}
	for _, tt := range []struct {
		name      string
		proposals [][]state.Command
		want      []int
	}{
		{"as many as fit", [][]state.Command{many[:200], many[:56], many[:1]}, []int{256, 1}},
		{"together or not at all", [][]state.Command{many[:200], many[:57], many[:1]}, []int{200, 58}},
		{"more than fits goes alone", [][]state.Command{many[:1], many, many[:2]}, []int{1, 300, 2}},
		{"by size", [][]state.Command{{large(40)}, {large(20)}, {large(20)}}, []int{2, 1}},
		{"larger than fits goes alone", [][]state.Command{{large(1)}, {large(100)}, {large(1)}}, []int{1, 1, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var e entries
				s, first := busy(t, &e)
				var all sync.WaitGroup
				for _, p := range tt.proposals {
					all.Go(func() {
						if results, err := s.Propose(context.Background(), p...); err != nil || len(results) != len(p) {
							t.Errorf("%d results, %v", len(results), err)
						}
					})
					synctest.Wait()
				}
				all.Wait()
				<-first
				if got := e.commands()[1:]; !slices.Equal(got, tt.want) {
					t.Errorf("entries of %v commands, want %v", got, tt.want)
				}
			})
		})
	}
}

// Who proposes alone, one thing after the other, is not held back in the hope of more.
func TestProposeNeverWaitsWhenIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := alone(t, NewMemory())
		begin := time.Now()
		for i := range 100 {
			propose(t, s, putWorker(i))
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("100 proposals, one after the other, waited for %v", took)
		}
	})
}

func TestProposeRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, Config{NodeID: "a", Memory: NewMemory(), HeartbeatTimeout: time.Second})
		if _, err := s.Propose(t.Context(), putWorker(1)); !errors.Is(err, ErrNotLeader) {
			t.Errorf("before it leads: err = %v, want ErrNotLeader", err)
		}
		awaitLeader(t, s)
		index := s.Status().CommitIndex
		for _, tt := range []struct {
			name    string
			command state.Command
			want    string
		}{
			{"too large", state.PutWorker{ID: "w", PublicKey: make([]byte, MaxProposal)}, ErrTooLarge.Error()},
			{"not storable", state.ResumeJob{Effective: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}, "1678 and 2262"},
			{"none", nil, "no such command"},
		} {
			if _, err := s.Propose(t.Context(), putWorker(1), tt.command); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: err = %v, want one that says %q", tt.name, err, tt.want)
			}
		}
		if results, err := s.Propose(t.Context()); len(results) != 0 || err != nil {
			t.Errorf("no commands: %v, %v", results, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Propose(ctx, putWorker(1)); !errors.Is(err, context.Canceled) {
			t.Errorf("err = %v, want Canceled", err)
		}
		if n := s.Status().CommitIndex; n != index {
			t.Errorf("the log went from %d to %d", index, n)
		}
	})
}

// Whoever goes while waiting for its turn is not proposed; whoever goes while in
// flight may be.
func TestProposerGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var e entries
		s, first := busy(t, &e)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := s.Propose(ctx, putWorker(1)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("err = %v, want DeadlineExceeded", err)
		}
		if err := <-first; err != nil {
			t.Error(err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := s.Propose(ctx, putWorker(2)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("err = %v, want DeadlineExceeded", err)
		}
		time.Sleep(time.Minute)
		s.View(func(st *state.State) {
			if st.Worker("w000001") != nil || st.Worker("w000002") == nil {
				t.Errorf("workers = %v", st.Workers())
			}
		})
	})
}

// Close answers all: the one in flight truly, the others with ErrStopped. Raft
// forgets some when it is shut down in the midst (hashicorp/raft#498), so this is
// done often.
func TestCloseWithProposalsInFlight(t *testing.T) {
	for i := range 50 {
		synctest.Test(t, func(t *testing.T) {
			m := NewMemory()
			s := alone(t, m)
			m.BeforeWrite(func() { time.Sleep(time.Duration(i%3) * time.Millisecond) })
			var agreed, stopped int
			var mu sync.Mutex
			var all sync.WaitGroup
			for n := range 20 {
				all.Go(func() {
					for k := range 10 {
						_, err := s.Propose(context.Background(), putWorker(100*n+k))
						mu.Lock()
						switch {
						case err == nil:
							agreed++
						case errors.Is(err, ErrStopped):
							stopped++
						default:
							t.Errorf("err = %v", err)
						}
						mu.Unlock()
					}
				})
			}
			time.Sleep(time.Duration(i) * 100 * time.Microsecond)
			all.Go(func() { _ = s.Close() })
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			all.Wait()
			if agreed+stopped != 200 {
				t.Errorf("%d agreed, %d stopped, want 200 in all", agreed, stopped)
			}
			m.BeforeWrite(nil)
			if n := numWorkers(alone(t, m)); n != agreed {
				t.Errorf("%d are kept, %d were told so", n, agreed)
			}
		})
	}
}

// unknownCommand is an entry as a newer version may write it.
var unknownCommand = []byte{0x12, 0x04, 0xc2, 0x3e, 0x01, 'x'} // commands { 1000: "x" }

func TestUnknownCommandStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory()
		s := alone(t, m)
		propose(t, s, putWorker(1))
		led := make(chan error, 1)
		go func() {
			led <- s.Lead(context.Background(), func(ctx context.Context) error {
				<-ctx.Done()
				return nil
			})
		}()
		synctest.Wait()
		f := s.raft.Apply(unknownCommand, 0)
		if err := f.Error(); err != nil {
			t.Fatal(err)
		}
		index := f.Index()
		<-s.Failed()
		want := fmt.Sprintf("log entry %d holds a command that this version does not know: upgrade this primary", index)
		if err := s.Err(); err == nil || err.Error() != want {
			t.Errorf("err = %v, want %q", err, want)
		}
		if _, err := s.Propose(t.Context(), putWorker(2)); !errors.Is(err, ErrStopped) || !strings.Contains(err.Error(), want) {
			t.Errorf("err = %v, want ErrStopped and why", err)
		}
		// What comes after in the log is not applied, and no snapshot claims so.
		if err := s.raft.Apply(encoded(t, state.Entry{Now: time.Now(), Commands: []state.Command{putWorker(3)}}), 0).Error(); err != nil {
			t.Fatal(err)
		}
		if n := numWorkers(s); n != 1 {
			t.Errorf("%d workers, want 1", n)
		}
		if err := s.Snapshot(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a snapshot was taken: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		// Opened again, it comes to the same end.
		again := open(t, Config{NodeID: "a", Memory: m})
		<-again.Failed()
		if err := again.Err(); err.Error() != want {
			t.Errorf("err = %v, want %q", err, want)
		}
	})
}

// Should a rule of the state itself be broken, the primary says so and stops; it
// does not take the process down.
func TestPanicOfTheStateStops(t *testing.T) {
	var told error
	f := newFSM(Config{Log: quiet()}, func(err error) { told = err })
	f.state = &state.State{} // not ready: applying panics
	entry := encoded(t, state.Entry{Now: time.Now(), Commands: []state.Command{putWorker(1)}})
	answers := f.ApplyBatch([]*raft.Log{{Index: 7, Data: entry}, {Index: 8, Type: raft.LogConfiguration}, {Index: 9, Data: entry}})
	<-f.failed
	if err := f.err(); err == nil || !strings.HasPrefix(err.Error(), "log entry 7 can't be applied, please report this: ") || !errors.Is(told, err) {
		t.Errorf("err = %v, told %v", err, told)
	}
	for i, a := range answers {
		if _, err := a.(response).get(); err == nil {
			t.Errorf("answer %d is no error", i)
		}
	}
	// Nothing is locked, and nothing more is applied.
	if _, err := f.Apply(&raft.Log{Index: 10, Data: entry}).(response).get(); !errors.Is(err, told) {
		t.Errorf("err = %v, want the first", err)
	}
}
