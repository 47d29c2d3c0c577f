package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The disk of the data directory is full, or read-only. The agent does not start, names
// the file, and is the same worker once there is room; one that has no key yet is left
// without half of one.
func TestNoRoomForAStart(t *testing.T) {
	dir := t.TempDir()
	const size = "size=64k"
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, size); err != nil {
		t.Skipf("mount a small tmpfs, which only root can: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	old, fresh := filepath.Join(dir, "old"), filepath.Join(dir, "new")
	if err := os.Mkdir(fresh, 0o700); err != nil {
		t.Fatal(err)
	}
	was, _, err := startIn(t, old)
	if err != nil {
		t.Fatal(err)
	}
	water := filepath.Join(dir, "water")
	remount := func(flags uintptr) {
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|flags, size); err != nil {
			t.Fatal(err)
		}
	}
	for _, fault := range []struct {
		errno      syscall.Errno
		begin, end func()
	}{
		{syscall.ENOSPC, func() { fill(t, water) }, func() { _ = os.Remove(water) }},
		{syscall.EROFS, func() { remount(unix.MS_RDONLY) }, func() { remount(0) }},
	} {
		fault.begin()
		for _, home := range []string{old, fresh} {
			if _, _, err := startIn(t, home); !errors.Is(err, fault.errno) || !strings.Contains(err.Error(), home) {
				t.Errorf("in %s it is told %v, want %v and where", home, err, fault.errno)
			}
			if _, err := os.Stat(filepath.Join(home, keyFile)); (err == nil) != (home == old) {
				t.Errorf("the key in %s: %v", home, err)
			}
		}
		fault.end()
	}
	if is, starts, err := startIn(t, old); err != nil || is != was || starts < 2 {
		t.Errorf("with room it is %s at start %d, %v; was %s", is, starts, err, was)
	}
	if is, starts, err := startIn(t, fresh); err != nil || is == was || starts != 1 {
		t.Errorf("with room the new one is %s at start %d, %v", is, starts, err)
	}
}

// fill writes a file until there is no room for any more.
func fill(t *testing.T, name string) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }() // nothing in it matters
	for err == nil {
		_, err = f.Write(make([]byte, 1024))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}
