package runlog

import (
	"bytes"
	"errors"
	"strings"
	"syscall"
	"testing"
)

// A full disk is told as such, harms nothing, and is over when there is room.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("runlog-test", dir, "tmpfs", 0, "size=512k"); err != nil {
		t.Skipf("no small disk to fill: mounting a tmpfs: %v", err)
	}
	defer func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	}()
	s, err := Open(dir, silent)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { s.Close() }()
	ballast := Key{Run: "ballast", Attempt: 1}
	put(t, s, ballast, 0, make([]byte, 100_000))
	put(t, s, key, 0, printed(key, 0, 50_000))
	mustSync(t, s, key, 50_000)

	known, err := s.Append(key, 50_000, printed(key, 50_000, MaxAppend), Checksum(printed(key, 50_000, MaxAppend)))
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), key.String()) {
		t.Fatalf("append to a full disk: %v", err)
	}
	if n, last := s.Failures(); n != 1 || !errors.Is(last, syscall.ENOSPC) {
		t.Errorf("%d failures, the last one %v, want one", n, last)
	}
	if known < 50_000 || known > 512<<10 {
		t.Errorf("known is %d", known)
	}
	if got := content(t, s, key); !bytes.Equal(got, printed(key, 0, int(known))) {
		t.Errorf("%d bytes, not what was printed", len(got))
	}
	if size := sizeOfFile(t, pathOf(s, key)); size != s.logs[key].end {
		t.Errorf("half a frame was left: %d bytes, frames end at %d", size, s.logs[key].end)
	}
	mustSync(t, s, key, known)
	late := Key{Run: "late", Attempt: 1}
	if n, err := s.Append(late, 0, printed(late, 0, 300_000), Checksum(printed(late, 0, 300_000))); err == nil {
		t.Errorf("another log: %d known, no error", n)
	}
	if err := s.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	put(t, s, key, known, printed(key, known, 30_000))
	mustSync(t, s, key, known+30_000)
	if n, _ := s.Failures(); n != 2 {
		t.Errorf("%d failures, want two: none since there is room", n)
	}
	s.Close()
	s = open(t, dir)
	if got := content(t, s, key); !bytes.Equal(got, printed(key, 0, int(known)+30_000)) {
		t.Error("not whole after a restart")
	}
}
