package history

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// The end of the file is gone, and with it a part of a page, which SQLite takes for zeros.
// What the log hands over again is not taken for what is on disk then, so that no run is
// gone without a word.
func TestTornWithinAPage(t *testing.T) {
	for _, cut := range []int64{1, 500, 2000, 4000} {
		t.Run(fmt.Sprint(cut, " bytes"), func(t *testing.T) {
			for n := 20; n < 200; n += 9 {
				dir := filepath.Join(t.TempDir(), fmt.Sprint(n))
				synctest.Test(t, func(t *testing.T) { tear(t, dir, n, cut) })
			}
		})
	}
}

func tear(t *testing.T, dir string, n int, cut int64) {
	s := begin(dir, generous, newShared())
	for i := range n {
		s.Ended(at(i), numbers(i, i+1))
	}
	flush(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, fileName)
	is, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, is.Size()-cut); err != nil {
		t.Fatal(err)
	}
	s = begin(dir, generous, newShared())
	for i := range n {
		s.Ended(at(i), numbers(i, i+1))
	}
	time.Sleep(time.Minute)
	_, _ = s.List(t.Context(), Query{Limit: n}) // who finds out that a record was changed is told so
	time.Sleep(time.Minute)
	if got, missing, lost := has(t, s); got != n && missing == "" || lost != 0 {
		t.Errorf("%d runs of %d, missing %q, lost %d", got, n, missing, lost)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
