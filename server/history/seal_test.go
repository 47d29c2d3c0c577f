package history

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
)

// Whatever one bit of a record becomes, it is not read as another run.
func TestFlippedBitIsSeen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := aRun(rapid.IntRange(0, 1000).Draw(t, "run"))
		plain, err := raftstore.EncodeRun(want)
		if err != nil {
			t.Fatal(err)
		}
		record := seal(plain)
		bit := rapid.IntRange(0, 8*len(record)-1).Draw(t, "bit")
		record[bit/8] ^= 1 << (bit % 8)
		if got, err := unseal(record); err == nil {
			if d := gocmp.Diff(want, got); d != "" {
				t.Fatalf("bit %d of %d bytes (-was +is):\n%s", bit, len(record), d)
			}
		}
	})
}

// What an older version wrote has no seal, and an older version reads what has one.
func TestRecordsOfOtherVersions(t *testing.T) {
	want := aRun(7)
	plain, err := raftstore.EncodeRun(want)
	if err != nil {
		t.Fatal(err)
	}
	old, err := unseal(plain)
	if d := gocmp.Diff(want, old); d != "" || err != nil {
		t.Errorf("without a seal: %v\n%s", err, d)
	}
	asOld, err := raftstore.DecodeRun(seal(plain))
	if d := gocmp.Diff(want, asOld); d != "" || err != nil {
		t.Errorf("by one that knows of no seal: %v\n%s", err, d)
	}
}

// alter changes a byte of a record behind the store's back.
func alter(t *testing.T, s *Store, n int) {
	t.Helper()
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	var record []byte
	if err := s.db.read.QueryRowContext(context.Background(), "SELECT record FROM runs WHERE serial = ?", n+1).Scan(&record); err != nil {
		t.Fatal(err)
	}
	record[len(record)/2] ^= 0x10
	if _, err := s.db.write.ExecContext(context.Background(), "UPDATE runs SET record = ? WHERE serial = ?", record, n+1); err != nil {
		t.Fatal(err)
	}
}

// A run that the disk has changed is shown to nobody. It is taken out, and had again
// from another primary; the others stay.
func TestAlteredRunIsHadAgain(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		const n, k = 500, 123
		c := newCircle(t)
		other := begin(filepath.Join(dir, "other"), generous, stateAt(n))
		other.Ended(at(n-1), numbers(0, n))
		mine := begin(filepath.Join(dir, "mine"), generous, stateAt(n))
		mine.Ended(at(n-1), numbers(0, n))
		time.Sleep(10 * time.Second)
		alter(t, mine, k)
		want := aRun(k)
		if r, err := mine.Run(t.Context(), want.ID); !errors.Is(err, ErrUnavailable) || !errors.Is(err, errAltered) {
			t.Fatalf("it is shown as %+v, %v", r, err)
		}
		time.Sleep(10 * time.Second)
		if runs, missing, _ := has(t, mine); runs != n-1 || missing == "" {
			t.Errorf("alone it has %d runs, missing %q; want all others, and a word", runs, missing)
		}
		c.join("other", other)
		c.join("mine", mine)
		time.Sleep(5 * time.Minute)
		if runs, missing, lost := has(t, mine); runs != n || missing != "" || lost != 0 {
			t.Errorf("afterwards: %d runs of %d, missing %q, lost %d", runs, n, missing, lost)
		}
		got, err := mine.Run(t.Context(), want.ID)
		if d := gocmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("had again: %v\n%s", err, d)
		}
		if files, _ := filepath.Glob(filepath.Join(dir, "mine", "*.damaged")); len(files) != 0 {
			t.Errorf("set aside: %v", files)
		}
	})
}

