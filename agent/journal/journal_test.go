package journal

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
)

func rec(k Kind, run string, fence uint64) Record {
	return Record{Kind: k, Key: Key{run, 1}, Fence: fence, Time: epoch}
}

func appendAll(t *testing.T, j *Journal, recs ...Record) {
	t.Helper()
	for _, r := range recs {
		if err := j.Append(r); err != nil {
			t.Fatalf("append %v of %q: %v", r.Kind, r.Key.Run, err)
		}
	}
}

func TestLifeOfAnAttempt(t *testing.T) {
	a := func(ks ...Kind) (recs []Record) {
		for _, k := range ks {
			recs = append(recs, rec(k, "a", 7))
		}
		return recs
	}
	for _, c := range []struct {
		name  string
		past  []Record
		calls []Record // one call
		want  error
	}{
		{"a whole life in one call", nil, a(Accepted, Started, Exited, Acked), nil},
		{"a process that could not be started", a(Accepted), a(Exited, Acked), nil},
		{"the launch arrives twice", a(Accepted), a(Accepted), ErrExists},
		{"twice in one call", nil, a(Accepted, Accepted), ErrExists},
		{"the launch arrives again after the start", a(Accepted, Started), a(Accepted), ErrExists},
		{"the launch arrives again after all is over", a(Accepted, Started, Exited, Acked), a(Accepted), ErrExists},
		{"the launch arrives again with a newer fence", a(Accepted), []Record{rec(Accepted, "a", 8)}, ErrExists},
		{"and is told from one that arrives late", a(Accepted), []Record{rec(Accepted, "a", 8)}, ErrFence},
		{"also after all is over", a(Accepted, Started, Exited, Acked), []Record{rec(Accepted, "a", 8)}, ErrFence},
		{"the launch arrives again with an older fence", a(Accepted), []Record{rec(Accepted, "a", 6)}, ErrExists},
		{"started twice", a(Accepted, Started), a(Started), ErrExists},
		{"two results", a(Accepted, Exited), a(Exited), ErrExists},
		{"started unasked", nil, a(Started), ErrOrder},
		{"exited unasked", nil, a(Exited), ErrOrder},
		{"acked unasked", nil, a(Acked), ErrOrder},
		{"started after its end", a(Accepted, Exited), a(Started), ErrOrder},
		{"acked before its end", a(Accepted, Started), a(Acked), ErrOrder},
		{"a result after the ack", a(Accepted, Exited, Acked), a(Exited), ErrOrder},
		{"acked twice", a(Accepted, Exited, Acked), a(Acked), ErrOrder},
		{"started with another fence", a(Accepted), []Record{rec(Started, "a", 8)}, ErrFence},
		{"no run", nil, []Record{rec(Accepted, "", 1)}, ErrInvalid},
		{"a run too long", nil, []Record{rec(Accepted, strings.Repeat("x", MaxRun+1), 1)}, ErrInvalid},
		{"no attempt", nil, []Record{{Kind: Accepted, Key: Key{Run: "a"}}}, ErrInvalid},
		{"no kind", nil, []Record{{Key: Key{"a", 1}}}, ErrInvalid},
		{"the journal's own kind", nil, []Record{rec(floor, "a", 1)}, ErrInvalid},
		{"a payload too long", nil, []Record{{Kind: Accepted, Key: Key{"a", 1}, Payload: make([]byte, MaxPayload+1)}}, ErrInvalid},
		{"nothing", nil, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newMemDisk()
			j, _ := openMem(t, d)
			appendAll(t, j, c.past...)
			before := j.size
			if err := j.Append(c.calls...); !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if c.want != nil && j.size != before {
				t.Error("a refused call wrote something")
			}
			if c.want == nil {
				c.past = append(c.past, c.calls...)
			}
			again, es := openMem(t, d)
			if diff := cmp.Diff(remember(c.past), viewOf(es, again)); diff != "" {
				t.Errorf("after a restart (-want +got):\n%s", diff)
			}
		})
	}
}

