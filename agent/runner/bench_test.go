//go:build unix

package runner_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/cgroup/cgrouptest"
)

// The price of an attempt's process beside a bare fork and exec of the same
// program with the same parallelism, in turns, so that both see the same
// machine. "ratio" is that of quick batches (the 20th percentile: the rest of the
// machine disturbs the slower ones), "cpu-ratio" that of all processor time,
// children included, which a busy machine changes less:
//
//	go test -run xxx -bench Start -benchtime 50x ./agent/runner
func BenchmarkStart(b *testing.B) {
	r := runner.New(runner.Options{TempDir: b.TempDir()})
	out := filepath.Join(b.TempDir(), "out")
	if err := os.WriteFile(out, nil, 0o600); err != nil {
		b.Fatal(err)
	}
	bare := func(argv ...string) error { return exec.Command(argv[0], argv[1:]...).Run() }
	local := func(s runner.Spec) error {
		s.ID, s.Output = fmt.Sprint(serial.Add(1)), out
		p, err := r.Start(s)
		if err == nil {
			<-p.Done()
		}
		return err
	}
	program := func() error { return local(runner.Spec{Argv: []string{"/bin/true"}}) }
	script := func() error { return local(runner.Spec{Script: "exit 0"}) }

	b.Run("program", func(b *testing.B) { compare(b, func() error { return bare("/bin/true") }, program) })
	b.Run("script", func(b *testing.B) { compare(b, func() error { return bare("/bin/sh", "-ec", "exit 0") }, script) })
	b.Run("in a control group", func(b *testing.B) {
		free := r
		r = runner.New(runner.Options{TempDir: b.TempDir(), Groups: cgrouptest.Take(b)})
		defer func() { r = free }()
		compare(b, func() error { return bare("/bin/true") }, program)
	})
	b.Run("beside a daemon", func(b *testing.B) {
		p, err := r.Start(runner.Spec{ID: "daemon", Argv: []string{"/bin/sh", "-c", "(setsid sleep 1000 &); exec sleep 1000"}})
		if err != nil {
			b.Fatal(err)
		}
		defer func() { p.Kill(0); <-p.Done() }()
		compare(b, func() error { return bare("/bin/true") }, program)
	})
}

// compare runs batches of both in turns.
func compare(b *testing.B, bare, ours func() error) {
	const batch = 100
	var spent [2][]time.Duration
	var cpu [2]time.Duration
	for b.Loop() {
		for i, f := range []func() error{bare, ours} {
			began, used := time.Now(), cpuTime()
			var wg sync.WaitGroup
			for range runtime.GOMAXPROCS(0) {
				wg.Go(func() {
					for range batch / runtime.GOMAXPROCS(0) {
						if err := f(); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
			spent[i] = append(spent[i], time.Since(began))
			cpu[i] += cpuTime() - used
		}
	}
	var quick [2]float64
	for i, s := range spent {
		slices.Sort(s)
		quick[i] = float64(s[len(s)/5]) / batch
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(1e9/quick[0], "bare/s")
	b.ReportMetric(1e9/quick[1], "ours/s")
	b.ReportMetric(quick[1]/quick[0], "ratio")
	b.ReportMetric(float64(cpu[1])/float64(cpu[0]), "cpu-ratio")
}

func cpuTime() (sum time.Duration) {
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if syscall.Getrusage(who, &u) == nil {
			sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return sum
}
