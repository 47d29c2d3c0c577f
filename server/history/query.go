package history

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
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
	s.mu.Lock()
	var waiting []*state.Run
	for _, r := range s.queue.runs {
		if q.matches(r) {
			waiting = append(waiting, r)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(waiting, newestFirst)

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

// find returns what is wanted of what is in the file. Where the file says more of a
// number than is so, since another run has taken its place, it looks further.
func (q *Query) find(ctx context.Context, db *sql.DB) (found []*state.Run, err error) {
	lower, upper, err := bounds(ctx, db, *q)
	for more := true; more && err == nil; {
		query, args := q.sql(lower, upper)
		n := 0
		err = each(ctx, db, func(rows *sql.Rows) error {
			r, err := scan(rows)
			if err != nil {
				return err
			}
			n, upper = n+1, int64(r.Serial)
			if q.matches(r) {
				found = append(found, r)
			}
			return nil
		}, query, args...)
		more = n == q.Limit && len(found) < q.Limit
	}
	return found, err
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
func bounds(ctx context.Context, db *sql.DB, q Query) (lower, upper int64, err error) {
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

// maxLists bounds the sorted lists that one query merges.
const maxLists = 100

// sql returns the query for what lies between two serial numbers. It goes by the
// index that leaves the fewest runs, once for each value and phase that is wanted, and
// merges the newest of each; what else is asked for is looked at in the rows.
func (q *Query) sql(lower, upper int64) (query string, args []any) {
	phases := q.Phases
	if phases == nil {
		phases = allFinal
	}
	fits := func(list []string) bool { return list != nil && len(list)*len(phases) <= maxLists }
	var lists []string
	list := func(from string, rest []clause, limit int) {
		text, a := join(append(rest, clause{"serial > ? AND serial < ?", []any{lower, upper}}))
		lists = append(lists, fmt.Sprintf("SELECT * FROM (SELECT serial FROM %s WHERE %s ORDER BY serial DESC LIMIT %d)", from, text, limit))
		args = append(args, a...)
	}
	by := func(from, column string, values []string, rest []clause, limit int) {
		for _, v := range values {
			for _, p := range phases {
				list(from, append([]clause{{column + " = ? AND phase = ?", []any{v, int(p)}}}, rest...), limit)
			}
		}
	}
	namespace, job, trigger := in("namespace", q.Namespaces), in("job", q.Jobs), in("trigger", q.Triggers)
	switch {
	case fits(q.Jobs):
		by("runs INDEXED BY by_job", "job", q.Jobs, slices.Concat(namespace, trigger, q.had()), q.Limit)
	case fits(q.Workers):
		by("workers", "worker", q.Workers, q.within(slices.Concat(namespace, job, trigger)), q.Limit)
	case q.Phases != nil && !fits(q.Namespaces):
		for _, p := range phases {
			list("runs INDEXED BY by_phase", slices.Concat([]clause{{"phase = ?", []any{int(p)}}}, namespace, job, trigger, q.had()), q.Limit)
		}
	case fits(q.Namespaces):
		by("runs INDEXED BY by_namespace", "namespace", q.Namespaces, slices.Concat(job, trigger, q.had()), q.Limit)
	default:
		list("runs NOT INDEXED", slices.Concat(namespace, job, trigger, q.had()), q.Limit)
	}
	newest := strings.Join(lists, " UNION ")
	query = fmt.Sprintf("SELECT "+rowColumns+" FROM runs WHERE serial IN (SELECT serial FROM (%s) ORDER BY serial DESC LIMIT %d) ORDER BY serial DESC", newest, q.Limit)
	return query, args
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
