package raftstore

import (
	"bytes"
	"encoding/json"
	"hash/fnv"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

// Whatever is in the file that says whose directory it is: it is taken for this primary's
// only if it says so, and one that is not is left as it is.
func FuzzAbout(f *testing.F) {
	f.Add([]byte(`{"format":1,"node_id":"a"}`), true)
	f.Add([]byte(`{"format":1,"node_id":"a","log":true}`), true)
	f.Add([]byte(`{"format":1,"node_id":"a","log":true}`), false)
	f.Add([]byte(`{"format":2,"node_id":"a"}`), true)
	f.Add([]byte(`{"format":1,"node_id":"b","more":[{}]}`), true)
	f.Add([]byte(`{"format":1e0,"NODE_ID":"a"}{}`), true)
	f.Add([]byte(`null`), true)
	f.Add([]byte{}, false)
	dir := f.TempDir()
	path, log := filepath.Join(dir, aboutFile), filepath.Join(dir, raftDBFile)
	f.Fuzz(func(t *testing.T, text []byte, hasLog bool) {
		if err := os.RemoveAll(log); err != nil {
			t.Fatal(err)
		}
		if hasLog {
			write(t, log, []byte("a log"))
		}
		write(t, path, text)
		err := checkAbout(dir, "a")
		now, rerr := os.ReadFile(path)
		if rerr != nil || !bytes.Equal(now, text) {
			t.Fatalf("it was looked at, and is %q now: %v", now, rerr)
		}
		var a about
		if json.Unmarshal(text, &a) != nil || a.Format != diskFormat || a.NodeID != "a" || a.Log && !hasLog {
			if err == nil {
				t.Fatalf("%q is taken for that of primary a, with a log: %v", text, hasLog)
			}
			return
		}
		if err != nil {
			t.Fatalf("%q is that of primary a, with a log: %v: %v", text, hasLog, err)
		}
		if err := noteLog(dir, "a"); err != nil {
			t.Fatal(err)
		}
		if err := checkAbout(dir, "a"); (err == nil) != hasLog {
			t.Fatalf("it has a log from now on, and one is there: %v: %v", hasLog, err)
		}
	})
}

func write(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Whatever the disk has made of the log's file, also where the checksums hold: it is refused,
// or bbolt can read through all of it.
func FuzzBolt(f *testing.F) {
	dir := f.TempDir()
	path := filepath.Join(dir, raftDBFile)
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, PageSize: os.Getpagesize()})
	if err != nil {
		f.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		logs, err := tx.CreateBucket([]byte(boltLogs))
		if err != nil {
			return err
		}
		values, err := tx.CreateBucket([]byte(boltValues))
		if err != nil {
			return err
		}
		for i := range 200 {
			if err := logs.Put([]byte{0, 0, 0, 0, 0, 0, 1, byte(i)}, bytes.Repeat([]byte{byte(i)}, 100*(i%7)+1)); err != nil {
				return err
			}
		}
		return values.Put([]byte(raftValues[0]), make([]byte, 8))
	})
	if err != nil {
		f.Fatal(err)
	}
	if err := db.Close(); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(0), []byte{})
	f.Add(uint32(20), []byte{0xff}) // the page size
	for page := range len(good) / os.Getpagesize() {
		at := uint32(page * os.Getpagesize())
		f.Add(at+8, []byte{1})           // of another kind
		f.Add(at+10, []byte{0xff, 0xff}) // with more elements
		f.Add(at+12, []byte{0, 0, 0, 8}) // with more pages
		f.Add(at+20, []byte{0xff, 0xff, 0xff})
	}
	f.Fuzz(func(t *testing.T, at uint32, change []byte) {
		text := bytes.Clone(good)
		if len(change) > 64 || int(at) >= len(text) {
			return
		}
		copy(text[at:], change)
		reseal(text)
		write(t, path, text)
		if verifyBolt(path) != nil {
			return
		}
		again, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
		if err != nil {
			return // it says so itself
		}
		defer func() { _ = again.Close() }()
		err = again.View(func(tx *bbolt.Tx) error {
			return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
				return b.ForEach(func(_, v []byte) error {
					_ = bytes.Clone(v)
					return nil
				})
			})
		})
		if err != nil {
			t.Fatalf("it was verified, and can't be read: %v", err)
		}
	})
}

// reseal gives both descriptions of the file the checksums they need.
func reseal(text []byte) {
	for page := range 2 {
		at := page*os.Getpagesize() + boltHeader
		sum := fnv.New64a()
		_, _ = sum.Write(text[at : at+boltMeta-8])
		boltOrder.PutUint64(text[at+boltMeta-8:], sum.Sum64())
	}
}
