package history

import (
	"context"
	"testing"
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

// BenchmarkWaiting lists runs while most of what has ended waits to be written, as it
// does after a load and when a log is applied again. The baseline is a history that has
// written all of it.
func BenchmarkWaiting(b *testing.B) {
	const runs = 100_000
	s := New(Config{Dir: b.TempDir(), Keep: generous, Clock: time.Now, Filled: func() {}, Log: quiet()})
	s.Start(newShared().View)
	defer s.Close()
	queries := []named{
		{"all", Query{Limit: outputPage}},
		{"job", Query{Limit: 101, Jobs: []string{"report-of-department-333"}}},
		{"phase", Query{Limit: 101, Phases: []state.Phase{state.Succeeded}}},
	}
	list := func(when string) {
		for _, q := range queries {
			b.Run(q.name+"/"+when, func(b *testing.B) {
				began := cpuTime()
				for b.Loop() {
					if list, err := s.List(context.Background(), q.Query); err != nil || len(list) == 0 {
						b.Fatal(len(list), err)
					}
				}
				b.ReportMetric((cpuTime()-began).Seconds()*1e3/float64(b.N), "cpu-ms/op")
			})
		}
	}
	all := make([]*state.Run, runs)
	for n := range all {
		all[n] = benchRun(n)
	}
	s.turn <- struct{}{}
	s.Ended(at(runs-1), all)
	list("waiting")
	<-s.turn
	flush(b, s)
	list("written")
}