// While the first call's fsync lasts, others gather; they share the next.
func TestCallsShareAnFsync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newMemDisk()
		j, _ := openMem(t, d)
		opened := make(chan struct{})
		d.gate = func(string) { <-opened }
		before := d.syncs
		var wg sync.WaitGroup
		call := func(run string, want error) {
			wg.Go(func() {
				if err := j.Append(rec(Accepted, run, 1)); !errors.Is(err, want) {
					t.Errorf("accept %q: %v, want %v", run, err, want)
				}
			})
			synctest.Wait()
		}
		call("first", nil)
		for i := range 20 {
			call(fmt.Sprint("other-", i), nil)
		}
		call("other-3", ErrExists) // though the first other-3 isn't written yet
		close(opened)
		wg.Wait()
		if n := d.syncs - before; n != 2 {
			t.Errorf("%d fsyncs, want 2: the first call's, and one for the twenty that came meanwhile", n)
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		if err := j.Append(rec(Accepted, "late", 1)); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// What is noted costs no fsync, and shares that of the next who wants one.
func TestNotesWaitForNoDisk(t *testing.T) {
	d := newMemDisk()
	j, _ := openMem(t, d)
	j.compactMin = 1 << 30 // a rewrite is synced as well
	appendAll(t, j, rec(Accepted, "a", 1))
	before := d.syncs
	for _, r := range []Record{rec(Started, "a", 1), rec(Exited, "a", 1), rec(Acked, "a", 1)} {
		if err := j.Note(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Note(rec(Acked, "a", 1)); !errors.Is(err, ErrOrder) {
		t.Errorf("acked twice: %v", err)
	}
	if n := d.syncs - before; n != 0 {
		t.Errorf("%d fsyncs, want none", n)
	}
	appendAll(t, j, rec(Accepted, "b", 2))
	for range 2 {
		if err := j.Sync(); err != nil {
			t.Error(err)
		}
	}
	if n := d.syncs - before; n != 1 {
		t.Errorf("%d fsyncs, want one for all", n)
	}
	if err := errors.Join(j.Note(rec(Exited, "b", 2)), j.Sync()); err != nil || d.syncs-before != 2 {
		t.Errorf("a note that was synced cost %d fsyncs, want one: %v", d.syncs-before-1, err)
	}
	if err := errors.Join(j.Note(rec(Acked, "b", 2)), j.Close()); err != nil {
		t.Error(err)
	}
	lost := d.crash(func(int) int { return 0 })
	again, es := openMem(t, lost)
	want := remember([]Record{rec(Accepted, "a", 1), rec(Exited, "a", 1), rec(Acked, "a", 1), rec(Accepted, "b", 2), rec(Exited, "b", 2), rec(Acked, "b", 2)})
	if diff := cmp.Diff(want, viewOf(es, again)); diff != "" {
		t.Errorf("after a crash of the host (-want +got):\n%s", diff)
	}
}

// When a batch can't be written nobody may believe in a record of it, also not
// the one who was refused because of it.
func TestRefusalFallsWithItsBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newMemDisk()
		j, _ := openMem(t, d)
		opened := make(chan struct{})
		d.gate = func(string) { <-opened }
		var wg sync.WaitGroup
		for _, run := range []string{"first", "twice", "twice"} {
			wg.Go(func() {
				err := j.Append(rec(Accepted, run, 1))
				if want := run == "twice"; errors.Is(err, syscall.ENOSPC) != want {
					t.Errorf("accept %q: %v", run, err)
				}
			})
			synctest.Wait()
		}
		d.room = 10
		close(opened)
		wg.Wait()
		d.room = -1
		appendAll(t, j, rec(Accepted, "twice", 1))
	})
}

func TestFailedFsyncEndsTheJournal(t *testing.T) {
	d := newMemDisk()
	j, _ := openMem(t, d)
	appendAll(t, j, rec(Accepted, "a", 1))
	d.syncErr = syscall.EIO
	first := j.Append(rec(Started, "a", 1))
	if !errors.Is(first, syscall.EIO) {
		t.Fatal(first)
	}
	d.syncErr = nil // the kernel forgets the error; we must not
	syncs := d.syncs
	for range 2 {
		if err := j.Append(rec(Accepted, "b", 2)); err != first { //nolint:errorlint // the very same
			t.Errorf("got %v, want the first error", err)
		}
	}
	if d.syncs != syncs {
		t.Error("fsync was tried again")
	}
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}

