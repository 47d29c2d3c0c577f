package runlog

import (
	"context"
	"errors"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// slowDisk takes a second for each fsync, and counts.
type slowDisk struct {
	files, dirs, now, most atomic.Int32
}

func (d *slowDisk) fsync(f *os.File) error {
	if n := d.now.Add(1); n > d.most.Load() {
		d.most.Store(n) // of two at once either may win: both are near the truth, never above it
	}
	defer d.now.Add(-1)
	time.Sleep(time.Second)
	if strings.HasSuffix(f.Name(), suffix) {
		d.files.Add(1)
	} else {
		d.dirs.Add(1)
	}
	return f.Sync()
}

func (d *slowDisk) store(t *testing.T) *Store {
	t.Helper()
	s := openWith(t, t.TempDir(), d.fsync)
	d.files.Store(0)
	d.dirs.Store(0)
	return s
}

// Whoever syncs while an fsync is at work shares the next one.
func TestSyncsOfOneLogAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &slowDisk{}
		s := d.store(t)
		defer s.Close()
		var callers sync.WaitGroup
		for i := range int64(100) {
			put(t, s, key, i, []byte("x"))
			callers.Go(func() {
				if durable, err := s.Sync(t.Context(), key); err != nil || durable <= i {
					t.Errorf("%d: durable %d, %v", i, durable, err)
				}
			})
			synctest.Wait()
		}
		start := time.Now()
		callers.Wait()
		// Two for the file, and one for each directory after the first.
		if f, n, took := d.files.Load(), d.dirs.Load(), time.Since(start); f != 2 || n != 2 || took != 4*time.Second {
			t.Errorf("%d fsyncs of the file, %d of directories, %v", f, n, took)
		}
		start = time.Now()
		mustSync(t, s, key, 100)
		if d.files.Load() != 2 || time.Since(start) != 0 {
			t.Error("an fsync of what was durable")
		}
	})
}

// Three hundred logs at once: each file once, the directory at most twice (a name
// may have come while it was at work) and the one above once, a bounded number at a time.
func TestSyncsOfManyLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &slowDisk{}
		s := d.store(t)
		defer s.Close()
		const logs = 300
		var callers sync.WaitGroup
		for i := range uint32(logs) {
			k := Key{Run: "many", Attempt: i}
			put(t, s, k, 0, []byte("x"))
			callers.Go(func() {
				if durable, err := s.Sync(t.Context(), k); err != nil || durable != 1 {
					t.Errorf("%v: %d, %v", k, durable, err)
				}
			})
		}
		callers.Wait()
		if f, n, most := d.files.Load(), d.dirs.Load(), d.most.Load(); f != logs || n > 3 || most > maxFsyncs {
			t.Errorf("%d fsyncs of files, %d of directories, %d at a time", f, n, most)
		}
		if s.open > maxOpen {
			t.Errorf("%d files open", s.open)
		}
	})
}

// Appending does not wait for an fsync, and a context ends the wait for others.
func TestSyncDoesNotHoldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &slowDisk{}
		s := d.store(t)
		defer s.Close()
		put(t, s, key, 0, []byte("x"))
		var first sync.WaitGroup
		first.Go(func() { mustSync(t, s, key, 1) })
		synctest.Wait()

		start := time.Now()
		put(t, s, key, 1, []byte("y"))
		if i, _ := s.Stat(key); i != (Info{Known: 2}) {
			t.Errorf("%+v", i)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if durable, err := s.Sync(ctx, key); durable != 0 || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("impatient: %d, %v", durable, err)
		}
		if took := time.Since(start); took != time.Millisecond {
			t.Errorf("took %v", took)
		}
		first.Wait()
		mustSync(t, s, key, 2)
	})
}

