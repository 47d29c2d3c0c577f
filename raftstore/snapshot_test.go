package raftstore

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	logv1 "github.com/schedd/schedd/proto/schedd/log/v1"
	"github.com/schedd/schedd/raftstore/raftstoretest"
	"github.com/schedd/schedd/raftstore/state"
)

// encoded returns an entry as it stands in the log.
func encoded(t rapid.TB, e state.Entry) []byte {
	var parts [][]byte
	for _, c := range e.Commands {
		b, err := encodeCommand(c)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, b)
	}
	b, err := joinEntry(e.Now, parts)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// history draws a log.
func history(t *rapid.T) (log [][]byte) {
	f := newFSM(Config{Log: quiet()}, func(error) {})
	w := raftstoretest.NewWalk(t, f.state)
	for i := range rapid.IntRange(1, 40).Draw(t, "entries") {
		log = append(log, encoded(t, w.Entry()))
		f.Apply(&raft.Log{Index: uint64(i + 1), Data: log[i]})
	}
	if err := f.err(); err != nil {
		t.Fatal(err)
	}
	return log
}

// replay applies log entries from that index on.
func replay(f *fsm, log [][]byte, from int) {
	for i := from; i < len(log); i++ {
		f.Apply(&raft.Log{Index: uint64(i + 1), Data: log[i]})
	}
}

func hashOf(t rapid.TB, s *state.State) [32]byte {
	h, err := Hash(s)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func written(t rapid.TB, s *state.State) []byte {
	var b bytes.Buffer
	n, err := writeSnapshot(&b, s.Snapshot())
	if err != nil || n != int64(b.Len()) {
		t.Fatalf("wrote %d bytes, said %d, %v", b.Len(), n, err)
	}
	return b.Bytes()
}

// A primary that starts from a snapshot, taken anywhere in the log, comes to the
// same state as one that has seen all of it, and so does one that sees all of it
// again.
func TestSnapshotAnywhereThenTheRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := history(t)
		all := newFSM(Config{Log: quiet()}, func(error) {})
		at := rapid.IntRange(0, len(log)).Draw(t, "snapshot at")
		replay(all, log[:at], 0)
		snap := written(t, all.state)
		before := all.state.Snapshot()
		replay(all, log, at)

		other := newFSM(Config{Log: quiet()}, func(error) {})
		replay(other, log[:rapid.IntRange(0, at).Draw(t, "had")], 0) // is to be cleared
		if err := other.Restore(io.NopCloser(bytes.NewReader(snap))); err != nil {
			t.Fatal(err)
		}
		after := other.state.Snapshot()
		before.Sort()
		after.Sort()
		if diff := cmp.Diff(before, after, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("restored otherwise (-was +is):\n%s", diff)
		}
		replay(other, log, at)
		if hashOf(t, all.state) != hashOf(t, other.state) {
			t.Fatalf("the states differ:\n%s", cmp.Diff(all.state.Snapshot(), other.state.Snapshot()))
		}

		again := newFSM(Config{Log: quiet()}, func(error) {})
		replay(again, log, 0)
		if hashOf(t, all.state) != hashOf(t, again.state) {
			t.Fatal("the same log again gave another state")
		}
	})
}

// A snapshot that is damaged anywhere is refused, and leaves the state as it was.
func TestDamagedSnapshotIsRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := newFSM(Config{Log: quiet()}, func(error) {})
		replay(f, history(t), 0)
		was := hashOf(t, f.state)
		snap := written(t, f.state)
		i := rapid.IntRange(0, len(snap)-1).Draw(t, "at")
		var bad []byte
		switch rapid.IntRange(0, 2).Draw(t, "damage") {
		case 0:
			bad = snap[:i]
		case 1:
			bad = bytes.Clone(snap)
			bad[i] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		case 2:
			bad = append(bytes.Clone(snap), snap[i:]...)
		}
		if err := f.Restore(io.NopCloser(bytes.NewReader(bad))); err == nil {
			t.Fatal("it was restored")
		}
		if hashOf(t, f.state) != was {
			t.Fatal("the state has changed")
		}
	})
}

