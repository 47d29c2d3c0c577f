package systest

import (
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// fileDisk is the disk of a host, as far as files are on it: it knows what a loss of power
// would leave of each.
type fileDisk struct {
	mu     sync.Mutex
	safe   map[uint64]int64 // how much of a file was synced, by its inode
	before func()           // called before each fsync and writeOut; nil: none takes time
	answer func()           // ends a hang; nil: there is none
	full   bool             // there is no room for anything
}

func newFileDisk() *fileDisk { return &fileDisk{safe: map[uint64]int64{}} }

func inode(i fs.FileInfo) uint64 {
	st, _ := i.Sys().(*syscall.Stat_t)
	return st.Ino
}

// fsync has all stay that is in a file when it is called.
func (d *fileDisk) fsync(f *os.File) error {
	i, err := f.Stat()
	if err != nil {
		return err
	}
	d.await()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.safe[inode(i)] = i.Size()
	return nil
}

// await takes as long as the disk does.
func (d *fileDisk) await() {
	d.mu.Lock()
	before := d.before
	d.mu.Unlock()
	if before != nil {
		before()
	}
}

// writeOut has the disk take a part of a file, which does not stay for that. It takes as
// long as an fsync does.
func (d *fileDisk) writeOut(*os.File, int64, int64, bool) error {
	d.await()
	return nil
}

// slow has f be called before each fsync and writeOut. A slow disk is an f that sleeps; nil ends it.
func (d *fileDisk) slow(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.before = f
}

// hang has no fsync, and no writeOut, come back before free.
func (d *fileDisk) hang() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.answer == nil {
		gone := make(chan struct{})
		d.before, d.answer = func() { <-gone }, sync.OnceFunc(func() { close(gone) })
	}
}

// fill leaves no room on the disk, until free.
func (d *fileDisk) fill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = true
}

// writeAt writes to a file, or as much as there is room for: of each second piece that is
// a part, which has to be taken off again.
func (d *fileDisk) writeAt(f *os.File, p []byte, off int64) (int, error) {
	d.mu.Lock()
	full := d.full
	d.mu.Unlock()
	if !full {
		return f.WriteAt(p, off)
	}
	n := len(p) % 2 * len(p) / 2
	if _, err := f.WriteAt(p[:n], off); err != nil {
		return 0, err
	}
	return n, syscall.ENOSPC
}

// free has the disk be as quick, and as empty, as it was at first.
func (d *fileDisk) free() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.answer != nil {
		d.answer()
	}
	d.before, d.answer, d.full = nil, nil, false
}

// synced returns how much of each file stays if the power fails now.
func (d *fileDisk) synced() map[uint64]int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.safe)
}

// copied takes note that one file has been put in the place of another, as it was.
func (d *fileDisk) copied(from, to fs.FileInfo) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.safe[inode(to)] = min(d.safe[inode(from)], to.Size())
}

// lose takes from the journal and all logs below dir what goes with the power: of what was
// not synced a part is there, or nothing, or all of it; and zeros may be in its place, where
// the size came to the disk before the data.
func (w *world) lose(dice *rand.Rand, synced map[uint64]int64, dir string) {
	w.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || e.Name() != "journal" && filepath.Ext(path) != ".log" {
			return err
		}
		i, err := e.Info()
		if err != nil {
			return err
		}
		safe := min(synced[inode(i)], i.Size())
		keep := safe + dice.Int64N(i.Size()-safe+1)
		if w.lostBytes += i.Size() - keep; keep == i.Size() {
			return nil
		}
		if err := os.Truncate(path, keep); err != nil || dice.IntN(3) > 0 {
			return err
		}
		return os.Truncate(path, keep+dice.Int64N(i.Size()-keep+1))
	})
	if err != nil {
		w.Fatalf("taking from %s what was not synced: %v", dir, err)
	}
}

// What an fsync had not taken yet is lost with the power, and nothing else.
func TestPowerTakesWhatIsNotSynced(t *testing.T) {
	dir, d, dice := t.TempDir(), newFileDisk(), rand.New(rand.NewPCG(1, 0))
	w := &world{T: t}
	f, err := os.Create(filepath.Join(dir, "journal"))
	if err != nil {
		t.Fatal(err)
	}
	write := func(s string) {
		if _, err := f.WriteString(s); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{}
	for range 200 {
		if err := f.Truncate(0); err != nil {
			t.Fatal(err)
		}
		_, _ = f.Seek(0, 0) // of a file it never fails
		write("synced")
		if err := d.fsync(f); err != nil {
			t.Fatal(err)
		}
		write("+3")
		if err := d.writeOut(f, 0, 8, true); err != nil { // which is no fsync
			t.Fatal(err)
		}
		w.lose(dice, d.synced(), dir)
		left, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		seen[string(left)] = true
	}
	for _, want := range []string{"synced", "synced+", "synced+3", "synced\x00", "synced\x00\x00", "synced+\x00"} {
		if !seen[want] {
			t.Errorf("it never leaves %q", want)
		}
		delete(seen, want)
	}
	if len(seen) > 0 {
		t.Errorf("it leaves %v, too", seen)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
