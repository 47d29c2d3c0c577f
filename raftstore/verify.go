package raftstore

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/hashicorp/raft"
)

// verifyLog reads all entries. Those that a snapshot of this primary covers, up to
// covered, are kept only for others that are a little behind: when one of them is
// damaged, it is cut off with all before it. One behind the snapshot may have been
// acknowledged, and can't be done without. found is told of each, the last one first.
func verifyLog(logs raft.LogStore, covered uint64, found func(*raft.Log), log *slog.Logger) error {
	first, err := logs.FirstIndex()
	if err != nil {
		return err
	}
	last, err := logs.LastIndex()
	if err != nil || last == 0 {
		return err
	}
	for i := last; i >= first; i-- {
		var l raft.Log
		err := logs.GetLog(i, &l)
		switch {
		case err == nil:
			found(&l)
		case i <= covered && errors.Is(err, raft.ErrLogNotFound):
		case i > covered:
			return fmt.Errorf("%w: entry %d, of %d to %d: %w; %s", errDamagedLog, i, first, last, err, whatToDo)
		default:
			log.Warn("a log entry is damaged; it is in the snapshot too, and is deleted with all before it", "index", i, "snapshot_index", covered, "err", err)
			if err := logs.DeleteRange(first, i); err != nil {
				return fmt.Errorf("deleting entries %d to %d of the log: %w", first, i, err)
			}
			return nil
		}
	}
	return nil
}
