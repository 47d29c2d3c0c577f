package raftstore

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/raft"
)

// mappedBytes is how much of a file counts as memory of this process.
func mappedBytes(t *testing.T, path string) (bytes int64) {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	in := false
	for line := range strings.Lines(string(maps)) {
		if strings.Contains(strings.Fields(line)[0], "-") {
			_, _, in = mappedAt(line, path)
		}
		if kilobytes := int64(0); in {
			if n, _ := fmt.Sscanf(line, "Rss: %d kB", &kilobytes); n == 1 {
				bytes += kilobytes << 10
			}
		}
	}
	return bytes
}

// What a start has read of the log does not stay in memory, and can be read again. What is
// written meanwhile, while the file grows and is mapped anew, is not harmed.
func TestLogLeavesMemory(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		const entries, size = 20, 500_000
		path := filepath.Join(dir, raftDBFile)
		start := func() *Store {
			s := open(t, Config{NodeID: "a", Dir: dir})
			awaitLeader(t, s)
			return s
		}
		s := start()
		for i := range entries {
			propose(t, s, largeWorker(i, size))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = start()
		if n := mappedBytes(t, path); n < entries*size/2 {
			t.Fatalf("a start has %d bytes of the log mapped, and has read %d: nothing is seen of it here", n, entries*size)
		}
		if err := s.disk.dropLog(); err != nil {
			t.Fatal(err)
		}
		if n := mappedBytes(t, path); n > size {
			t.Errorf("%d bytes of the log are mapped, want next to none", n)
		}
		stop, stopped := make(chan struct{}), make(chan error)
		go func() {
			var err error
			for err == nil {
				select {
				case <-stop:
					stopped <- nil
					return
				default:
					err = s.disk.dropLog()
				}
			}
			stopped <- err
		}()
		for i := range entries {
			propose(t, s, largeWorker(i, size))
		}
		close(stop)
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		if err := verifyLog(s.disk.guard.logs, 0, func(*raft.Log) {}, quiet()); err != nil {
			t.Errorf("reading the log again: %v", err)
		}
	})
}

func TestMappedAt(t *testing.T) {
	const path = "/srv/a b/raft.db"
	for line, want := range map[string]bool{
		"7f5e3c000000-7f5e40000000 r--s 00000000 fe:00 1837                       /srv/a b/raft.db\n":           true,
		"7f5e3c000000-7f5e40000000 r--s 00000000 fe:00 1837                       /srv/a b/raft.db (deleted)\n": false,
		"7f5e3c000000-7f5e40000000 r--s 00000000 fe:00 1837                       /srv/other/srv/a b/raft.db\n": false,
		"7f5e3c000000-7f5e40000000 rw-p 00000000 fe:00 1837                       /srv/a b/raft.db\n":           false,
		"7f5e3c000000-7f5e40000000 r--s 00000000 00:00 0 \n":                                                    false,
		"nonsense": false,
	} {
		from, to, is := mappedAt(line, path)
		if is != want || is && (from != 0x7f5e3c000000 || to != 0x7f5e40000000) {
			t.Errorf("%q: %t, from %x to %x, want %t", line, is, from, to, want)
		}
	}
}