func TestFullDiskIsSurvived(t *testing.T) {
	for room := range 120 {
		d := newMemDisk()
		j, _ := openMem(t, d)
		appendAll(t, j, rec(Accepted, "a", 1))
		d.room = room
		err := j.Append(rec(Started, "a", 1), rec(Accepted, "b", 2), rec(Exited, "a", 1))
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("with room for %d bytes: %v", room, err)
		}
		again, es := openMem(t, d)
		if diff := cmp.Diff(remember([]Record{rec(Accepted, "a", 1)}), viewOf(es, again)); diff != "" {
			t.Fatalf("with room for %d bytes (-want +got):\n%s", room, diff)
		}
		d.room = -1
		appendAll(t, j, rec(Started, "a", 1))
	}
}

func TestCompactionOnARealDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j, _, err := Open(path, quiet())
	if err != nil {
		t.Fatal(err)
	}
	live := rec(Accepted, "live", 1)
	live.Payload = []byte("the launch")
	appendAll(t, j, live)
	var written int64
	for i := range 30 {
		r := rec(Accepted, fmt.Sprint("run-", i), uint64(i+2))
		r.Payload = make([]byte, 100<<10)
		end, ack := r, r
		end.Kind, end.Payload, ack.Kind, ack.Payload = Exited, nil, Acked, nil
		if err := j.Append(r, end, ack); err != nil {
			t.Fatal(err)
		}
		written += 100 << 10
		// Appends don't wait for a rewrite, so on a slow disk all of them could
		// be in before it ends, and nothing would be left to start another.
		j.wg.Wait()
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st.Size() > compactMin+200<<10 || st.Mode().Perm() != 0o600 {
		t.Errorf("file of %d bytes, mode %v, after %d were written", st.Size(), st.Mode(), written)
	}
	again, es, err := Open(path, quiet())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Entry{{Key: live.Key, Fence: 1, Accepted: &live}}, es); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := again.Append(rec(Accepted, "run-7", 9)); !errors.Is(err, ErrExists) {
		t.Errorf("a launch redelivered after compaction and restart: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if names, _ := filepath.Glob(path + "*"); len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
}

// Many attempts at once, with rewrites all the time.
func TestManyAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j, _, err := Open(path, quiet())
	if err != nil {
		t.Fatal(err)
	}
	j.compactMin = 2000
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			run, fence := fmt.Sprint("run-", i), uint64(i+1)
			for _, k := range []Kind{Accepted, Started, Exited, Acked} {
				if k == Acked && i < 5 {
					break
				}
				r := rec(k, run, fence)
				r.Payload = make([]byte, 300)
				if err := j.Append(r); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	again, es, err := Open(path, quiet())
	if err != nil {
		t.Fatal(err)
	}
	if len(es) != 5 || len(again.table.acked) != 35 || es[4].Exited == nil {
		t.Errorf("%d live, %d acknowledged, want 5 and 35", len(es), len(again.table.acked))
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}

// dying appends attempts that live and die until a compaction has begun, and
// returns what it appended.
func dying(t *testing.T, j *Journal) (recs []Record) {
	t.Helper()
	for i := range 100 {
		run := fmt.Sprint("run-", i)
		for _, k := range []Kind{Accepted, Exited, Acked} {
			r := rec(k, run, uint64(i+1))
			r.Payload = []byte(strings.Repeat(".", 90))
			appendAll(t, j, r)
			recs = append(recs, r)
			j.turn <- struct{}{}
			began := j.compacting
			<-j.turn
			if began {
				return recs
			}
		}
	}
	t.Fatal("no compaction began")
	return nil
}

// A rewrite that takes for ever holds nobody up, and what is appended meanwhile
// is in the new file.
func TestAppendDuringCompaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newMemDisk()
		j, _ := openMem(t, d)
		opened := make(chan struct{})
		d.gate = func(file string) {
			if strings.HasSuffix(file, ".tmp") {
				<-opened
			}
		}
		recs := dying(t, j)
		synctest.Wait() // it is at its fsync
		for _, r := range []Record{rec(Accepted, "meanwhile", 500), rec(Started, "meanwhile", 500), rec(Accepted, "other", 501)} {
			appendAll(t, j, r)
			recs = append(recs, r)
		}
		before := j.size
		close(opened)
		if err := j.Close(); err != nil { // waits for it
			t.Fatal(err)
		}
		if j.size >= before {
			t.Errorf("%d bytes, %d before", j.size, before)
		}
		again, es := openMem(t, d.crash(func(int) int { return 0 }))
		if got := viewOf(es, again); !cmp.Equal(remember(recs).Acked, got.Acked) || len(got.Entries) < 2 {
			t.Errorf("found %+v", got)
		}
		if err := again.Append(rec(Exited, "meanwhile", 500), rec(Started, "other", 501)); err != nil {
			t.Error(err)
		}
	})
}

