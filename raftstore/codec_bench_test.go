package raftstore

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	logv1 "github.com/schedd/schedd/proto/schedd/log/v1"
	"github.com/schedd/schedd/raftstore/raftstoretest"
	"github.com/schedd/schedd/raftstore/state"
)

// aRun is what one short run has in the log.
func aRun(n int) []state.Command {
	now := raftstoretest.Start.Add(time.Second)
	key := state.JobKey{Namespace: "default", Name: fmt.Sprintf("report-of-department-%d", n)}
	id := state.OccurrenceRunID(uint64(n), "each-second", now)
	return []state.Command{
		state.Decide{
			Key: key, UID: uint64(n + 1), Version: 3, Activity: 17, Trigger: "each-second", After: raftstoretest.Start, Until: now,
			Decisions: []state.Decided{{
				Decision: state.DecidedRun, First: now, Last: now, Count: 1, Digest: state.Mix(now),
				Run: &state.Birth{Phase: state.Pending, Nominal: now},
			}},
		},
		state.Assign{Run: id, Attempt: 1, Worker: "w-4fzqk3xkqpmd2n5hzyotnw4a"},
		state.Finish{
			Run: id, Fence: uint64(1000 + n), Phase: state.Succeeded,
			Attempt: state.Attempt{Outcome: state.OutcomeSucceeded, Started: now, Finished: now.Add(time.Millisecond), CPUTime: time.Millisecond, MaxRSS: 3 << 20},
		},
	}
}

// BenchmarkEntry is what the form costs in which a hundred runs are in the log. The
// baseline is what protobuf costs, which reads the bytes and makes nothing of them.
func BenchmarkEntry(b *testing.B) {
	var e state.Entry
	e.Now = raftstoretest.Start
	for n := range 100 {
		e.Commands = append(e.Commands, aRun(n)...)
	}
	data := encoded(b, e)
	b.Run("protobuf", func(b *testing.B) {
		for b.Loop() {
			var p logv1.Entry
			if err := proto.Unmarshal(data, &p); err != nil {
				b.Fatal(err)
			}
		}
	})
	among := newShared()
	b.Run("decode", func(b *testing.B) {
		for b.Loop() {
			if _, err := decodeEntry(data, among); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encode", func(b *testing.B) {
		for b.Loop() {
			for _, c := range e.Commands {
				if _, err := encodeCommand(c); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

// idleJob is the n-th of many jobs that have much alike: due once a day, at a minute of
// its own in one of four zones.
func idleJob(n int) state.PutJob {
	zone, turn := []string{"", "Europe/Berlin", "America/New_York", "Asia/Tokyo"}[n%4], n/4
	department := fmt.Sprintf("%07d", n)
	return state.PutJob{
		Key: state.JobKey{Namespace: "default", Name: "report-of-department-" + department}, UID: uint64(n + 1), Effective: raftstoretest.Start,
		Definition: &state.Definition{
			Labels:   state.PairsOf(map[string]string{"team": fmt.Sprint("team-", n%50), "tier": []string{"gold", "silver", "bronze"}[n%3], "app": "reporting"}),
			Triggers: []*state.Trigger{{ID: "daily", Cron: &state.Cron{Expression: fmt.Sprintf("%d %d * * *", turn/20%60, turn%20), TimeZone: zone}}},
			Task:     state.Task{Argv: []string{"/usr/local/bin/report", "--department", department, "--format", "pdf"}},
			Policy:   &state.Policy{MaxConcurrent: 1, Retry: state.Retry{MaxAttempts: 1}, LogLimit: 64 << 20},
		},
	}
}

// BenchmarkJobs is what one of many jobs takes in memory, in what primaries agree on. The
// time is that of writing it into an entry, reading that, and applying it. For a million:
// -benchtime 1000000x.
func BenchmarkJobs(b *testing.B) {
	used := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, among, s := used(), newShared(), state.New()
	n := 0
	for b.Loop() {
		data := encoded(b, state.Entry{Now: raftstoretest.Start, Commands: []state.Command{idleJob(n)}})
		n++
		e, err := decodeEntry(data, among)
		if err != nil {
			b.Fatal(err)
		}
		if r := s.Apply(uint64(n), e.Entry); r[0].Err != nil {
			b.Fatal(r[0].Err)
		}
		s.TakeChanges()
	}
	b.ReportMetric(float64(used()-before)/float64(n), "B/job")
	runtime.KeepAlive(s)
	runtime.KeepAlive(among)
}
