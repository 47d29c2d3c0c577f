package raftstore

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

// A term begins with all that was agreed before, and its context ends with it.
func TestLeadOncePerTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex // guards the following
		leading, terms := 0, map[uint64]int{}
		var all sync.WaitGroup
		for _, s := range c.stores {
			all.Go(func() {
				err := s.Lead(ctx, func(ctx context.Context) error {
					st := s.Status()
					mu.Lock()
					leading++
					terms[st.Term]++
					n := len(terms)
					mu.Unlock()
					if have := numWorkers(s); have != n-1 {
						t.Errorf("term %d begins with %d workers, want those of all terms before: %d", st.Term, have, n-1)
					}
					if _, err := s.Propose(ctx, putWorker(n)); err != nil {
						t.Errorf("in term %d: %v", st.Term, err)
					}
					<-ctx.Done()
					mu.Lock()
					leading--
					mu.Unlock()
					return ctx.Err() // does not count
				})
				if err != nil {
					t.Errorf("Lead: %v", err)
				}
			})
		}
		for range 5 {
			time.Sleep(10 * time.Second)
			mu.Lock()
			if leading != 1 {
				t.Errorf("%d are leading", leading)
			}
			mu.Unlock()
			c.net.Isolate(c.leader().id)
			time.Sleep(10 * time.Second)
			c.net.Heal()
		}
		time.Sleep(10 * time.Second)
		cancel()
		all.Wait()
		if len(terms) != 6 || leading != 0 {
			t.Errorf("terms %v, %d still leading", terms, leading)
		}
		for term, n := range terms {
			if n != 1 {
				t.Errorf("term %d was led %d times", term, n)
			}
		}
	})
}

// Handing over ends the term of one primary and begins that of another.
func TestLeadThroughHandingOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		l := c.leader()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		led := make(chan uint64, 100)
		var all sync.WaitGroup
		for _, s := range c.stores {
			all.Go(func() {
				_ = s.Lead(ctx, func(ctx context.Context) error {
					led <- s.Status().Term
					<-ctx.Done()
					return nil
				})
			})
		}
		before := <-led
		if err := l.Transfer(ctx); err != nil {
			t.Fatal(err)
		}
		if after := <-led; after <= before {
			t.Errorf("term %d after %d", after, before)
		}
		propose(t, c.leader(), putWorker(1))
		cancel()
		all.Wait()
	})
}

func TestLeadEnds(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name string
		f    func(context.Context, *Store) error
		end  func(s *Store, cancel func())
		want error
	}{
		{"its context is done", func(ctx context.Context, _ *Store) error { <-ctx.Done(); return broken }, func(_ *Store, cancel func()) { cancel() }, nil},
		{"the store is closed", func(ctx context.Context, _ *Store) error { <-ctx.Done(); return broken }, func(s *Store, _ func()) { _ = s.Close() }, ErrStopped},
		{"leading fails", func(context.Context, *Store) error { return broken }, func(*Store, func()) {}, broken},
		{"leading was over early", func(context.Context, *Store) error { return nil }, func(_ *Store, cancel func()) { time.Sleep(time.Minute); cancel() }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := open(t, Config{NodeID: "a", Memory: NewMemory()})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				done := make(chan error, 1)
				calls := 0
				go func() {
					done <- s.Lead(ctx, func(ctx context.Context) error {
						calls++
						return tt.f(ctx, s)
					})
				}()
				time.Sleep(time.Minute)
				tt.end(s, cancel)
				if err := <-done; !errors.Is(err, tt.want) {
					t.Errorf("err = %v, want %v", err, tt.want)
				}
				if calls != 1 {
					t.Errorf("led %d times", calls)
				}
			})
		})
	}
}

// Subscribers hear of each change before its proposer does, in order, and may
// look at the state.
func TestSubscribe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := alone(t, NewMemory())
		var heard []state.Change
		cancel := s.Subscribe(func(changes []state.Change) {
			heard = append(heard, changes...)
			s.View(func(st *state.State) {
				for _, c := range changes {
					if st.Worker(c.Worker) == nil {
						t.Errorf("%v has changed, and is not there", c)
					}
				}
			})
		})
		other := 0
		s.Subscribe(func([]state.Change) { other++ })
		propose(t, s, putWorker(1), putWorker(2))
		if len(heard) != 2 || heard[0].Worker != "w000001" || heard[1].Worker != "w000002" {
			t.Errorf("heard %v", heard)
		}
		propose(t, s, putWorker(1)) // changes nothing
		if other != 1 {
			t.Errorf("the other was called %d times, want 1", other)
		}
		cancel()
		cancel() // twice does no harm
		propose(t, s, putWorker(3))
		if len(heard) != 2 || other != 2 {
			t.Errorf("after the cancel: heard %v, the other %d times", heard, other)
		}
	})
}

// A feed tells each change once, however often it came, until it is taken.
func TestFeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := alone(t, NewMemory())
		f := NewFeed(s)
		propose(t, s, putWorker(1), putWorker(2))
		propose(t, s, state.SetOffline{ID: "w000001"})
		<-f.Wake()
		list, all := f.Take()
		if len(list) != 2 || list[0].Worker != "w000001" || list[1].Worker != "w000002" || all {
			t.Errorf("took %v, %v", list, all)
		}
		if list, all := f.Take(); len(list) != 0 || all {
			t.Errorf("then took %v, %v", list, all)
		}
		s.fsm.publish(nil)
		<-f.Wake()
		if list, all := f.Take(); len(list) != 0 || !all {
			t.Errorf("after a restore took %v, %v", list, all)
		}
		f.Close()
		propose(t, s, putWorker(3))
		select {
		case <-f.Wake():
			t.Error("woken after Close")
		default:
		}
	})
}

// Who watches for metrics is told of each entry and each snapshot.
func TestObserver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var proposed, failed, applied int
		var snapshot int64
		s := open(t, Config{NodeID: "a", Memory: NewMemory(), HeartbeatTimeout: time.Second, Observer: Observer{
			Proposed: func(commands, bytes int, took time.Duration, err error) {
				if err != nil {
					failed += commands
				} else if bytes > 0 && took >= 0 {
					proposed += commands
				}
			},
			Applied:     func(commands int, _ time.Duration) { applied += commands },
			Snapshotted: func(bytes int64, _ time.Duration) { snapshot = bytes },
		}})
		_, _ = s.Propose(t.Context(), putWorker(1)) // it does not lead yet
		awaitLeader(t, s)
		propose(t, s, putWorker(1), putWorker(2))
		if err := s.Snapshot(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if proposed != 2 || failed != 1 || applied != 2 || snapshot == 0 {
			t.Errorf("proposed %d, failed %d, applied %d, snapshot of %d bytes", proposed, failed, applied, snapshot)
		}
	})
}
