package history

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"slices"

	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
)

// outputPage is of how many runs [Store.Outputs] tells at a time.
const outputPage = 1000

// Outputs calls f with what is known of the output of all attempts, that of the newest runs
// on disk first, some at a time, until it returns false. What is told is told once: f may
// keep nothing of the list. The error is [ErrUnavailable], or ctx's.
func (s *Store) Outputs(ctx context.Context, f func([]raftstore.Output) bool) error {
	var page []raftstore.Output
	for some := range slices.Chunk(s.waiting(), outputPage) {
		if page = appendOutputs(page[:0], some); len(page) > 0 && !f(page) {
			return nil
		}
	}
	for below, more := int64(math.MaxInt64), true; more; {
		page, more = page[:0], false
		err := s.read(ctx, func(db *sql.DB) error {
			return each(ctx, db, func(rows *sql.Rows) (err error) {
				var r row
				if err := rows.Scan(&r.serial, &r.finished, (*sql.RawBytes)(&r.record)); err != nil {
					return err
				}
				more, below = true, r.serial
				page, err = r.appendOutputs(page)
				return err
			}, "SELECT "+rowColumns+" FROM runs WHERE serial < ? ORDER BY serial DESC LIMIT ?", below, outputPage)
		})
		if err != nil {
			return fmt.Errorf("looking for output: %w", err)
		}
		if len(page) > 0 && !f(page) {
			return nil
		}
	}
	return nil
}

// appendOutputs appends what runs that are in memory say of output.
func appendOutputs(list []raftstore.Output, runs []*state.Run) []raftstore.Output {
	for _, r := range runs {
		for i := range r.Attempts {
			list = append(list, raftstore.OutputOf(r.ID, &r.Attempts[i]))
		}
	}
	return list
}
