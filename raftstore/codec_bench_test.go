package raftstore

import (
	"fmt"
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
