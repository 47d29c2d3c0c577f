package journal

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// smallTmpfs returns a directory on a file system of 64 KiB.
func smallTmpfs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("mount a small tmpfs, which only root can: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// A disk that was made read-only while nobody had the journal open: that is an error,
// and nothing is lost by it. (Under an open file only the kernel itself does that.)
func TestReadOnlyTmpfs(t *testing.T) {
	dir := smallTmpfs(t)
	path := filepath.Join(dir, "journal")
	j, _, err := Open(path, quiet())
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Append(rec(Accepted, "before", 1)); err != nil {
		t.Fatal(err)
	}
	remount := func(flags uintptr) {
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|flags, "size=64k"); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	remount(unix.MS_RDONLY)
	if _, _, err := Open(path, quiet()); !errors.Is(err, syscall.EROFS) {
		t.Errorf("opened on a read-only disk: %v", err)
	}
	remount(0)
	again, es, err := Open(path, quiet())
	if err != nil || len(es) != 1 {
		t.Fatal(es, err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

// A full disk, on a file system that really is full.
func TestFullTmpfs(t *testing.T) {
	path := filepath.Join(smallTmpfs(t), "journal")
	j, _, err := Open(path, quiet())
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; err == nil; n++ {
		r := rec(Accepted, fmt.Sprint("run-", n), uint64(n+1))
		r.Payload = make([]byte, 3000)
		err = j.Append(r)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	n-- // the last was refused
	small := rec(Accepted, "small", 1000)
	if err := j.Append(small); err != nil {
		t.Errorf("a small record, for which there is room: %v", err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	again, es, err := Open(path, quiet())
	if err != nil {
		t.Fatal(err)
	}
	if len(es) != n+1 || es[n].Key != small.Key {
		t.Errorf("found %d attempts again, want %d and the small one", len(es), n)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}
