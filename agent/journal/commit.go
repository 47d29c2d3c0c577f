package journal

import (
	"errors"
	"fmt"
	"maps"
	"syscall"
)

// commit writes what is queued, as one batch with one fsync, if anybody waits for
// that, and answers. The caller has the turn.
func (j *Journal) commit() {
	batch := j.dequeue()
	if len(batch) == 0 {
		return
	}
	err := j.failed
	if err == nil {
		err = j.write(batch)
	}
	for _, r := range batch {
		if err != nil {
			// A refusal may rest on a record of this same batch, which is
			// not there now.
			r.err = err
		}
		r.done <- r.err
	}
	j.compactIfDue()
}

// write checks each request of the batch, in order, against what is known and
// what the batch adds to it, and makes the good ones durable.
func (j *Journal) write(batch []*request) error {
	known := layer{below: j.table, slots: map[Key]slot{}}
	var recs []*Record
	sync := false
	for _, r := range batch {
		mine, apart := known, len(batch) > 1 && len(r.recs) > 1 // else what is refused leaves nothing that anybody sees
		if apart {
			mine = layer{below: known, slots: map[Key]slot{}}
		}
		if r.err = mine.add(r.recs, j.table.floor); r.err == nil {
			if apart {
				maps.Copy(known.slots, mine.slots)
			}
			recs = append(recs, r.recs...)
			sync = sync || r.isSynced()
		}
	}
	if err := j.flush(recs, sync); err != nil {
		return err
	}
	for _, r := range recs {
		j.table.apply(r)
	}
	if j.compacting {
		j.since = append(j.since, recs...)
	}
	return nil
}

// flush appends recs to the file, and syncs it if that is asked for and there is
// anything to sync, or has not been done for long.
func (j *Journal) flush(recs []*Record, sync bool) error {
	size := j.size
	if len(recs) > 0 {
		buf := encodeBatch(recs, j.size, j.synced, j.table.high)
		if err := j.put(buf); err != nil {
			return err
		}
		size += int64(len(buf))
	}
	if size > j.synced && (sync || size-j.synced > maxBatch) {
		if err := j.file.Sync(); err != nil {
			// The kernel may have dropped the pages and forgotten the error, so
			// that a second fsync would succeed without having written them.
			return j.fail(fmt.Errorf("sync journal %q: %w", j.path, err))
		}
		j.synced = size
	}
	j.size = size
	return nil
}

// writeAll writes buf behind the last record.
func (j *Journal) writeAll(buf []byte) error {
	n, err := j.file.WriteAt(buf, j.size)
	if err == nil {
		j.length = max(j.length, j.size+int64(len(buf)))
		return nil
	}
	err = fmt.Errorf("write %d bytes to journal %q: %w", len(buf), j.path, err)
	if !full(err) {
		return j.fail(err)
	}
	if n == 0 { // nothing to take off, as on a disk that was made read-only
		return err
	}
	// What was written of buf is not on record; take it off for good, so
	// that no crash brings back a record whose call has failed.
	terr := j.file.Truncate(j.size)
	if terr == nil {
		terr = j.file.Sync()
	}
	if terr != nil {
		return j.fail(errors.Join(err, fmt.Errorf("cut journal %q back to %d bytes: %w", j.path, j.size, terr)))
	}
	j.synced, j.length = j.size, j.size
	return err
}

// fail ends the journal with its first error.
func (j *Journal) fail(err error) error {
	if j.failed == nil {
		j.failed = fmt.Errorf("journal has failed; check the disk, then restart the worker: %w", err)
	}
	return j.failed
}

// full tells whether an error of a write says that there is no room, or that the disk
// was made read-only: what was not written can be written later.
func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EROFS)
}

// Probe finds out whether the disk takes records: it writes one that says nothing new,
// and returns as Append does when that is on the disk.
func (j *Journal) Probe() error {
	j.turn <- struct{}{}
	defer func() { <-j.turn }()
	j.mu.Lock()
	closed := j.closed
	j.mu.Unlock()
	switch {
	case closed:
		return ErrClosed
	case j.failed != nil:
		return j.failed
	}
	// A rewrite of the file that is under way ends with just such a record.
	err := j.flush([]*Record{{Kind: floor, Fence: j.table.floor}}, true)
	j.compactIfDue()
	return err
}
