package raftstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	logv1 "github.com/schedd/schedd/proto/schedd/log/v1"
	"github.com/schedd/schedd/raftstore/raftstoretest"
	"github.com/schedd/schedd/raftstore/state"
)

// shop proposes a job with runs, of which a worker has some, and all else that a
// state may hold.
func shop(t *testing.T, s *Store, name string, runs int) {
	t.Helper()
	k := state.JobKey{Namespace: "default", Name: name}
	results := propose(t, s,
		state.InitCluster{ClusterID: "cluster of " + name},
		state.SetStandby{ID: "z", Standby: true},
		state.SetDirect{Address: "10.0.0.7:7422"},
		state.ClockJumped{Was: raftstoretest.Start, Is: raftstoretest.Start.Add(time.Hour)},
		state.PutWorker{ID: state.WorkerID("of " + name), Says: state.WorkerInfo{Slots: runs}},
		state.PutJob{Key: k, Effective: time.Now(), Definition: &state.Definition{Policy: &state.Policy{}, Description: name, Triggers: []*state.Trigger{{ID: "t", Every: &state.Every{Interval: time.Minute}}}}},
	)
	uid := results[5].Job.UID
	var commands []state.Command
	for i := range runs {
		commands = append(commands, state.Request{
			Key: k, UID: uid, Version: 1, Activity: uint64(i), ID: state.RequestRunID(uid, fmt.Sprint(i)), Birth: state.Birth{Nominal: time.Now()},
		})
	}
	for i := range runs {
		commands = append(commands, state.Assign{Run: state.RequestRunID(uid, fmt.Sprint(i)), Attempt: 1, Worker: state.WorkerID("of " + name)})
	}
	for i, r := range propose(t, s, commands...) {
		if r.Err != nil {
			t.Fatalf("command %d: %v", i, r.Err)
		}
	}
}

// large proposes workers that make many parts of a snapshot.
func large(t *testing.T, s *Store, kib int) {
	t.Helper()
	for i := range kib / 32 {
		propose(t, s, state.PutWorker{ID: state.WorkerID(fmt.Sprint("large", i)), PublicKey: make([]byte, 32<<10)})
	}
}

func save(t *testing.T, s *Store) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.SaveSnapshot(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func hashIn(t *testing.T, s *Store) (h [32]byte) {
	t.Helper()
	s.View(func(st *state.State) { h = hashOf(t, st) })
	return h
}

// fences returns the fences of all attempts.
func fences(s *Store) map[uint64]bool {
	all := map[uint64]bool{}
	s.View(func(st *state.State) {
		for r := range st.RunsByBirth() {
			for _, a := range r.Attempts {
				all[a.Fence] = true
			}
		}
	})
	return all
}

// What was saved on any primary of one cluster comes to all primaries of another,
// which go on from there.
func TestSaveAndRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from, l := newFormed(t, three...)
		shop(t, l, "a", 20)
		large(t, l, 300)
		from.agree()
		f := from.other(l)
		saved := save(t, f)
		want := hashIn(t, f)

		info, err := InspectSnapshot(bytes.NewReader(saved))
		if err != nil {
			t.Fatal(err)
		}
		if info.Size <= 280<<10 || info.Size >= int64(len(saved)) || info.Term == 0 {
			t.Errorf("info = %+v of %d bytes", info, len(saved))
		}
		if diff := cmp.Diff(SnapshotInfo{
			ClusterID: "cluster of a", Index: f.AppliedIndex(), Taken: time.Now().UTC(),
			Jobs: 1, Runs: 20, Workers: 10, Servers: from.net.Group(three...),
		}, info, cmpopts.IgnoreFields(SnapshotInfo{}, "Size", "Term")); diff != "" {
			t.Errorf("info (-want +got):\n%s", diff)
		}
		if line, _, _ := strings.Cut(string(saved), "\n"); !strings.HasPrefix(line, `{"format":"schedd-snapshot-1","cluster_id":"cluster of a",`) {
			t.Errorf("its first line is %s", line)
		}

		to, l := newFormed(t, "d", "e", "f")
		shop(t, l, "b", 3)
		everything := map[string]*atomic.Int32{}
		for id, s := range to.stores {
			n := &atomic.Int32{}
			everything[id] = n
			s.Subscribe(func(changes []state.Change) {
				if changes == nil {
					n.Add(1)
				}
			})
		}
		if err := l.RestoreSnapshot(t.Context(), bytes.NewReader(saved)); err != nil {
			t.Fatal(err)
		}
		if hashIn(t, l) != want {
			t.Error("the leader has another state than was saved")
		}
		for id, s := range to.stores {
			if err := s.WaitApplied(t.Context(), l.AppliedIndex()); err != nil {
				t.Fatal(err)
			}
			if hashIn(t, s) != want || everything[id].Load() != 1 {
				t.Errorf("%s has another state than was saved, or told %d times that everything changed, want once", id, everything[id].Load())
			}
		}
		propose(t, l, putWorker(1))
		if err := l.Snapshot(t.Context()); err != nil {
			t.Error(err)
		}
		for id := range to.stores {
			to.kill(id)
			to.restart(id)
		}
		to.agree()
		if n := numWorkers(to.leader()); n != 11 || len(to.leader().Status().Servers) != 3 {
			t.Errorf("after all were restarted: %d workers, group %+v", n, to.leader().Status().Servers)
		}
	})
}

