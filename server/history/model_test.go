package history

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/raftstoretest"
	"github.com/schedd/schedd/raftstore/state"
)

// generous keeps everything.
var generous = Retention{RunsPerJob: 1 << 40, Runs: 1 << 40, Age: 1 << 60}

// primary is one primary: a log, the state that was made of it, its latest snapshot,
// and the history.
type primary struct {
	t       *rapid.T
	dir     string
	log     []state.Entry
	from    int // entries that the snapshot holds
	snap    *state.Snapshot
	applied int
	st      *shared
	h       *Store
}

// start starts it on what is on disk, with the log applied from the snapshot on.
func (p *primary) start() {
	p.st, p.applied = newShared(), 0
	p.h = New(Config{Dir: p.dir, Keep: generous, Clock: time.Now, Filled: func() {}, Log: quiet()})
	p.h.batch = rapid.IntRange(1, 4).Draw(p.t, "batch")
	if p.snap != nil {
		p.st.state, p.applied = p.snap.Restore(), p.from
		p.h.Restored(raftstore.Restoration{At: point(p.st.state), Runs: final(p.snap.Runs), Unseen: true})
	}
	p.h.Start(p.st.View)
}

// apply applies the next n entries, as many as there are, at once.
func (p *primary) apply(n int) {
	p.st.mu.Lock()
	defer p.st.mu.Unlock()
	for range min(n, len(p.log)-p.applied) {
		p.applied++
		p.st.state.Apply(uint64(p.applied), p.log[p.applied-1])
	}
	p.h.Ended(point(p.st.state), p.st.state.TakeEnded())
}

// snapshot takes one, if the history has all of it.
func (p *primary) snapshot() {
	p.st.mu.Lock()
	n := p.st.state.Snapshot()
	p.st.mu.Unlock()
	flush(p.t, p.h)
	n.Sort()
	p.snap, p.from = n, p.applied
}

func point(s *state.State) raftstore.Point {
	return raftstore.Point{Index: s.Index(), Now: s.Now(), Cluster: s.ClusterID()}
}

func final(runs []*state.Run) []*state.Run {
	return slices.DeleteFunc(slices.Clone(runs), func(r *state.Run) bool { return !r.Phase.Final() })
}

// Whatever ends is in the state or in the history, as it was at last, however often
// the primary is killed, at whatever moment, and whatever was forgotten.
func TestNeverInNeither(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		p := &primary{t: t, dir: drawDir(t, dir)}
		defer os.RemoveAll(p.dir)
		model := state.New()
		w := raftstoretest.NewWalk(t, model)
		want := map[state.RunID]*state.Run{}
		write := func() {
			e := w.Entry()
			p.log = append(p.log, e)
			model.Apply(uint64(len(p.log)), e)
			for _, r := range model.TakeEnded() {
				want[r.ID] = r
			}
		}
		p.start()
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				if err := p.h.abandon(); err != nil {
					t.Fatal(err)
				}
				p.start()
			case 1:
				p.snapshot()
			case 2:
				flush(t, p.h)
			case 3, 4, 5:
				p.apply(rapid.IntRange(1, 5).Draw(t, "entries"))
			default:
				write()
			}
		}
		p.apply(len(p.log))
		p.check(t, want)
		flush(t, p.h)
		p.check(t, want)
		if err := p.h.Close(); err != nil {
			t.Fatal(err)
		}
		if p.start(); len(p.h.Gaps()) > 0 {
			t.Errorf("it saw all, and says that it may lack %v", p.h.Gaps())
		}
		if err := p.h.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// check compares what the state and the history show together with what there is.
