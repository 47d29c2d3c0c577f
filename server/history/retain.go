package history

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

// Retention bounds what is kept. Each primary goes by its own.
type Retention struct {
	RunsPerJob int           // runs kept of each job; as many again that never ran
	Runs       int           // runs kept in all
	Age        time.Duration // how long a run is kept after its end
}

// DefaultRetention is what is kept when nothing else is said.
var DefaultRetention = Retention{RunsPerJob: 20_000, Runs: 1_000_000, Age: 90 * 24 * time.Hour}

// removeBatch is how many runs are removed in one transaction, for which what ends waits.
const removeBatch = 1000

// Sweep removes what is older or more than is to be kept, at now by the leaders'
// clocks, and tells how much that was. Gaps that nobody can fill grow old likewise. The error is [ErrUnavailable], or ctx's.
func (s *Store) Sweep(ctx context.Context, now time.Time) (removed int, err error) {
	for _, find := range []func(context.Context, *sql.DB, time.Time) ([]int64, error){s.tooOld, s.tooManyOfJob, s.tooMany} {
		var serials []int64
		err := s.read(ctx, func(db *sql.DB) (err error) {
			serials, err = find(ctx, db, now)
			return err
		})
		if err != nil {
			return removed, fmt.Errorf("looking for runs that need not be kept: %w", err)
		}
		for len(serials) > 0 {
			n := min(len(serials), removeBatch)
			if err := s.remove(ctx, serials[:n]); err != nil {
				return removed, err
			}
			removed, serials = removed+n, serials[n:]
		}
	}
	return removed, s.retire(ctx, now)
}

// remove takes runs out, by their serial numbers.
func (s *Store) remove(ctx context.Context, serials []int64) error {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.turn }()
	return s.update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		w := newWriter(ctx, tx)
		defer w.close()
		for _, n := range serials {
			var record []byte
			if !w.row([]any{&record}, "SELECT record FROM runs WHERE serial = ?", n) {
				continue // it has made room, or the file is another one
			}
			r, err := unseal(record)
			if err != nil { // nobody could read it; what else is known of it does no harm
				w.exec("DELETE FROM runs WHERE serial = ?", n)
				continue
			}
			w.remove(r)
		}
		return w.err
	})
}

// serials reads serial numbers.
func serials(ctx context.Context, db *sql.DB, query string, args ...any) (list []int64, err error) {
	err = each(ctx, db, func(rows *sql.Rows) error {
		var n int64
		err := rows.Scan(&n)
		list = append(list, n)
		return err
	}, query, args...)
	return list, err
}

func (s *Store) tooOld(ctx context.Context, db *sql.DB, now time.Time) ([]int64, error) {
	return serials(ctx, db, "SELECT serial FROM runs INDEXED BY by_finished WHERE finished < ?", nanos(now.Add(-s.Keep.Age)))
}

func (s *Store) tooMany(ctx context.Context, db *sql.DB, _ time.Time) ([]int64, error) {
	return serials(ctx, db, "SELECT serial FROM runs INDEXED BY by_created ORDER BY created DESC, serial DESC LIMIT -1 OFFSET ?", s.Keep.Runs)
}

// tooManyOfJob finds the jobs by their names first, which the index can count, and
// tells namesakes apart only where there are too many.
func (s *Store) tooManyOfJob(ctx context.Context, db *sql.DB, _ time.Time) (gone []int64, err error) {
	var jobs []string
	err = each(ctx, db, func(rows *sql.Rows) error {
		var job string
		err := rows.Scan(&job)
		jobs = append(jobs, job)
		return err
	}, "SELECT job FROM runs INDEXED BY by_job GROUP BY job HAVING count(*) > ?", s.Keep.RunsPerJob)
	type kind struct {
		uid int64
		ran bool // what was skipped or missed must not drive out what ran
	}
	for _, job := range jobs {
		if err != nil {
			break
		}
		kept := map[kind]int{}
		err = each(ctx, db, func(rows *sql.Rows) error {
			var serial, uid int64
			var phase state.Phase
			if err := rows.Scan(&serial, &uid, &phase); err != nil {
				return err
			}
			k := kind{uid, phase != state.Skipped && phase != state.Missed}
			if kept[k]++; kept[k] > s.Keep.RunsPerJob {
				gone = append(gone, serial)
			}
			return nil
		}, "SELECT serial, uid, phase FROM runs INDEXED BY by_job WHERE job = ? ORDER BY serial DESC", job)
	}
	return gone, err
}
