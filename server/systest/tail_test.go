package systest

import (
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// tail is the log of a story. The end of it is kept in memory, and in a file as much of it
// as anybody will read, which is there even if the process crashes.
type tail struct {
	mu    sync.Mutex
	lines []string
	name  string // of the file; what came before that is in another one
	file  *os.File
	size  int64 // of the file
	most  int64 // that it may have
}

const (
	tailLines = 20_000   // that are kept in memory, at least
	tailShown = 60       // of a story that fails
	tailBytes = 64 << 20 // of each of the two files
)

func newTail(t *testing.T, dir string) *tail {
	t.Helper()
	l := &tail{name: filepath.Join(dir, "story.log"), most: tailBytes}
	if err := l.next(); err != nil {
		t.Fatalf("making a file for the log of the story: %v", err)
	}
	return l
}

// older is the name of what was written before the present file.
func (l *tail) older() string { return l.name + ".1" }

// next begins another file. The present one takes the place of the one before.
func (l *tail) next() error {
	if l.file != nil {
		if err := errors.Join(l.file.Close(), os.Rename(l.name, l.older())); err != nil {
			return err
		}
	}
	var err error
	l.file, err = os.Create(l.name)
	l.size = 0
	return err
}

// Write implements io.Writer. It is given a line at a time.
func (l *tail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) >= 2*tailLines {
		l.lines = slices.Clone(l.lines[tailLines:])
	}
	l.lines = append(l.lines, string(p))
	if l.size+int64(len(p)) > l.most {
		if err := l.next(); err != nil {
			return 0, err
		}
	}
	n, err := l.file.Write(p)
	l.size += int64(n)
	return n, err
}

// after returns what came after the first n lines, in a story that is not long.
func (l *tail) after(n int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines[n:])
}

// String returns the end of the log.
func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines[max(0, len(l.lines)-tailShown):], "")
}

// show prints the end of the log, and keeps all of it if go test keeps anything.
func (l *tail) show(t *testing.T) {
	t.Helper()
	t.Logf("the end of the story:\n%s", l)
	if keeps := flag.Lookup("test.artifacts"); keeps == nil || keeps.Value.String() != "true" {
		t.Log("with -artifacts all of the story is kept")
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	whole := filepath.Join(t.ArtifactDir(), "story.log")
	if err := l.copyTo(whole); err != nil {
		t.Errorf("keeping the log of the story: %v", err)
		return
	}
	t.Logf("all of the story: %s", whole)
}

// copyTo writes what there is of the log into one file.
func (l *tail) copyTo(name string) error {
	to, err := os.Create(name)
	if err != nil {
		return err
	}
	if older, oerr := os.Open(l.older()); oerr == nil { // there is none if the log is short
		_, err = io.Copy(to, older)
		err = errors.Join(err, older.Close())
	}
	_, cerr := io.Copy(to, io.NewSectionReader(l.file, 0, l.size))
	return errors.Join(err, cerr, to.Close())
}

// close is called when nobody writes any more.
func (l *tail) close() { _ = l.file.Close() }

// However much a story says, the last of it is kept, and in order.
func TestTailIsBounded(t *testing.T) {
	dir := t.TempDir()
	l := newTail(t, dir)
	defer l.close()
	l.most = 10
	for _, line := range []string{"one\n", "two\n", "three\n", "four\n", "five\n"} {
		if _, err := l.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	whole := filepath.Join(dir, "whole")
	if err := l.copyTo(whole); err != nil {
		t.Fatal(err)
	}
	if is, err := os.ReadFile(whole); err != nil || string(is) != "three\nfour\nfive\n" {
		t.Errorf("of the log %q is kept (%v)", is, err)
	}
}
