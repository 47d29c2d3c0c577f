package raftstore

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// The disk takes no snapshot: it is full, read-only, or fails. Nothing else stops by that:
// the log keeps what a snapshot would stand for, and there is one soon after there can be.
func TestNoRoomForASnapshot(t *testing.T) {
	for name, fault := range map[string]struct {
		begin, end func(t *testing.T, snapshots string)
	}{
		"full":      {fillDisk, emptyDisk},
		"read-only": {remount(unix.MS_RDONLY), remount(0)},
		"fails":     {putInTheWay, takeOutOfTheWay},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			snapshots := filepath.Join(dir, snapshotsDir)
			if name != "fails" {
				mountSmall(t, snapshots)
			}
			synctest.Test(t, func(t *testing.T) {
				c := Config{NodeID: "a", Dir: dir, SnapshotThreshold: 4, TrailingLogs: 1}
				s := open(t, c)
				awaitLeader(t, s)
				fault.begin(t, snapshots)
				const workers = 20
				for i := range workers {
					propose(t, s, putWorker(i))
				}
				if err := s.Snapshot(t.Context()); err == nil {
					t.Error("a snapshot was taken")
				}
				time.Sleep(10 * time.Minute) // it is tried each few
				propose(t, s, putWorker(workers))
				if err := errors.Join(s.Err(), s.DiskErr()); err != nil {
					t.Errorf("the primary is not well: %v", err)
				}
				if first, err := s.disk.logs.FirstIndex(); err != nil || first != 1 {
					t.Errorf("the log begins at %d, %v; nothing of it may be gone", first, err)
				}
				fault.end(t, snapshots)
				time.Sleep(10 * time.Minute)
				if all, err := s.disk.snapshots.List(); err != nil || len(all) == 0 {
					t.Errorf("there are %d snapshots, %v", len(all), err)
				}
				if first, err := s.disk.logs.FirstIndex(); err != nil || first == 1 {
					t.Errorf("the log begins at %d, %v; what the snapshot stands for may go", first, err)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				again := open(t, c)
				awaitLeader(t, again)
				if n := numWorkers(again); n != workers+1 {
					t.Errorf("%d workers after a restart, want %d", n, workers+1)
				}
			})
		})
	}
}

// mountSmall makes a directory the root of a disk of 256 KiB.
func mountSmall(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("mount a small tmpfs, which only root can: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
}

func remount(flags uintptr) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		t.Helper()
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|flags, "size=256k"); err != nil {
			t.Fatal(err)
		}
	}
}

const water = "water"

// fillDisk leaves no room on the disk of a directory.
func fillDisk(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, water))
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

func emptyDisk(t *testing.T, dir string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, water)); err != nil {
		t.Fatal(err)
	}
}

// putInTheWay has a file stand where a directory was, so that nothing can be made in it.
func putInTheWay(t *testing.T, dir string) {
	t.Helper()
	if err := errors.Join(os.Rename(dir, dir+".away"), os.WriteFile(dir, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
}

func takeOutOfTheWay(t *testing.T, dir string) {
	t.Helper()
	if err := errors.Join(os.Remove(dir), os.Rename(dir+".away", dir)); err != nil {
		t.Fatal(err)
	}
}