func TestFailedCompactionKeepsTheOldFile(t *testing.T) {
	d := newMemDisk()
	j, _ := openMem(t, d)
	var log bytes.Buffer
	j.log = slog.New(slog.NewTextHandler(&log, nil))
	opened := make(chan struct{})
	d.gate = func(file string) {
		if strings.HasSuffix(file, ".tmp") {
			<-opened
		}
	}
	recs := dying(t, j)
	d.mu.Lock()
	d.room = 0 // full, until the rest of the rewrite has failed
	d.mu.Unlock()
	close(opened)
	j.wg.Wait()
	d.room = -1
	if !strings.Contains(log.String(), "not compacted") || d.names[name+".tmp"] != nil {
		t.Errorf("log %q, names %v", log.String(), d.names)
	}
	appendAll(t, j, rec(Accepted, "after", 900))
	again, es := openMem(t, d)
	got := viewOf(es, again)
	if !cmp.Equal(remember(recs).Acked, got.Acked) || got.Entries[len(got.Entries)-1].Key.Run != "after" {
		t.Errorf("found %+v", got)
	}
}

// Once the new file is in place but may not be found there after a crash,
// nothing may be appended to it.
func TestUncertainRenameEndsTheJournal(t *testing.T) {
	d := newMemDisk()
	j, _ := openMem(t, d)
	opened := make(chan struct{})
	d.gate = func(file string) {
		if strings.HasSuffix(file, ".tmp") {
			<-opened
		}
	}
	recs := dying(t, j)
	d.mu.Lock()
	d.dirErr = syscall.EIO
	d.mu.Unlock()
	close(opened)
	j.wg.Wait()
	if err := j.Append(rec(Accepted, "after", 900)); !errors.Is(err, syscall.EIO) {
		t.Errorf("accepted although the directory isn't synced: %v", err)
	}
	for names := range 2 { // the old file, the new one
		after := d.crash(func(n int) int { return names * (n - 1) })
		again, es := openMem(t, after)
		if diff := cmp.Diff(remember(recs), viewOf(es, again)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestTombstonesAreBounded(t *testing.T) {
	d := newMemDisk()
	j, _ := openMem(t, d)
	j.table.bound = 3
	for i, run := range []string{"a", "b", "c", "d"} {
		appendAll(t, j, rec(Accepted, run, uint64(i+1)), rec(Exited, run, uint64(i+1)), rec(Acked, run, uint64(i+1)))
	}
	for run, want := range map[string]error{"a": nil, "b": ErrExists, "d": ErrExists} {
		if err := j.Append(rec(Accepted, run, 9)); !errors.Is(err, want) {
			t.Errorf("accept %q again: %v, want %v", run, err, want)
		}
	}
	j.wg.Wait()
	live := int64(0)
	for _, r := range j.table.records() {
		live += int64(frameSize(r))
	}
	if live != j.table.live {
		t.Errorf("counted %d live bytes, there are %d", j.table.live, live)
	}
}
