package raftstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/schedd/schedd/raftstore/state"
)

// What was acknowledged anywhere is seen by a read that begins then, on any
// primary that waits until it has come so far.
func TestReadAfterWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l := newFormed(t, three...)
		for i := range 50 {
			propose(t, l, putWorker(i))
			index, err := l.ReadIndex(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range c.stores {
				if err := s.WaitApplied(t.Context(), index); err != nil {
					t.Fatal(err)
				}
				if n := numWorkers(s); n != i+1 || s.AppliedIndex() < index {
					t.Errorf("%s shows %d workers at %d, want %d at %d", s.id, n, s.AppliedIndex(), i+1, index)
				}
			}
		}
	})
}

// Reads that come together share one entry, with each other and with what is
// proposed.
func TestReadsShareAnEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var e entries
		s, first := busy(t, &e)
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				if _, err := s.ReadIndex(context.Background()); err != nil {
					t.Error(err)
				}
			})
		}
		all.Go(func() {
			if _, err := s.Propose(context.Background(), putWorker(1)); err != nil {
				t.Error(err)
			}
		})
		all.Wait()
		<-first
		if got := e.commands(); len(got) != 2 || got[1] != 1 {
			t.Errorf("entries of %v commands, want 2 of one", got)
		}
	})
}

// A leader that was replaced, or may have been, is not believed: not with the
// others cut off, and not with the support of those that have no vote.
func TestReadIndexOfDeposedLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l := newFormed(t, three...)
		for _, id := range []string{"x", "y"} {
			c.fresh(id)
			if err := l.AddServer(t.Context(), Server{id, id, false}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Second)
		for id, s := range c.stores {
			if s != l && id != "x" && id != "y" {
				for _, other := range []string{l.id, "x", "y"} {
					c.net.Cut(id, other)
				}
			}
		}
		if !l.Leads() {
			t.Error("it has been told already")
		}
		if index, err := l.ReadIndex(t.Context()); !errors.Is(err, ErrNotLeader) {
			t.Errorf("it let a read begin at %d, err = %v, want ErrNotLeader", index, err)
		}
		time.Sleep(10 * time.Second)
		if index, err := l.ReadIndex(t.Context()); !errors.Is(err, ErrNotLeader) {
			t.Errorf("it let a read begin at %d, err = %v, want ErrNotLeader", index, err)
		}
		propose(t, c.leader(), putWorker(1))
		c.agree()
	})
}

// Whatever fails, and whoever leads or believes so: no read misses what had been
// acknowledged before it began.
func TestReadsAreLinearizable(t *testing.T) {
	seeds := 4
	if testing.Short() {
		seeds = 1
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			events := rapid.SliceOfN(rapid.IntRange(0, 3), 12, 12).Example(seed)
			synctest.Test(t, func(t *testing.T) { readers(t, events) })
		})
	}
}

// readers has all primaries propose and read while the events come, one every few
// seconds.
func readers(t *testing.T, events []int) {
	c := newCluster(t)
	c.leader()
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex // guards what follows
	acknowledged, next, reads := 0, 0, 0
	var all sync.WaitGroup
	for p, id := range three {
		s := c.stores[id]
		all.Go(func() {
			for ctx.Err() == nil {
				mu.Lock()
				next++
				n := next
				mu.Unlock()
				results, err := s.Propose(ctx, putWorker(0), putWorker(n))
				mu.Lock()
				if err == nil && results[1].Worker.Says.Slots == n+1 {
					acknowledged = max(acknowledged, n)
				}
				mu.Unlock()
				time.Sleep(50 * time.Millisecond)
			}
		})
		all.Go(func() {
			for ctx.Err() == nil {
				mu.Lock()
				before := acknowledged
				mu.Unlock()
				index, err := s.ReadIndex(ctx)
				if err == nil {
					reader := c.stores[three[(p+int(index))%3]]
					wait, stop := context.WithTimeout(ctx, time.Second)
					if reader.WaitApplied(wait, index) == nil {
						reader.View(func(st *state.State) {
							if st.Worker(putWorker(before).(state.PutWorker).ID) == nil && before > 0 {
								t.Errorf("a read at %d on %s does not see %d, which was acknowledged before", index, reader.id, before)
							}
						})
						mu.Lock()
						reads++
						mu.Unlock()
					}
					stop()
				}
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
	for i, event := range events {
		switch event {
		case 0, 1:
			c.net.Isolate(c.leader().id)
		case 2:
			_ = c.leader().Transfer(t.Context())
		case 3:
			c.net.Isolate(three[i%3])
		}
		time.Sleep(3 * time.Second)
		c.net.Heal()
		time.Sleep(2 * time.Second)
	}
	cancel()
	all.Wait()
	c.agree()
	if reads < 100 || acknowledged < 100 {
		t.Errorf("%d reads and %d writes only", reads, acknowledged)
	}
}

// Waiting ends with the index, with whoever waits, and with the store.
func TestWaitApplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := alone(t, NewMemory())
		if err := s.WaitApplied(t.Context(), s.AppliedIndex()); err != nil {
			t.Error(err)
		}
		index := s.AppliedIndex() + 2
		var told atomic.Int32
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				if err := s.WaitApplied(t.Context(), index); err != nil {
					t.Error(err)
				}
				told.Add(1)
			})
			synctest.Wait()
		}
		propose(t, s, putWorker(1))
		synctest.Wait()
		if told.Load() != 0 {
			t.Error("told too early")
		}
		propose(t, s, putWorker(2))
		all.Wait()

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.WaitApplied(ctx, index+100); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("err = %v, want DeadlineExceeded", err)
		}
		all.Go(func() {
			if err := s.WaitApplied(t.Context(), index+100); !errors.Is(err, ErrStopped) {
				t.Errorf("err = %v, want ErrStopped", err)
			}
		})
		synctest.Wait()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		all.Wait()
		if n := len(s.fsm.waiting); n != 0 {
			t.Errorf("%d still wait", n)
		}
		if err := s.WaitApplied(t.Context(), index); err != nil {
			t.Errorf("what is applied stays so: %v", err)
		}
		if _, err := s.ReadIndex(t.Context()); !errors.Is(err, ErrStopped) {
			t.Errorf("err = %v, want ErrStopped", err)
		}
	})
}

// A store that fails tells why to those who wait.
func TestWaitAppliedOfFailedStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := alone(t, NewMemory())
		done := make(chan error)
		go func() { done <- s.WaitApplied(t.Context(), s.AppliedIndex()+1) }()
		synctest.Wait()
		if err := s.raft.Apply(unknownCommand, 0).Error(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; !errors.Is(err, ErrStopped) || !errors.Is(err, s.Err()) {
			t.Errorf("err = %v, want ErrStopped and why", err)
		}
	})
}

// A snapshot that comes in place of entries ends the waiting for them.
func TestWaitAppliedBySnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l := newFormed(t, three...)
		away := c.other(l)
		c.net.Isolate(away.id)
		for i := range 100 {
			propose(t, l, putWorker(i))
		}
		if err := l.Snapshot(t.Context()); err != nil {
			t.Fatal(err)
		}
		index := l.AppliedIndex()
		c.net.Heal()
		if err := away.WaitApplied(t.Context(), index); err != nil {
			t.Fatal(err)
		}
		if n := numWorkers(away); n != 100 {
			t.Errorf("%d workers, want 100", n)
		}
	})
}
