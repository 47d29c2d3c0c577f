package history

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

// Query says which runs are wanted: those for which all of it holds. A nil list lets
// all through; an empty one none.
type Query struct {
	Namespaces []string
	Jobs       []string
	Triggers   []string
	Workers    []string // ids or names, of any attempt
	Phases     []state.Phase

	After  time.Time // created after it; zero: whenever
	Before time.Time // created before it; zero: whenever
	Below  uint64    // with a smaller serial number; 0: all
	Limit  int       // the most to return, from 1
}

// allFinal is the phases that a run can be in here.
var allFinal = []state.Phase{
	state.Succeeded, state.Failed, state.TimedOut, state.Cancelled, state.Lost, state.Skipped, state.Missed,
}

// matches tells whether a run is wanted.
func (q *Query) matches(r *state.Run) bool {
	has := func(list []string, v string) bool { return list == nil || slices.Contains(list, v) }
	return has(q.Namespaces, r.Job.Namespace) && has(q.Jobs, r.Job.Name) && has(q.Triggers, r.Trigger) &&
		(q.Phases == nil || slices.Contains(q.Phases, r.Phase)) &&
		(q.Workers == nil || slices.ContainsFunc(workersOf(r), func(w string) bool { return slices.Contains(q.Workers, w) })) &&
		(q.After.IsZero() || r.Created.After(q.After)) && (q.Before.IsZero() || r.Created.Before(q.Before)) &&
		(q.Below == 0 || r.Serial < q.Below)
}

// empty tells whether nothing can match.
func (q *Query) empty() bool {
	for _, list := range [][]string{q.Namespaces, q.Jobs, q.Triggers, q.Workers} {
		if list != nil && len(list) == 0 {
			return true
		}
	}
	return q.Phases != nil && len(q.Phases) == 0
}

// List returns the runs that are wanted, the newest first, and no more than that. When
// there are as many as the limit, go on below the last one's serial number. The
// error is [ErrUnavailable], or ctx's.
func (s *Store) List(ctx context.Context, q Query) ([]*state.Run, error) {
	if q.empty() {
		return nil, nil
	}
	waiting := q.newestOf(s.waiting())
	var written []*state.Run
	err := s.read(ctx, func(db *sql.DB) (err error) {
		written, err = q.find(ctx, db)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listing runs: %w", err)
	}
	return merge(waiting, written, q.Limit), nil
}

// waiting returns all that is not on disk, in no order. Who hands runs over waits
// meanwhile, and with it the state, so they are only taken down.
func (s *Store) waiting() []*state.Run {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.AppendSeq(make([]*state.Run, 0, len(s.queue.runs)), maps.Values(s.queue.runs))
}

// newestOf returns what is wanted of some runs, the newest first, and no more than that.
// It never sorts many more: a load, or a log that is applied again, leaves a hundred
// thousand to choose from.
func (q *Query) newestOf(runs []*state.Run) (found []*state.Run) {
	var least uint64
	for _, r := range runs {
		if r.Serial < least || !q.matches(r) {
			continue
		}
		if found = append(found, r); len(found) == 2*q.Limit {
			slices.SortFunc(found, newestFirst)
			found = found[:q.Limit]
			least = found[q.Limit-1].Serial
		}
	}
	slices.SortFunc(found, newestFirst)
	return found[:min(len(found), q.Limit)]
}

// find returns what is wanted of what is in the file. Where the file says more of a
// number than is so, since another run has taken its place, it looks further.
func (q *Query) find(ctx context.Context, db *sql.DB) (found []*state.Run, err error) {
	conn, err := db.Conn(ctx) // one, so that what is prepared is prepared once
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	lower, upper, err := bounds(ctx, conn, *q)
	for more := true; more && err == nil; {
		var numbers []int64
		if numbers, err = q.newest(ctx, conn, lower, upper); err != nil || len(numbers) == 0 {
			break
		}
		err = each(ctx, conn, func(rows *sql.Rows) error {
			r, err := scan(rows)
			if err == nil && q.matches(r) {
				found = append(found, r)
			}
			return err
		}, "SELECT "+rowColumns+" FROM runs WHERE serial IN ("+numbered(numbers)+") ORDER BY serial DESC")
		upper = numbers[len(numbers)-1]
		more = len(numbers) == q.Limit && len(found) < q.Limit
	}
	return found, err
}

// newest returns the greatest serial numbers, at most so many as are wanted, that the
// file has between two, both excluded. It merges the newest of each list: the more are
// found, the less the next one is asked for.
func (q *Query) newest(ctx context.Context, conn *sql.Conn, lower, upper int64) (numbers []int64, err error) {
	query, keys, rest := q.lists()
	stmt, err := conn.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stmt.Close()) }()
	for _, key := range keys {
		n := len(numbers)
		numbers, err = appendSerials(ctx, stmt, numbers, slices.Concat(key, rest, []any{lower, upper, q.Limit}))
		if err != nil {
			return nil, err
		}
		if len(numbers) == n {
			continue
		}
		slices.SortFunc(numbers, func(a, b int64) int { return cmp.Compare(b, a) })
		numbers = slices.Compact(numbers) // a run may have had two of the workers
		if len(numbers) >= q.Limit {
			numbers = numbers[:q.Limit]
			lower = numbers[q.Limit-1]
		}
	}
	return numbers, nil
}

// appendSerials appends the serial numbers that a statement finds.
func appendSerials(ctx context.Context, stmt *sql.Stmt, numbers []int64, args []any) (_ []int64, err error) {
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var n int64
		if err := rows.Scan(&n); err != nil {
			return nil, err
		}
		numbers = append(numbers, n)
	}
	return numbers, rows.Err()
}

