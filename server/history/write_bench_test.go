package history

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
)

// BenchmarkWrite puts runs into a history that has some already, as they end when many
// jobs run each second: ten thousand jobs, one after the other. The baseline is the same
// records behind each other in a file, synced as often.
func BenchmarkWrite(b *testing.B) {
	const step = 10_000
	for _, c := range []struct{ before, together int }{
		{100_000, step},
		{600_000, step},
		{200_000, 1300},
		{200_000, 5200}, // of 1,300 runs each second, those of one and of four
	} {
		b.Run(fmt.Sprintf("history/runs=%d/together=%d", c.before, c.together), func(b *testing.B) {
			s := New(Config{Dir: b.TempDir(), Keep: generous, Clock: time.Now, Filled: func() {}, Log: quiet()})
			s.Start(newShared().View)
			defer s.Close()
			n := 0
			put := func(together int) {
				s.Ended(at(n+1), secondOf(n, together))
				flush(b, s)
				n += together
			}
			for n < c.before {
				put(step)
			}
			write(b, c.together, func() { put(c.together) })
		})
	}
	b.Run("file", func(b *testing.B) {
		f, err := os.Create(filepath.Join(b.TempDir(), "records"))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		n := 0
		write(b, step, func() {
			for _, r := range secondOf(n, step) {
				record, err := raftstore.EncodeRun(r)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := f.Write(seal(record)); err != nil {
					b.Fatal(err)
				}
			}
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
			n += step
		})
	})
}

// BenchmarkEnded hands over how far the log is, as with each entry, while the state is held,
// when few and when many runs wait to be written: what waits should be no matter.
func BenchmarkEnded(b *testing.B) {
	for _, waiting := range []int{1_000, 100_000} {
		b.Run(fmt.Sprint("waiting=", waiting), func(b *testing.B) {
			s := New(Config{Dir: b.TempDir(), Keep: generous, Clock: time.Now, Filled: func() {}, Log: quiet()}) // not started, so that nothing is written
			s.Ended(at(1), secondOf(0, waiting))
			for b.Loop() {
				s.Ended(at(2), nil)
			}
		})
	}
}

// write measures what each of the runs costs that f writes.
func write(b *testing.B, runs int, f func()) {
	began, used := time.Now(), cpuTime()
	for b.Loop() {
		f()
	}
	n := float64(b.N * runs)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(n/time.Since(began).Seconds(), "runs/s")
	b.ReportMetric((cpuTime()-used).Seconds()*1e6/n, "cpu-µs/run")
}

// cpuTime returns how much of the processors this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// secondOf returns count runs, from the n-th on, of as many jobs.
func secondOf(n, count int) []*state.Run {
	runs := make([]*state.Run, count)
	for i := range runs {
		r := benchRun(n + i)
		r.Job.Name, r.UID = fmt.Sprintf("report-%d", i), uint64(i+1)
		r.Nominal = start.Add(time.Duration(n/count) * time.Second)
		r.ID = state.OccurrenceRunID(r.UID, r.Trigger, r.Nominal)
		runs[i] = r
	}
	return runs
}