// A log that is removed while it is synced is not brought back.
func TestRemoveWhileSyncing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &slowDisk{}
		s := d.store(t)
		defer s.Close()
		put(t, s, key, 0, []byte("x"))
		mustSeal(t, s, key, 1)
		var syncing sync.WaitGroup
		syncing.Go(func() { s.Sync(t.Context(), key) }) // either answer is right
		synctest.Wait()
		if err := s.Remove(key); err != nil {
			t.Fatal(err)
		}
		put(t, s, key, 0, []byte("anew"))
		syncing.Wait()
		if got := content(t, s, key); string(got) != "anew" {
			t.Errorf("%q", got)
		}
		mustSync(t, s, key, 4)
	})
}

// Thousands of logs are neither thousands of descriptors nor of goroutines, and
// once they are finished they need no memory.
func TestManyLogsCostLittle(t *testing.T) {
	s := fresh(t)
	before := runtime.NumGoroutine()
	s.maxOpen = 32
	const logs = 2000
	for round := range int64(2) {
		for i := range uint32(logs) {
			put(t, s, Key{Run: "small", Attempt: i}, round*8, []byte("8 bytes\n"))
		}
	}
	if s.open > s.maxOpen || runtime.NumGoroutine() > before+5 {
		t.Errorf("%d files open, %d goroutines more", s.open, runtime.NumGoroutine()-before)
	}
	for i := range uint32(logs) {
		k := Key{Run: "small", Attempt: i}
		mustSeal(t, s, k, 16)
		mustSync(t, s, k, 16)
	}
	if n := sizeOf(s); n > s.maxOpen {
		t.Errorf("%d attempts in memory", n)
	}
	found := 0
	for k, err := range s.Keys() {
		if i, ok := s.Stat(k); err != nil || !ok || !i.Complete || i.Durable != 16 {
			t.Fatalf("%v: %+v, %v", k, i, err)
		}
		found++
	}
	if found != logs {
		t.Errorf("found %d", found)
	}
}

// What Sync acknowledged is remembered of a log that is not open any more, and the
// name of each new log is durable, not only that of the first in its directory.
func TestSyncOfLogsByTurns(t *testing.T) {
	d := newDisk()
	defer d.close()
	s := openWith(t, t.TempDir(), d.fsync)
	defer s.Close()
	s.maxOpen = 1
	for i := range uint32(5) {
		k := Key{Run: "turns", Attempt: i}
		put(t, s, k, 0, []byte("x"))
		mustSync(t, s, k, 1)
		info, err := os.Stat(pathOf(s, k))
		if err != nil {
			t.Fatal(err)
		}
		if d.named[pathOf(s, k)] != inode(info) {
			t.Errorf("%v has no durable name", k)
		}
	}
	for i := range uint32(5) {
		if got, _ := s.Stat(Key{Run: "turns", Attempt: i}); got != (Info{Known: 1, Durable: 1}) {
			t.Errorf("%d: %+v", i, got)
		}
	}
}

// Everything at once, for the race detector.
func TestTogether(t *testing.T) {
	s, err := Open(t.TempDir(), silent)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.maxOpen = 3
	var all sync.WaitGroup
	for n := range uint32(8) {
		k := Key{Run: "together", Attempt: n}
		const pieces, size = 40, 3000
		for range 2 { // two senders of the same bytes
			all.Go(func() {
				for i := range int64(pieces) {
					for {
						data := printed(k, i*size, size)
						if known, err := s.Append(k, i*size, data, Checksum(data)); err != nil || known >= (i+1)*size {
							break
						}
					}
					if i%10 == 9 {
						s.Sync(t.Context(), k)
					}
				}
				if err := s.Seal(k, pieces*size); err != nil {
					t.Errorf("seal: %v", err)
				}
				if durable, err := s.Sync(t.Context(), k); err != nil || durable != pieces*size {
					t.Errorf("%v: %d, %v", k, durable, err)
				}
			})
		}
		all.Go(func() {
			f := &tail{}
			f.run(t.Context(), t, s, k)
			if f.err != nil || len(f.got) != pieces*size {
				t.Errorf("%v: followed %d bytes, %v", k, len(f.got), f.err)
			}
		})
	}
	all.Wait()
}
