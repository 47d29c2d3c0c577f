package raftstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
	"pgregory.net/rapid"
)

// dump is all that Raft finds on a disk.
type dump struct {
	Logs   []raft.Log
	Values map[string]string
}

// readDisk opens the disk of a primary, as a start does, and reads all of it.
func readDisk(dir string) (got dump, err error) {
	d, err := openDisk(Config{NodeID: "a", Dir: dir, Log: quiet()})
	if err != nil {
		return got, err
	}
	err = d.guard.during(func() error {
		first, ferr := d.logs.FirstIndex()
		last, lerr := d.logs.LastIndex()
		if err := errors.Join(ferr, lerr); err != nil {
			return err
		}
		for i := first; i <= last; i++ {
			var l raft.Log
			if err := d.logs.GetLog(i, &l); err != nil {
				return err
			}
			l.AppendedAt = l.AppendedAt.UTC()
			got.Logs = append(got.Logs, l)
		}
		got.Values = map[string]string{}
		for _, key := range raftValues {
			v, err := d.stable.Get([]byte(key))
			if err != nil && err.Error() != "not found" {
				return err
			}
			got.Values[key] = string(v)
		}
		return nil
	})
	return got, errors.Join(err, d.close())
}

// ledFor returns the directory of a primary that has led for a while.
func ledFor(t *testing.T, proposals int) string {
	t.Helper()
	dir := t.TempDir()
	s := onDisk(t, dir)
	for i := range proposals {
		propose(t, s, putWorker(i), putWorker(i+1000))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// copyOf copies a directory.
func copyOf(t testing.TB, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "raft")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// Whatever bit the disk flips in the log's file: either nothing is different, or the
// primary does not start, and says what to do. It never goes on with something else.
func TestFlippedBitIsNeverTakenAsRight(t *testing.T) {
	dir := ledFor(t, 12)
	want, err := readDisk(copyOf(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	if len(want.Logs) < 12 || want.Values["CurrentTerm"] == "" {
		t.Fatalf("there is little to damage: %v", want)
	}
	whole, err := os.ReadFile(filepath.Join(dir, raftDBFile))
	if err != nil {
		t.Fatal(err)
	}
	used := usedBytes(t, copyOf(t, dir))
	refused := 0
	rapid.Check(t, func(r *rapid.T) {
		bad := bytes.Clone(whole)
		at := used[rapid.IntRange(0, len(used)-1).Draw(r, "place")]
		bad[at] ^= 1 << rapid.IntRange(0, 7).Draw(r, "bit")
		there := copyOf(t, dir)
		defer func() { _ = os.RemoveAll(there) }() // there are many
		if err := os.WriteFile(filepath.Join(there, raftDBFile), bad, 0o600); err != nil {
			r.Fatal(err)
		}
		got, err := readDisk(there)
		if err != nil {
			refused++
			if s := err.Error(); !strings.Contains(s, whatToDo) || !strings.Contains(s, "damaged") && !strings.Contains(s, "can't be read") {
				r.Errorf("byte %d: it says %v", at, err)
			}
			return
		}
		for i := range got.Logs {
			got.Logs[i].AppendedAt = want.Logs[min(i, len(want.Logs)-1)].AppendedAt // for metrics only
		}
		if diff := cmp.Diff(want, got); diff != "" {
			r.Errorf("byte %d of the file was changed, and this is taken as right (-want +got):\n%s", at, diff)
		}
	})
	if refused == 0 {
		t.Error("no damage was found")
	}
}

// One element less in the count of a page: bbolt would not see the last entry, or the
// bucket with the votes.
func TestMissingCountIsSeen(t *testing.T) {
	dir := ledFor(t, 12)
	whole, err := os.ReadFile(filepath.Join(dir, raftDBFile))
	if err != nil {
		t.Fatal(err)
	}
	const countAt = 10
	counts := 0
	for _, at := range usedBytes(t, copyOf(t, dir)) {
		n := boltOrder.Uint16(whole[at:])
		if at%os.Getpagesize() != countAt || n == 0 || boltOrder.Uint16(whole[at-2:]) != boltLeaf {
			continue
		}
		counts++
		bad := bytes.Clone(whole)
		boltOrder.PutUint16(bad[at:], n-1)
		there := copyOf(t, dir)
		if err := os.WriteFile(filepath.Join(there, raftDBFile), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readDisk(there)
		if err == nil {
			t.Fatalf("with %d elements in place of %d at byte %d it finds %d entries, and goes on", n-1, n, at, len(got.Logs))
		}
		says(t, err.Error(), "makes no sense", "remove it from the group")
	}
	if counts < 2 {
		t.Errorf("%d pages, want at least 2", counts)
	}
}

// usedBytes returns the places in the log's file that mean something.
func usedBytes(t *testing.T, dir string) (used []int) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, raftDBFile), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.View(func(tx *bbolt.Tx) error {
		for id := 0; ; id++ {
			switch p, err := tx.Page(id); {
			case err != nil || p == nil:
				return err
			case p.Type == "meta":
				for i := range boltHeader + boltMeta {
					used = append(used, id*tx.DB().Info().PageSize+i)
				}
			case p.Type == "leaf" || p.Type == "branch":
				size := tx.DB().Info().PageSize
				for i := range (1 + p.OverflowCount) * size {
					used = append(used, id*size+i)
				}
			}
		}
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return used
}

// The log's file was lost, or is empty. The votes that it held may not be given again.
func TestLostLogIsNotBegunAnew(t *testing.T) {
	dir := ledFor(t, 1)
	for name, lose := range map[string]func(string) error{
		"removed": os.Remove,
		"emptied": func(path string) error { return os.Truncate(path, 0) },
	} {
		there := copyOf(t, dir)
		if err := lose(filepath.Join(there, raftDBFile)); err != nil {
			t.Fatal(err)
		}
		_, err := readDisk(there)
		if err == nil {
			t.Fatalf("%s: it starts anew", name)
		}
		says(t, err.Error(), "raft.db is missing or empty", "remove it from the group")
	}
}

// A version that knows of no seals reads what this one writes, and this one reads what
// that one wrote.
func TestSealsAndOlderVersions(t *testing.T) {
	dir := ledFor(t, 3)
	want, err := readDisk(copyOf(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	db, err := openBolt(filepath.Join(dir, raftDBFile))
	if err != nil {
		t.Fatal(err)
	}
	last, err := db.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= last; i++ {
		var l raft.Log
		if err := db.GetLog(i, &l); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(l.Data, want.Logs[i-1].Data) || len(l.Extensions) != sealLen {
			t.Errorf("an older version finds entry %d as %v", i, l)
		}
		if l.Extensions = nil; i%2 == 0 { // as that would write it
			if err := db.StoreLog(&l); err != nil {
				t.Fatal(err)
			}
		}
	}
	term, err := db.GetUint64([]byte("CurrentTerm"))
	if err != nil || term != binary.BigEndian.Uint64([]byte(want.Values["CurrentTerm"])) {
		t.Errorf("an older version finds term %d, %v", term, err)
	}
	if err := errors.Join(db.SetUint64([]byte("CurrentTerm"), term), db.Set([]byte("LastVoteCand"), []byte(want.Values["LastVoteCand"])), db.Close()); err != nil {
		t.Fatal(err)
	}
	got, err := readDisk(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what an older version wrote (-want +got):\n%s", diff)
	}
}

// snapshotted returns the directory of a primary with two snapshots, whose log goes
// back to behind the older one.
func snapshotted(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	s := onDisk(t, dir)
	for i := range 2 {
		propose(t, s, putWorker(i))
		if err := s.Snapshot(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	propose(t, s, putWorker(2))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// newestIn returns the folder of the newest snapshot.
func newestIn(t testing.TB, dir string) string {
	t.Helper()
	s := checkedSnapshots{&raft.FileSnapshotStore{}, filepath.Join(dir, snapshotsDir), quiet()}
	store, err := raft.NewFileSnapshotStoreWithLogger(dir, keptSnapshots, newRaftLog(quiet()))
	if err != nil {
		t.Fatal(err)
	}
	s.SnapshotStore = store
	all, err := s.list()
	if err != nil || len(all) == 0 {
		t.Fatal(all, err)
	}
	return filepath.Join(s.dir, all[0].name)
}

// Whatever becomes of the newest snapshot: where the log makes up for it, the state is
// the same without, and what is damaged is put away; where it does not, the primary
// does not start, and never goes back to an older state.
func TestDamagedSnapshots(t *testing.T) {
	dir := snapshotted(t)
	flip := func(name string) func(string) error {
		return func(snapshot string) error {
			path := filepath.Join(snapshot, name)
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			b[len(b)/2] ^= 1
			return os.WriteFile(path, b, 0o600)
		}
	}
	for name, damage := range map[string]func(snapshot string) error{
		"flipped state":   flip("state.bin"),
		"flipped meta":    flip(metaFile),
		"flipped sum":     flip(sumFile),
		"no state":        func(s string) error { return os.Remove(filepath.Join(s, "state.bin")) },
		"no meta":         func(s string) error { return os.Remove(filepath.Join(s, metaFile)) },
		"another's meta":  func(s string) error { return replaceMeta(s, `"Suffrage":0`, `"Suffrage":1`) },
		"shortened state": func(s string) error { return os.Truncate(filepath.Join(s, "state.bin"), 20) },
	} {
		t.Run(name, func(t *testing.T) {
			there := copyOf(t, dir)
			bad := newestIn(t, there)
			if err := damage(bad); err != nil {
				t.Fatal(err)
			}
			cut := copyOf(t, there)
			s := onDisk(t, there)
			if n := numWorkers(s); n != 3 {
				t.Errorf("%d workers, want 3", n)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(filepath.Join(there, damagedDir, filepath.Base(bad))); err != nil {
				t.Errorf("it was not put away: %v", err)
			}

			db, err := openBolt(filepath.Join(cut, raftDBFile))
			if err != nil {
				t.Fatal(err)
			}
			last, err := db.LastIndex()
			if err := errors.Join(err, db.DeleteRange(1, last-1), db.Close()); err != nil {
				t.Fatal(err)
			}
			_, err = Open(Config{NodeID: "a", Dir: cut, Log: quiet()})
			if err == nil {
				t.Fatal("it goes back to an older state")
			}
			says(t, err.Error(), "snapshot "+filepath.Base(bad)+" is damaged", "does not make up for it", "remove it from the group")
		})
	}
}

func replaceMeta(snapshot, old, text string) error {
	path := filepath.Join(snapshot, metaFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	n := strings.Replace(string(b), old, text, 1)
	if n == string(b) {
		return fmt.Errorf("%s has no %s", path, old)
	}
	return os.WriteFile(path, []byte(n), 0o600)
}

// A snapshot that an older version wrote, which has no checksum of its place, is used;
// one that was being written when the power failed is removed.
func TestOldAndUnfinishedSnapshots(t *testing.T) {
	dir := snapshotted(t)
	left := newestIn(t, dir) + unfinished
	if err := errors.Join(os.Remove(filepath.Join(newestIn(t, dir), sumFile)), os.Mkdir(left, 0o700)); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s, err := Open(Config{NodeID: "a", Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	n := numWorkers(s)
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was unfinished is there: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if n != 2 || strings.Contains(log.String(), "damaged") {
		t.Errorf("%d workers, want the 2 of the snapshot; log:\n%s", n, log.String())
	}
}
