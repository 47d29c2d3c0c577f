package raftstore

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"

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
	guard     *guard         // logs and stable, once the disk is open
	closers   []func() error // in the order of opening
	health    health         // of the log
	size      *logSize       // likewise
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
		err = d.open(c)
	}
	if err == nil {
		d.size = newLogSize()
		d.logs = sizedLogs{d.logs, d.size}
		d.guard = newGuard(d.logs, d.stable, &d.health)
		d.closers = append(d.closers, d.guard.close)
		err = d.guard.during(func() error { return d.verify(c.Log) })
		d.logs, d.stable = d.guard, d.guard
	}
	if err != nil && c.Memory == nil {
		err = fmt.Errorf("opening the store in %s: %w", c.Dir, err)
	}
	if err != nil && d != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, err
}

// verify sees that what is on the disk is what was written there, as far as that can be
// told, before any of it is used.
func (d *disk) verify(log *slog.Logger) error {
	logs := sealedLogs{d.logs}
	for _, key := range raftValues {
		if _, err := (sealedStable{d.stable}).Get([]byte(key)); errors.Is(err, errAltered) {
			return fmt.Errorf("%w: %w; %s", errDamagedLog, err, whatToDo)
		}
	}
	first, err := logs.FirstIndex()
	if err != nil {
		return fmt.Errorf("finding the beginning of the log: %w", err)
	}
	last, err := logs.LastIndex()
	if err != nil {
		return fmt.Errorf("finding the end of the log: %w", err)
	}
	covered := uint64(0)
	if s, ok := d.snapshots.(checkedSnapshots); ok {
		covered, err = s.settle(first, last)
	} else if all, lerr := d.snapshots.List(); len(all) > 0 {
		covered, err = all[0].Index, lerr
	}
	if err != nil {
		return err
	}
	return verifyLog(logs, covered, d.size.found, log)
}

// raftValues are what Raft keeps beside the log, by its own names for them.
var raftValues = []string{"CurrentTerm", "LastVoteTerm", "LastVoteCand"}

func (d *disk) open(c Config) error {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("making the directory: %w", err)
	}
	unlock, err := lockDir(c.Dir)
	if err != nil {
		return err
	}
	d.closers = append(d.closers, unlock)
	if err := checkAbout(c.Dir, c.NodeID); err != nil {
		return err
	}
	db, err := openBolt(filepath.Join(c.Dir, raftDBFile))
	if err != nil {
		return err
	}
	d.closers = append(d.closers, func() error {
		if d.guard != nil && d.guard.panicked.Load() {
			return nil // it would wait for its own locks; the end of the program closes it
		}
		return db.Close()
	})
	d.logs, d.stable = db, db
	if err := makeRoom(filepath.Join(c.Dir, raftDBFile), c.Room); err != nil {
		return err
	}
	if err := noteLog(c.Dir, c.NodeID); err != nil {
		return err
	}
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(c.Dir, keptSnapshots, newRaftLog(c.Log))
	if err != nil {
		return fmt.Errorf("opening the snapshots: %w", err)
	}
	d.snapshots = checkedSnapshots{snapshots, filepath.Join(c.Dir, snapshotsDir), c.Log}
	return syncDir(c.Dir)
}

// lockDir sees that no other process uses the directory of a primary, until it is unlocked.
func lockDir(dir string) (unlock func() error, err error) {
	lock := flock.New(filepath.Join(dir, lockFile), flock.SetPermissions(0o600))
	switch ok, err := lock.TryLock(); {
	case err != nil:
		return nil, fmt.Errorf("locking it: %w", err)
	case !ok:
		return nil, errors.New("another process uses it: stop that one first, or give this one a directory of its own")
	}
	return lock.Close, nil
}

// openBolt opens the log. The list of free pages is not kept on disk: writing it
// with each entry costs more than looking for them once.
func openBolt(path string) (db *raftboltdb.BoltStore, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = damagedLog(path, fmt.Errorf("%v", p))
		}
	}()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // the file is mapped into memory
	if err := verifyBolt(path); err != nil {
		return nil, damagedLog(path, err)
	}
	db, err = raftboltdb.New(raftboltdb.Options{
		Path:                    path,
		BoltOptions:             &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, Timeout: boltPatience},
		MsgpackUseNewTimeFormat: true,
	})
	if err != nil {
		return nil, damagedLog(path, err)
	}
	return db, nil
}

// damagedLog is why the log can't be opened. What the system says of the file tells
// nothing of what is in it.
func damagedLog(path string, err error) error {
	if _, ok := errors.AsType[syscall.Errno](err); ok {
		return fmt.Errorf("opening the log %s: %w", filepath.Base(path), err)
	}
	return fmt.Errorf("the log %s can't be read: %w; %s", filepath.Base(path), err, whatToDo)
}

// about says whose directory it is.
type about struct {
	Format int    `json:"format"`
	NodeID string `json:"node_id"`
	Log    bool   `json:"log,omitempty"` // there is a log: were it gone, so would be its votes
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
	info, err := os.Stat(filepath.Join(dir, raftDBFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("looking at %s: %w", raftDBFile, err)
	}
	switch {
	case a.Format != diskFormat:
		return fmt.Errorf("it has format %d, and this version knows only %d: upgrade this primary", a.Format, diskFormat)
	case a.NodeID != node:
		return fmt.Errorf("it is the directory of primary %q, and this is %q: keep the node id, or take an empty directory", a.NodeID, node)
	case a.Log && (err != nil || info.Size() == 0):
		return fmt.Errorf("%s is missing or empty, and was there before; %s", raftDBFile, whatToDo)
	}
	return nil
}

// noteLog takes note that there is a log from now on.
func noteLog(dir, node string) error {
	path := filepath.Join(dir, aboutFile)
	want := about{Format: diskFormat, NodeID: node, Log: true}
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading %s: %w", aboutFile, err)
	}
	var a about
	if err := json.Unmarshal(text, &a); err != nil || a == want {
		return err
	}
	return writeAbout(path, want)
}

func writeAbout(path string, a about) error {
	text, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", aboutFile, err)
	}
	return writeWhole(path, append(text, '\n'))
}

// writeWhole writes a file whole or not at all.
func writeWhole(path string, data []byte) error {
	name := filepath.Base(path)
	f, err := os.CreateTemp(filepath.Dir(path), name+".*")
	if err != nil {
		return fmt.Errorf("making %s: %w", name, err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", name, err), os.Remove(f.Name()))
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
