package agent

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/schedd/schedd/proto/wire"
)

// startIn counts a start in a data directory, and returns which worker it is.
func startIn(t *testing.T, dir string) (worker string, starts uint32, err error) {
	t.Helper()
	h, err := openHome(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		return "", 0, err
	}
	if err := h.close(); err != nil {
		t.Fatal(err)
	}
	return wire.WorkerID(h.public()), h.starts, nil
}

// started returns a data directory that has seen some starts, and files of it by name.
func started(t *testing.T, starts int) (dir, worker string, files map[string][]byte) {
	t.Helper()
	dir = t.TempDir()
	for range starts {
		var err error
		if worker, _, err = startIn(t, dir); err != nil {
			t.Fatal(err)
		}
	}
	files = map[string][]byte{}
	for _, name := range []string{keyFile, startsFile, sealFile} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = data
	}
	return dir, worker, files
}

func restore(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Whatever bit is flipped of what says which worker this is, and which of its starts: it
// does not start, and says what to do, or it is the same worker at a later start.
func TestFlippedBitMakesNoOtherWorker(t *testing.T) {
	dir, worker, files := started(t, 12)
	refused := map[string]int{}
	for name, data := range files {
		step := 1
		if name == keyFile {
			step = 5 // each start waits for the disk
		}
		for bit := 0; bit < 8*len(data); bit += step {
			restore(t, dir, files)
			flipped := append([]byte(nil), data...)
			flipped[bit/8] ^= 1 << (bit % 8)
			restore(t, dir, map[string][]byte{name: flipped})
			is, starts, err := startIn(t, dir)
			switch {
			case err != nil && strings.Contains(err.Error(), dir):
				refused[name]++
			case err != nil:
				t.Fatalf("bit %d of %s: told %v", bit, name, err)
			case is != worker || starts < 13:
				t.Fatalf("bit %d of %s: worker %s at start %d, was %s", bit, name, is, starts, worker)
			}
		}
	}
	if refused[keyFile] < 40 || refused[startsFile] == 0 || refused[sealFile] != 8*len(files[sealFile]) {
		t.Errorf("refused: %v", refused)
	}
}

// What is gone is not made up, if anything tells of it. A directory of a version that
// wrote no seal is taken as it is, and sealed.
func TestGoneFromTheDataDirectory(t *testing.T) {
	for name, test := range map[string]struct {
		gone   []string
		starts uint32
		want   string // in the error; empty is none
	}{
		"the count":            {[]string{startsFile}, 6, ""},
		"the seal":             {[]string{sealFile}, 6, ""},
		"both":                 {[]string{startsFile, sealFile}, 0, "greater than all before"},
		"the key, on purpose":  {[]string{keyFile}, 6, ""},
		"the key and the seal": {[]string{keyFile, sealFile}, 6, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _, _ := started(t, 5)
			if err := os.WriteFile(filepath.Join(dir, journalFile), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			for _, file := range test.gone {
				if err := os.Remove(filepath.Join(dir, file)); err != nil {
					t.Fatal(err)
				}
			}
			worker, starts, err := startIn(t, dir)
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("told %v", err)
				}
				return
			}
			if err != nil || starts != test.starts {
				t.Fatalf("start %d, %v", starts, err)
			}
			text, err := os.ReadFile(filepath.Join(dir, sealFile))
			if want := fmt.Sprintf("worker %s starts %d crc32c", worker, starts); err != nil || !strings.HasPrefix(string(text), want) {
				t.Errorf("sealed with %q, %v", text, err)
			}
		})
	}
}

// The agent was replaced by an older version for a while, which counts its starts and
// seals nothing.
func TestSealIsBehind(t *testing.T) {
	dir, worker, _ := started(t, 5)
	restore(t, dir, map[string][]byte{startsFile: []byte("9\n")})
	if is, starts, err := startIn(t, dir); is != worker || starts != 10 || err != nil {
		t.Errorf("%s at start %d, %v", is, starts, err)
	}
}