// A run that the disk has changed, and that is still in the state, is written again, and
// nobody else is asked for it; alone, what is nowhere else stays told.
func TestAlteredRunIsWrittenAgain(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		const n, hot, cold = 500, 495, 123
		st := &shared{state: (&state.Snapshot{Index: at(n - 1).Index, Now: at(n - 1).Now, ClusterID: "c", Serial: n, Runs: numbers(n-10, n)}).Restore()}
		c := newCircle(t)
		s := begin(dir, generous, st)
		s.Ended(at(n-1), numbers(0, n))
		time.Sleep(10 * time.Second)
		c.join("alone", s)
		alter(t, s, hot)
		if _, err := s.Run(t.Context(), aRun(hot).ID); !errors.Is(err, errAltered) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		st.mu.Lock()
		st.state = stateAt(n).state // it forgets them
		st.mu.Unlock()
		got, err := s.Run(t.Context(), aRun(hot).ID)
		if d := gocmp.Diff(aRun(hot), got); d != "" || err != nil {
			t.Errorf("written again: %v\n%s", err, d)
		}
		if runs, missing, _ := has(t, s); runs != n || missing != "" || s.Lost(time.Time{}) != "" {
			t.Errorf("%d runs of %d, missing %q, lost %q", runs, n, missing, s.Lost(time.Time{}))
		}

		alter(t, s, cold)
		_, _ = s.Run(t.Context(), aRun(cold).ID)
		time.Sleep(24 * time.Hour)
		if r, err := s.Run(t.Context(), aRun(cold).ID); !errors.Is(err, state.ErrLost) {
			t.Errorf("a day later: %v, %v", r, err)
		}
		if runs, missing, lost := has(t, s); runs != n-1 || missing != "" || lost != 1 || !strings.Contains(s.Lost(time.Time{}), " at 2030-01-01T12:02:08Z") {
			t.Errorf("%d runs of %d, missing %q, lost %d: %q", runs, n, missing, lost, s.Lost(time.Time{}))
		}
	})
}

// Nobody is given a run that the disk has changed, and whoever lacks it for that
// reason knows it, also when it is cut off before all was told.
func TestAlteredRunIsNotHandedOn(t *testing.T) {
	for _, cut := range []bool{false, true} {
		t.Run(fmt.Sprintf("cut off %v", cut), func(t *testing.T) { isNotHandedOn(t, cut) })
	}
}

func isNotHandedOn(t *testing.T, cut bool) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		const n = 1500 // more than a page
		c := newCircle(t)
		giver := begin(filepath.Join(dir, "giver"), generous, stateAt(n))
		giver.Ended(at(n-1), numbers(0, n))
		time.Sleep(10 * time.Second)
		altered := []int{0, 77, 700, n - 1}
		for _, k := range altered {
			alter(t, giver, k)
		}
		asker := begin(filepath.Join(dir, "asker"), generous, stateAt(n))
		asker.Restored(raftstore.Restoration{At: at(n - 1), Unseen: true})
		time.Sleep(10 * time.Second)
		c.cuts["giver"] = cut
		c.join("giver", giver)
		c.join("asker", asker)
		time.Sleep(5 * time.Minute)
		for name, s := range map[string]*Store{"giver": giver, "asker": asker} {
			if runs, missing, lost := has(t, s); runs != n-len(altered) || missing != "" || lost != len(altered) {
				t.Errorf("%s has %d runs of %d, missing %q, lost %d; want that it knows of %d", name, runs, n, missing, lost, len(altered))
			}
			if _, err := s.Run(t.Context(), aRun(77).ID); !errors.Is(err, state.ErrLost) || !strings.Contains(s.Lost(time.Time{}), "in 1 more") {
				t.Errorf("%s says of one of them: %v; of lists: %q", name, err, s.Lost(time.Time{}))
			}
		}
	})
}

// Nobody reads it, and it is found all the same, while another primary has it.
func TestAlteredRunIsFound(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		const n, k = 1200, 1111
		c := newCircle(t)
		other := begin(filepath.Join(dir, "other"), generous, stateAt(n))
		other.Ended(at(n-1), numbers(0, n))
		mine := begin(filepath.Join(dir, "mine"), generous, stateAt(n))
		mine.Ended(at(n-1), numbers(0, n))
		c.join("other", other)
		c.join("mine", mine)
		time.Sleep(time.Hour) // the first look is over
		alter(t, mine, k)
		time.Sleep(checkEvery)
		got, err := mine.Run(t.Context(), aRun(k).ID)
		if d := gocmp.Diff(aRun(k), got); d != "" || err != nil {
			t.Errorf("a day later: %v\n%s", err, d)
		}
		if runs, missing, lost := has(t, mine); runs != n || missing != "" || lost != 0 {
			t.Errorf("%d runs of %d, missing %q, lost %d", runs, n, missing, lost)
		}
	})
}
