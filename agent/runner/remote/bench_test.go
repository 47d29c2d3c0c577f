package remote_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/remote"
)

// TestMain makes the test binary be a runner, for the benchmark that wants one in a
// process of its own.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "runner" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		dir := os.Args[2]
		err := remote.Serve(ctx, remote.ServeOptions{
			Dir: dir, Runner: runner.New(runner.Options{TempDir: dir}), Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Version: "1",
		})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// The price of an attempt's process in a runner of its own, with its fsync,
// beside one in the same process, in turns, so that both see the same machine.
// "ratio" is that of quick batches (the 20th percentile). "at-once" attempts run at
// the same time, so that those of a worker's slots share what can be shared:
//
//	go test -run xxx -bench Start -benchtime 30x ./agent/runner/remote
func BenchmarkStart(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "runner")
	if err := os.Mkdir(dir, 0o700); err != nil {
		b.Fatal(err)
	}
	// By way of a shell, so that it is no child of this process, which looks after
	// children of its own here.
	launch := exec.CommandContext(b.Context(), "/bin/sh", "-c", `setsid "$0" runner "$1" >/dev/null 2>&1 &`, os.Args[0], dir)
	if err := launch.Run(); err != nil {
		b.Fatal(err)
	}
	far, err := remote.Open(b.Context(), remote.Options{Dir: dir, Life: 1, Version: "1", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	near := runner.New(runner.Options{TempDir: b.TempDir()})
	for _, atOnce := range []int{1, runtime.GOMAXPROCS(0), 16} {
		b.Run(fmt.Sprint("at-once=", atOnce), func(b *testing.B) { compare(b, atOnce, near, far) })
	}
	far.Close()
	if _, err := remote.Stop(context.WithoutCancel(b.Context()), dir); err != nil {
		b.Error(err)
	}
}

var serial atomic.Int64

// once runs one attempt to its end.
func once(b *testing.B, r runner.Runner) {
	s := runner.Spec{ID: fmt.Sprint(serial.Add(1), "/1"), Argv: []string{"/bin/true"}}
	p, err := r.Start(s)
	if err != nil {
		b.Error(err)
		return
	}
	<-p.Done()
	if lasting, ok := r.(runner.Lasting); ok {
		lasting.Forget(s.ID)
	}
}

// compare runs batches of both in turns.
func compare(b *testing.B, atOnce int, near, far runner.Runner) {
	const batch = 96
	var spent [2][]time.Duration
	for b.Loop() {
		for i, r := range []runner.Runner{near, far} {
			began := time.Now()
			var wg sync.WaitGroup
			for range atOnce {
				wg.Go(func() {
					for range batch / atOnce {
						once(b, r)
					}
				})
			}
			wg.Wait()
			spent[i] = append(spent[i], time.Since(began))
		}
	}
	var quick [2]float64
	for i, s := range spent {
		slices.Sort(s)
		quick[i] = float64(s[len(s)/5]) / batch
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(1e9/quick[0], "near/s")
	b.ReportMetric(1e9/quick[1], "far/s")
	b.ReportMetric(quick[1]/quick[0], "ratio")
}
