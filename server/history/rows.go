package history

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"slices"

	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
)

// writer writes rows in one transaction. After an error it does nothing.
type writer struct {
	ctx   context.Context //nolint:containedctx // lives for one call
	tx    *sql.Tx
	ready map[string]*sql.Stmt
	err   error
}

func newWriter(ctx context.Context, tx *sql.Tx) *writer {
	return &writer{ctx: ctx, tx: tx, ready: map[string]*sql.Stmt{}}
}

func (w *writer) close() {
	for _, stmt := range w.ready {
		if err := stmt.Close(); w.err == nil {
			w.err = err
		}
	}
}

// statement returns a statement that is parsed once.
func (w *writer) statement(query string) *sql.Stmt {
	if stmt := w.ready[query]; stmt != nil || w.err != nil {
		return stmt
	}
	stmt, err := w.tx.PrepareContext(w.ctx, query)
	if err != nil {
		w.err = err
		return nil
	}
	w.ready[query] = stmt
	return stmt
}

// exec tells how many rows were changed.
func (w *writer) exec(query string, args ...any) (changed int64) {
	stmt := w.statement(query)
	if w.err != nil {
		return 0
	}
	result, err := stmt.ExecContext(w.ctx, args...)
	if err == nil {
		changed, err = result.RowsAffected()
	}
	w.err = err
	return changed
}

// row reads one row, and tells whether there is one.
func (w *writer) row(into []any, query string, args ...any) bool {
	stmt := w.statement(query)
	if w.err != nil {
		return false
	}
	err := stmt.QueryRowContext(w.ctx, args...).Scan(into...)
	if errors.Is(err, sql.ErrNoRows) {
		return false
	}
	w.err = err
	return err == nil
}

// put puts a run where it belongs, unless it is there already, as it is or as it
// became later. One that has its number or its id and is another one, or ended at
// another time, has no place in this life of the cluster, and makes room.
//
// Nearly all are new. To find that out by trying costs a third less than to look first,
// and to replace whatever is in the way needs a journal of its own, for each row.
func (w *writer) put(r *state.Run) {
	if w.insert("INSERT OR IGNORE", r) || w.err != nil {
		return
	}
	var serial, finished, late int64
	if w.row([]any{&serial, &finished, &late}, "SELECT serial, finished, late FROM runs WHERE id = ?", r.ID[:]) &&
		serial == int64(r.Serial) && finished == nanos(r.Finished) && late >= lateResults(r) {
		return
	}
	w.insert("INSERT OR REPLACE", r)
}

// undo takes out what was born after a serial number.
func (w *writer) undo(after uint64) {
	w.exec("DELETE FROM runs WHERE serial > ?", int64(after))
	w.exec("DELETE FROM workers WHERE serial > ?", int64(after))
}

// fill puts a run there which another primary gave, unless its place is taken: what
// this primary saw itself counts.
func (w *writer) fill(r *state.Run) {
	var serial, late int64
	if w.row([]any{&serial, &late}, "SELECT serial, late FROM runs WHERE id = ?", r.ID[:]) && (serial != int64(r.Serial) || late >= lateResults(r)) {
		return
	}
	var id []byte
	if w.row([]any{&id}, "SELECT id FROM runs WHERE serial = ?", int64(r.Serial)) && string(id) != string(r.ID[:]) {
		return
	}
	w.insert("INSERT OR REPLACE", r)
}

// insert puts a run in by a verb that says what to do with those that are in its place,
// and tells whether it is there now.
func (w *writer) insert(verb string, r *state.Run) bool {
	record, err := raftstore.EncodeRun(r)
	if err != nil {
		w.err = cmp.Or(w.err, err)
		return false
	}
	if w.exec(verb+" INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		int64(r.Serial), r.ID[:], int64(r.UID), r.Job.Namespace, r.Job.Name, r.Trigger, int(r.Phase),
		nanos(r.Created), nanos(r.Finished), lateResults(r), seal(record)) == 0 {
		return false
	}
	for _, name := range workersOf(r) {
		w.exec("INSERT OR IGNORE INTO workers VALUES (?, ?, ?)", name, int(r.Phase), int64(r.Serial))
	}
	return w.err == nil
}

// remove takes a run out.
func (w *writer) remove(r *state.Run) {
	w.exec("DELETE FROM runs WHERE serial = ?", int64(r.Serial))
	for _, name := range workersOf(r) {
		w.exec("DELETE FROM workers WHERE worker = ? AND phase = ? AND serial = ?", name, int(r.Phase), int64(r.Serial))
	}
}

// setGaps replaces what the history may lack.
func (w *writer) setGaps(gaps []Gap) {
	w.exec("DELETE FROM gaps")
	for _, g := range gaps {
		w.exec("INSERT INTO gaps VALUES (?, ?, ?)", nanos(g.First), nanos(g.Last), g.Lost)
	}
}

// lateResults tells two versions of a run that has ended apart: all that still
// happens to it is that a worker comes back with a result.
func lateResults(r *state.Run) (n int64) {
	for i := range r.Attempts {
		if r.Attempts[i].Late != state.Unfinished {
			n++
		}
	}
	return n
}

// workersOf returns the ids and names of the workers that had a run, each once.
func workersOf(r *state.Run) []string {
	var names []string
	for i := range r.Attempts {
		a := &r.Attempts[i]
		for _, name := range []string{string(a.Worker), a.WorkerName} {
			if name != "" && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}
