package raftstore

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"github.com/schedd/schedd/raftstore/state"
)

// shelf is an archive that remembers all it was handed.
type shelf struct {
	at      Point
	runs    map[state.RunID]*state.Run
	unseen  int
	flushed []uint64
	err     error // of each Flush
}

func newShelf() *shelf { return &shelf{runs: map[state.RunID]*state.Run{}} }

func (s *shelf) Ended(at Point, runs []*state.Run) {
	s.at = at
	for _, r := range runs {
		s.runs[r.ID] = r
	}
}

func (s *shelf) Restored(r Restoration) {
	if r.Unseen {
		s.unseen++
	}
	for id, run := range s.runs {
		if r.Undone != 0 && run.Serial > r.Undone {
			delete(s.runs, id)
		}
	}
	s.Ended(r.At, r.Runs)
}

func (s *shelf) Flush(_ context.Context, index uint64) error {
	s.flushed = append(s.flushed, index)
	return s.err
}

// Whatever ends is handed over, as it is at last, however many entries are applied
// at once and whatever is forgotten meanwhile; and comes back as it was stored.
func TestArchiveIsHandedAllThatEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := history(t)
		model := newFSM(Config{Log: quiet()}, func(error) {})
		want := map[state.RunID]*state.Run{}
		for i := range log {
			replay(model, log[:i+1], i)
			for r := range model.state.RunsByBirth() {
				if r.Phase.Final() {
					want[r.ID] = r
				}
			}
		}

		s := newShelf()
		f := newFSM(Config{Log: quiet(), Archive: s}, func(error) {})
		var logs []*raft.Log
		for i := range log {
			logs = append(logs, &raft.Log{Index: uint64(i + 1), Data: log[i]})
		}
		for len(logs) > 0 {
			n := rapid.IntRange(1, len(logs)).Draw(t, "at once")
			f.ApplyBatch(logs[:n])
			logs = logs[n:]
			if s.at.Index != f.state.Index() || !s.at.Now.Equal(f.state.Now()) || s.at.Cluster != f.state.ClusterID() {
				t.Fatalf("handed over up to %+v, and the state is at %d %v", s.at, f.state.Index(), f.state.Now())
			}
		}
		for id, r := range want {
			// In one entry a late result may come and the run be forgotten: the model, which
			// is looked at after each entry, never shows that version.
			got := s.runs[id]
			last := model.state.Run(id) == nil && got != nil && lateResults(got) > lateResults(r)
			if !last && !cmp.Equal(got, r) {
				t.Errorf("run %v (-got +want):\n%s", id, cmp.Diff(got, r))
			}
			b, err := EncodeRun(r)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := DecodeRun(b); err != nil || !cmp.Equal(got, r) {
				t.Errorf("run %v came back, %v (-got +want):\n%s", id, err, cmp.Diff(got, r))
			}
		}
	})
}

func lateResults(r *state.Run) (n int) {
	for i := range r.Attempts {
		if r.Attempts[i].Late != state.Unfinished {
			n++
		}
	}
	return n
}

func TestDecodeRunRefusesWhatIsNone(t *testing.T) {
	for _, data := range [][]byte{nil, []byte("no run"), {0x0a, 0x02, 1, 2}} {
		if r, err := DecodeRun(data); err == nil {
			t.Errorf("%x is run %v", data, r)
		}
	}
}

// ended proposes a job and a run of it that is cancelled at once, and returns it.
func ended(t *testing.T, s *Store, name string) *state.Run {
	t.Helper()
	k := state.JobKey{Namespace: "default", Name: name}
	j := propose(t, s, state.PutJob{Key: k, Definition: &state.Definition{Policy: &state.Policy{}}, Effective: time.Now()})[0].Job
	id := state.RequestRunID(j.UID, "once")
	birth := state.Birth{Phase: state.Pending, Nominal: time.Now()}
	results := propose(t, s, state.Request{Key: k, UID: j.UID, Version: j.Version, ID: id, Birth: birth}, state.Cancel{Run: id, Note: "enough"})
	if err := errors.Join(results[0].Err, results[1].Err); err != nil {
		t.Fatal(err)
	}
	return results[1].Run
}

// What a snapshot holds is handed over when it takes the place of the state, and it
// says whether more may have ended than was seen.
func TestArchiveAndSnapshots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, first := NewMemory(), newShelf()
		s := open(t, Config{NodeID: "a", Memory: m, Archive: first})
		awaitLeader(t, s)
		one := ended(t, s, "one")
		var saved bytes.Buffer
		if err := s.SaveSnapshot(t.Context(), &saved); err != nil {
			t.Fatal(err)
		}
		two := ended(t, s, "two")
		first.err = errors.New("the disk is full") // and the log must not grow for that
		if err := s.Snapshot(t.Context()); err != nil {
			t.Fatal(err)
		}
		if last := first.flushed[len(first.flushed)-1]; last != first.at.Index {
			t.Errorf("a snapshot of the state at %d waited for what ended up to %d", first.at.Index, last)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}

		second := newShelf()
		s = open(t, Config{NodeID: "a", Memory: m, Archive: second})
		awaitLeader(t, s)
		if second.unseen != 1 || second.runs[one.ID] == nil || second.runs[two.ID] == nil {
			t.Errorf("after a restart, %d snapshots of which more was not seen, and runs %v; want one, and both", second.unseen, second.runs)
		}
		if err := s.RestoreSnapshot(t.Context(), io.LimitReader(&saved, int64(saved.Len()))); err != nil {
			t.Fatal(err)
		}
		if second.unseen != 1 || len(second.runs) != 1 || second.runs[one.ID] == nil {
			t.Errorf("after restoring what was saved, %d snapshots of which more was not seen, and runs %v; want still one, and that of job one", second.unseen, second.runs)
		}
		if !slices.IsSorted(first.flushed) {
			t.Errorf("flushed up to %v", first.flushed)
		}
	})
}
