package runlog

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// again closes the store, lets harm come to the file, and opens it again.
func again(t *testing.T, s *Store, harm func(path string)) *Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if harm != nil {
		harm(pathOf(s, key))
	}
	return reopen(t, filepath.Dir(s.shards[0].path))
}

func sizeOfFile(t *testing.T, path string) int64 {
	t.Helper()
	i, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return i.Size()
}

func damage(t *testing.T, path string, at int64) {
	t.Helper()
	if err := overwrite(path, at, []byte("damage")); err != nil {
		t.Fatal(err)
	}
}

// harms are what may have happened to a file of ten frames of 1000 bytes, and how
// much of it is known then.
var harms = []struct {
	name  string
	harm  func(t *testing.T, path string, size int64)
	known int64
}{
	{"killed", func(*testing.T, string, int64) {}, 10_000},
	{"size stored, data not", func(t *testing.T, p string, n int64) {
		if err := overwrite(p, n, make([]byte, 8192)); err != nil {
			t.Fatal(err)
		}
	}, 10_000},
	{"last frame torn", func(t *testing.T, p string, n int64) {
		if err := os.Truncate(p, n-1); err != nil {
			t.Fatal(err)
		}
	}, 9_000},
	{"a header torn", func(t *testing.T, p string, n int64) {
		if err := os.Truncate(p, n-1003); err != nil {
			t.Fatal(err)
		}
	}, 9_000},
	{"a hole, good frames behind it", func(t *testing.T, p string, _ int64) {
		if err := overwrite(p, 3*(1000+frameHeader), make([]byte, 20)); err != nil {
			t.Fatal(err)
		}
	}, 3_000},
	{"everything is zero", func(t *testing.T, p string, n int64) {
		if err := overwrite(p, 0, make([]byte, n)); err != nil {
			t.Fatal(err)
		}
	}, 0},
	{"nothing left", func(t *testing.T, p string, _ int64) {
		if err := os.Truncate(p, 0); err != nil {
			t.Fatal(err)
		}
	}, 0},
	{"the file of another log", func(t *testing.T, p string, _ int64) {
		other := Key{Run: key.Run, Attempt: key.Attempt, Fence: key.Fence + 1}
		raw := appendFrame(nil, seedOf(other), frame{kind: kindData, data: []byte("not ours")})
		if err := os.WriteFile(p, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}, 0},
}

func TestRestartKnowsWhatTheFileVouchesFor(t *testing.T) {
	const frames, size = 10, 1000
	for _, c := range harms {
		t.Run(c.name, func(t *testing.T) {
			s := fresh(t)
			for i := range int64(frames) {
				put(t, s, key, i*size, printed(key, i*size, size))
			}
			s = again(t, s, func(p string) { c.harm(t, p, sizeOfFile(t, p)) })
			before := sizeOfFile(t, pathOf(s, key))
			if i, _ := s.Stat(key); i != (Info{Known: c.known}) {
				t.Fatalf("%+v, want %d known", i, c.known)
			}
			if got := content(t, s, key); !bytes.Equal(got, printed(key, 0, int(c.known))) {
				t.Fatal("wrong bytes")
			}
			if after := sizeOfFile(t, pathOf(s, key)); after != before {
				t.Error("reading changed the file")
			}
			// The worker sends again from what is known, in other pieces.
			put(t, s, key, c.known, printed(key, c.known, 12_345-int(c.known)))
			mustSync(t, s, key, 12_345)
			s = again(t, s, nil)
			if got := content(t, s, key); !bytes.Equal(got, printed(key, 0, 12_345)) {
				t.Fatal("wrong bytes after they were sent again")
			}
		})
	}
}

// Good frames behind a bad one are history: what is appended in front of them must
// not join them again, whatever its size.
func TestCutIsForGood(t *testing.T) {
	s := fresh(t)
	for i := range int64(5) {
		put(t, s, key, i*10, []byte("0123456789"))
	}
	s = again(t, s, func(p string) { damage(t, p, 2*(10+frameHeader)) })
	put(t, s, key, 20, []byte("abcdefghij"))
	s = again(t, s, nil)
	if got := content(t, s, key); string(got) != "01234567890123456789abcdefghij" {
		t.Errorf("%q", got)
	}
}

func TestRestartOfAFinishedLog(t *testing.T) {
	whole := Info{Known: 300_000, Durable: 300_000, Length: 300_000, Sealed: true, Complete: true}
	for _, order := range []string{"seal, append, sync", "append, seal, sync", "append, sync, seal"} {
		t.Run(order, func(t *testing.T) {
			s := fresh(t)
			for step := range strings.SplitSeq(order, ", ") {
				switch step {
				case "seal":
					mustSeal(t, s, key, 300_000)
				case "append":
					put(t, s, key, 0, printed(key, 0, 300_000))
				case "sync":
					mustSync(t, s, key, 300_000)
				}
			}
			s = again(t, s, nil)
			if i, _ := s.Stat(key); i != whole {
				t.Errorf("%+v", i)
			}
			mustSeal(t, s, key, 300_000)
			put(t, s, key, 100, printed(key, 100, 299_900))
			if err := s.Seal(key, 300_001); !errors.Is(err, ErrSealed) {
				t.Errorf("another length: %v", err)
			}
		})
	}
	t.Run("not durable: the seal must be told again", func(t *testing.T) {
		s := fresh(t)
		put(t, s, key, 0, printed(key, 0, 300_000))
		mustSeal(t, s, key, 300_000)
		s = again(t, s, nil)
		if i, _ := s.Stat(key); i != (Info{Known: 300_000}) {
			t.Errorf("%+v", i)
		}
		mustSeal(t, s, key, 300_000)
		mustSync(t, s, key, 300_000)
		s = again(t, s, nil)
		if i, _ := s.Stat(key); i != whole {
			t.Errorf("%+v", i)
		}
	})
}

// A bit that rots in a finished log must not look like an end, nor keep a
// follower waiting for ever; and another copy can repair it.
func TestDamageOfAFinishedLog(t *testing.T) {
	const length = 300_000
	s := fresh(t)
	put(t, s, key, 0, printed(key, 0, length))
	mustSeal(t, s, key, length)
	mustSync(t, s, key, length)

	ignore := func(int64, []byte) error { return nil }
	damage(t, pathOf(s, key), 70_000) // while it is open
	if n, err := s.Read(key, make([]byte, length), 0); n != maxFrame || !errors.Is(err, ErrCorrupt) {
		t.Errorf("read: %d, %v", n, err)
	}
	if err := s.Follow(t.Context(), key, 0, ignore); !errors.Is(err, ErrCorrupt) {
		t.Errorf("follow: %v", err)
	}
	s = again(t, s, nil)
	if i, _ := s.Stat(key); i != (Info{Known: maxFrame, Length: length, Sealed: true}) {
		t.Errorf("after a restart: %+v", i)
	}
	if n, err := s.Read(key, make([]byte, length), 0); n != maxFrame || !errors.Is(err, ErrCorrupt) {
		t.Errorf("read after a restart: %d, %v", n, err)
	}
	if err := s.Follow(t.Context(), key, 0, ignore); !errors.Is(err, ErrCorrupt) {
		t.Errorf("follow after a restart: %v", err)
	}
	put(t, s, key, maxFrame, printed(key, maxFrame, length-maxFrame))
	mustSync(t, s, key, length)
	s = again(t, s, nil)
	if got := content(t, s, key); !bytes.Equal(got, printed(key, 0, length)) {
		t.Error("not repaired")
	}
	// A file that shrinks under us.
	if err := os.Truncate(pathOf(s, key), 1000); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Read(key, make([]byte, length), 0); n != 0 || !errors.Is(err, ErrCorrupt) {
		t.Errorf("read of a file cut short: %d, %v", n, err)
	}
}

// After a failed fsync nothing is acknowledged before all of it is in a new
// file, even if the process is killed in between.
func TestFailedFsync(t *testing.T) {
	for _, killed := range []bool{false, true} {
		d := newDisk()
		defer d.close()
		dir := t.TempDir()
		s := openWith(t, dir, d.fsync)
		put(t, s, key, 0, printed(key, 0, 100_000))
		mustSync(t, s, key, 100_000)
		put(t, s, key, 100_000, printed(key, 100_000, 50_000))

		d.fails = 2
		for range 2 { // the second is that of the copy
			if durable, err := s.Sync(t.Context(), key); durable != 100_000 || !errors.Is(err, ErrUnavailable) || !errors.Is(err, syscall.EIO) {
				t.Fatalf("sync on a broken disk: %d, %v", durable, err)
			}
		}
		if killed {
			s.Close()
			s = openWith(t, dir, d.fsync)
		}
		put(t, s, key, 150_000, printed(key, 150_000, 10))
		mustSync(t, s, key, 150_010)
		s.Close()
		// Now the power goes: of the first file there are 100,000 bytes.
		info, err := os.Stat(pathOf(s, key))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(pathOf(s, key), d.safe[inode(info)]); err != nil {
			t.Fatal(err)
		}
		s = reopen(t, dir)
		if got := content(t, s, key); !bytes.Equal(got, printed(key, 0, 150_010)) {
			t.Errorf("killed %v: %d bytes survive", killed, len(got))
		}
		left, err := filepath.Glob(filepath.Join(dir, "*", "*.[cs]*"))
		if err != nil || len(left) > 0 {
			t.Errorf("left over: %v, %v", left, err)
		}
	}
}

// An fsync fails, and what was not written is gone from the page cache, too. Whoever sends on
// is told to go back to what is left, and nothing gets into the wrong place.
func TestFailedFsyncThatLosesBytes(t *testing.T) {
	d := newDisk()
	defer d.close()
	s := openWith(t, t.TempDir(), d.fsync)
	put(t, s, key, 0, printed(key, 0, 100_000))
	mustSync(t, s, key, 100_000)
	put(t, s, key, 100_000, printed(key, 100_000, 50_000))
	d.fails = 2
	for range 2 { // the second is that of the copy
		if _, err := s.Sync(t.Context(), key); !errors.Is(err, ErrUnavailable) {
			t.Fatalf("sync on a broken disk: %v", err)
		}
	}
	info, err := os.Stat(pathOf(s, key))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(pathOf(s, key), d.safe[inode(info)]); err != nil {
		t.Fatal(err)
	}
	data := printed(key, 150_000, 10)
	if known, err := s.Append(key, 150_000, data, Checksum(data)); known != 100_000 || err != nil {
		t.Fatalf("known %d, %v, want to be told to go back to 100000", known, err)
	}
	put(t, s, key, 100_000, printed(key, 100_000, 50_010))
	mustSync(t, s, key, 150_010)
	if got := content(t, s, key); !bytes.Equal(got, printed(key, 0, 150_010)) {
		t.Errorf("%d bytes, and not those that were printed", len(got))
	}
}
