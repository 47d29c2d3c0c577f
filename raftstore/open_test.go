package raftstore

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/schedd/schedd/raftstore/state"
)

// onDisk opens a store in a directory and waits, in real time, until it leads.
func onDisk(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(Config{NodeID: "a", Dir: dir, Log: quiet(), HeartbeatTimeout: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	leads := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		_ = s.Lead(ctx, func(context.Context) error {
			close(leads)
			return nil
		})
	}()
	select {
	case <-leads:
	case <-t.Context().Done():
		t.Fatal("it does not lead")
	}
	return s
}

// What was agreed is there after a restart, with a snapshot and without.
func TestRestartOnDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	var was [32]byte
	for i := range 3 {
		s := onDisk(t, dir)
		if n := numWorkers(s); n != 10*i {
			t.Errorf("start %d: %d workers, want %d", i, n, 10*i)
		}
		if i > 0 {
			s.View(func(st *state.State) {
				if hashOf(t, st) != was {
					t.Errorf("start %d: the state is another", i)
				}
			})
		}
		for k := range 10 {
			propose(t, s, putWorker(10*i+k))
		}
		if i == 1 {
			if err := s.Snapshot(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := s.Snapshot(t.Context()); err != nil {
				t.Errorf("a snapshot with nothing new: %v", err)
			}
		}
		s.View(func(st *state.State) { was = hashOf(t, st) })
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil {
			t.Errorf("closed again: %v", err)
		}
	}
}

func TestOpenRefusals(t *testing.T) {
	write := func(name, text string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		name    string
		prepare func(t *testing.T, dir string)
		config  Config
		want    string
	}{
		{"no node id", nil, Config{Dir: "x", Log: quiet()}, "needs a NodeID"},
		{"nowhere", nil, Config{NodeID: "a", Log: quiet()}, "a Dir or a Memory"},
		{"no log", nil, Config{NodeID: "a", Dir: "x"}, "a Log"},
		{"in use", func(t *testing.T, dir string) {
			s, err := Open(Config{NodeID: "a", Dir: dir, Log: quiet()})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.Close() })
		}, Config{}, "another process uses it"},
		{"of another primary", write(aboutFile, `{"format":1,"node_id":"b"}`), Config{}, `it is the directory of primary "b", and this is "a"`},
		{"of a newer version", write(aboutFile, `{"format":2,"node_id":"a"}`), Config{}, "format 2, and this version knows only 1: upgrade"},
		{"not readable", write(aboutFile, `{"for`), Config{}, "about.json is damaged"},
		{"lost in part", write(raftDBFile, ""), Config{}, "about.json is missing beside raft.db"},
		{"a file in its place", func(t *testing.T, dir string) {
			if err := os.Remove(dir); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(dir, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, Config{}, "making the directory"},
		{"a damaged log", func(t *testing.T, dir string) {
			write(aboutFile, `{"format":1,"node_id":"a"}`)(t, dir)
			write(raftDBFile, strings.Repeat("not a log ", 5000))(t, dir)
		}, Config{}, "the log raft.db can't be read"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "raft")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			if tt.prepare != nil {
				tt.prepare(t, dir)
				tt.config = Config{NodeID: "a", Dir: dir, Log: quiet()}
			}
			s, err := Open(tt.config)
			if err == nil {
				_ = s.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || tt.prepare != nil && !strings.Contains(err.Error(), dir) {
				t.Errorf("err = %v, want one that says %q and names the directory", err, tt.want)
			}
		})
	}
}

// A snapshot of a newer version is refused before anything of it is used.
func TestOpenRefusesNewerSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory()
		s := alone(t, m)
		propose(t, s, putWorker(1))
		if err := s.Snapshot(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		m.snapshots[0].data = stream(newerHeader)
		_, err := Open(Config{NodeID: "a", Memory: m, Log: quiet()})
		if err == nil || !strings.Contains(err.Error(), "a format (2) that this version does not know: upgrade this primary") {
			t.Errorf("err = %v", err)
		}
	})
}

// A primary that alone has a vote has nobody to wait for.
func TestAloneLeadsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory()
		for range 3 {
			began := time.Now()
			s := open(t, Config{NodeID: "a", Memory: m, Log: quiet()})
			awaitLeader(t, s)
			if took := time.Since(began); took > groupTimeout/2 {
				t.Errorf("it led after %v", took)
			}
			propose(t, s, putWorker(1))
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A log with a hole makes Raft panic; that is an error of Open.
func TestOpenRefusesLogWithHole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory()
		s := alone(t, m)
		for i := range 10 {
			propose(t, s, putWorker(i))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if err := m.store.DeleteRange(5, 6); err != nil {
			t.Fatal(err)
		}
		_, err := Open(Config{NodeID: "a", Memory: m, Log: quiet()})
		if err == nil || !strings.Contains(err.Error(), "the log is damaged") {
			t.Errorf("err = %v", err)
		}
	})
}

// Snapshots are taken while entries are applied, and hold what was agreed at one
// point between them.
func TestSnapshotDuringLoad(t *testing.T) {
	s := onDisk(t, t.TempDir())
	stop := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := s.Snapshot(context.Background()); err != nil {
				done <- err
				return
			}
		}
	}()
	for i := range 200 {
		propose(t, s, putWorker(2*i), putWorker(2*i+1)) // always an even number
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	metas, err := s.disk.snapshots.List()
	if err != nil || len(metas) == 0 {
		t.Fatal(metas, err)
	}
	for _, meta := range metas {
		_, r, err := s.disk.snapshots.Open(meta.ID)
		if err != nil {
			t.Fatal(err)
		}
		n, err := readSnapshot(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = r.Close()
		if n.Index > meta.Index || len(n.Workers)%2 != 0 {
			t.Errorf("snapshot at %d is of %d and has %d workers", meta.Index, n.Index, len(n.Workers))
		}
	}
}

// At info an operator reads one line for each new leader, and nothing of Raft's.
func TestLogIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo}))
		s := open(t, Config{NodeID: "a", Memory: NewMemory(), Log: log})
		awaitLeader(t, s)
		propose(t, s, putWorker(1))
		time.Sleep(time.Hour)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != 1 || !strings.Contains(lines[0], `level=INFO msg="new leader" leader=a term=2`) {
			t.Errorf("log:\n%s", out.String())
		}
	})
}

// What Raft says goes on as it is, at debug; its errors as warnings.
func TestRaftLog(t *testing.T) {
	var out bytes.Buffer
	l := newRaftLog(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})))
	l.With("peer", raft.ServerID("b")).Error("can't reach", "error", "gone")
	l.Info("servers", "list", hclog.Fmt("%d of %d", 1, 3))
	want := "level=WARN msg=\"can't reach\" part=raft peer=b error=gone\n" + "level=DEBUG msg=servers part=raft list=\"1 of 3\"\n"
	if out.String() != want {
		t.Errorf("log:\n%swant:\n%s", out.String(), want)
	}
}
