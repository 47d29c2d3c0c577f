package history

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

// byID asks for the row of a run.
const byID = "SELECT " + rowColumns + " FROM runs WHERE id = ?"

// Run returns the run of that id, nil when there is none. The error is
// [ErrUnavailable], also when it may be one of those that the history still lacks,
// [state.ErrLost] when it may be one that nobody has any more, or ctx's.
func (s *Store) Run(ctx context.Context, id state.RunID) (r *state.Run, err error) {
	s.mu.Lock()
	r = s.queue.runs[id]
	s.mu.Unlock()
	if r != nil {
		return r, nil
	}
	err = s.read(ctx, func(db *sql.DB) error {
		var found row
		switch err := db.QueryRowContext(ctx, byID, id[:]).Scan(&found.serial, &found.finished, &found.record); {
		case errors.Is(err, sql.ErrNoRows):
			if why := s.Missing(); why != "" {
				return errors.New(why)
			}
			return nil
		case err != nil:
			return err
		}
		if r, err = found.run(); err == nil && r.ID != id {
			r, err = nil, &alteredError{found.serial, []time.Time{instant(found.finished)}, errMisplaced}
		}
		return err
	})
	if why := s.Lost(time.Time{}); err == nil && r == nil && why != "" {
		err = fmt.Errorf("it is not known, and %w: %s", state.ErrLost, why)
	}
	if err != nil {
		return nil, fmt.Errorf("looking for run %v: %w", id, err)
	}
	return r, nil
}

// Runs returns those of the runs that are here, by id. The error is [ErrUnavailable], or
// ctx's.
func (s *Store) Runs(ctx context.Context, ids []state.RunID) (map[state.RunID]*state.Run, error) {
	found := make(map[state.RunID]*state.Run, len(ids))
	s.mu.Lock()
	for _, id := range ids {
		if r := s.queue.runs[id]; r != nil {
			found[id] = r
		}
	}
	s.mu.Unlock()
	err := s.read(ctx, func(db *sql.DB) (err error) {
		stmt, err := db.PrepareContext(ctx, byID)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stmt.Close()) }()
		for _, id := range ids {
			var is row
			switch err := stmt.QueryRowContext(ctx, id[:]).Scan(&is.serial, &is.finished, &is.record); {
			case errors.Is(err, sql.ErrNoRows) || err == nil && found[id] != nil:
				continue
			case err != nil:
				return err
			}
			if found[id], err = is.run(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("looking for %d runs: %w", len(ids), err)
	}
	return found, nil
}

// Count returns how many runs are on disk. It takes longer the more there are, up to a
// second. The error is [ErrUnavailable], or ctx's.
func (s *Store) Count(ctx context.Context) (n int64, err error) {
	err = s.read(ctx, func(db *sql.DB) error {
		return db.QueryRowContext(ctx, "SELECT count(*) FROM runs INDEXED BY by_phase").Scan(&n)
	})
	if err != nil {
		return 0, fmt.Errorf("counting runs: %w", err)
	}
	return n, nil
}

// read calls f with the file.
func (s *Store) read(ctx context.Context, f func(*sql.DB) error) error {
	db, err := s.handle()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	err = f(db.read)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	s.suspect(err)
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}
