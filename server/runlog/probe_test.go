package runlog

import (
	"errors"
	"os"
	"syscall"
	"testing"
)

// A probe says what the disk would say to any log, and leaves nothing behind.
func TestProbe(t *testing.T) {
	dir := t.TempDir()
	broken := false
	s, err := OpenOn(func(f *os.File) error {
		if broken {
			return syscall.EIO
		}
		return f.Sync()
	}, dir, silent)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { s.Close() }()
	for range 3 {
		if err := s.Probe(t.Context()); err != nil {
			t.Errorf("a disk that works: %v", err)
		}
		broken = true
		if err := s.Probe(t.Context()); !errors.Is(err, syscall.EIO) {
			t.Errorf("a disk that fails: %v", err)
		}
		broken = false
	}
	for k := range s.Keys() {
		t.Errorf("%v was left behind", k)
	}
	if len(s.logs) != 0 {
		t.Errorf("%d logs are left in memory", len(s.logs))
	}
}