// However old a snapshot is, and however many numbers one entry has taken, no
// fence is given out twice, and neither index nor time go back.
func TestRestoreGivesNoFenceTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := alone(t, NewMemory())
		shop(t, s, "a", 1)
		old := save(t, s)
		time.Sleep(time.Hour)
		shop(t, s, "b", 200) // one entry that takes 400 numbers
		before := fences(s)
		index := s.AppliedIndex()
		var now time.Time
		s.View(func(st *state.State) { now = st.Now() })
		for fence := range before {
			if len(before) == 201 && fence > index+100 {
				index = s.AppliedIndex() // so it is what it is meant to be
				break
			}
		}
		if err := s.RestoreSnapshot(t.Context(), bytes.NewReader(old)); err != nil {
			t.Fatal(err)
		}
		s.View(func(st *state.State) {
			if st.Index() <= index || st.Now().Before(now) || st.NumJobs() != 1 {
				t.Errorf("it is at %d, %v, with %d jobs", st.Index(), st.Now(), st.NumJobs())
			}
		})
		kept := fences(s)
		shop(t, s, "c", 100)
		for fence := range fences(s) {
			if before[fence] && !kept[fence] {
				t.Errorf("fence %d was given out again", fence)
			}
		}

		// Nor when the snapshot comes from a cluster that is far ahead.
		ahead := alone(t, NewMemory())
		for i := range 1000 {
			propose(t, ahead, putWorker(i))
		}
		shop(t, ahead, "d", 10)
		if err := s.RestoreSnapshot(t.Context(), bytes.NewReader(save(t, ahead))); err != nil {
			t.Fatal(err)
		}
		kept = fences(s)
		shop(t, s, "e", 10)
		if n := len(fences(s)); n != len(kept)+10 {
			t.Errorf("%d fences, want 10 more than %d", n, len(kept))
		}
	})
}

// damages are ways in which a saved snapshot comes to harm.
func damages(saved []byte) map[string][]byte {
	flip := func(i int) []byte {
		b := bytes.Clone(saved)
		b[i] ^= 1
		return b
	}
	line := bytes.IndexByte(saved, '\n')
	return map[string][]byte{
		"empty":                      nil,
		"cut in its first line":      saved[:line/2],
		"cut after its first line":   saved[:line+1],
		"cut in the midst":           saved[:len(saved)/2],
		"cut before its checksum":    saved[:len(saved)-sha256.Size],
		"cut in its checksum":        saved[:len(saved)-1],
		"another first line":         flip(line - 3),
		"another byte in the midst":  flip(len(saved) / 2),
		"another byte at its end":    flip(len(saved) - 1),
		"something after its end":    append(bytes.Clone(saved), 'x'),
		"itself after its end":       append(bytes.Clone(saved), saved...),
		"not a snapshot":             bytes.Repeat([]byte("not a snapshot "), 10000),
		"another file of ours":       []byte(`{"format":1,"node_id":"a"}` + "\n"),
		"with a size that is wrong":  resized(saved, 1),
		"with a size below nothing":  resized(saved, -1<<40),
		"with a size beyond its end": resized(saved, 1<<40),
	}
}

// resized returns it with a first line that tells another size, and a checksum
// that fits.
func resized(saved []byte, by int64) []byte {
	return resaved(saved, func(h *savedHeader) { h.Size += by })
}