func (p *primary) check(t *rapid.T, want map[state.RunID]*state.Run) {
	t.Helper()
	got := map[state.RunID]*state.Run{}
	listed, err := p.h.List(context.Background(), Query{Limit: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSortedFunc(listed, newestFirst) {
		t.Error("the list is out of order")
	}
	for _, r := range listed {
		got[r.ID] = r
		one, err := p.h.Run(context.Background(), r.ID)
		if err != nil || !gocmp.Equal(one, r) {
			t.Errorf("run %v alone, %v: %s", r.ID, err, gocmp.Diff(one, r))
		}
	}
	for r := range p.st.state.RunsByBirth() {
		if r.Phase.Final() {
			got[r.ID] = r
		}
	}
	if !gocmp.Equal(got, want) {
		t.Errorf("state and history (-got +want):\n%s", gocmp.Diff(got, want))
	}
}

var dirs int

func drawDir(t *rapid.T, parent string) string {
	dirs++
	dir := fmt.Sprintf("%s/%d", parent, dirs)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Whatever is asked for, the answer is what one finds by looking at all runs.
func TestListIsWhatMatches(t *testing.T) {
	s := begin(t.TempDir(), generous, newShared())
	defer s.Close()
	const runs = 400
	var all []*state.Run
	for n := range runs {
		r := aRun(n)
		if n%3 == 0 {
			r.Job.Namespace = "other"
		}
		if n%5 == 0 {
			r.Trigger = ""
		}
		if n%13 == 0 && len(r.Attempts) > 0 {
			second := r.Attempts[0]
			second.Number, second.Worker, second.WorkerName = 2, "w-second", "worker-2"
			r.Attempts = append(r.Attempts, second)
		}
		all = append(all, r)
		s.Ended(at(n), []*state.Run{r})
		if n == runs-50 {
			flush(t, s)
			s.turn <- struct{}{} // the rest waits
			defer func() { <-s.turn }()
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		some := func(label string, from ...string) []string {
			switch n := rapid.IntRange(0, 5).Draw(t, label); n {
			case 0, 1, 2:
				return nil
			default:
				list := rapid.SliceOfNDistinct(rapid.SampledFrom(from), 0, min(n-2, len(from)), rapid.ID).Draw(t, label)
				if n == 5 { // and many others, among them some twice
					for i := range 60 {
						list = append(list, fmt.Sprintf("unknown-%d", i%50))
					}
				}
				return list
			}
		}
		q := Query{
			Namespaces: some("namespaces", "default", "other", "nowhere"),
			Jobs:       some("jobs", "job-0", "job-1", "job-2", "no-job"),
			Triggers:   some("triggers", "s", "", "none"),
			Workers:    some("workers", "worker-1", "worker-2", "w-second", "w-00000000000000000000000003", "nobody"),
			Limit:      rapid.IntRange(1, 100).Draw(t, "limit"),
		}
		if rapid.Bool().Draw(t, "by phase") {
			q.Phases = rapid.SliceOfNDistinct(rapid.SampledFrom(allFinal), 0, 3, rapid.ID).Draw(t, "phases")
		}
		if rapid.Bool().Draw(t, "after") {
			q.After = start.Add(time.Duration(rapid.IntRange(-5, runs+5).Draw(t, "after")) * time.Second)
		}
		if rapid.Bool().Draw(t, "before") {
			q.Before = start.Add(time.Duration(rapid.IntRange(-5, runs+5).Draw(t, "before")) * time.Second)
		}
		var want, got []state.RunID
		for _, r := range slices.Backward(all) {
			if q.matches(r) {
				want = append(want, r.ID)
			}
		}
		for page := range runs + 2 {
			list, err := s.List(context.Background(), q)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range list {
				got = append(got, r.ID)
			}
			if len(list) < q.Limit {
				break
			}
			q.Below = list[len(list)-1].Serial
			if page > runs {
				t.Fatal("the pages have no end")
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%+v: %d runs, want %d", q, len(got), len(want))
		}
	})
}

// Only so many are kept, and the newest of them, whatever the order in which they came.
func TestRetention(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		keep := Retention{
			RunsPerJob: rapid.IntRange(1, 30).Draw(t, "per job"), Runs: rapid.IntRange(1, 100).Draw(t, "runs"),
			Age: time.Duration(rapid.IntRange(1, 200).Draw(t, "age")) * time.Second,
		}
		d := drawDir(t, dir)
		defer os.RemoveAll(d)
		s := begin(d, keep, newShared())
		defer s.Close()
		n := rapid.IntRange(1, 150).Draw(t, "number")
		var all []*state.Run
		for i := range n {
			all = append(all, aRun(i))
		}
		s.Ended(at(n-1), all)
		flush(t, s)
		now := at(n - 1).Now
		removed, err := s.Sweep(context.Background(), now)
		if err != nil {
			t.Fatal(err)
		}

		slices.SortFunc(all, func(a, b *state.Run) int { return cmp.Compare(b.Serial, a.Serial) })
		type kind struct {
			uid   uint64
			never bool
		}
		perJob, want := map[kind]int{}, []uint64{}
		for _, r := range all {
			if now.Sub(r.Finished) > keep.Age {
				continue
			}
			k := kind{r.UID, r.Phase == state.Skipped || r.Phase == state.Missed}
			if perJob[k]++; perJob[k] > keep.RunsPerJob || len(want) == keep.Runs {
				continue
			}
			want = append(want, r.Serial)
		}
		list, err := s.List(context.Background(), Query{Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		got := []uint64{}
		for _, r := range list {
			got = append(got, r.Serial)
		}
		if !slices.Equal(got, want) || removed != n-len(want) {
			t.Errorf("removed %d of %d, and %v are left; want %v", removed, n, got, want)
		}
		if n := workerRows(t, s); n != len(workersLeft(list)) {
			t.Errorf("%d rows of workers are left, want %d", n, len(workersLeft(list)))
		}
	})
}

func workersLeft(list []*state.Run) (names []string) {
	for _, r := range list {
		names = append(names, workersOf(r)...)
	}
	return names
}

func workerRows(t *rapid.T, s *Store) (n int) {
	t.Helper()
	if err := s.db.read.QueryRow("SELECT count(*) FROM workers").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}
