package raftstore

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/hashicorp/raft"
)

// failFsync has the kernel refuse each fdatasync of this thread with an error from now on.
// The thread must not be used for anything else.
func failFsync(errno syscall.Errno) error {
	const number = 0 // where a system call's number is, in what a filter is given
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: number},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: unix.SYS_FDATASYNC},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	if err == nil {
		err = unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
	}
	return err
}

// The log's own file, of which an fsync does fail: that is the end, whatever the errno. A
// write that is refused is not.
func TestFsyncOfTheLogFails(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS} {
		done, unable := make(chan struct{}), error(nil)
		go func() { // on a thread that ends with it
			defer close(done)
			runtime.LockOSThread()
			db, err := openBolt(filepath.Join(t.TempDir(), raftDBFile))
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = db.Close() }()
			g := newGuard(db, db, &health{})
			g.opened.Store(true)
			store := func(i uint64) error { // as StoreLogs does, on this thread
				return g.judge("writing entries", g.try(func() error { return g.logs.StoreLogs([]*raft.Log{{Index: i, Term: 1}}) }))
			}
			if err := store(1); err != nil {
				t.Error(err)
			}
			if unable = failFsync(errno); unable != nil {
				return
			}
			if err := store(2); !errors.Is(err, errno) || g.err() == nil {
				t.Errorf("%v: it is told %v, and goes on", errno, err)
			}
			if err := g.StoreLog(&raft.Log{Index: 2, Term: 2}); err == nil {
				t.Errorf("%v: another entry is taken in that place", errno)
			}
		}()
		if <-done; unable != nil {
			t.Skipf("have the kernel refuse an fsync: %v", unable)
		}
	}
}

// The disk of the log's own file is full. An entry is refused, and nothing of it is there;
// when there is room it is taken.
func TestDiskOfTheLogIsFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mount a small tmpfs, which only root can: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	db, err := openBolt(filepath.Join(dir, raftDBFile))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	g := newGuard(db, db, &health{})
	g.opened.Store(true)
	full := filepath.Join(dir, "somebody-elses")
	if err := os.WriteFile(full, make([]byte, 2<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	big := &raft.Log{Index: 1, Term: 1, Data: make([]byte, 100<<10)}
	if err := g.StoreLog(big); !errors.Is(err, syscall.ENOSPC) || g.err() != nil {
		t.Errorf("it is told %v, and fails: %v", err, g.err())
	}
	if last, err := g.LastIndex(); last != 0 || err != nil {
		t.Errorf("the log ends at %d, %v", last, err)
	}
	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}
	if err := g.StoreLog(big); err != nil {
		t.Errorf("with room: %v", err)
	}
}
