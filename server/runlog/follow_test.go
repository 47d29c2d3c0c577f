package runlog

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// tail follows a log into a buffer.
type tail struct {
	mu    sync.Mutex
	start int64
	got   []byte
	err   error
	slow  time.Duration
}

func (f *tail) run(ctx context.Context, t *testing.T, s *Store, k Key) {
	f.err = s.Follow(ctx, k, f.start, func(off int64, chunk []byte) error {
		time.Sleep(f.slow)
		f.mu.Lock()
		defer f.mu.Unlock()
		if off != f.start+int64(len(f.got)) || len(chunk) == 0 || len(chunk) > 64<<10 {
			t.Errorf("chunk of %d at %d, have %d from %d on", len(chunk), off, len(f.got), f.start)
		}
		f.got = append(f.got, chunk...)
		return nil
	})
}

func (f *tail) have() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.got)
}

// Fifty people watch a job that prints for ten minutes, some with a slow
// connection; the result overtakes the last of the log.
func TestFollowersSeeAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, t.TempDir())
		defer s.Close()
		var watch sync.WaitGroup
		tails := make([]*tail, 50)
		for i := range tails {
			tails[i] = &tail{slow: time.Duration(i%5) * time.Second, start: int64(i) * 100}
			watch.Go(func() { tails[i].run(t.Context(), t, s, key) })
		}
		synctest.Wait() // all wait for a log that does not exist

		const size = 5000
		for i := range int64(120) {
			put(t, s, key, i*size, printed(key, i*size, size))
			synctest.Wait()
			if n := tails[0].have(); n != int(i+1)*size {
				t.Fatalf("at once: %d, want %d", n, (i+1)*size)
			}
			time.Sleep(5 * time.Second)
		}
		mustSeal(t, s, key, 121*size)
		time.Sleep(time.Hour)
		if n := tails[4].have(); n != 120*size-400 {
			t.Errorf("the slow one has %d", n)
		}
		put(t, s, key, 120*size, printed(key, 120*size, size))
		watch.Wait()
		for i, f := range tails {
			if f.err != nil || !bytes.Equal(f.got, printed(key, f.start, 121*size-int(f.start))) {
				t.Errorf("%d: %d bytes from %d, %v", i, len(f.got), f.start, f.err)
			}
		}
	})
}

func TestFollowEnds(t *testing.T) {
	wrong := errors.New("connection lost")
	for _, c := range []struct {
		name string
		then func(t *testing.T, s *Store, cancel func())
		want error
	}{
		{"cancelled", func(_ *testing.T, _ *Store, cancel func()) { cancel() }, context.Canceled},
		{"too late", func(*testing.T, *Store, func()) { time.Sleep(time.Hour) }, context.DeadlineExceeded},
		{"store closed", func(_ *testing.T, s *Store, _ func()) { s.Close() }, ErrClosed},
		{"log removed", func(t *testing.T, s *Store, _ func()) {
			if err := s.Remove(key); err != nil {
				t.Error(err)
			}
		}, ErrRemoved},
		{"sealed at what is known", func(t *testing.T, s *Store, _ func()) { mustSeal(t, s, key, 4) }, nil},
		{"follower fails", func(t *testing.T, s *Store, _ func()) { put(t, s, key, 4, []byte("wrong")) }, wrong},
		{"follower fails with EOF", func(t *testing.T, s *Store, _ func()) { put(t, s, key, 4, []byte("eof")) }, io.EOF},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := open(t, t.TempDir())
				defer s.Close()
				put(t, s, key, 0, []byte("text"))
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				done := make(chan error, 1)
				go func() {
					done <- s.Follow(ctx, key, 0, func(_ int64, chunk []byte) error {
						return map[string]error{"wrong": wrong, "eof": io.EOF}[string(chunk)]
					})
				}()
				synctest.Wait()
				c.then(t, s, cancel)
				if err := <-done; !errors.Is(err, c.want) {
					t.Errorf("%v, want %v", err, c.want)
				}
			})
		})
	}
}

// The seal of an attempt without output is all that its follower ever gets.
func TestFollowNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, t.TempDir())
		defer s.Close()
		f := &tail{}
		var watch sync.WaitGroup
		watch.Go(func() { f.run(t.Context(), t, s, key) })
		synctest.Wait()
		mustSeal(t, s, key, 0)
		watch.Wait()
		if f.err != nil || len(f.got) > 0 {
			t.Errorf("%q, %v", f.got, f.err)
		}
		if n := sizeOf(s); n != 0 {
			t.Errorf("%d attempts in memory", n)
		}
		if err := s.Follow(t.Context(), key, -1, nil); !errors.Is(err, ErrInvalid) {
			t.Errorf("before the start: %v", err)
		}
	})
}
