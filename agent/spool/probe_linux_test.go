package spool

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// onTmpfs returns a spool on a file system of its own, and how that is mounted anew.
func onTmpfs(t *testing.T, options string) (s *Spool, remount func(flags uintptr)) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "spool")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("mount a small tmpfs, which only root can: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	s, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s, func(flags uintptr) {
		t.Helper()
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|flags, options); err != nil {
			t.Fatal(err)
		}
	}
}

// A probe finds what only he finds who makes a file: there are blocks, and no more files
// can be made. It leaves nothing behind.
func TestProbeWithoutInodes(t *testing.T) {
	s, _ := onTmpfs(t, "size=8m,nr_inodes=20")
	if err := s.Probe(); err != nil {
		t.Fatal(err)
	}
	var names []string
	for n := 0; ; n++ {
		name := filepath.Join(s.dir, fmt.Sprint("somebody-elses-", n))
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			break
		}
		names = append(names, name)
	}
	_, err := s.Create(Key{"run", 1}, MinLimit, "")
	if perr := s.Probe(); s.Full() || !errors.Is(err, syscall.ENOSPC) || !errors.Is(perr, syscall.ENOSPC) {
		t.Errorf("full %v, a log: %v, a probe: %v", s.Full(), err, perr)
	}
	for _, name := range names[:2] {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := s.Probe(); err != nil {
			t.Errorf("with room for two files: %v", err)
		}
	}
	if left, err := os.ReadDir(s.dir); err != nil || len(left) != len(names)-2 || len(s.logs) != 0 {
		t.Errorf("%d files, %d logs are left, %v", len(left), len(s.logs), err)
	}
}

// A disk that was made read-only takes nothing, until it is made as it was. What a probe
// that was killed has left is no hindrance.
func TestProbeReadOnly(t *testing.T) {
	s, remount := onTmpfs(t, "size=8m")
	if err := os.WriteFile(filepath.Join(s.dir, probeNames[0]), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	remount(unix.MS_RDONLY)
	if err := s.Probe(); !errors.Is(err, syscall.EROFS) {
		t.Errorf("read-only: %v", err)
	}
	remount(0)
	if err := s.Probe(); err != nil {
		t.Errorf("as it was: %v", err)
	}
	if left, err := os.ReadDir(s.dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
