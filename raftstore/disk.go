package raftstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

// diskFormat is the layout of the directory that this version writes, and the
// only one that it reads.
const diskFormat = 1

// The files in the directory, beside the folder of the snapshots.
const (
	lockFile   = "lock"
	aboutFile  = "about.json"
	raftDBFile = "raft.db"

	scratchFile = "scratch.*" // what is written only to be read once
)

// disk is where Raft keeps the log, its own few values, and the snapshots.
type disk struct {
	name      string // for errors
	dir       string // "": in memory, and files are where the system has temporary ones
	logs      raft.LogStore
	stable    raft.StableStore
	snapshots raft.SnapshotStore
	closers   []func() error // in the order of opening
	health    health         // of the log
}

func (d *disk) close() error {
	var err error
	for i := range d.closers {
		err = errors.Join(err, d.closers[len(d.closers)-1-i]())
	}
	return err
}

func openDisk(c Config) (d *disk, err error) {
	if c.Memory != nil {
		d, err = c.Memory.open()
	} else {
		d = &disk{name: c.Dir, dir: c.Dir}
		if err = d.open(c); err != nil {
			err = errors.Join(fmt.Errorf("opening the store in %s: %w", c.Dir, err), d.close())
		}
	}
	if err != nil {
		return nil, err
	}
	d.logs = watchedLogs{d.logs, &d.health}
	return d, nil
}

func (d *disk) open(c Config) error {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("making the directory: %w", err)
	}
	lock := flock.New(filepath.Join(c.Dir, lockFile), flock.SetPermissions(0o600))
	switch ok, err := lock.TryLock(); {
	case err != nil:
		return fmt.Errorf("locking it: %w", err)
	case !ok:
		return errors.New("another process uses it: stop that one first, or give this one a directory of its own")
	}
	d.closers = append(d.closers, lock.Close)
	if err := checkAbout(c.Dir, c.NodeID); err != nil {
		return err
	}
	db, err := openBolt(filepath.Join(c.Dir, raftDBFile))
	if err != nil {
		return err
	}
	d.closers = append(d.closers, db.Close)
	d.logs, d.stable = db, db
	if d.snapshots, err = raft.NewFileSnapshotStoreWithLogger(c.Dir, keptSnapshots, newRaftLog(c.Log)); err != nil {
		return fmt.Errorf("opening the snapshots: %w", err)
	}
	return syncDir(c.Dir)
}

// openBolt opens the log. The list of free pages is not kept on disk: writing it
// with each entry costs more than looking for them once.
func openBolt(path string) (db *raftboltdb.BoltStore, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = damagedLog(path, fmt.Errorf("%v", p))
		}
	}()
	db, err = raftboltdb.New(raftboltdb.Options{
		Path:                    path,
		BoltOptions:             &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType},
		MsgpackUseNewTimeFormat: true,
	})
	if err != nil {
		return nil, damagedLog(path, err)
	}
	return db, nil
}

func damagedLog(path string, err error) error {
	return fmt.Errorf("the log %s can't be read: %w; restore this primary's data from another one's, or from a backup", filepath.Base(path), err)
}

// about says whose directory it is.
type about struct {
	Format int    `json:"format"`
	NodeID string `json:"node_id"`
}

// checkAbout sees that the directory is one that this version can read, and that
// it is this primary's. It makes an empty one so.
func checkAbout(dir, node string) error {
	path := filepath.Join(dir, aboutFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(dir, raftDBFile)); err == nil {
			return fmt.Errorf("%s is missing beside %s: part of the directory was lost, restore it from a backup", aboutFile, raftDBFile)
		}
		return writeAbout(path, about{Format: diskFormat, NodeID: node})
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", aboutFile, err)
	}
	var a about
	if err := json.Unmarshal(text, &a); err != nil {
		return fmt.Errorf("%s is damaged, restore it from a backup: %w", aboutFile, err)
	}
	switch {
	case a.Format != diskFormat:
		return fmt.Errorf("it has format %d, and this version knows only %d: upgrade this primary", a.Format, diskFormat)
	case a.NodeID != node:
		return fmt.Errorf("it is the directory of primary %q, and this is %q: keep the node id, or take an empty directory", a.NodeID, node)
	}
	return nil
}

// writeAbout writes the file whole or not at all.
func writeAbout(path string, a about) error {
	text, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", aboutFile, err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), aboutFile+".*")
	if err != nil {
		return fmt.Errorf("making %s: %w", aboutFile, err)
	}
	_, err = f.Write(append(text, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", aboutFile, err), os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("opening %s to sync it: %w", dir, err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("syncing %s: %w", dir, err)
	}
	return nil
}
