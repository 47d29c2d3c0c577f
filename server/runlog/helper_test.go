package runlog

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"pgregory.net/rapid"
)

var silent = slog.New(slog.DiscardHandler)

// try is what testing.T and rapid.T have in common.
type try interface {
	Helper()
	Fatalf(format string, args ...any)
}

// open opens a store on a disk that is quick, and safe as long as there is power.
func open(t try, dir string) *Store {
	t.Helper()
	return openWith(t, dir, func(*os.File) error { return nil })
}

func openWith(t try, dir string, fsync func(*os.File) error) *Store {
	t.Helper()
	s, err := OpenOn(fsync, dir, silent)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return s
}

func fresh(t *testing.T) *Store {
	t.Helper()
	return reopen(t, t.TempDir())
}

func reopen(t *testing.T, dir string) *Store {
	t.Helper()
	s := open(t, dir)
	t.Cleanup(func() { s.Close() })
	return s
}

// put appends what must be taken.
func put(t try, s *Store, k Key, off int64, data []byte) {
	t.Helper()
	if known, err := s.Append(k, off, data, Checksum(data)); err != nil || known != off+int64(len(data)) {
		t.Fatalf("append %d bytes at %d to %v: known %d, %v", len(data), off, k, known, err)
	}
}

func mustSync(t *testing.T, s *Store, k Key, want int64) {
	t.Helper()
	if durable, err := s.Sync(t.Context(), k); err != nil || durable != want {
		t.Fatalf("sync %v: %d, %v, want %d", k, durable, err, want)
	}
}

func mustSeal(t try, s *Store, k Key, length int64) {
	t.Helper()
	if err := s.Seal(k, length); err != nil {
		t.Fatalf("seal %v at %d: %v", k, length, err)
	}
}

// content reads a whole log.
func content(t try, s *Store, k Key) []byte {
	t.Helper()
	b, err := io.ReadAll(io.NewSectionReader(readerAt{s, k}, 0, 1<<40))
	if err != nil {
		t.Fatalf("read %v: %v", k, err)
	}
	return b
}

type readerAt struct {
	s *Store
	k Key
}

func (r readerAt) ReadAt(p []byte, off int64) (int, error) { return r.s.Read(r.k, p, off) }

func pathOf(s *Store, k Key) string { return filepath.Join(s.shardOf(k).path, k.String()+suffix) }

// printed is what an attempt printed from off on: the same at each call, and
// different everywhere.
func printed(k Key, off int64, n int) []byte {
	b := make([]byte, n)
	seed := uint64(seedOf(k))
	for i := range b {
		at := uint64(off) + uint64(i)
		x := (at>>3 + seed) * 0x9e3779b97f4a7c15
		b[i] = byte(x >> (8 * (at & 7)))
	}
	return b
}

// disk is a disk that keeps only what was fsync'ed, and that forgets what it
// failed to write, as a page cache does.
type disk struct {
	mu      sync.Mutex
	fails   int              // fsyncs of files that will fail
	safe    map[uint64]int64 // by inode: bytes that survive a power cut
	lying   map[uint64]bool  // by inode: failed once, succeeds without doing anything since
	named   map[string]uint64
	flushes int
	held    []*os.File // so that no inode number is used twice
}

func newDisk() *disk {
	return &disk{safe: map[uint64]int64{}, lying: map[uint64]bool{}, named: map[string]uint64{}}
}

func inode(i os.FileInfo) uint64 { return i.Sys().(*syscall.Stat_t).Ino }

func (d *disk) fsync(f *os.File) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.IsDir() {
		return d.fsyncDir(f.Name())
	}
	d.flushes++
	id := inode(info)
	if _, ok := d.safe[id]; !ok {
		if dup, err := os.Open(f.Name()); err == nil {
			d.held = append(d.held, dup)
		}
	}
	if d.fails > 0 {
		d.fails--
		d.lying[id] = true
		return syscall.EIO
	}
	if !d.lying[id] {
		d.safe[id] = info.Size()
	}
	return nil
}

func (d *disk) fsyncDir(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			d.named[filepath.Join(dir, e.Name())] = inode(info)
		}
	}
	return err
}

func (d *disk) close() {
	for _, f := range d.held {
		f.Close()
	}
}

// cutPower does to each file below dir what a power cut may do.
func (d *disk) cutPower(t *rapid.T, dir string) {
	shards, err1 := filepath.Glob(filepath.Join(dir, "*"))
	files, err2 := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err := errors.Join(err1, err2); err != nil {
		t.Fatalf("glob: %v", err)
	}
	for _, path := range append(shards, files...) { // what is in a lost shard is lost as well
		info, err := os.Stat(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatalf("stat: %v", err)
		}
		id := inode(info)
		if d.named[path] != id && rapid.Bool().Draw(t, "name lost") {
			os.RemoveAll(path)
			continue
		}
		if info.IsDir() {
			continue
		}
		if err := garble(t, path, min(d.safe[id], info.Size()), info.Size()); err != nil {
			t.Fatalf("garble: %v", err)
		}
	}
	clear(d.lying) // the page cache is gone: what can be read now is on the disk
}

// garble damages a file somewhere in [safe, size).
func garble(t *rapid.T, path string, safe, size int64) error {
	if safe == size {
		return nil
	}
	from := rapid.Int64Range(safe, size-1).Draw(t, "damage from")
	to := rapid.Int64Range(from+1, size).Draw(t, "damage to")
	switch rapid.SampledFrom([]string{"none", "cut", "zeros", "noise"}).Draw(t, "damage") {
	case "cut":
		return os.Truncate(path, from)
	case "zeros":
		return overwrite(path, from, make([]byte, to-from))
	case "noise":
		return overwrite(path, from, bytes.Repeat([]byte{0xa5, 1, 0x17}, int(to-from)/3+1)[:to-from])
	}
	return nil
}

func overwrite(path string, at int64, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, at)
	return errors.Join(err, f.Close())
}
