package raftstore

import (
	"bytes"
	"runtime"
	"testing"
	"testing/synctest"
	"weak"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"github.com/schedd/schedd/raftstore/state"
)

// Entries that are kept in memory for others do not keep what applying them has returned.
func TestRecentEntriesKeepNoAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const entries = 20
		s := alone(t, NewMemory())
		var answers []weak.Pointer[state.Worker]
		for i := range entries { // each takes the place of the one before
			answers = append(answers, weak.Make(propose(t, s, largeWorker(i, 1000))[0].Worker))
		}
		runtime.GC()
		kept := 0
		for _, a := range answers {
			if a.Value() != nil {
				kept++
			}
		}
		if kept > entries/2 { // the latest are on somebody's stack
			t.Errorf("%d answers of %d are still in memory, want those of the latest few", kept, entries)
		}
	})
}

// Whatever is stored and deleted, what is read is what the log has, and no more than was
// said is in memory.
func TestRecentEntriesAreWhatTheLogHas(t *testing.T) {
	const most, mostBytes = 8, 300
	rapid.Check(t, func(t *rapid.T) {
		disk := raft.NewInmemStore()
		s := newRecentLogs(most, mostBytes, disk)
		next, served := uint64(1), 0
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			if next > 1 && rapid.IntRange(0, 4).Draw(t, "delete") == 0 { // from the end, as of a leader that was not followed, or all up to one
				from := rapid.Uint64Range(1, next-1).Draw(t, "from")
				if rapid.Bool().Draw(t, "beginning") {
					mustDo(t, s.DeleteRange(1, from))
				} else {
					mustDo(t, s.DeleteRange(from, next-1))
					next = from
				}
			}
			var logs []*raft.Log
			for range rapid.IntRange(1, 5).Draw(t, "entries") {
				data := bytes.Repeat([]byte{byte(rapid.IntRange(0, 255).Draw(t, "data"))}, rapid.IntRange(0, 2*mostBytes/5).Draw(t, "size"))
				logs = append(logs, &raft.Log{Index: next, Term: uint64(rapid.IntRange(1, 9).Draw(t, "term")), Data: data})
				next++
			}
			mustDo(t, s.StoreLogs(logs))
			size := 0
			for _, l := range s.logs {
				size += len(l.Data)
			}
			if len(s.logs) > most || size > mostBytes || size != s.bytes {
				t.Fatalf("%d entries of %d bytes, counted as %d, are in memory", len(s.logs), size, s.bytes)
			}
			for i := range next + 1 {
				var got, want raft.Log
				err, wantErr := s.GetLog(i, &got), disk.GetLog(i, &want)
				if got.Index != want.Index || got.Term != want.Term || !bytes.Equal(got.Data, want.Data) || (err == nil) != (wantErr == nil) {
					t.Fatalf("entry %d is %+v, %v, want %+v, %v", i, got, err, want, wantErr)
				}
				if s.recent(i) != nil {
					served++
				}
			}
		}
		if served == 0 {
			t.Fatal("nothing was read from memory")
		}
	})
}

func mustDo(t *rapid.T, err error) {
	if err != nil {
		t.Fatal(err)
	}
}