// A damaged or truncated snapshot is refused before anything changes.
func TestDamagedSavedIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, l := newFormed(t, three...)
		shop(t, l, "a", 3)
		large(t, l, 200)
		saved := save(t, l)
		propose(t, l, putWorker(1))
		was, index := hashIn(t, l), l.Status().CommitIndex
		for name, bad := range damages(saved) {
			if info, err := InspectSnapshot(bytes.NewReader(bad)); err == nil {
				t.Errorf("%s: it was read as %+v", name, info)
			}
			if err := l.RestoreSnapshot(t.Context(), bytes.NewReader(bad)); err == nil || errors.Is(err, ErrUnknown) {
				t.Errorf("%s: err = %v, want that it is refused", name, err)
			}
			if hashIn(t, l) != was || l.Status().CommitIndex != index {
				t.Fatalf("%s: something has changed", name)
			}
		}
		if err := l.RestoreSnapshot(t.Context(), io.MultiReader(bytes.NewReader(saved[:100]), errReader{})); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("err = %v, want what the reader said", err)
		}
		if err := l.RestoreSnapshot(t.Context(), bytes.NewReader(saved)); err != nil {
			t.Error(err)
		}
	})
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, os.ErrDeadlineExceeded }

// endless is a stream that never ends; it counts what is read of it.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	e.read += len(p)
	return len(p), nil
}

// A snapshot that says that it is too large is refused by that, and nothing more is
// read of it; and one that says otherwise is read no further than it says.
func TestTooLargeSavedIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := alone(t, NewMemory())
		large(t, s, 300)
		saved := save(t, s)
		info, err := InspectSnapshot(bytes.NewReader(saved))
		if err != nil {
			t.Fatal(err)
		}
		s.maxSnapshot = info.Size - 1
		line := bytes.IndexByte(saved, '\n') + 1
		rest := &endless{}
		err = s.RestoreSnapshot(t.Context(), io.MultiReader(bytes.NewReader(saved[:line]), rest))
		if want := fmt.Sprintf("too large to be restored: it has %d bytes, of %d that are taken", info.Size, info.Size-1); !errors.Is(err, ErrSnapshotTooLarge) || !strings.Contains(err.Error(), want) {
			t.Errorf("err = %v, want one that says %q", err, want)
		}
		if rest.read > maxSavedHeader {
			t.Errorf("%d bytes were read after the first line", rest.read)
		}

		s.maxSnapshot = info.Size
		rest = &endless{}
		if err := s.RestoreSnapshot(t.Context(), io.MultiReader(bytes.NewReader(saved), rest)); !errors.Is(err, ErrDamaged) || rest.read > maxSavedHeader {
			t.Errorf("err = %v after %d bytes too many, want that it is damaged", err, rest.read)
		}
		if err := s.RestoreSnapshot(t.Context(), bytes.NewReader(saved)); err != nil {
			t.Errorf("as large as may be: %v", err)
		}
	})
}

// While one snapshot is on its way, however slowly, no other one is taken.
func TestRestoreIsOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := alone(t, NewMemory())
		shop(t, s, "a", 3)
		saved := save(t, s)
		r, w := io.Pipe()
		done := make(chan error, 1)
		go func() { done <- s.RestoreSnapshot(t.Context(), r) }()
		synctest.Wait()
		if err := s.RestoreSnapshot(t.Context(), bytes.NewReader(saved)); !errors.Is(err, ErrRestoring) {
			t.Errorf("err = %v, want that one is being restored", err)
		}
		propose(t, s, putWorker(1)) // the others don't wait for it
		_, _ = w.Write(saved)
		_ = w.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := s.RestoreSnapshot(t.Context(), bytes.NewReader(saved)); err != nil {
			t.Errorf("after the first one has ended: %v", err)
		}
	})
}

// What is wrong with it is told so that one knows what to do.
func TestInspectTellsWhatIsWrong(t *testing.T) {
	s := state.New()
	s.Apply(5, state.Entry{Now: raftstoretest.Start, Commands: []state.Command{state.InitCluster{ClusterID: "c"}}})
	good := savedOf(t, s)
	for _, tt := range []struct {
		name string
		data []byte
		want string
	}{
		{"a newer one", resaved(good, func(h *savedHeader) { h.Format = "schedd-snapshot-2" }), `a format ("schedd-snapshot-2") that this version does not know: upgrade this primary`},
		{"no first line", []byte("x"), "or was never one: it does not begin with a line that says what it is"},
		{"no JSON", []byte("x\n"), "or was never one: its first line: "},
		{"another cluster", resaved(good, func(h *savedHeader) { h.ClusterID = "d" }), `its first line says cluster "d" at index 5, and it holds cluster "c" at index 5`},
		{"truncated", good[:len(good)-40], "snapshot is damaged: it ends in record"},
		{"flipped", append(bytes.Clone(good[:len(good)-1]), good[len(good)-1]^1), "snapshot is damaged: its checksum is another one"},
	} {
		if _, err := InspectSnapshot(bytes.NewReader(tt.data)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: err = %v, want one that says %q", tt.name, err, tt.want)
		}
	}
}

