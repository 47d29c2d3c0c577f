package history

import (
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// smallDisk returns a directory on a file system of its own, of a megabyte, and what mounts
// that anew, as it is to be from then on.
func smallDisk(t *testing.T) (dir string, remount func(flags uintptr, size string)) {
	t.Helper()
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mount a small tmpfs, which only root can: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(disk, "history"), func(flags uintptr, size string) {
		t.Helper()
		if err := unix.Mount("", disk, "", unix.MS_REMOUNT|flags, "size="+size); err != nil {
			t.Fatal(err)
		}
	}
}

// goesOn checks that a history which could not be written can be, and has n runs, now and
// when it is opened again.
func goesOn(t *testing.T, s *Store, n int) {
	t.Helper()
	time.Sleep(time.Minute)
	if s.Fault() != nil || !s.Held().Equal(at(n-1).Now) {
		t.Errorf("afterwards: fault %v, held up to %v", s.Fault(), s.Held())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = begin(s.Dir, generous, newShared())
	if runs, missing, lost := has(t, s); runs != n || missing != "" || lost != 0 {
		t.Errorf("on disk: %d runs of %d, missing %q, lost %d", runs, n, missing, lost)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// A full disk, on a file system that really is full. What is written stays, what is not is
// kept and shown, and the leader is told to forget none of that; then there is room.
func TestFullTmpfs(t *testing.T) {
	dir, remount := smallDisk(t)
	synctest.Test(t, func(t *testing.T) {
		s := begin(dir, generous, newShared())
		n := 0
		for ; s.Fault() == nil && n < 50_000; n += 500 {
			s.Ended(at(n+499), numbers(n, n+500))
			time.Sleep(time.Minute)
		}
		if s.Fault() == nil || !strings.Contains(s.Fault().Error(), "full") || !s.Stats().Failed {
			t.Errorf("with %d runs on a disk of a megabyte: fault %v", n, s.Fault())
		}
		if held := s.Held(); !held.IsZero() {
			t.Errorf("the leader is told to forget what ended up to %v", held)
		}
		if runs, missing, lost := has(t, s); runs != n || missing != "" || lost != 0 {
			t.Errorf("meanwhile: %d runs of %d, missing %q, lost %d", runs, n, missing, lost)
		}
		remount(0, "64m")
		goesOn(t, s, n)
	})
}

// A disk that was made read-only while nobody had the history open. (Under an open file
// only the kernel itself does that.)
func TestReadOnlyTmpfs(t *testing.T) {
	dir, remount := smallDisk(t)
	synctest.Test(t, func(t *testing.T) {
		s := begin(dir, generous, newShared())
		s.Ended(at(9), numbers(0, 10))
		flush(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		remount(unix.MS_RDONLY, "1m")
		s = begin(dir, generous, newShared())
		s.Ended(at(19), numbers(10, 20))
		time.Sleep(time.Minute)
		if s.Fault() == nil || !s.Stats().Failed || s.Held().After(at(9).Now) {
			t.Errorf("on a read-only disk: fault %v, held up to %v", s.Fault(), s.Held())
		}
		if r, err := s.Run(t.Context(), aRun(15).ID); r == nil || err != nil {
			t.Errorf("what waits to be written: %v, %v", r, err)
		}
		remount(0, "1m")
		goesOn(t, s, 20)
	})
}
