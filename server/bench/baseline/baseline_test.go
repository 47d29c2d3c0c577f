package baseline

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

const moment = 50 * time.Millisecond

func TestForkExec(t *testing.T) {
	rate, err := ForkExec(t.Context(), 2, moment)
	if err != nil || rate <= 0 {
		t.Errorf("%v per second, %v", rate, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if rate, err := ForkExec(ctx, 2, time.Hour); err == nil {
		t.Errorf("%v per second, after its end", rate)
	}
}

// What fails ends it, and is told.
func TestRate(t *testing.T) {
	broken := errors.New("broken")
	if rate, err := Rate(t.Context(), 2, time.Hour, func() error { return broken }); !errors.Is(err, broken) {
		t.Errorf("%v per second, %v", rate, err)
	}
}

func TestStreamCopy(t *testing.T) {
	rate, err := StreamCopy(t.Context(), Options{}, 1000, moment)
	if err != nil || rate < 1000 {
		t.Errorf("%v bytes per second, %v", rate, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if rate, err := StreamCopy(ctx, Options{}, 1000, time.Hour); err == nil {
		t.Errorf("%v bytes per second, after its end", rate)
	}
}

// A process has the variables that it was given, and a failing one is told.
func TestRun(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := Run(t.Context(), []string{"/bin/sh", "-c", `echo "$A" >"$0"`, name}, "A=1"); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(name); err != nil || string(text) != "1\n" {
		t.Errorf("%q, %v", text, err)
	}
	if err := Run(t.Context(), []string{"/bin/sh", "-c", "exit 3"}); err == nil {
		t.Error("what fails is not told")
	}
}

// A disk says of each page when it is there, also when the file has no more, and leaves
// nothing behind.
func TestDisk(t *testing.T) {
	dir := t.TempDir()
	d, err := NewDisk(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range pages + 1 {
		if took, err := d.Sync(t.Context()); err != nil || took <= 0 {
			t.Fatalf("%v, %v", took, err)
		}
	}
	info, err := d.file.Stat()
	if err != nil || info.Size() != pages*pageSize {
		t.Errorf("the file has %d bytes, want as many as before: %v", info.Size(), err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v are left: %v", left, err)
	}
	if took, err := d.Sync(t.Context()); err == nil {
		t.Errorf("a file that is closed was synced in %v", took)
	}
	if _, err := NewDisk(filepath.Join(dir, "missing")); err == nil {
		t.Error("a disk in a directory that is not there")
	}
}
