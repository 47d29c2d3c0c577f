package spool

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// needsSpares skips a test where no file is used again.
func needsSpares(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("use files again: here nobody can tell who has one open")
	}
}

// reserved returns a spare file: that of an attempt that printed nothing.
func reserved(t tb, s *Spool) string {
	t.Helper()
	l, err := s.Create(Key{"before", 1}, MinLimit, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Seal(); err != nil {
		t.Fatal(err)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	file := s.Reserve()
	if file == "" {
		t.Fatal("there is no spare file")
	}
	return file
}

// A file that nobody has written to, and nobody can, is that of another attempt later.
func TestFilesAreUsedAgain(t *testing.T) {
	needsSpares(t)
	nothing := func(*Log) error { return nil }
	for _, c := range []struct {
		name  string
		do    func(*Log) error // before it is sealed
		then  func(*Log) error // after that
		again bool
	}{
		{"it printed nothing", nothing, nothing, true},
		{"it printed something", func(l *Log) error { return os.WriteFile(l.Path(), []byte("hello"), 0) }, nothing, false},
		{"it took back what it printed", func(l *Log) error {
			return errors.Join(os.WriteFile(l.Path(), []byte("hello"), 0), l.pollOnce(), os.Truncate(l.Path(), 0))
		}, nothing, false},
		{"what it left behind prints something", nothing, func(l *Log) error { return os.WriteFile(l.Path(), []byte("hello"), 0) }, false},
		{"what it left behind could print something", nothing, func(l *Log) error {
			f, err := os.OpenFile(l.Path(), os.O_WRONLY|os.O_APPEND, 0)
			if err == nil {
				t.Cleanup(func() { _ = f.Close() })
			}
			return err
		}, false},
		{"it has another name", func(l *Log) error { return os.Link(l.Path(), filepath.Join(t.TempDir(), "other")) }, nothing, false},
		{"anybody may write to it", func(l *Log) error { return os.Chmod(l.Path(), 0o666) }, nothing, false},
		{"it is not there any more", func(l *Log) error { return os.Remove(l.Path()) }, nothing, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := openSpool(t, filepath.Join(t.TempDir(), "spool"))
			inode := func(l *Log) uint64 {
				var st unix.Stat_t
				if err := unix.Stat(l.Path(), &st); err != nil {
					t.Fatal(err)
				}
				return st.Ino
			}
			first, err := s.Create(key, MinLimit, "")
			if err != nil {
				t.Fatal(err)
			}
			was := inode(first)
			if err := c.do(first); err != nil {
				t.Fatal(err)
			}
			seal(t, first)
			if err := errors.Join(c.then(first), first.Release()); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(first.Path()); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("it is still there: %v", err)
			}
			if kept := len(s.spares.files) == 1; kept != c.again {
				t.Errorf("kept: %v, want %v", kept, c.again)
			}
			second, err := s.Create(Key{"second", 1}, 2*MinLimit, s.Reserve())
			if err != nil {
				t.Fatal(err)
			}
			if c.again && inode(second) != was {
				t.Error("it was kept and is not used")
			}
			run(t, second).write([]byte("hello"))
			poll(t, second)
			same(t, "the second one's log", logical(t, second), []byte("hello"))
		})
	}
}

// pollOnce is Poll for its effect.
func (l *Log) pollOnce() error {
	_, _, err := l.Poll()
	return err
}

// names are those of the files in a directory.
func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// An attempt that prints nothing has the file that was reserved for it, and so has the
// next one: no name in a directory is ever written.
func TestReservedFileKeepsItsName(t *testing.T) {
	needsSpares(t)
	s := openSpool(t, filepath.Join(t.TempDir(), "spool"))
	file := reserved(t, s)
	for attempt := range uint32(3) {
		l, err := s.Create(Key{"quiet", attempt + 1}, MinLimit, file)
		if err != nil {
			t.Fatal(err)
		}
		if want := filepath.Join(s.spares.dir, file); l.Path() != want {
			t.Errorf("its file is %q, want %q", l.Path(), want)
		}
		f := run(t, l).f
		poll(t, l)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if length, _ := seal(t, l); length != 0 {
			t.Errorf("%d bytes", length)
		}
		if err := l.Release(); err != nil {
			t.Fatal(err)
		}
		if again := s.Reserve(); again != file {
			t.Fatalf("then %q is free, want %q", again, file)
		}
		if left := names(t, s.dir); len(left) > 0 {
			t.Errorf("left in the spool: %q", left)
		}
	}
}

