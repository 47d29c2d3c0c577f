package raftstore

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// What older versions left on disk. The number is that of the kind: all versions up
// to the next one of which the files are here write and read alike.
var oldKinds = []string{"1"}

// The log of an older version comes to the state that it had there, byte for byte,
// and so does its snapshot.
func TestOldLogsAndSnapshots(t *testing.T) {
	for _, kind := range oldKinds {
		t.Run(kind, func(t *testing.T) {
			snap := golden(t, "snapshot-"+kind)
			f := newFSM(Config{Log: quiet()}, func(error) {})
			replay(f, oldLog(t, golden(t, "log-"+kind)), 0)
			if err := f.err(); err != nil {
				t.Fatal(err)
			}
			if f.state.NumRuns() < 10 || !bytes.Equal(written(t, f.state), snap) {
				t.Errorf("the old log comes to another state, with %d runs", f.state.NumRuns())
			}
			g := newFSM(Config{Log: quiet()}, func(error) {})
			if err := g.Restore(io.NopCloser(bytes.NewReader(snap))); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(written(t, g.state), snap) {
				t.Error("the old snapshot comes to another state")
			}
		})
	}
}

func golden(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// oldLog reads entries that each have their length before them.
func oldLog(t *testing.T, data []byte) (log [][]byte) {
	t.Helper()
	for len(data) > 0 {
		n, k := binary.Uvarint(data)
		if k <= 0 || n > uint64(len(data)-k) {
			t.Fatal("the file is damaged")
		}
		log = append(log, data[k:k+int(n)])
		data = data[k+int(n):]
	}
	return log
}
