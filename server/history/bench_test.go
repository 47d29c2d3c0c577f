package history

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

// many is how many runs there are; HISTORY_RUNS changes it.
func many() int {
	if n, err := strconv.Atoi(os.Getenv("HISTORY_RUNS")); err == nil {
		return n
	}
	return 1_000_000
}

const (
	benchJobs    = 500
	benchWorkers = 100
)

// benchRun returns the n-th run of a busy place: half of the runs are of one job in
// twenty, 96 of 100 succeed, and each worker has its share. They began a second apart.
func benchRun(n int) *state.Run {
	h := (uint64(n) + 1) * 0x9e3779b97f4a7c15
	job := int(h>>33) % benchJobs
	if h&1 == 0 {
		job %= benchJobs / 20
	}
	phase := state.Succeeded
	switch v := h >> 20 % 1000; {
	case v < 25:
		phase = state.Failed
	case v < 30:
		phase = state.TimedOut
	case v < 31:
		phase = state.Lost
	case v < 40:
		phase = state.Skipped
	}
	r := &state.Run{
		Job: state.JobKey{Namespace: "default", Name: fmt.Sprintf("report-of-department-%d", job)}, UID: uint64(job + 1), Version: 3,
		Trigger: "nightly", Phase: phase, Serial: uint64(3*n + 1),
		Created: start.Add(time.Duration(n) * time.Second), Finished: start.Add(time.Duration(n)*time.Second + 42*time.Second),
	}
	r.Nominal = r.Created
	r.ID = state.OccurrenceRunID(r.UID, r.Trigger, r.Nominal)
	if phase == state.Skipped {
		r.Reason = "overlap: a run of this job is active"
		return r
	}
	w := int(h>>13) % benchWorkers
	a := state.Attempt{
		Number: 1, Fence: r.Serial + 1, Worker: state.WorkerID(fmt.Sprintf("w-%032d", w)), WorkerName: fmt.Sprintf("worker-%d.example", w),
		Assigned: r.Created, Started: r.Created.Add(time.Millisecond), Finished: r.Finished, Outcome: state.OutcomeSucceeded,
		LogBytes: 4711, CPUTime: time.Second, MaxRSS: 30 << 20,
	}
	if phase != state.Succeeded {
		a.Outcome, a.ExitCode = state.OutcomeFailed, 1
		r.Reason = "attempt 1 exited with 1"
	}
	r.Attempts = []state.Attempt{a}
	return r
}

// resident returns how much memory the process has, in MB; 0 where it can't be told.
func resident() float64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kb / 1024
		}
	}
	return 0
}

func heap() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / 1e6
}

// fill puts n runs into a history, as they would end.
func fill(b *testing.B, s *Store, n int) {
	b.Helper()
	for from := 0; from < n; from += 10_000 {
		var runs []*state.Run
		for i := from; i < min(n, from+10_000); i++ {
			runs = append(runs, benchRun(i))
		}
		s.Ended(at(from), runs)
		flush(b, s)
	}
}