// What is in a file that was reserved is found by whoever has it on record, at any moment
// of a crash; and without that as soon as it was looked at, or the process has ended, or the
// agent has left it.
func TestReservedFileIsFoundAgain(t *testing.T) {
	needsSpares(t)
	nothing := func(*Log) error { return nil }
	sealed := func(l *Log) error { _, _, err := l.Seal(); return err }
	for _, c := range []struct {
		name  string
		then  func(*Log) error
		named bool
	}{
		{"nobody has looked", nothing, false},
		{"it was looked at", (*Log).pollOnce, true},
		{"it has ended", sealed, true},
		{"the agent has left it", (*Log).Keep, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := openSpool(t, filepath.Join(t.TempDir(), "spool"))
			file := reserved(t, s)
			l, err := s.Create(key, MinLimit, file)
			if err != nil {
				t.Fatal(err)
			}
			p := run(t, l)
			p.write([]byte("hello"))
			if err := c.then(l); err != nil {
				t.Fatal(err)
			}
			s = openSpool(t, s.dir)
			if _, found := s.Get(key); found != c.named {
				t.Errorf("found without a record: %v", found)
			}
			if l = s.Claim(key, MinLimit, file); l == nil {
				t.Fatal("it is gone")
			}
			if err := s.Sweep(); err != nil {
				t.Fatal(err)
			}
			p.write([]byte(", world"))
			if _, _, err := l.Seal(); err != nil {
				t.Fatal(err)
			}
			same(t, "log", logical(t, l), []byte("hello, world"))
			if err := l.Remove(); err != nil {
				t.Fatal(err)
			}
			if left := append(names(t, s.dir), names(t, s.spares.dir)...); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}

// A record can't make another file than that which was reserved a log, nor one file two.
func TestClaimOnlyWhatWasReserved(t *testing.T) {
	needsSpares(t)
	s := openSpool(t, filepath.Join(t.TempDir(), "spool"))
	file, other := reserved(t, s), reserved(t, s)
	if err := os.WriteFile(filepath.Join(filepath.Dir(s.dir), "key"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s = openSpool(t, s.dir)
	for _, c := range []struct {
		k     Key
		limit int64
		file  string
	}{
		{key, MinLimit, ""},
		{key, MinLimit, "../key"},
		{key, MinLimit, "unknown-1.log"},
		{key, MinLimit - 1, file},
		{Key{"../key", 1}, MinLimit, file},
	} {
		if s.Claim(c.k, c.limit, c.file) != nil {
			t.Errorf("%+v was claimed", c)
		}
	}
	if s.Claim(key, MinLimit, file) == nil {
		t.Error("a file that is on record is not claimed")
	}
	if s.Claim(Key{"second", 1}, MinLimit, file) != nil {
		t.Error("it is two logs")
	}
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(s.spares.dir, other)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that nobody has claimed is still there: %v", err)
	}
}

// A file that was reserved may not be there any more, and its log may not be made.
func TestReservedFileIsNotUsed(t *testing.T) {
	needsSpares(t)
	s := openSpool(t, filepath.Join(t.TempDir(), "spool"))
	file := reserved(t, s)
	if err := os.Remove(filepath.Join(s.spares.dir, file)); err != nil {
		t.Fatal(err)
	}
	l, err := s.Create(key, MinLimit, file)
	if err != nil {
		t.Fatal(err)
	}
	run(t, l).write([]byte("hello"))
	poll(t, l)
	same(t, "log", logical(t, l), []byte("hello"))
	s.Discard(reserved(t, s))
	if left := names(t, s.spares.dir); len(left) > 0 || s.Reserve() != "" {
		t.Errorf("left: %q", left)
	}
}

// A disk that is full has no room for a name of its own. Then the log that is sealed stays
// where it is when the power fails: it is its directory that the disk is told to keep.
func TestDirectoryOfAReservedFileIsSynced(t *testing.T) {
	needsSpares(t)
	for _, fails := range []bool{false, true} {
		s := openSpool(t, filepath.Join(t.TempDir(), "spool"))
		l, err := s.Create(key, MinLimit, reserved(t, s))
		if err != nil {
			t.Fatal(err)
		}
		run(t, l).write([]byte("hello"))
		if fails { // to be renamed to that
			if err := os.Mkdir(l.ownPath(MinLimit), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		synced := map[string]bool{}
		s.disk.Fsync = func(f *os.File) error { synced[f.Name()] = true; return nil }
		seal(t, l)
		if in := filepath.Dir(l.Path()); (in == s.spares.dir) != fails || !synced[in] || !synced[s.dir] {
			t.Errorf("without room for a name: %v: it is %s, and synced were %v", fails, l.Path(), synced)
		}
	}
}
