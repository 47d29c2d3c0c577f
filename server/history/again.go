package history

import (
	"context"
	"database/sql"
	"errors"

	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
)

// again returns how many items, from the first on, are of no later point than from, and
// which of their runs ended last; nil: they have none. After a start the log is applied
// again from the last snapshot on, and most of what that hands over is on disk. It is pure.
func again(from raftstore.Point, items []item) (n int, latest *state.Run) {
	last := latest
	for i, it := range items {
		switch {
		case it.run != nil:
			if last == nil || !it.run.Finished.Before(last.Finished) {
				last = it.run
			}
			continue
		case it.undone != 0, it.at.Index > from.Index, it.at.Now.After(from.Now), it.at.Cluster != "" && it.at.Cluster != from.Cluster:
			return n, latest
		}
		n, latest = i+1, last
	}
	return n, latest
}

// holds tells whether a run is in the file as it is, or as it became later. Where the
// latest of some runs is, there are all that came before it: a log that was put in the
// place of another goes on at another time, so that no run of it ended at the same.
func (s *Store) holds(ctx context.Context, r *state.Run) (is bool, err error) {
	if r == nil {
		return true, nil
	}
	err = s.read(ctx, func(db *sql.DB) error {
		var serial, finished, late int64
		err := db.QueryRowContext(ctx, "SELECT serial, finished, late FROM runs WHERE id = ?", r.ID[:]).Scan(&serial, &finished, &late)
		is = err == nil && serial == int64(r.Serial) && finished == nanos(r.Finished) && late >= lateResults(r)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	return is, err
}

// pass takes out of the queue what was handed over again and is on disk, without writing
// it again, and tells whether there was any. A history that may lack something takes all
// that it can get.
func (s *Store) pass(ctx context.Context) (passed bool, err error) {
	s.mu.Lock()
	from := s.kept
	n, latest := again(from, s.queue.items)
	done := raftstore.Point{}
	if n > 0 {
		done = s.queue.items[n-1].at
	}
	whole := len(s.gaps) == 0 && len(s.altered) == 0 && !s.copy
	s.mu.Unlock()
	if n == 0 || !whole {
		return false, nil
	}
	is, err := s.holds(ctx, latest)
	if err != nil || !is {
		return false, err
	}
	s.taken(n, from, done, nil)
	return true, nil
}