// An active run is stored with its definition only when its job has another one
// by now; and a trigger in force not at all.
func TestSnapshotHoldsNothingTwice(t *testing.T) {
	now := raftstoretest.Start
	k := state.JobKey{Namespace: "default", Name: "big"}
	script := strings.Repeat("x", 10_000)
	def := &state.Definition{Policy: &state.Policy{}, Task: state.Task{Script: script}, Triggers: []*state.Trigger{{ID: "t", Every: &state.Every{Interval: time.Minute}}}}
	s := state.New()
	s.Apply(1, state.Entry{Now: now, Commands: []state.Command{state.PutJob{Key: k, Definition: def, Effective: now}}})
	uid := s.Job(k).UID
	for i := range uint64(10) {
		s.Apply(i+2, state.Entry{Now: now, Commands: []state.Command{state.Request{
			Key: k, UID: uid, Version: 1, Activity: i, ID: state.RunID{byte(i + 1)}, Birth: state.Birth{Nominal: now},
		}}})
	}
	if n := s.NumActive(uid); n != 10 {
		t.Fatalf("%d active runs", n)
	}
	if n := strings.Count(string(written(t, s)), script); n != 1 {
		t.Errorf("the script is there %d times, want once", n)
	}
	next := *def
	next.Description = "other"
	s.Apply(20, state.Entry{Now: now, Commands: []state.Command{state.PutJob{Key: k, Definition: &next, Effective: now}}})
	n, err := readSnapshot(bytes.NewReader(written(t, s)))
	if err != nil {
		t.Fatal(err)
	}
	for r := range n.Restore().RunsByBirth() {
		if r.Definition == nil || r.Definition.Description != "" {
			t.Errorf("run %v has the definition %+v, want its own", r.ID, r.Definition)
		}
	}
}

