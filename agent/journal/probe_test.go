package journal

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A probe tells how the disk is, and changes nothing of what is known, whatever it
// meets.
func TestProbe(t *testing.T) {
	d := newMemDisk()
	j, _ := openMem(t, d)
	j.compactMin = 1 << 30 // the disk is changed under it below
	for i := range uint64(3) {
		if err := errors.Join(j.Append(rec(Accepted, fmt.Sprint("run-", i), i+1)), j.Probe()); err != nil {
			t.Fatal(err)
		}
	}
	d.room = 3
	if err := j.Probe(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("on a full disk: %v", err)
	}
	d.room = -1
	if err := errors.Join(j.Probe(), j.Append(rec(Accepted, "late", 9))); err != nil {
		t.Errorf("once there is room: %v", err)
	}
	want := viewOf(j.table.list(), j)
	again, es := openMem(t, d)
	if diff := cmp.Diff(want, viewOf(es, again)); diff != "" || again.table.floor != 0 {
		t.Errorf("opened again, with floor %d (-want +got):\n%s", again.table.floor, diff)
	}
	again.compactMin = 1 << 30
	d.syncErr = syscall.EIO
	if err := again.Probe(); !errors.Is(err, syscall.EIO) {
		t.Errorf("on a broken disk: %v", err)
	}
	d.syncErr = nil
	if err := again.Probe(); !errors.Is(err, syscall.EIO) {
		t.Errorf("after an fsync that failed: %v", err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := j.Probe(); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// The disk is made read-only under the open journal, as a kernel does that finds a file
// system broken. Nothing is taken, nothing is lost, and it goes on when that is over.
func TestReadOnlyDisk(t *testing.T) {
	d := newMemDisk()
	j, _ := openMem(t, d)
	j.compactMin = 1 << 30 // the disk is changed under it below
	if err := j.Append(rec(Accepted, "before", 1)); err != nil {
		t.Fatal(err)
	}
	d.ro = true
	for range 3 {
		if err := errors.Join(j.Append(rec(Accepted, "during", 2)), j.Probe()); !errors.Is(err, syscall.EROFS) {
			t.Errorf("on a read-only disk: %v", err)
		}
	}
	d.ro = false
	if err := errors.Join(j.Probe(), j.Append(rec(Accepted, "during", 2), rec(Started, "before", 1))); err != nil {
		t.Errorf("writable again: %v", err)
	}
	again, es := openMem(t, d)
	if diff := cmp.Diff(viewOf(j.table.list(), j), viewOf(es, again)); diff != "" || len(es) != 2 {
		t.Errorf("opened again (-want +got):\n%s", diff)
	}
}
