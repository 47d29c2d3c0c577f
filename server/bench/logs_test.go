package bench

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// What is compared with a log is what its process writes, at once or in parts.
func TestNumbers(t *testing.T) {
	for _, test := range []struct {
		numbers
		parts int
	}{
		{numbers{from: 10, count: 3}, 1},
		{numbers{from: 10_000_000, count: 20_000}, 1},
		{numbers{from: 1_000_000, count: 2 * 1000}, 2},
	} {
		path, err := test.file(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		argv := test.argv(path, test.parts)
		wrote, err := exec.CommandContext(context.Background(), argv[0], argv[1:]...).Output()
		if err != nil {
			t.Fatal(err)
		}
		var want bytes.Buffer
		if err := test.write(&want); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(wrote, want.Bytes()) || int64(len(wrote)) != test.size() {
			t.Errorf("%+v: the process writes %d bytes, want %d: %.40q, want %.40q", test, len(wrote), test.size(), wrote, want.Bytes())
		}
		if sum, err := test.sum(); err != nil || sum != sha256.Sum256(wrote) {
			t.Errorf("%+v: the hash is %x: %v", test, sum, err)
		}
	}
}

// What fails is told, and not taken for what was written.
func TestNumbersThatCantBeWritten(t *testing.T) {
	if err := (numbers{from: 10, count: 3}).write(full{}); err == nil {
		t.Error("nothing was told")
	}
	if _, err := (numbers{from: 10, count: 3}).file(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a directory: %v", err)
	}
}

// Parts come a second after each other, also when one took its time.
func TestNumbersAreWrittenInTime(t *testing.T) {
	const parts = 3
	n := numbers{from: 10, count: parts}
	path, err := n.file(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	argv, begin := n.argv(path, parts), time.Now()
	if err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).Run(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took < (parts-1)*time.Second-20*time.Millisecond {
		t.Errorf("%d parts took %v, want a second between them", parts, took)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, bytes.ErrTooLarge }
