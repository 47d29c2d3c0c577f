package journal

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The price of a record beside a bare write and fsync of as many bytes, in turns, so that
// both see the same disk: "ratio" by the clock, "cpu-ratio" of all processor time. Those who append at the same time share an fsync; a note costs
// none:
//
//	go test -run xxx -bench Record -benchtime 10x ./agent/journal
func BenchmarkRecord(b *testing.B) {
	for _, c := range []struct {
		name   string
		atOnce int
		add    func(*Journal, Record) error
	}{
		{"append", 1, func(j *Journal, r Record) error { return j.Append(r) }},
		{"append by 32", 32, func(j *Journal, r Record) error { return j.Append(r) }},
		{"note", 1, func(j *Journal, r Record) error { return j.Note(r) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			j, _, err := Open(filepath.Join(b.TempDir(), "journal"), quiet())
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = j.Close() }()
			bare, err := os.Create(filepath.Join(b.TempDir(), "bare"))
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = bare.Close() }()
			payload := make([]byte, 200)
			var raw, ours, rawCPU, oursCPU time.Duration
			const batch = 64
			n := 0
			for b.Loop() {
				began, used := time.Now(), cpuTime()
				for range batch {
					if _, err := bare.Write(payload); err != nil {
						b.Fatal(err)
					}
					if err := bare.Sync(); err != nil {
						b.Fatal(err)
					}
				}
				raw, rawCPU = raw+time.Since(began), rawCPU+cpuTime()-used
				n++
				began, used = time.Now(), cpuTime()
				var wg sync.WaitGroup
				for caller := range c.atOnce {
					wg.Go(func() {
						for i := range batch / c.atOnce {
							r := Record{Kind: Accepted, Key: Key{fmt.Sprint("run-", n, "-", caller, "-", i), 1}, Fence: uint64(n), Payload: payload}
							if err := c.add(j, r); err != nil {
								b.Error(err)
							}
						}
					})
				}
				wg.Wait()
				ours, oursCPU = ours+time.Since(began), oursCPU+cpuTime()-used
			}
			each := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(b.N*batch) }
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(each(raw), "bare-µs")
			b.ReportMetric(each(ours), "ours-µs")
			b.ReportMetric(float64(ours)/float64(raw), "ratio")
			b.ReportMetric(each(oursCPU), "ours-cpu-µs")
			b.ReportMetric(float64(oursCPU)/float64(rawCPU), "cpu-ratio")
		})
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
