package server

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/server/runlog"
)

// write has one attempt's output written, and returns why it was not.
func write(s *Server, run string) error {
	data := []byte("output")
	k := runlog.Key{Run: run, Attempt: 1, Fence: 7}
	known, err := s.logs.Append(k, 0, data, runlog.Checksum(data))
	if err == nil && known < int64(len(data)) {
		err = syscall.EIO
	}
	return err
}

// A primary knows when its disk does not take the output of runs, also when nobody
// writes any more, and for how long. While it is the only one it is ready all the same.
func TestDiskDoesNotTakeOutput(t *testing.T) {
	bubbled(t, func(t *testing.T, s *Server, _ *raftstore.Memory) {
		dir := filepath.Join(s.config.DataDir, "runlogs")
		if err := os.Rename(dir, dir+".away"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := write(s, "r"); err == nil {
			t.Fatal("it was kept")
		}
		for range 10 {
			wait(time.Minute)
			if !s.condition().Failing {
				t.Error("it says that its disk does not fail")
			}
			isReady(t, "as the only one", s, "")
		}
		if n, _ := s.logs.Failures(); n < 100 || n > 1000 {
			t.Errorf("in 10 minutes the disk was tried %d times", n)
		}
		if err := os.Rename(dir+".away", dir); err == nil {
			t.Fatal("a directory took the place of a file")
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(dir+".away", dir); err != nil {
			t.Fatal(err)
		}
		wait(keptAgain / 2)
		if !s.condition().Failing {
			t.Error("it trusts the disk at once")
		}
		wait(keptAgain/2 + 2*probeEvery)
		if s.condition().Failing {
			t.Error("it says that its disk fails")
		}
		for k := range s.logs.Keys() {
			t.Errorf("%v was left behind", k)
		}
	})
}

// One log that can't be written is not the disk: its worker tries again, and the others
// stay.
func TestOneLogCannotBeWritten(t *testing.T) {
	bubbled(t, func(t *testing.T, s *Server, _ *raftstore.Memory) {
		if err := write(s, "r"); err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob(filepath.Join(s.config.DataDir, "runlogs", "*", "r.1.7.log"))
		if err != nil || len(files) != 1 {
			t.Fatalf("the log is in %v, %v", files, err)
		}
		if err := os.Symlink("nowhere/log", filepath.Join(filepath.Dir(files[0]), "r.2.8.log")); err != nil {
			t.Fatal(err)
		}
		data := []byte("output")
		for range 10 {
			if _, err := s.logs.Append(runlog.Key{Run: "r", Attempt: 2, Fence: 8}, 0, data, runlog.Checksum(data)); err == nil {
				t.Fatal("it was kept")
			}
			wait(time.Minute)
			if s.condition().Failing {
				t.Error("it says that its disk fails")
			}
		}
	})
}