// A ledger of many spans is many records.
func TestLongLedgerRoundTrips(t *testing.T) {
	now := raftstoretest.Start
	k := state.JobKey{Name: "flaky"}
	s := state.New()
	s.Apply(1, state.Entry{Now: now, Commands: []state.Command{state.PutJob{Key: k, Effective: now, Definition: &state.Definition{
		Policy:   &state.Policy{},
		Triggers: []*state.Trigger{{ID: "t", Every: &state.Every{Interval: time.Second}}},
	}}}})
	const n = 2*spansPerRecord + 10
	d := state.Decide{Key: k, UID: s.Job(k).UID, Version: 1, Trigger: "t", After: now, Until: now.Add(n * time.Second)}
	for i := range n {
		at := now.Add(time.Duration(i+1) * time.Second)
		d.Decisions = append(d.Decisions, state.Decided{Decision: state.Decision(i%2 + 2), First: at, Last: at, Count: 1, Digest: state.Mix(at)})
	}
	if err := s.Apply(2, state.Entry{Now: now, Commands: []state.Command{d}})[0].Err; err != nil {
		t.Fatal(err)
	}
	read, err := readSnapshot(bytes.NewReader(written(t, s)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s.Track(d.UID, "t"), read.Restore().Track(d.UID, "t")); diff != "" {
		t.Errorf("came back otherwise:\n%s", diff)
	}
}

// stream puts records together, with a footer that fits.
func stream(records ...*logv1.Record) []byte {
	var out bytes.Buffer
	w := newSnapshotWriter(&out)
	if len(records) == 0 || records[0].GetHeader() == nil {
		w.put(&logv1.Record{Record: &logv1.Record_Header{Header: &logv1.Header{Format: snapshotFormat, Serial: 100}}})
	}
	for _, r := range records {
		w.put(r)
	}
	if err := w.close(); err != nil {
		panic(err)
	}
	return out.Bytes()
}

// newerHeader is what a newer version may write.
var newerHeader = &logv1.Record{Record: &logv1.Record_Header{Header: &logv1.Header{Format: 2}}}

func TestRestoreTellsWhatIsWrong(t *testing.T) {
	job := func(name string, uid uint64, triggers ...string) *logv1.Record {
		d := &state.Definition{Policy: &state.Policy{}}
		for _, id := range triggers {
			d.Triggers = append(d.Triggers, &state.Trigger{ID: id})
		}
		var e encoder
		return &logv1.Record{Record: &logv1.Record_Job{Job: e.job(&state.Job{Key: state.JobKey{Name: name}, UID: uid, Definition: d})}}
	}
	run := func(id byte, serial uint64, change func(*state.Run)) *logv1.Record {
		r := &state.Run{ID: state.RunID{id}, UID: 1, Serial: serial, Phase: state.Succeeded}
		change(r)
		var e encoder
		return &logv1.Record{Record: &logv1.Record_Run{Run: e.run(r)}}
	}
	ended := func(*state.Run) {}
	pending := func(r *state.Run) { r.Phase = state.Pending }
	track := func(uid uint64, id string, closed uint64) *logv1.Record {
		return &logv1.Record{Record: &logv1.Record_Track{Track: &logv1.Track{Uid: uid, TriggerId: id, Closed: closed}}}
	}
	past := &logv1.Record{Record: &logv1.Record_Past{Past: &logv1.Track{Uid: 1, TriggerId: "t"}}}
	activity := func(uid uint64) *logv1.Record {
		return &logv1.Record{Record: &logv1.Record_Activity{Activity: &logv1.Activity{Uid: uid, Seq: 1}}}
	}
	worker := &logv1.Record{Record: &logv1.Record_Worker{Worker: &logv1.Worker{Id: "w"}}}
	standby := func(id string) *logv1.Record {
		return &logv1.Record{Record: &logv1.Record_Standby{Standby: &logv1.Standby{Id: id}}}
	}
	direct := func(address string) *logv1.Record {
		return &logv1.Record{Record: &logv1.Record_Direct{Direct: &logv1.Direct{Address: address}}}
	}
	jump := func(was, is int64) *logv1.Record {
		return &logv1.Record{Record: &logv1.Record_Jump{Jump: &logv1.Jump{Was: was, Is: is}}}
	}
	many := make([]*logv1.Record, state.MaxTable+1)
	for i := range many {
		many[i] = direct(fmt.Sprint(i))
	}
	spans := &logv1.Record{Record: &logv1.Record_Spans{Spans: &logv1.Spans{Spans: []*logv1.Span{{Count: 1, Decision: logv1.Decision_DECISION_RUN}}}}}

	for _, tt := range []struct {
		name    string
		records []*logv1.Record
		want    string // "": nothing is wrong
	}{
		{"nothing", nil, ""},
		{"all of it", []*logv1.Record{job("a", 1, "t"), track(1, "t", 1), spans, run(1, 2, pending), worker, activity(1), standby("p"), direct("h:1")}, ""},

		{"a newer format", []*logv1.Record{newerHeader}, "a format (2) that this version does not know: upgrade this primary"},
		{"a record of the future", []*logv1.Record{{}}, "a record that this version does not know: upgrade this primary"},
		{"two headers", []*logv1.Record{worker, {Record: &logv1.Record_Header{Header: &logv1.Header{Format: 1}}}}, "record 2 is a *logv1.Record_Header"},
		{"a job twice", []*logv1.Record{job("a", 1), job("a", 2)}, "job /a is there twice"},
		{"a uid twice", []*logv1.Record{job("a", 1), job("b", 1)}, "jobs /b and /a have the same uid 1"},
		{"a job without a uid", []*logv1.Record{job("a", 0)}, "job /a has no uid"},
		{"a job without a definition", []*logv1.Record{{Record: &logv1.Record_Job{Job: &logv1.Job{Uid: 1}}}}, "has no definition"},
		{"a trigger without a track", []*logv1.Record{job("a", 1, "t")}, "1 triggers have 0 tracks"},
		{"a trigger twice", []*logv1.Record{job("a", 1, "t", "t"), track(1, "t", 0)}, "2 triggers have 1 tracks"},
		{"a track twice", []*logv1.Record{job("a", 1, "t"), track(1, "t", 0), track(1, "t", 0)}, "track {1 t} is there twice"},
		{"a track of no job", []*logv1.Record{track(1, "t", 0)}, "track {1 t} is of no trigger"},
		{"a track of no trigger", []*logv1.Record{job("a", 1), track(1, "t", 0)}, "track {1 t} is of no trigger"},
		{"an ended track of no job", []*logv1.Record{past}, "ended track {1 t} is of no job"},
		{"an ended track without a trigger", []*logv1.Record{job("a", 1), past}, "ended track {1 t} does not have its trigger"},
		{"no spans of no track", []*logv1.Record{{Record: &logv1.Record_Spans{Spans: &logv1.Spans{}}}}, "0 spans where 0 must be"},
		{"spans of no track", []*logv1.Record{spans}, "1 spans where 0 must be"},
		{"too few spans", []*logv1.Record{job("a", 1, "t"), track(1, "t", 2), spans, worker}, "0 spans where 1 must be"},
		{"a worker twice", []*logv1.Record{worker, worker}, "worker w is there twice"},
		{"a run twice", []*logv1.Record{run(1, 1, ended), run(1, 2, ended)}, "is there twice"},
		{"runs out of order", []*logv1.Record{run(1, 2, ended), run(2, 1, ended)}, "is out of order: serial number 1 after 2"},
		{"an active run of no job", []*logv1.Record{run(1, 1, pending), activity(1)}, "without a definition or a job that has one"},
		{"an active run without activity", []*logv1.Record{job("a", 1), run(1, 1, pending)}, "no activity of uid 1"},
		{"activity of no job", []*logv1.Record{activity(7)}, "activity of uid 7, which is no job"},
		{"activity twice", []*logv1.Record{job("a", 1), activity(1), activity(1)}, "is there twice"},
		{"a standby twice", []*logv1.Record{standby("p"), standby("p")}, "standby p is there twice"},
		{"a standby without an id", []*logv1.Record{standby("")}, "node id of a primary of 0 bytes"},
		{"a direct worker twice", []*logv1.Record{direct("h:1"), direct("h:1")}, "direct worker h:1 is there twice"},
		{"a direct worker nowhere", []*logv1.Record{direct("")}, "address of a worker of 0 bytes"},
		{"jumps of the clock", []*logv1.Record{jump(1, 5), jump(5, 7)}, ""},
		{"a jump of the clock back", []*logv1.Record{jump(5, 4)}, "a jump from"},
		{"a jump of the clock within another", []*logv1.Record{jump(1, 5), jump(3, 7)}, "after one to"},
		{"too many direct workers", many, "1001 direct workers, of 1000 allowed"},
		{"running without an attempt", []*logv1.Record{job("a", 1), activity(1), run(1, 1, func(r *state.Run) { r.Phase = state.Running })}, "is running without an attempt"},
		{"on no worker", []*logv1.Record{job("a", 1), activity(1), run(1, 1, func(r *state.Run) {
			r.Phase, r.Attempts = state.Running, []state.Attempt{{Worker: "x"}}
		})}, `is on worker "x", which is none`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFSM(Config{Log: quiet()}, func(error) {})
			err := f.Restore(io.NopCloser(bytes.NewReader(stream(tt.records...))))
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("err = %v, want %q", err, tt.want)
			}
			// What is damaged may come again whole; what is newer never will.
			if newer := errors.Is(err, errNewer); newer != (f.err() != nil) {
				t.Errorf("newer: %v, and failed with %v", newer, f.err())
			}
		})
	}
}

