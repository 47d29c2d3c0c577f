package history

import (
	"database/sql"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
)

// changes counts the transactions that were written: it is another number after each.
func (s *Store) changes(t *testing.T, conn *sql.Conn) (n int64) {
	t.Helper()
	if err := conn.QueryRowContext(t.Context(), "PRAGMA data_version").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// After a start the log is applied again from the last snapshot on, and all that ended in
// that time is handed over again. What is on disk is not written again; what is not, is.
func TestWhatIsHandedOverAgainIsNotWrittenAgain(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		const n, more = 3000, 40
		s := begin(dir, generous, newShared())
		for i := range n {
			s.Ended(at(i), numbers(i, i+1))
		}
		flush(t, s)
		if err := s.abandon(); err != nil {
			t.Fatal(err)
		}
		s = begin(dir, generous, newShared())
		conn, err := s.db.read.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		before := s.changes(t, conn)
		s.Restored(raftstore.Restoration{At: at(n/2 - 1), Runs: numbers(n/4, n/2), Unseen: true})
		for i := n / 2; i < n; i++ {
			s.Ended(at(i), numbers(i, i+1))
		}
		time.Sleep(10 * time.Second)
		if now := s.changes(t, conn); now != before || s.Stats().Queued != 0 {
			t.Errorf("it was written again, or is to be: version %d of the file, and it was %d; %d runs wait", now, before, s.Stats().Queued)
		}
		for i := n; i < n+more; i++ {
			s.Ended(at(i), numbers(i, i+1))
		}
		flush(t, s)
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
		if got, missing, lost := has(t, s); got != n+more || missing != "" || lost != 0 {
			t.Errorf("%d runs of %d, missing %q, lost %d", got, n+more, missing, lost)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// Where a log was put in the place of another, that had come farther, by a clock that was
// ahead, what ends in it takes the place of what ended in the other.
func TestAnotherLogIsWritten(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		const n, fork = 200, 100
		s := begin(dir, generous, newShared())
		s.Ended(at(n-1), numbers(0, n))
		flush(t, s)
		if err := s.abandon(); err != nil {
			t.Fatal(err)
		}
		s = begin(dir, generous, newShared())
		s.Ended(at(fork-1), numbers(0, fork))
		time.Sleep(10 * time.Second)
		var other []*state.Run
		for _, r := range numbers(fork, n) {
			c := *r
			c.Finished = c.Finished.Add(-time.Millisecond)
			other = append(other, &c)
		}
		s.Ended(at(n-1), other)
		flush(t, s)
		for _, want := range other {
			got, err := s.Run(t.Context(), want.ID)
			if err != nil || got == nil || !got.Finished.Equal(want.Finished) {
				t.Errorf("run %v is %v, %v, want one that ended at %v", want.ID, got, err, want.Finished)
				break
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// The log was restored from a copy that is older than the history. What is handed over again
// is on disk, and what ends from then on is not: who waits for that, such as a snapshot, waits
// until it is.
func TestNobodyIsToldOfWhatIsNotWritten(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		const n, fork = 200, 100
		s := begin(dir, generous, newShared())
		s.Ended(at(n-1), numbers(0, n))
		flush(t, s)
		if err := s.abandon(); err != nil {
			t.Fatal(err)
		}
		s = begin(dir, generous, newShared())
		synctest.Wait()
		s.turn <- struct{}{} // nothing is written meanwhile
		s.Ended(at(fork-1), numbers(0, fork))
		end := raftstore.Point{Index: at(fork).Index, Now: at(n).Now, Cluster: "c"}
		latest := aRun(n)
		s.Ended(end, []*state.Run{latest})
		told := make(chan error, 1)
		go func() { told <- s.Flush(t.Context(), end.Index) }()
		synctest.Wait()
		if passed, err := s.pass(t.Context()); !passed || err != nil || s.Stats().Queued != 1 {
			t.Errorf("passed over: %v, %v; %d runs wait, want the latest", passed, err, s.Stats().Queued)
		}
		synctest.Wait()
		select {
		case err := <-told:
			t.Errorf("who waits for it was told %v, and it is not on disk", err)
		default:
		}
		<-s.turn
		flush(t, s)
		if err := s.abandon(); err != nil {
			t.Fatal(err)
		}
		s = begin(dir, generous, newShared())
		if got, err := s.Run(t.Context(), latest.ID); err != nil || got == nil || !got.Finished.Equal(latest.Finished) {
			t.Errorf("on disk is %v, %v, want run %v", got, err, latest.ID)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// A run is found to be altered while the log is handed over again, and with it that run,
// which has left the state. It is written again, and nothing is lacking.
func TestAlteredRunIsHandedOverAgain(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		const n, half, early, late = 400, 200, 50, 300
		s := begin(dir, generous, stateAt(n))
		s.Ended(at(n-1), numbers(0, n))
		flush(t, s)
		if err := s.abandon(); err != nil {
			t.Fatal(err)
		}
		s = begin(dir, generous, stateAt(n))
		alter(t, s, early)
		alter(t, s, late)
		s.Ended(at(half-1), numbers(0, half))
		time.Sleep(10 * time.Second)
		if waits := s.Stats().Queued; waits != 0 {
			t.Fatalf("%d runs of the first half wait", waits)
		}
		s.turn <- struct{}{} // all of the second half waits, and then it is found
		if _, err := s.Run(t.Context(), aRun(late).ID); !errors.Is(err, errAltered) {
			t.Errorf("it is shown: %v", err)
		}
		s.Ended(at(n-1), numbers(half, n))
		<-s.turn
		flush(t, s)
		time.Sleep(10 * time.Second)
		got, err := s.Run(t.Context(), aRun(late).ID)
		if d := gocmp.Diff(aRun(late), got); d != "" || err != nil {
			t.Errorf("handed over again: %v\n%s", err, d)
		}
		if missing, lost := s.Missing(), s.Stats().Lost; missing != "" || lost != 0 {
			t.Errorf("missing %q, lost %d", missing, lost)
		}

		// That which was passed over is found later, and no log has it any more.
		if _, err := s.Run(t.Context(), aRun(early).ID); !errors.Is(err, errAltered) {
			t.Errorf("it is shown: %v", err)
		}
		time.Sleep(10 * time.Second)
		if runs, missing, _ := has(t, s); runs != n-1 || missing == "" {
			t.Errorf("%d runs of %d, missing %q; want all others, and a word", runs, n, missing)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// A history that lacks something takes all that is handed over again: it may be just that.
func TestWhatIsLackingIsWrittenAgain(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		const n = 100
		s := begin(dir, generous, newShared())
		s.Ended(at(n-1), numbers(n/2, n))
		flush(t, s)
		s.mu.Lock()
		s.gaps = []Gap{{First: at(0).Now, Last: at(n / 2).Now, Lost: true}}
		s.mu.Unlock()
		s.Ended(at(n-1), numbers(0, n))
		flush(t, s)
		if got, _, _ := has(t, s); got != n {
			t.Errorf("%d runs of %d", got, n)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestAgain(t *testing.T) {
	const on = 10 // disk is all up to there
	mark := func(n int) item { return item{at: at(n)} }
	run := func(n int) item { return item{run: aRun(n)} }
	other := func(n int) item { m := mark(n); m.at.Cluster = "other"; return m }
	later := func(n int) item { m := mark(n); m.at.Now = at(on + 1).Now; return m }
	undone := func(n int) item { m := mark(n); m.undone = 3; return m }
	unseen := func(n int) item { m := mark(n); m.unseen = true; return m }
	for _, test := range []struct {
		name   string
		items  []item
		want   int
		latest int // which run; -1: none
	}{
		{"nothing", nil, 0, -1},
		{"what is new", []item{run(11), mark(11)}, 0, -1},
		{"all is on disk", []item{run(9), mark(9), run(10), mark(10)}, 4, 10},
		{"and then what is new", []item{run(9), mark(9), run(10), mark(10), run(11), mark(11)}, 4, 10},
		{"of which it is not told yet what is new", []item{run(9), mark(9), run(10)}, 2, 9},
		{"a snapshot, in the order of births", []item{run(9), run(3), unseen(9), run(10), mark(10)}, 5, 10},
		{"only marks", []item{mark(7), mark(8)}, 2, -1},
		{"another cluster", []item{run(3), other(3), run(4), mark(4)}, 0, -1},
		{"another time", []item{run(3), mark(3), run(4), later(4)}, 2, 3},
		{"something is undone", []item{run(3), mark(3), undone(4), run(5), mark(5)}, 2, 3},
	} {
		n, latest := again(at(on), test.items)
		if n != test.want || (latest == nil) != (test.latest < 0) || latest != nil && latest.ID != aRun(test.latest).ID {
			t.Errorf("%s: %d, the latest %v, want %d and run %d", test.name, n, latest, test.want, test.latest)
		}
	}
}
