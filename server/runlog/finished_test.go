package runlog

import (
	"os"
	"path/filepath"
	"testing"
	"time"
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

// What was finished when it was last looked at is so as long as nobody touches its
// file: one that was taken away, cut or written over meanwhile is looked at anew.
func TestFinishedIsNotTakenForGranted(t *testing.T) {
	for name, harm := range map[string]func(path string) error{
		"taken away": os.Remove,
		"cut":        func(path string) error { return os.Truncate(path, 100) },
		"written over": func(path string) error {
			raw, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			raw[len(raw)-1] ^= 1 // of the end frame
			if err := os.WriteFile(path, raw, 0o600); err != nil {
				return err
			}
			return os.Chtimes(path, time.Time{}, time.Now().Add(time.Second)) // the disk's clock may be coarse
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := fresh(t)
			put(t, s, key, 0, printed(key, 0, 5000))
			mustSeal(t, s, key, 5000)
			mustSync(t, s, key, 5000)
			s = again(t, s, nil)
			for range 2 {
				if n, ok := s.Finished(key); !ok || n != 5000 {
					t.Fatalf("finished at %d, %v", n, ok)
				}
			}
			if len(s.logs) != 0 || s.open != 0 || !s.whole.Has(key) {
				t.Errorf("%d logs are in memory, %d files open; it is remembered: %v", len(s.logs), s.open, s.whole.Has(key))
			}
			if err := harm(pathOf(s, key)); err != nil {
				t.Fatal(err)
			}
			if n, ok := s.Finished(key); ok {
				t.Errorf("finished at %d", n)
			}
		})
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
