package history

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/schedd/schedd/raftstore"
)

// The output of all attempts is told, of those that wait to be written, and then of those
// on disk, the newest first, and of few enough at a time.
func TestOutputsGoOverPages(t *testing.T) {
	s := begin(t.TempDir(), generous, newShared())
	defer s.Close()
	const written, all = 2500, 2600
	s.Ended(at(written-1), numbers(0, written))
	flush(t, s)
	s.turn <- struct{}{} // nothing is written any more
	s.Ended(at(all-1), numbers(written, all))
	var want []raftstore.Output
	for n := range all {
		if r := aRun(n); len(r.Attempts) > 0 {
			want = append(want, raftstore.OutputOf(r.ID, &r.Attempts[0]))
		}
	}
	newestFirst := func(a, b raftstore.Output) int { return cmp.Compare(b.Fence, a.Fence) }
	slices.SortFunc(want, newestFirst)
	for _, most := range []int{all, 1} {
		var got []raftstore.Output
		pages := 0
		err := s.Outputs(t.Context(), func(page []raftstore.Output) bool {
			if pages++; pages > 1 && !slices.IsSortedFunc(page, newestFirst) || len(page) > outputPage {
				t.Errorf("page %d is of %d, or not in their order", pages, len(page))
			}
			got = append(got, page...)
			return pages < most
		})
		slices.SortFunc(got, newestFirst)
		if err != nil || most == all && (!slices.Equal(got, want) || pages != 4) || most == 1 && pages != 1 {
			t.Errorf("up to %d pages: %d of %d in %d, %v", most, len(got), len(want), pages, err)
		}
	}
	<-s.turn
}

// A record that the disk has changed is not believed, and is found out so.
func TestOutputOfAlteredRunIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, k = 50, 23
		s := begin(t.TempDir(), generous, stateAt(n))
		s.Ended(at(n-1), numbers(0, n))
		flush(t, s)
		alter(t, s, k)
		look := func() (all int, err error) {
			err = s.Outputs(t.Context(), func(page []raftstore.Output) bool { all += len(page); return true })
			return all, err
		}
		if all, err := look(); !errors.Is(err, errAltered) || !errors.Is(err, ErrUnavailable) || all > 0 {
			t.Errorf("of a page with an altered run %d are told, %v", all, err)
		}
		time.Sleep(10 * time.Second) // it is taken out
		if _, err := look(); err != nil || s.Missing() == "" {
			t.Errorf("then: %v, missing %q", err, s.Missing())
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// BenchmarkOutputs looks at all runs for their output. The baseline is to read all of them:
// what it costs is said as so many times that, and in garbage for each run.
func BenchmarkOutputs(b *testing.B) {
	n := many()
	s := New(Config{Dir: b.TempDir(), Keep: generous, Clock: time.Now, Filled: func() {}, Log: quiet()})
	s.Start(newShared().View)
	defer s.Close()
	fill(b, s, n)
	var whole float64
	measure := func(name string, f func() error) {
		b.Run(name, func(b *testing.B) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/float64(b.N)/float64(n), "B/run")
			each := float64(b.Elapsed()) / float64(b.N)
			if whole == 0 {
				whole = each
			}
			b.ReportMetric(each/whole, "x-runs")
		})
	}
	measure("runs", func() error {
		for q := (Query{Limit: outputPage}); ; {
			runs, err := s.List(context.Background(), q)
			if err != nil || len(runs) < q.Limit {
				return err
			}
			q.Below = runs[len(runs)-1].Serial
		}
	})
	measure("outputs", func() error {
		return s.Outputs(context.Background(), func([]raftstore.Output) bool { return true })
	})
}
