package spool

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// What is set aside is the logical log, and the spool has it no more.
func TestSetAside(t *testing.T) {
	s, l, p := start(t, MinLimit)
	p.write([]byte("hello, "))
	poll(t, l)
	p.truncate(0)
	p.write(noise(1, MinLimit+5000))
	seal(t, l)
	want := logical(t, l)
	path, err := l.SetAside()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "what is set aside", got, want)
	if used := s.Usage(); used != 0 {
		t.Errorf("the spool takes %d bytes", used)
	}
	if _, again := s.Get(l.key); again {
		t.Error("the spool still has the log")
	}
	if _, err := l.SetAside(); !errors.Is(err, ErrRemoved) {
		t.Errorf("again: error %v", err)
	}
}

// The oldest ones make room, so that they never fill the disk.
func TestSetAsideIsBounded(t *testing.T) {
	for name, test := range map[string]struct {
		files int
		size  int64
		left  int // of these, once there is one more
		err   error
	}{
		"room for all": {3, asideBytes / 5, 3, nil},
		"many bytes":   {3, asideBytes / 3, 2, nil},
		"many files":   {asideFiles + 5, 1, asideFiles - 1, nil},
		"too long":     {3, asideBytes + 1, 3, errTooLong},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "spool-refused")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			for i := range test.files {
				path := filepath.Join(dir, string(bytes.Repeat([]byte("x"), i+1)))
				f, err := os.Create(path)
				if err != nil {
					t.Fatal(err)
				}
				young := time.Unix(int64(1000-i), 0) // the first one is the youngest
				if err := errors.Join(f.Truncate(min(test.size, asideBytes/3)), f.Close(), os.Chtimes(path, young, young)); err != nil {
					t.Fatal(err)
				}
			}
			if err := makeRoom(dir, test.size); !errors.Is(err, test.err) {
				t.Fatalf("error %v, want %v", err, test.err)
			}
			names, err := os.ReadDir(dir)
			if err != nil || len(names) != test.left {
				t.Fatalf("%d are left, want %d: %v", len(names), test.left, err)
			}
			if _, err := os.Stat(filepath.Join(dir, "x")); err != nil {
				t.Errorf("the youngest is not left: %v", err)
			}
		})
	}
}