// Saving ends with who saves, and with a place that is full.
func TestSaveEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := alone(t, NewMemory())
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.SaveSnapshot(ctx, io.Discard); !errors.Is(err, context.Canceled) {
			t.Errorf("err = %v, want Canceled", err)
		}
		full := writerFunc(func([]byte) (int, error) { return 0, os.ErrClosed })
		if err := s.SaveSnapshot(t.Context(), full); !errors.Is(err, os.ErrClosed) {
			t.Errorf("err = %v, want what the writer said", err)
		}
	})
}

// slowed has each entry of a leader take a second, and a snapshot of several parts
// to restore. The others are as fast as ever: they answer heartbeats in between.
func slowed(t *testing.T) (c *cluster, l *Store, saved []byte) {
	t.Helper()
	c, l = newFormed(t, three...)
	large(t, l, 500)
	saved = save(t, l)
	propose(t, l, state.RemoveWorker{ID: "large0"}, putWorker(1))
	c.disks[l.id].BeforeWrite(func() { time.Sleep(time.Second) })
	return c, l, saved
}

// What is proposed while a snapshot is restored comes after it.
func TestProposeDuringRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, l, saved := slowed(t)
		done := make(chan error, 1)
		go func() { done <- l.RestoreSnapshot(t.Context(), bytes.NewReader(saved)) }()
		time.Sleep(3500 * time.Millisecond)
		if err := l.Snapshot(t.Context()); err == nil || !strings.Contains(err.Error(), "one is being restored; try again later") {
			t.Errorf("a snapshot of half a restore: %v", err)
		}
		propose(t, l, putWorker(2))
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		l.View(func(st *state.State) {
			if st.Worker("large0") == nil || st.Worker("w000001") != nil || st.Worker("w000002") == nil {
				t.Errorf("%d workers", len(st.Workers()))
			}
		})
		if err := l.Snapshot(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A restore that is broken off, by whoever asked for it or since its leader is
// gone, has changed nothing, and leaves nothing behind.
func TestRestoreBrokenOff(t *testing.T) {
	for _, tt := range []struct {
		name string
		off  func(c *cluster, l *Store, cancel func())
		want error // nil: whatever the disk says
	}{
		{"by who asked for it", func(_ *cluster, _ *Store, cancel func()) { cancel() }, context.Canceled},
		{"its leader is cut off", func(c *cluster, l *Store, _ func()) { c.net.Isolate(l.id) }, ErrNotLeader},
		{"its leader is killed", func(c *cluster, l *Store, _ func()) { c.kill(l.id); c.restart(l.id) }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, l, saved := slowed(t)
				was := hashIn(t, l)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				done := make(chan error, 1)
				go func() { done <- l.RestoreSnapshot(ctx, bytes.NewReader(saved)) }()
				time.Sleep(3500 * time.Millisecond)
				tt.off(c, l, cancel)
				if err := <-done; err == nil || tt.want != nil && !errors.Is(err, tt.want) || errors.Is(err, ErrUnknown) {
					t.Errorf("err = %v, want %v", err, tt.want)
				}
				c.disks[l.id].BeforeWrite(nil)
				if l.Leads() {
					if err := l.Snapshot(t.Context()); err != nil {
						t.Errorf("half of it is left behind: %v", err)
					}
				}
				time.Sleep(10 * time.Second)
				c.net.Heal()
				c.agree()
				l = c.leader()
				if hashIn(t, l) != was {
					t.Error("something was restored")
				}
				if err := l.Snapshot(t.Context()); err != nil {
					t.Error(err)
				}
				if err := l.RestoreSnapshot(t.Context(), bytes.NewReader(saved)); err != nil {
					t.Error(err)
				}
				c.agree()
			})
		})
	}
}

