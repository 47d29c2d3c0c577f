package raftstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// calls is one of each that waits for Raft.
var calls = []func(ctx context.Context, s *Store, saved []byte) error{
	func(ctx context.Context, s *Store, _ []byte) error { _, err := s.ReadIndex(ctx); return err },
	func(ctx context.Context, s *Store, _ []byte) error {
		return s.WaitApplied(ctx, s.AppliedIndex()+1)
	},
	func(ctx context.Context, s *Store, _ []byte) error {
		return s.AddServer(ctx, Server{ID: "d", Address: "d"})
	},
	func(ctx context.Context, s *Store, _ []byte) error { return s.RemoveServer(ctx, "d") },
	func(ctx context.Context, s *Store, _ []byte) error { return s.TransferTo(ctx, "b") },
	func(ctx context.Context, s *Store, saved []byte) error {
		return s.RestoreSnapshot(ctx, bytes.NewReader(saved))
	},
	func(ctx context.Context, s *Store, _ []byte) error { return s.SaveSnapshot(ctx, io.Discard) },
	func(ctx context.Context, s *Store, _ []byte) error { return s.Form(ctx, []Server{{s.id, s.id, true}}) },
	func(ctx context.Context, s *Store, _ []byte) error { return s.Snapshot(ctx) },
	func(ctx context.Context, s *Store, _ []byte) error {
		_, err := s.Propose(ctx, putWorker(1))
		return err
	},
}

// Whatever a primary is asked while it is closed, it answers. Raft forgets some when
// it is shut down in the midst (hashicorp/raft#498), so this is done often. Should
// one be forgotten, the bubble ends with a deadlock.
func TestCloseWithCallsInFlight(t *testing.T) {
	for i := range 15 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, l := newFormed(t, three...)
				large(t, l, 100)
				saved := save(t, l)
				c.disks[l.id].BeforeWrite(func() { time.Sleep(time.Duration(i%3) * time.Millisecond) })
				var all sync.WaitGroup
				all.Go(func() {
					_ = l.Lead(context.Background(), func(ctx context.Context) error { <-ctx.Done(); return nil })
				})
				for k, call := range calls {
					for range 3 {
						all.Go(func() {
							for range 3 {
								time.Sleep(time.Duration(k) * 100 * time.Microsecond)
								_ = call(context.Background(), l, saved)
							}
						})
					}
				}
				time.Sleep(time.Duration(i) * 400 * time.Microsecond)
				if i%5 == 4 {
					c.net.Isolate(l.id)
				}
				if err := l.Close(); err != nil {
					t.Error(err)
				}
				all.Wait()
			})
		})
	}
}

// The others have no room for what a leader wants to put in the log, and hear it all the
// same, so it goes on to lead. When it is stopped it does not wait until they have room.
func TestCloseOfALeaderThatNobodyCanFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l := newFormed(t, three...)
		for id, disk := range c.disks {
			if id != l.id {
				disk.Fail(syscall.ENOSPC)
			}
		}
		told := make(chan error, 1)
		go func() {
			_, err := l.Propose(context.Background(), putWorker(1))
			told <- err
		}()
		time.Sleep(time.Minute)
		if st := l.Status(); st.Role != "leader" {
			t.Fatalf("it is a %s, and not what is meant here", st.Role)
		}
		asked := time.Now()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(asked); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
		if err := <-told; !errors.Is(err, ErrUnknown) {
			t.Errorf("who proposed is told %v, want that nobody knows", err)
		}
	})
}

// Nor does one that has just been elected wait until it has told the others so.
func TestStopOfALeaderThatNobodyFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l := newFormed(t, three...)
		for id, disk := range c.disks {
			if id != l.id {
				disk.Fail(syscall.ENOSPC)
			}
		}
		ctx, stop := context.WithCancel(t.Context())
		led := make(chan error, 1)
		go func() {
			led <- l.Lead(ctx, func(context.Context) error {
				t.Error("it leads, and can't have told the others")
				return nil
			})
		}()
		time.Sleep(time.Minute)
		asked := time.Now()
		stop()
		if err := <-led; err != nil {
			t.Error(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(asked); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}