// BenchmarkMillion puts a million runs into the history, as they would end, and then
// looks for some. The baseline is the same in the state, where they were kept before:
// a scan, newest first, under its lock.
func BenchmarkMillion(b *testing.B) {
	n := many()
	before, rss := heap(), resident()
	s := New(Config{Dir: b.TempDir(), Keep: generous, Clock: time.Now, Filled: func() {}, Log: quiet()})
	s.Start(newShared().View)
	defer s.Close()
	began := time.Now()
	fill(b, s, n)
	rate := float64(n) / time.Since(began).Seconds()
	b.Run("kept/history", func(b *testing.B) {
		for b.Loop() {
		}
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(rate, "runs/s")
		b.ReportMetric(heap()-before, "MB-heap")
		b.ReportMetric(resident()-rss, "MB-resident")
		b.ReportMetric(float64(s.Stats().Bytes)/1e6, "MB-disk")
	})
	queries := benchQueries(n)
	for _, q := range queries {
		b.Run("list/"+q.name+"/history", func(b *testing.B) { benchList(b, s, q.Query) })
	}
	b.Run("list/another-job/history", func(b *testing.B) { benchJobsInTurn(b, s) })
	b.Run("run/history", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if r, err := s.Run(context.Background(), benchRun(i*7919%n).ID); r == nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("sweep/history", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.Sweep(context.Background(), start); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.ReportMetric(resident()-rss, "MB-resident-after")
	benchState(b, n, queries)
}

// benchJobsInTurn lists the newest runs of one job after the other: each run is on another
// page of the file, and few of these were read before.
func benchJobsInTurn(b *testing.B, s *Store) {
	began := cpuTime()
	for i := 0; b.Loop(); i++ {
		q := Query{Jobs: []string{fmt.Sprintf("report-of-department-%d", i*7919%benchJobs)}, Limit: 101}
		if list, err := s.List(context.Background(), q); err != nil || len(list) == 0 {
			b.Fatal(len(list), err)
		}
	}
	b.ReportMetric((cpuTime()-began).Seconds()*1e3/float64(b.N), "cpu-ms/op")
}

func benchList(b *testing.B, s *Store, q Query) {
	for b.Loop() {
		list, err := s.List(context.Background(), q)
		if err != nil || len(list) == 0 {
			b.Fatal(len(list), err)
		}
	}
}

type named struct {
	name string
	Query
}

func benchQueries(n int) []named {
	middle := start.Add(time.Duration(n/2) * time.Second)
	with := func(name string, change func(*Query)) named {
		q := named{name, Query{Limit: 101}}
		change(&q.Query)
		return q
	}
	return []named{
		with("newest", func(*Query) {}),
		with("job", func(q *Query) { q.Jobs = []string{"report-of-department-3"} }),
		with("rare-job", func(q *Query) { q.Jobs = []string{"report-of-department-333"} }),
		with("phase", func(q *Query) { q.Phases = []state.Phase{state.Failed} }),
		with("rare-phase", func(q *Query) { q.Phases = []state.Phase{state.Lost} }),
		with("worker", func(q *Query) { q.Workers = []string{"worker-7.example"} }),
		with("time", func(q *Query) { q.After, q.Before = middle, middle.Add(time.Hour) }),
		with("job-and-phase", func(q *Query) {
			q.Jobs, q.Phases = []string{"report-of-department-3"}, []state.Phase{state.Failed, state.Lost, state.TimedOut}
		}),
		with("worker-and-phase", func(q *Query) { q.Workers, q.Phases = []string{"worker-7.example"}, []state.Phase{state.Lost} }),
		with("job-and-worker", func(q *Query) { q.Jobs, q.Workers = []string{"report-of-department-3"}, []string{"worker-7.example"} }),
		with("job-and-time", func(q *Query) {
			q.Jobs, q.After, q.Before = []string{"report-of-department-3"}, middle, middle.Add(24*time.Hour)
		}),
		with("page-of-1000", func(q *Query) { q.Jobs, q.Limit = []string{"report-of-department-3"}, 1001 }),
		with("deep-page", func(q *Query) { q.Phases, q.Below = []state.Phase{state.Failed}, uint64(n) }),
	}
}

// benchState is the baseline.
func benchState(b *testing.B, n int, queries []named) {
	before, rss := heap(), resident()
	snap := &state.Snapshot{Runs: make([]*state.Run, n)}
	for i := range n {
		snap.Runs[i] = benchRun(i)
	}
	st := snap.Restore()
	snap = nil
	b.Run("kept/state", func(b *testing.B) {
		for b.Loop() {
		}
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(heap()-before, "MB-heap")
		b.ReportMetric(resident()-rss, "MB-resident")
	})
	for _, q := range queries {
		b.Run("list/"+q.name+"/state", func(b *testing.B) {
			for b.Loop() {
				var list []*state.Run
				for r := range st.RunsBefore(q.Below) {
					if q.matches(r) {
						if list = append(list, r); len(list) == q.Limit {
							break
						}
					}
				}
				if len(list) == 0 {
					b.Fatal("none")
				}
			}
		})
	}
	runtime.KeepAlive(slices.Collect(st.RunsBefore(2)))
}
