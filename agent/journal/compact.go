package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// compactMin is the size from which a file is worth rewriting.
const compactMin = 1 << 20

// compactIfDue starts a rewrite when more than half of a large file is dead.
// The caller has the turn.
func (j *Journal) compactIfDue() {
	if j.compacting || j.failed != nil || j.size <= max(j.compactMin, j.notBefore) || 2*j.table.live >= j.size {
		return
	}
	j.mu.Lock()
	closed := j.closed
	j.mu.Unlock()
	if closed {
		return
	}
	j.compacting, j.since = true, nil
	recs, high := j.table.records(), j.table.high
	j.wg.Go(func() { j.compact(recs, high) })
}

// compact rewrites the file with recs, while others append to the old one, and
// then takes the turn for as long as it takes to add what they appended.
func (j *Journal) compact(recs []*Record, high uint64) {
	f, size, err := rewrite(j.disk, j.temp(), recs, high)
	j.turn <- struct{}{}
	defer func() { <-j.turn }()
	before := j.size
	if err == nil {
		err = j.replace(f, size)
	}
	j.compacting, j.since = false, nil
	if err != nil {
		// The old file is as good as before, only larger than it need be.
		j.notBefore = 2 * before
		j.log.Warn("journal not compacted; the old file stays in use", "path", j.path, "bytes", before, "err", err)
		return
	}
	j.log.Debug("journal compacted", "path", j.path, "bytes", j.size, "bytes_before", before)
}

// rewrite makes the file name with recs, as one batch, and returns its size.
func rewrite(d disk, name string, recs []*Record, high uint64) (file, int64, error) {
	data := append(encodeHeader(), encodeBatch(recs, headerLen, headerLen, high)...)
	f, err := create(d, name, os.O_TRUNC, data)
	if err != nil {
		// On a full disk what was written so far must not stay in the way.
		return nil, 0, errors.Join(err, removeTemp(d, name))
	}
	return f, int64(len(data)), nil
}

// replace adds to f, which has size bytes, what the journal knows beyond it, and
// puts it in the place of the journal's file. It owns f. The caller has the
// turn.
//
// Each step leaves a whole journal under the name: the old file until the
// rename, and after it one that is complete and synced.
func (j *Journal) replace(f file, size int64) error {
	tail := encodeBatch(j.since, size, size, j.table.high)
	// The end is a batch of its own, so that no damage before it looks torn.
	end := &Record{Kind: floor, Fence: j.table.floor}
	at := size + int64(len(tail))
	tail = append(tail, encodeBatch([]*Record{end}, at, at, j.table.high)...)

	err := j.failed
	if err == nil {
		_, err = f.WriteAt(tail, size)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = j.disk.rename(j.temp(), j.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("replace journal %q: %w", j.path, err), f.Close(), removeTemp(j.disk, j.temp()))
	}
	old := j.file
	j.file, j.size = f, size+int64(len(tail))
	j.synced, j.length, j.step = j.size, j.size, j.disk.step()
	if err := j.disk.syncDir(filepath.Dir(j.path)); err != nil {
		// After a crash the name may lead to the old file again, which lacks
		// all that would be appended from now on.
		return errors.Join(j.fail(fmt.Errorf("sync directory of journal %q: %w", j.path, err)), old.Close())
	}
	if err := old.Close(); err != nil {
		j.log.Warn("old journal file not closed", "path", j.path, "err", err)
	}
	return nil
}

func (j *Journal) temp() string { return j.path + ".tmp" }

// removeTemp removes what a compaction left behind when it was interrupted.
func removeTemp(d disk, name string) error {
	if err := d.remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove unfinished journal %q: %w", name, err)
	}
	return nil
}