// parts returns what a log holds of a saved snapshot.
func parts(t rapid.TB, saved []byte) (all [][]byte) {
	err := eachPart(bytes.NewReader(saved), func(p *logv1.Restore, _ bool) error {
		b, err := encodePart(raftstoretest.Start, p)
		all = append(all, b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// split makes parts of one record each.
func split(t rapid.TB, saved []byte) (all [][]byte) {
	err := eachPart(bytes.NewReader(saved), func(p *logv1.Restore, _ bool) error {
		for i := range p.GetRecords() {
			b, err := encodePart(raftstoretest.Start, &logv1.Restore{First: p.GetFirst() + uint64(i), Records: p.GetRecords()[i : i+1]})
			if err != nil {
				return err
			}
			all = append(all, b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Wherever in a log a snapshot is restored, in whatever pieces, broken off or not:
// primaries that have seen all of it, and such as begin from a snapshot or are
// started again anywhere, come to the same state.
func TestRestoreAnywhereInTheLog(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log := history(t)
		other := newFSM(Config{Log: quiet()}, func(error) {})
		replay(other, history(t), 0)
		pieces := split(t, savedOf(t, other.state))
		if rapid.Bool().Draw(t, "whole") {
			pieces = parts(t, savedOf(t, other.state))
		}
		at := rapid.IntRange(0, len(log)).Draw(t, "restored at")
		until := rapid.IntRange(0, len(pieces)).Draw(t, "pieces")
		var all [][]byte
		all = append(all, log[:at]...)
		all = append(all, pieces[:until]...)
		all = append(all, log[at:]...)

		a := newFSM(Config{Log: quiet()}, func(error) {})
		b := newFSM(Config{Log: quiet()}, func(error) {})
		from := rapid.IntRange(0, len(all)).Draw(t, "snapshot at")
		for i, data := range all {
			if i == from {
				if _, err := a.Snapshot(); err != nil {
					from++ // not between two pieces
				} else if err := b.Restore(io.NopCloser(bytes.NewReader(written(t, a.state)))); err != nil {
					t.Fatal(err)
				}
			}
			a.Apply(&raft.Log{Index: uint64(i + 1), Data: data})
			if i == at+until-1 && until == len(pieces) && hashOf(t, a.state) != hashOf(t, other.state) && other.state.Index() > 0 {
				// But for the numbers given out, and for the clock with its jumps, which go on.
				x, y := a.state.Snapshot(), other.state.Snapshot()
				if x.Sort(); x.Serial < y.Serial {
					t.Fatalf("the numbers went back from %d to %d", y.Serial, x.Serial)
				}
				y.Sort()
				for _, j := range y.Jumps {
					if !slices.Contains(x.Jumps, j) {
						t.Fatalf("the jump of the clock from %v to %v is lost, of %v", j.Was, j.Is, x.Jumps)
					}
				}
				if diff := cmp.Diff(y, x, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(state.Snapshot{}, "Index", "Now", "Serial", "Jumps")); diff != "" {
					t.Fatalf("restored otherwise:\n%s", diff)
				}
			}
		}
		if err := a.err(); err != nil {
			t.Fatal(err)
		}
		replay(b, all, min(from, len(all)))
		if from <= len(all)-1 && hashOf(t, a.state) != hashOf(t, b.state) {
			t.Fatal("the primaries differ")
		}
	})
}

// Parts that don't go on where those before them ended are refused, and with them
// all of it; so are parts that go on with what was forgotten.
func TestPartsOutOfOrder(t *testing.T) {
	s := state.New()
	for i := range 4 {
		s.Apply(uint64(i+1), state.Entry{Now: raftstoretest.Start, Commands: []state.Command{putWorker(i)}})
	}
	p := split(t, savedOf(t, s)) // the header, four workers, the footer
	command := encoded(t, state.Entry{Now: raftstoretest.Start, Commands: []state.Command{state.InitCluster{ClusterID: "c"}}})
	group := []byte("group") // stands for a change of the group
	snap := []byte("snapshot")
	for _, tt := range []struct {
		name     string
		log      [][]byte
		restored bool
	}{
		{"in order", p, true},
		{"after a beginning", append([][]byte{p[0], p[1], p[2]}, p...), true},
		{"with a change of the group between", [][]byte{p[0], p[1], group, p[2], p[3], p[4], p[5]}, true},
		{"one is missing", [][]byte{p[0], p[1], p[3], p[4], p[5]}, false},
		{"one comes twice", [][]byte{p[0], p[1], p[1], p[2], p[3], p[4], p[5]}, false},
		{"the first is missing", p[1:], false},
		{"the last alone", p[5:], false},
		{"with a command between", [][]byte{p[0], p[1], command, p[2], p[3], p[4], p[5]}, false},
		{"with a snapshot between", [][]byte{p[0], p[1], snap, p[2], p[3], p[4], p[5]}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFSM(Config{Log: quiet()}, func(error) {})
			var last any
			for i, data := range tt.log {
				switch {
				case bytes.Equal(data, group):
					f.Apply(&raft.Log{Index: uint64(i + 1), Type: raft.LogConfiguration})
				case bytes.Equal(data, snap):
					if err := f.Restore(io.NopCloser(bytes.NewReader(written(t, f.state)))); err != nil {
						t.Fatal(err)
					}
				default:
					last = f.Apply(&raft.Log{Index: uint64(i + 1), Data: data})
				}
			}
			results, err := last.(response).get()
			if err != nil || f.err() != nil {
				t.Fatal(err, f.err())
			}
			if restored := hashOf(t, f.state) == hashOf(t, s); restored != tt.restored || (results[0].Err == nil) != tt.restored {
				t.Errorf("restored: %v, and told %v", restored, results[0].Err)
			}
			if !tt.restored && !errors.Is(results[0].Err, errInterrupted) {
				t.Errorf("err = %v, want that it was interrupted", results[0].Err)
			}
			if f.incoming != nil {
				t.Error("something is left behind")
			}
		})
	}
}

// What jobs have alike they share after their state was restored, too, however it came.
func TestRestoredJobsShareWhatIsAlike(t *testing.T) {
	s := state.New()
	for i := range 2 {
		d := &state.Definition{
			Triggers: []*state.Trigger{{ID: "t", Every: &state.Every{Interval: time.Minute}}},
			Task:     state.Task{Argv: []string{strings.Clone("/usr/bin/true")}},
			Policy:   &state.Policy{MaxConcurrent: 1},
		}
		s.Apply(uint64(i+1), state.Entry{Now: raftstoretest.Start, Commands: []state.Command{
			state.PutJob{Key: state.JobKey{Namespace: "default", Name: fmt.Sprint("j", i)}, Definition: d, Effective: raftstoretest.Start},
		}})
	}
	for name, restore := range map[string]func(f *fsm){
		"through the log": func(f *fsm) {
			for i, data := range split(t, savedOf(t, s)) {
				f.Apply(&raft.Log{Index: uint64(i + 1), Data: data})
			}
		},
		"as a whole": func(f *fsm) {
			if err := f.Restore(io.NopCloser(bytes.NewReader(written(t, s)))); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFSM(Config{Log: quiet()}, func(error) {})
			restore(f)
			n := f.state.Snapshot()
			if len(n.Jobs) != 2 {
				t.Fatalf("%d jobs were restored, want 2", len(n.Jobs))
			}
			a, b := n.Jobs[0].Definition, n.Jobs[1].Definition
			if a.Triggers[0] != b.Triggers[0] || a.Policy != b.Policy || unsafe.StringData(a.Task.Argv[0]) != unsafe.StringData(b.Task.Argv[0]) {
				t.Error("equal triggers, policies or texts are kept twice")
			}
		})
	}
}

// A snapshot of which a record is of a newer version stops a primary, as a command
// does: who proposed it knew more.
func TestUnknownPartStops(t *testing.T) {
	f := newFSM(Config{Log: quiet()}, func(error) {})
	data, err := encodePart(raftstoretest.Start, &logv1.Restore{Records: []*logv1.Record{newerHeader}})
	if err != nil {
		t.Fatal(err)
	}
	f.Apply(&raft.Log{Index: 7, Data: data})
	<-f.failed
	want := "log entry 7 is part of a snapshot: the snapshot has a format (2) that this version does not know: upgrade this primary"
	if err := f.err(); err == nil || err.Error() != want {
		t.Errorf("err = %v, want %q", err, want)
	}
}

// savedOf returns a state as SaveSnapshot writes it.
func savedOf(t rapid.TB, s *state.State) []byte {
	var b bytes.Buffer
	n := s.Snapshot()
	h := savedHeader{Format: savedFormat, ClusterID: n.ClusterID, Index: n.Index, Term: 1, Taken: raftstoretest.Start}
	if err := writeSaved(&b, h, n); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// resaved returns data with a first line that is changed, and a checksum that fits.
func resaved(data []byte, change func(*savedHeader)) []byte {
	line, rest, _ := bytes.Cut(data, []byte("\n"))
	h := parseHeader(line)
	change(&h)
	return sealed(h, rest[:max(0, len(rest)-sha256.Size)])
}
