package raftstore

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"
)

// Recover makes the data of this primary that of a group of these, after most of
// the group that it was in are lost for ever. nil: itself alone, at c.Address. It is
// called while the primary is stopped, and locks its directory.
//
// It is the last resort. What the others had agreed on and this one had not yet
// learned of is lost; what this one had in its log and nobody had agreed on counts
// as agreed. When several survive, take the one whose log goes furthest, see
// [LogEnd], and start the others anew with empty data; one of the old group that
// came back would disagree.
func Recover(c Config, group []Server) error {
	if group == nil {
		group = []Server{{ID: c.NodeID, Address: cmp.Or(c.Address, c.NodeID), Voter: true}}
	}
	if find(group, c.NodeID) == nil {
		return fmt.Errorf("recovering primary %q: it has to be in the group itself", c.NodeID)
	}
	d, err := openStopped(c)
	if err != nil {
		return fmt.Errorf("recovering primary %q: %w", c.NodeID, err)
	}
	err = d.guard.during(func() error { return d.recover(c, group) })
	if err := errors.Join(err, d.close()); err != nil {
		return fmt.Errorf("recovering primary %q: %w", c.NodeID, err)
	}
	return nil
}

// LogEnd returns the term and the index of the last entry in the log of a primary
// that is stopped; it locks the directory meanwhile. Of two logs of one group the
// one with the greater term goes further, and in the same term the one with the
// greater index: whatever the group had agreed on is in the one that goes furthest
// of a majority.
func LogEnd(c Config) (term, index uint64, err error) {
	d, err := openStopped(c)
	if err != nil {
		return 0, 0, fmt.Errorf("looking at the log of primary %q: %w", c.NodeID, err)
	}
	err = d.guard.during(func() (err error) { term, index, err = d.logEnd(); return err })
	if err := errors.Join(err, d.close()); err != nil {
		return 0, 0, fmt.Errorf("looking at the log of primary %q: %w", c.NodeID, err)
	}
	return term, index, nil
}

// WhileStopped calls f, which is about what is kept beside the store in dir, while no
// primary can be started on it. The directory has to be that of a primary, which is stopped.
func WhileStopped(dir string, f func() error) error {
	if err := holdsData(dir); err != nil {
		return err
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return fmt.Errorf("the data of a primary in %s: %w", dir, err)
	}
	return errors.Join(f(), unlock())
}

// holdsData tells whether dir is the directory of a primary.
func holdsData(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, raftDBFile)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s holds no data of a primary", dir)
	}
	return nil
}

// openStopped opens the disk of a primary that is stopped and was one before:
// opening would make a directory that is missing.
func openStopped(c Config) (*disk, error) {
	if c.NodeID == "" || c.Log == nil || c.Dir == "" && c.Memory == nil {
		return nil, errors.New("it needs a NodeID, a Log, and a Dir or a Memory")
	}
	if c.Memory == nil {
		if err := holdsData(c.Dir); err != nil {
			return nil, err
		}
	}
	return openDisk(c)
}

// logEnd looks at the log, and at the last snapshot when there is nothing after it.
func (d *disk) logEnd() (term, index uint64, err error) {
	all, err := d.snapshots.List()
	if err != nil {
		return 0, 0, err
	}
	for _, s := range all {
		term, index = max(term, s.Term), max(index, s.Index)
	}
	last, err := d.logs.LastIndex()
	if err != nil || last <= index {
		return term, index, err
	}
	var entry raft.Log
	if err := d.logs.GetLog(last, &entry); err != nil {
		return 0, 0, fmt.Errorf("entry %d: %w", last, err)
	}
	return entry.Term, last, nil
}

// recover has Raft do it, which panics when the log is not as it left it.
func (d *disk) recover(c Config, group []Server) error {
	f := recovering{newFSM(c, func(error) {})}
	_, t := raft.NewInmemTransport(raft.ServerAddress(c.NodeID))
	err := raft.RecoverCluster(c.raft(), f, d.logs, d.stable, d.snapshots, t, toRaft(group))
	return errors.Join(err, f.restoreErr)
}

// recovering is a state that was recovered to the end of the log.
type recovering struct{ *fsm }

// Snapshot implements [raft.FSM]. When the log ends with parts of a snapshot that
// was being restored, nobody will go on with it.
func (r recovering) Snapshot() (raft.FSMSnapshot, error) {
	r.mu.Lock()
	r.incoming = nil
	r.mu.Unlock()
	return r.fsm.Snapshot()
}