// numbered writes numbers as a list in SQL, which has no bound as that of arguments has.
func numbered(numbers []int64) string {
	var b []byte
	for i, n := range numbers {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, n, 10)
	}
	return string(b)
}

func newestFirst(a, b *state.Run) int { return cmp.Compare(b.Serial, a.Serial) }

// merge returns the newest of both, at most so many. Of a run that is in both, that
// which waits is the later version.
func merge(waiting, written []*state.Run, limit int) []*state.Run {
	var out []*state.Run
	for len(out) < limit && len(waiting)+len(written) > 0 {
		switch {
		case len(written) == 0 || len(waiting) > 0 && waiting[0].Serial > written[0].Serial:
			out, waiting = append(out, waiting[0]), waiting[1:]
		case len(waiting) > 0 && waiting[0].Serial == written[0].Serial:
			written = written[1:]
		default:
			out, written = append(out, written[0]), written[1:]
		}
	}
	return out
}

// scan reads a run from a row.
func scan(rows *sql.Rows) (*state.Run, error) {
	var r row
	if err := rows.Scan(&r.serial, &r.finished, (*sql.RawBytes)(&r.record)); err != nil {
		return nil, err
	}
	return r.run()
}

// bounds returns between which serial numbers, both excluded, lie the runs that were
// created in the time that is wanted: runs are created in their order.
func bounds(ctx context.Context, db *sql.Conn, q Query) (lower, upper int64, err error) {
	lower, upper = -1, int64(q.Below)
	if q.Below == 0 {
		upper = 1<<63 - 1
	}
	find := func(query string, t time.Time) (serial int64, ok bool) {
		if t.IsZero() || err != nil {
			return 0, false
		}
		rowErr := db.QueryRowContext(ctx, query, nanos(t)).Scan(&serial)
		if rowErr == sql.ErrNoRows { //nolint:errorlint // it is never wrapped, and no error here
			return 0, false
		}
		err = rowErr
		return serial, err == nil
	}
	if n, ok := find("SELECT serial FROM runs WHERE created <= ? ORDER BY created DESC, serial DESC LIMIT 1", q.After); ok {
		lower = n
	}
	if n, ok := find("SELECT serial FROM runs WHERE created >= ? ORDER BY created, serial LIMIT 1", q.Before); ok {
		upper = min(upper, n)
	}
	return lower, upper, err
}

// lists returns the query for one sorted list of serial numbers, and the arguments of
// each list that is wanted: a key, what all have alike, and then between which numbers it
// is asked for, and how many. It goes by the index that leaves the fewest runs, with a
// list for each value and phase; what else is asked for is looked at in the rows.
func (q *Query) lists() (query string, keys [][]any, rest []any) {
	phases := q.Phases
	if phases == nil {
		phases = allFinal
	}
	by := func(from, column string, values []string, others []clause) {
		for _, v := range values {
			for _, p := range phases {
				keys = append(keys, []any{v, int(p)})
			}
		}
		query, rest = listOf(from, column+" = ? AND phase = ?", others)
	}
	namespace, job, trigger := in("namespace", q.Namespaces), in("job", q.Jobs), in("trigger", q.Triggers)
	switch {
	case q.Workers != nil && (q.Jobs == nil || len(q.Workers) < len(q.Jobs)): // one job has fewer runs than one worker
		by("workers", "worker", q.Workers, q.within(slices.Concat(namespace, job, trigger)))
	case q.Jobs != nil:
		by("runs INDEXED BY by_job", "job", q.Jobs, slices.Concat(namespace, trigger, q.had()))
	case q.Namespaces != nil:
		by("runs INDEXED BY by_namespace", "namespace", q.Namespaces, trigger)
	case q.Phases != nil:
		for _, p := range phases {
			keys = append(keys, []any{int(p)})
		}
		query, rest = listOf("runs INDEXED BY by_phase", "phase = ?", trigger)
	default:
		keys = [][]any{nil}
		query, rest = listOf("runs NOT INDEXED", "", trigger)
	}
	return query, keys, rest
}

// listOf returns the query for a sorted list of what a key finds, and for which all else
// holds.
func listOf(from, key string, others []clause) (query string, rest []any) {
	if key != "" {
		others = append([]clause{{text: key}}, others...)
	}
	text, rest := join(append(others, clause{text: "serial > ? AND serial < ?"}))
	return "SELECT serial FROM " + from + " WHERE " + text + " ORDER BY serial DESC LIMIT ?", rest
}

// had asks of a run that one of the workers had it.
func (q *Query) had() []clause {
	if q.Workers == nil {
		return nil
	}
	text, args := join(in("worker", q.Workers))
	return []clause{{"EXISTS (SELECT 1 FROM workers w WHERE w." + text + " AND w.phase = runs.phase AND w.serial = runs.serial)", args}}
}

// within asks of the number of a run that the run is so.
func (q *Query) within(rest []clause) []clause {
	if len(rest) == 0 {
		return nil
	}
	text, args := join(rest)
	return []clause{{"EXISTS (SELECT 1 FROM runs WHERE runs.serial = workers.serial AND " + text + ")", args}}
}

// clause is a condition in SQL.
type clause struct {
	text string
	args []any
}

// in asks that a column has one of some values; nil: any.
func in(column string, values []string) []clause {
	if values == nil {
		return nil
	}
	c := clause{text: column + " IN (" + strings.Repeat("?, ", len(values)-1) + "?)"}
	for _, v := range values {
		c.args = append(c.args, v)
	}
	return []clause{c}
}

// join asks for all of some conditions.
func join(clauses []clause) (text string, args []any) {
	texts := make([]string, len(clauses))
	for i, c := range clauses {
		texts[i] = c.text
		args = append(args, c.args...)
	}
	return strings.Join(texts, " AND "), args
}
