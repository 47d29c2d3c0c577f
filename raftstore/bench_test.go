package raftstore

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/schedd/schedd/raftstore/bareraft"
	"github.com/schedd/schedd/raftstore/raftstoretest"
	"github.com/schedd/schedd/raftstore/state"
)

// BenchmarkRaftApply is what Propose is measured by: Raft on the same disk, with
// nothing around it, and entries of the same size.
func BenchmarkRaftApply(b *testing.B) {
	for _, callers := range []int{1, 64, 1024} {
		b.Run(name(callers), func(b *testing.B) {
			l, err := bareraft.Open(b.TempDir())
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = l.Close() }()
			data := encoded(b, state.Entry{Now: time.Now(), Commands: []state.Command{request(1)}})
			parallel(b, callers, func(uint64) error { return l.Apply(data) })
		})
	}
}

// BenchmarkPropose is the store as it is used.
func BenchmarkPropose(b *testing.B) {
	for _, callers := range []int{1, 64, 1024} {
		b.Run(name(callers), func(b *testing.B) {
			s := onDisk(b, b.TempDir())
			if _, err := s.Propose(b.Context(), state.PutJob{
				Key: benchJob, Definition: &state.Definition{Policy: &state.Policy{}, Task: state.Task{Argv: []string{"true"}}}, Effective: raftstoretest.Start,
			}); err != nil {
				b.Fatal(err)
			}
			parallel(b, callers, func(n uint64) error {
				_, err := s.Propose(context.Background(), request(n))
				return err
			})
			st := s.Stats()
			b.ReportMetric(float64(st.Commands)/float64(st.Entries), "commands/entry")
		})
	}
}

var benchJob = state.JobKey{Namespace: "default", Name: "bench"}

func name(callers int) string {
	return map[int]string{1: "1 caller", 64: "64 callers", 1024: "1024 callers"}[callers]
}

// request is the birth of a run, or, mostly, a rejected one: what counts here is
// the way there and back.
func request(n uint64) state.Command {
	var id state.RunID
	binary.BigEndian.PutUint64(id[:], n+1)
	return state.Request{Key: benchJob, UID: n, Version: 1, ID: id, Birth: state.Birth{Nominal: raftstoretest.Start}}
}

func parallel(b *testing.B, callers int, f func(n uint64) error) {
	b.ReportAllocs()
	b.SetParallelism(max(1, callers/runtime.GOMAXPROCS(0)))
	if callers == 1 {
		for n := uint64(0); b.Loop(); n++ {
			if err := f(n); err != nil {
				b.Fatal(err)
			}
		}
		return
	}
	var next atomic.Uint64
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if err := f(next.Add(1)); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkJob is what a job costs a primary: the time to apply its definition from the
// log, which is most of a restart, and the memory that the state keeps of it. The
// baseline is its size in the log. Every minute of the day is somebody's.
func BenchmarkJob(b *testing.B) {
	var commands [][]byte
	size := 0
	for i := range 20_000 {
		c, err := encodeCommand(state.PutJob{Key: state.JobKey{Namespace: "default", Name: fmt.Sprintf("nightly-report-%07d", i)}, UID: uint64(i + 1), Definition: nightly(i), Effective: raftstoretest.Start})
		if err != nil {
			b.Fatal(err)
		}
		commands, size = append(commands, c), size+len(c)
	}
	var kept float64
	for b.Loop() {
		before := heapInUse()
		f := newFSM(Config{Log: quiet()}, func(error) {})
		for i, c := range commands {
			entry, _ := joinEntry(raftstoretest.Start, [][]byte{c}) // 2026 can be told
			f.ApplyBatch([]*raft.Log{{Index: uint64(i + 1), Type: raft.LogCommand, Data: entry}})
		}
		kept = float64(heapInUse() - before)
		runtime.KeepAlive(f)
	}
	n := float64(len(commands))
	b.ReportMetric(kept/n, "B/job")
	b.ReportMetric(float64(size)/n, "B/job-in-log")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/job")
}

// nightly returns the definition of an ordinary job.
func nightly(i int) *state.Definition {
	return &state.Definition{
		Description: "builds the nightly report of one shop",
		Labels:      state.PairsOf(map[string]string{"team": "data", "shop": fmt.Sprint(i)}),
		Triggers:    []*state.Trigger{{ID: "nightly", Cron: &state.Cron{Expression: fmt.Sprintf("%d %d * * *", i%60, i/60%24), TimeZone: "Europe/Berlin"}}},
		Task:        state.Task{Argv: []string{"/usr/local/bin/report", "--shop", fmt.Sprint(i)}},
		Policy:      &state.Policy{MaxConcurrent: 1, CatchUpWindow: time.Hour, Timeout: 10 * time.Minute, KillGrace: 10 * time.Second, Retry: state.Retry{MaxAttempts: 1, Multiplier: 2}},
	}
}

func heapInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkSnapshot is a state of a large house: 10,000 jobs and 200,000 runs.
func BenchmarkSnapshot(b *testing.B) {
	n := &state.Snapshot{Index: 1, Now: raftstoretest.Start, Serial: 1 << 40}
	for i := range uint64(10_000) {
		d := &state.Definition{Policy: &state.Policy{}, Task: state.Task{Argv: []string{"/usr/bin/true"}}, Triggers: []*state.Trigger{{ID: "t", Every: &state.Every{Interval: time.Minute}}}}
		n.Jobs = append(n.Jobs, &state.Job{Key: state.JobKey{Name: request(i).(state.Request).ID.String()}, UID: i + 1, Version: 1, Definition: d})
		n.Tracks = append(n.Tracks, state.KeyedTrack{Key: state.TrackKey{UID: i + 1, Trigger: "t"}, Track: &state.Track{Trigger: d.Triggers[0], Since: n.Now}})
	}
	for i := range uint64(200_000) {
		n.Runs = append(n.Runs, &state.Run{
			ID: request(i).(state.Request).ID, UID: i%10_000 + 1, Serial: i + 1, Phase: state.Succeeded, Created: n.Now, Finished: n.Now,
			Attempts: []state.Attempt{{Number: 1, Fence: i + 1, Worker: "w", WorkerName: "w", Assigned: n.Now, Started: n.Now, Finished: n.Now, Outcome: state.OutcomeSucceeded}},
		})
	}
	s := n.Restore()
	b.Run("copy", func(b *testing.B) {
		for b.Loop() {
			s.Snapshot()
		}
	})
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			size, err := writeSnapshot(io.Discard, s.Snapshot())
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(size)
		}
	})
	data := written(b, s)
	b.Run("restore", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			f := newFSM(Config{Log: quiet()}, func(error) {})
			if err := f.Restore(io.NopCloser(bytes.NewReader(data))); err != nil {
				b.Fatal(err)
			}
		}
	})
}
