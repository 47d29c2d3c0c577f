package raftstore

import (
	"os"
	"path/filepath"
	"testing"
)

// The log's file has its room from the beginning, and is written within it. One that is
// opened again, or has more, keeps what it has.
func TestRoom(t *testing.T) {
	const room = 3<<20 + 512
	dir := t.TempDir()
	for i, test := range []struct{ room, want int64 }{{room, room}, {0, room}, {room / 2, room}, {2 * room, 2 * room}} {
		s := open(t, Config{NodeID: "a", Dir: dir, Room: test.room})
		leads(t, s)
		if n := numWorkers(s); n != i {
			t.Errorf("%d workers when it was opened, want %d", n, i)
		}
		propose(t, s, putWorker(i))
		if got := sizeOfLog(t, dir); got != test.want {
			t.Errorf("with room for %d the file has %d bytes, want %d", test.room, got, test.want)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Where there is no room the file is as short as it can be, and there is as much left on
// the disk as before.
func TestNoRoomForRoom(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "small")
	mountSmall(t, dir)
	s := open(t, Config{NodeID: "a", Dir: filepath.Join(dir, "raft"), Room: 1 << 20})
	leads(t, s)
	propose(t, s, putWorker(1))
	if got := sizeOfLog(t, filepath.Join(dir, "raft")); got > 64<<10 {
		t.Errorf("the file has %d bytes", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func sizeOfLog(t *testing.T, dir string) int64 {
	t.Helper()
	info, err := os.Stat(filepath.Join(dir, raftDBFile))
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}
