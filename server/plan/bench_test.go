package plan_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/plan"
)

// BenchmarkGrowth is what it costs to decide an occurrence and to set the alarm of the
// next, among so many jobs, of which 100 are due each second and the others at night.
// The cost of one fire should not depend on how many jobs there are.
//
//	go test ./server/plan -run '^$' -bench Growth
func BenchmarkGrowth(b *testing.B) {
	const due = 100
	for _, jobs := range []int{1_000, 10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("jobs=%d", jobs), func(b *testing.B) {
			now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
			s, keys := nightlyJobs(jobs, due, now)
			before := heapInUse()
			a := plan.NewAgenda()
			for _, k := range keys {
				a.Note(s, k, now)
			}
			size := float64(heapInUse()-before) / float64(jobs)
			index := s.Index()
			for b.Loop() {
				now = now.Add(time.Second)
				index++
				s.Apply(index, state.Entry{Now: now, Commands: a.Due(plan.NewOutlook(s, plan.DefaultBounds), now, jobs)})
				s.TakeChanges()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/due, "ns/fire")
			b.ReportMetric(size, "B/job")
		})
	}
}

// nightlyJobs returns a state with that many jobs, of which the first few are due each
// second. Their runs never end, so that each further occurrence is skipped.
func nightlyJobs(jobs, due int, now time.Time) (*state.State, []state.JobKey) {
	s := state.New()
	keys := make([]state.JobKey, jobs)
	for i := range keys {
		keys[i] = state.JobKey{Namespace: "default", Name: fmt.Sprintf("nightly-%d", i)}
		d := &state.Definition{Policy: &state.Policy{}, Triggers: []*state.Trigger{{ID: "t", Cron: &state.Cron{Expression: fmt.Sprintf("%d %d * * *", i%60, i/60%6), TimeZone: "Europe/Berlin"}}}}
		if i < due {
			d.Triggers[0].Cron.Expression = "* * * * * *"
			d.Policy.MaxConcurrent = 1
		}
		s.Apply(uint64(i+1), state.Entry{Now: now, Commands: []state.Command{state.PutJob{Key: keys[i], UID: uint64(i + 1), Definition: d, Effective: now}}})
		s.TakeChanges()
	}
	return s, keys
}

// heapInUse returns the bytes of all that is reachable.
func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
