package history

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// BenchmarkManyValues lists runs by several jobs, workers and phases. The baseline is one
// value that is there: what more values cost is said as so many times that.
func BenchmarkManyValues(b *testing.B) {
	n := many()
	s := New(Config{Dir: b.TempDir(), Keep: generous, Clock: time.Now, Filled: func() {}, Log: quiet()})
	s.Start(newShared().View)
	defer s.Close()
	fill(b, s, n)
	names := func(format string, k int) (list []string) {
		for i := range k {
			list = append(list, fmt.Sprintf(format, i))
		}
		return list
	}
	butSucceeded := allFinal[1:]
	var one float64
	for _, q := range []named{
		{"job/1", Query{Jobs: names("report-of-department-%d", 1)}},
		{"job/14", Query{Jobs: names("report-of-department-%d", 14)}},
		{"job/15", Query{Jobs: names("report-of-department-%d", 15)}},
		{"job/100", Query{Jobs: names("report-of-department-%d", 100)}},
		{"job/1-unknown", Query{Jobs: names("nothing-%d", 1)}},
		{"job/15-unknown", Query{Jobs: names("nothing-%d", 15)}},
		{"job/100-unknown", Query{Jobs: names("nothing-%d", 100)}},
		{"job/400-unknown", Query{Jobs: names("nothing-%d", 400)}}, // what a filter has room for
		{"worker/1", Query{Workers: names("worker-%d.example", 1)}},
		{"worker/15", Query{Workers: names("worker-%d.example", 15)}},
		{"worker/100", Query{Workers: names("worker-%d.example", 100)}},
		{"worker/15-unknown", Query{Workers: names("nothing-%d", 15)}},
		{"worker/100-unknown", Query{Workers: names("nothing-%d", 100)}},
		{"worker/20-unknown-and-6-phases", Query{Workers: names("nothing-%d", 20), Phases: butSucceeded}},
		{"job/1-and-worker", Query{Jobs: []string{"report-of-department-321"}, Workers: names("worker-%d.example", 1)}},
		{"job/1-and-worker-unknown", Query{Jobs: names("report-of-department-%d", 1), Workers: names("nothing-%d", 1)}},
		{"job/25-and-worker-unknown", Query{Jobs: names("report-of-department-%d", 25), Workers: names("nothing-%d", 1)}},
		{"job/25-and-worker", Query{Jobs: names("report-of-department-%d", 25), Workers: names("worker-%d.example", 1)}},
		{"phase/6", Query{Phases: butSucceeded}},
	} {
		q.Limit = 101
		b.Run(q.name, func(b *testing.B) {
			for b.Loop() {
				if _, err := s.List(context.Background(), q.Query); err != nil {
					b.Fatal(err)
				}
			}
			each := float64(b.Elapsed()) / float64(b.N)
			if one == 0 {
				one = each
			}
			b.ReportMetric(each/one, "x-one-job")
		})
	}
}