// Whatever a snapshot's bytes are, restoring it gives a state or an error.
func FuzzRestore(f *testing.F) {
	s := state.New()
	now := raftstoretest.Start
	k := state.JobKey{Namespace: "default", Name: "a"}
	s.Apply(1, state.Entry{Now: now, Commands: []state.Command{
		state.PutJob{Key: k, Effective: now, Definition: &state.Definition{Policy: &state.Policy{}, Triggers: []*state.Trigger{{ID: "t", Every: &state.Every{Interval: time.Second}}}}},
		state.PutWorker{ID: "w", Says: state.WorkerInfo{Slots: 1}},
		state.Request{Key: k, UID: 1, Version: 1, ID: state.RunID{1}, Birth: state.Birth{Nominal: now}},
		state.Assign{Run: state.RunID{1}, Attempt: 1, Worker: "w"},
	}})
	f.Add(written(f, s))
	f.Add(written(f, state.New()))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, data := range [][]byte{data, resealed(data)} {
			n, err := readSnapshot(bytes.NewReader(data))
			if err != nil {
				continue
			}
			s := n.Restore()
			m, err := readSnapshot(bytes.NewReader(written(t, s)))
			if err != nil {
				t.Fatalf("what was restored can't be stored: %v", err)
			}
			if hashOf(t, s) != hashOf(t, m.Restore()) {
				t.Fatal("it came back otherwise")
			}
		}
	})
}

// resealed returns data with a footer that fits, so that fuzzing gets past it.
func resealed(data []byte) []byte {
	r := &snapshotReader{r: bufio.NewReader(bytes.NewReader(data))}
	var out bytes.Buffer
	w := newSnapshotWriter(&out)
	for {
		p, err := r.next()
		if err != nil || p.GetFooter() != nil {
			_ = w.close()
			return out.Bytes()
		}
		w.put(p)
	}
}

// It is told how far the newest snapshot goes, after another start as well.
func TestSnapshotIndex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := NewMemory()
		s := alone(t, disk)
		if n := s.SnapshotIndex(); n != 0 {
			t.Errorf("there is none, and it goes to entry %d", n)
		}
		propose(t, s, putWorker(1))
		if err := s.Snapshot(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := s.Status().AppliedIndex
		propose(t, s, putWorker(2))
		if n := s.SnapshotIndex(); n != want {
			t.Errorf("it goes to entry %d, want %d", n, want)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if n := alone(t, disk).SnapshotIndex(); n != want {
			t.Errorf("after a start it goes to entry %d, want %d", n, want)
		}
	})
}
