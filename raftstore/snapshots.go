package raftstore

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/raft"
)

const (
	snapshotsDir = "snapshots"         // of Raft: a folder for each
	metaFile     = "meta.json"         // in it, of Raft: where in the log it is, and of which group
	sumFile      = "meta.sum"          // in it: the checksum of that
	unfinished   = ".tmp"              // the end of the name of one that is being written
	damagedDir   = "damaged-snapshots" // where those go that are not as they were written
)

// checkedSnapshots are Raft's, each with a checksum of what Raft writes down beside the
// state: Raft has one of the state alone, and would take a changed index, or another
// group, as it stands.
type checkedSnapshots struct {
	raft.SnapshotStore
	dir string // where they are
	log *slog.Logger
}

// Create implements [raft.SnapshotStore].
func (s checkedSnapshots) Create(version raft.SnapshotVersion, index, term uint64,
	group raft.Configuration, groupIndex uint64, t raft.Transport,
) (raft.SnapshotSink, error) {
	sink, err := s.SnapshotStore.Create(version, index, term, group, groupIndex, t)
	if err != nil {
		return nil, err
	}
	return &checkedSink{SnapshotSink: sink, of: s}, nil
}

// checkedSink is a snapshot that is being written.
type checkedSink struct {
	raft.SnapshotSink
	of   checkedSnapshots
	over bool
}

// Cancel implements [raft.SnapshotSink].
func (k *checkedSink) Cancel() error {
	k.over = true
	return k.SnapshotSink.Cancel()
}

// Close implements [raft.SnapshotSink]. One without a checksum is as good as those of
// older versions, so it counts all the same.
func (k *checkedSink) Close() error {
	err := k.SnapshotSink.Close()
	if err != nil || k.over {
		return err
	}
	k.over = true
	if err := writeMetaSum(filepath.Join(k.of.dir, k.ID())); err != nil {
		k.of.log.Warn("a snapshot has no checksum of where it stands in the log", "snapshot", k.ID(), "err", err)
	}
	return nil
}

func writeMetaSum(dir string) error {
	meta, err := os.ReadFile(filepath.Join(dir, metaFile))
	if err != nil {
		return err
	}
	return writeWhole(filepath.Join(dir, sumFile), metaSum(meta))
}

func metaSum(meta []byte) []byte {
	return fmt.Appendf(nil, "crc32c %08x\n", crc32.Checksum(meta, castagnoli))
}

// finished is a snapshot by the name of its folder.
type finished struct {
	name        string
	term, index uint64
	fault       error // why it can't be used; nil: it is as it was written
}

// list returns all that are finished, the newest first.
func (s checkedSnapshots) list() (all []finished, err error) {
	names, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		x := finished{name: n.Name()}
		if !n.IsDir() || strings.HasSuffix(x.name, unfinished) {
			continue
		}
		var msec uint64
		if k, err := fmt.Sscanf(x.name, "%d-%d-%d", &x.term, &x.index, &msec); err != nil || k != 3 {
			continue // not Raft's
		}
		x.fault = s.verify(x)
		all = append(all, x)
	}
	slices.SortFunc(all, func(a, b finished) int {
		return cmp.Or(cmp.Compare(b.term, a.term), cmp.Compare(b.index, a.index), strings.Compare(b.name, a.name))
	})
	return all, nil
}

// verify tells why a snapshot is not as it was written.
func (s checkedSnapshots) verify(x finished) error {
	text, err := os.ReadFile(filepath.Join(s.dir, x.name, metaFile))
	if err != nil {
		return err
	}
	sum, err := os.ReadFile(filepath.Join(s.dir, x.name, sumFile))
	if err == nil && string(sum) != string(metaSum(text)) {
		return fmt.Errorf("%s: %w", metaFile, errAltered)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // an older version wrote it
		return err
	}
	var meta raft.SnapshotMeta
	if err := json.Unmarshal(text, &meta); err != nil {
		return fmt.Errorf("%s: %w", metaFile, err)
	}
	if meta.ID != x.name || meta.Index != x.index || meta.Term != x.term {
		return fmt.Errorf("%s is of snapshot %q, at entry %d of term %d", metaFile, meta.ID, meta.Index, meta.Term)
	}
	_, state, err := s.Open(x.name) // which compares its checksum
	if err != nil {
		return fmt.Errorf("the state: %w", err)
	}
	return state.Close()
}

// settle sees that the state can be restored from what is there, before Raft tries:
// Raft takes an older snapshot in place of one that it can't read, and does not ask
// whether the log goes on from there. It returns up to which entry the log is covered.
// Those that are damaged are put away.
func (s checkedSnapshots) settle(first, last uint64) (covered uint64, err error) {
	if err := s.tidy(); err != nil {
		return 0, err
	}
	all, err := s.list()
	if err != nil {
		return 0, fmt.Errorf("reading the snapshots: %w", err)
	}
	covered, err = coveredBy(all, first, last)
	if err != nil {
		return 0, err
	}
	for _, x := range all {
		if x.fault == nil {
			continue
		}
		s.log.Warn("a snapshot is damaged and put away; the state is there without it", "snapshot", x.name, "in", damagedDir, "err", x.fault)
		if err := s.putAway(x.name); err != nil {
			return 0, fmt.Errorf("putting away snapshot %s: %w", x.name, err)
		}
	}
	return covered, nil
}

// coveredBy returns the index of the newest snapshot that is good. all are the newest
// first. When a newer one is damaged, the log, which holds the entries from first to
// last, has to lead from there to where that one was: this primary has acknowledged as
// much.
func coveredBy(all []finished, first, last uint64) (covered uint64, err error) {
	for _, x := range all {
		if x.fault == nil {
			covered = x.index
			break
		}
	}
	if len(all) == 0 || all[0].fault == nil || first != 0 && first <= covered+1 && last >= all[0].index {
		return covered, nil
	}
	return 0, fmt.Errorf("snapshot %s is damaged: %w, and the log, entries %d to %d, does not make up for it; %s", all[0].name, all[0].fault, first, last, whatToDo)
}

// tidy removes what was being written when the power failed.
func (s checkedSnapshots) tidy() error {
	left, err := filepath.Glob(filepath.Join(s.dir, "*"+unfinished))
	if err != nil {
		return err
	}
	for _, dir := range left {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("removing an unfinished snapshot: %w", err)
		}
	}
	return nil
}

func (s checkedSnapshots) putAway(name string) error {
	away := filepath.Join(filepath.Dir(s.dir), damagedDir)
	if err := os.MkdirAll(away, 0o700); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(s.dir, name), filepath.Join(away, name)); err != nil {
		return err
	}
	return errors.Join(syncDir(away), syncDir(s.dir))
}
