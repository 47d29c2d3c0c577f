package runlog

import (
	"os"
	"path/filepath"
	"testing"
)

// A log is finished when it is complete and durable, and a later process knows
// that by a look at the end of the file.
func TestFinished(t *testing.T) {
	s := fresh(t)
	finished := func(want int64, ok bool) {
		t.Helper()
		if n, is := s.Finished(key); is != ok || is && n != want {
			t.Fatalf("finished at %d, %v; want %d, %v", n, is, want, ok)
		}
	}
	finished(0, false)
	put(t, s, key, 0, printed(key, 0, 5000))
	finished(0, false)
	mustSeal(t, s, key, 6000)
	mustSync(t, s, key, 5000)
	finished(0, false)
	put(t, s, key, 5000, printed(key, 5000, 1000))
	finished(0, false)
	mustSync(t, s, key, 6000)
	finished(6000, true)

	s = again(t, s, nil)
	finished(6000, true)
	if len(s.logs) != 0 || s.open != 0 {
		t.Errorf("%d logs are in memory, %d files open", len(s.logs), s.open)
	}
	if i, _ := s.Stat(key); i.Known != 6000 || !i.Complete { // reads it through
		t.Errorf("%+v", i)
	}
	finished(6000, true)

	s = again(t, s, func(path string) {
		if err := os.Truncate(path, sizeOfFile(t, path)-1); err != nil {
			t.Fatal(err)
		}
	})
	finished(0, false)
	if err := s.Remove(key); err != nil {
		t.Fatal(err)
	}
	finished(0, false)
	if _, ok := s.Finished(Key{Run: "../" + filepath.Base(pathOf(s, key))}); ok {
		t.Error("what is no key is finished")
	}
}

// After Close nothing is known.
func TestFinishedClosed(t *testing.T) {
	s := fresh(t)
	put(t, s, key, 0, printed(key, 0, 10))
	mustSeal(t, s, key, 10)
	mustSync(t, s, key, 10)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Finished(key); ok {
		t.Error("finished, and closed")
	}
}
