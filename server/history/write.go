package history

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
)

const (
	// gather is how long what ended waits for more, so that the disk is synced at
	// most so often however fast runs end: it is the log's disk, too. The more runs are
	// written together, the fewer pages of the index by id are for one run alone. Nobody
	// waits for it: until it is written, what ended is read from the queue.
	gather = 4 * time.Second

	// retry is how long a file that can't be written is left alone.
	retry = 5 * time.Second

	// linger is how long a run stays in the state after its end, at least (package
	// plan says so): a snapshot that is less ahead of the history has all that it lacks.
	linger = time.Minute
)

// run writes what is handed over, until Close, and what is left then.
func (s *Store) run() {
	ctx := context.Background() // a transaction is short, and ends by itself
	idle := time.NewTimer(restAfter)
	defer idle.Stop()
	for open := true; open; {
		select {
		case <-s.wake:
			open = s.pause(gather, s.hurry)
			idle.Reset(restAfter)
		case <-idle.C:
			s.rest(ctx)
			continue
		case <-s.closing:
			open = false
		}
		if !open {
			s.mark() // else a snapshot of this log is ahead of the file at the next start
		}
		for more := true; more; {
			var err error
			if more, err = s.step(ctx); err == nil {
				continue
			}
			s.fail(err)
			if !open {
				s.Log.Error("stopping without having written all that ended; it is written again from the log", "runs", s.Stats().Queued, "err", err)
				return
			}
			open = s.pause(retry, nil)
			more = true
		}
	}
}

// rest gives back the memory of who has written nothing for some time.
func (s *Store) rest(ctx context.Context) {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	db, err := s.handle()
	if err == nil {
		err = db.rest(ctx)
	}
	if err != nil { // who writes next finds out, and says so
		s.Log.Debug("the cache of the history stays in memory", "err", err)
	}
}

// pause waits for a while, or until there is a token, and tells whether the store is
// still open.
func (s *Store) pause(d time.Duration, token <-chan struct{}) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-token:
	case <-s.closing:
		return false
	}
	return true
}

// step writes one transaction, and tells whether there is more to write.
func (s *Store) step(ctx context.Context) (more bool, err error) {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	if err := s.usable(ctx); err != nil {
		return false, err
	}
	if passed, err := s.pass(ctx); passed || err != nil {
		return passed, err
	}
	s.mu.Lock()
	items, from, again, altered := s.queue.next(s.batch), s.kept, s.copy, maps.Clone(s.altered)
	s.mu.Unlock()
	if len(altered) > 0 {
		return true, s.excise(ctx, altered)
	}
	if again {
		s.copyState()
		return true, nil
	}
	if len(items) == 0 {
		s.heal()
		return false, nil
	}
	if other, is := foreign(from, items); is {
		return true, s.renew(ctx, "other-cluster", fmt.Errorf("it is of cluster %s, and this is %s", from.Cluster, other))
	}
	to, holes := advance(from, items)
	err = s.update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		w := newWriter(ctx, tx)
		defer w.close()
		for _, i := range items {
			switch {
			case i.run != nil:
				w.put(i.run)
			case i.undone != 0:
				w.undo(i.undone)
			}
		}
		w.exec("INSERT OR REPLACE INTO upto VALUES (1, ?, ?, ?)", int64(to.Index), nanos(to.Now), to.Cluster)
		w.setGaps(joined(append(s.Gaps(), holes...)))
		return w.err
	})
	if err != nil {
		return false, err
	}
	return s.written(len(items), to, holes), nil
}

// foreign tells whether what is to be written is of another cluster than what is
// there.
func foreign(from raftstore.Point, items []item) (other string, is bool) {
	for _, i := range items {
		if i.run == nil && i.at.Cluster != "" && from.Cluster != "" && i.at.Cluster != from.Cluster {
			return i.at.Cluster, true
		}
	}
	return "", false
}

// advance returns how far the history is once the items are written, and what it may
// lack then. It is pure.
func advance(from raftstore.Point, items []item) (to raftstore.Point, holes []Gap) {
	to = from
	for _, i := range items {
		if i.run != nil {
			continue
		}
		if i.unseen && i.at.Index > to.Index && i.at.Now.Sub(to.Now) >= linger {
			holes = append(holes, Gap{First: to.Now, Last: i.at.Now})
		}
		if to = i.at; to.Cluster == "" {
			to.Cluster = from.Cluster // it has none before the log has come to where it gets it
		}
	}
	return to, holes
}

// written takes note of what is on disk, and tells whether there is more to write.
func (s *Store) written(n int, to raftstore.Point, holes []Gap) (more bool) {
	s.heal()
	return s.taken(n, to, to, holes)
}

// taken takes what is on disk out of the queue, and tells whether there is more in it. The
// file is as far as to, and of what was handed over all is there up to done: where the log
// is an older one than the file knows, what follows in it is not.
func (s *Store) taken(n int, to, done raftstore.Point, holes []Gap) (more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.copy {
		return true // what was dropped meanwhile is written anew
	}
	s.queue.drop(n)
	s.kept = to
	if len(holes) > 0 {
		s.gaps = joined(append(s.gaps, holes...))
		signal(s.holes)
	}
	for f := range s.flushers {
		if f.index <= done.Index {
			close(f.done)
			delete(s.flushers, f)
		}
	}
	if len(s.flushers) > 0 && len(s.queue.items) == 0 && done.Index < s.told.Index {
		// The log went on while this was written, and no run ended in that.
		s.queue.add(item{at: s.told}, nil)
	}
	return len(s.queue.items) > 0
}

// copyState puts all that has ended in the state before what waits.
func (s *Store) copyState() {
	var ended []*state.Run
	m := item{unseen: true}
	s.view(func(st *state.State) {
		m.at = raftstore.Point{Index: st.Index(), Now: st.Now(), Cluster: st.ClusterID()}
		for r := range st.RunsByBirth() {
			if r.Phase.Final() {
				ended = append(ended, r)
			}
		}
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue.prepend(m, ended)
	s.copy = false
}

// usable sees to it that the file is open and not known to be damaged. The caller has
// the turn.
func (s *Store) usable(ctx context.Context) error {
	s.mu.Lock()
	open, spoilt := s.db != nil, s.spoilt
	s.mu.Unlock()
	switch {
	case spoilt:
		return s.renew(ctx, "damaged", errors.New("part of it could not be read"))
	case open:
		return nil
	}
	return s.open(ctx)
}

// open opens the file, and sets one aside that is none.
func (s *Store) open(ctx context.Context) error {
	db, err := openDatabase(ctx, s.Dir)
	if damaged(err) {
		return s.renew(ctx, "damaged", err)
	}
	if err != nil {
		return err
	}
	kept, gaps, begun, err := db.load(ctx)
	if err != nil {
		if broken := damaged(err); broken {
			return errors.Join(db.close(), s.renew(ctx, "damaged", err))
		}
		return errors.Join(err, db.close())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.db, s.kept, s.gaps, s.begun = db, kept, gaps, begun
	signal(s.holes)
	return nil
}

// renew begins a new file, and sets the one that there is aside. What is in the state
// is copied; the rest is a gap, for others to fill.
func (s *Store) renew(ctx context.Context, why string, cause error) error {
	if err := s.shut(); err != nil {
		s.Log.Warn("a history that is set aside can't be closed", "err", err)
	}
	name, err := setAside(s.Dir, why)
	if err != nil {
		return errors.Join(cause, err)
	}
	s.Log.Error("the history was set aside, and a new one is begun from the state and from other primaries; remove the old file when it is of no more use",
		"file", name, "err", cause)
	db, err := openDatabase(ctx, s.Dir)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.db, s.kept, s.gaps, s.spoilt, s.copy = db, raftstore.Point{}, nil, false, true
	s.begun = 0
	clear(s.altered)
	signal(s.wake)
	return nil
}

// update writes a transaction. When the file turns out to be damaged, it is set aside
// with the next use. The caller has the turn.
func (s *Store) update(ctx context.Context, f func(context.Context, *sql.Tx) error) error {
	db, err := s.handle()
	if err != nil {
		return err
	}
	err = db.update(ctx, func(tx *sql.Tx) error { return f(ctx, tx) })
	if err != nil {
		s.suspect(err)
		return fmt.Errorf("writing the history: %w", err)
	}
	return nil
}

// suspect looks at an error: is it one of a damaged file, that is set aside soon, or of
// a run that was changed in it, that run is taken out.
func (s *Store) suspect(err error) {
	var a *alteredError
	one := errors.As(err, &a)
	if !one && !damaged(err) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if one {
		s.altered[a.serial] = a.finished
	} else {
		s.spoilt = true
	}
	signal(s.wake)
	signal(s.hurry)
}

// excise takes out runs that were changed on disk, by their serial numbers. Those that
// the state still has are written again, since it may forget them soon, and those that wait
// to be; the others leave gaps where they ended, for other primaries to fill. The caller has
// the turn.
func (s *Store) excise(ctx context.Context, altered map[int64][]time.Time) error {
	again := s.inMemory(altered)
	var holes []Gap
	for serial, finished := range altered {
		if len(finished) == 1 && slices.ContainsFunc(again, func(r *state.Run) bool {
			return int64(r.Serial) == serial && r.Finished.Equal(finished[0])
		}) {
			continue
		}
		for _, at := range finished {
			holes = append(holes, Gap{First: at, Last: at})
		}
	}
	gaps := joined(append(s.Gaps(), holes...))
	err := s.update(ctx, func(ctx context.Context, tx *sql.Tx) error {
		w := newWriter(ctx, tx)
		defer w.close()
		for serial := range altered {
			w.exec("DELETE FROM runs WHERE serial = ?", serial)
			w.exec("DELETE FROM workers WHERE serial = ?", serial)
		}
		for _, r := range again {
			w.fill(r)
		}
		w.setGaps(gaps)
		return w.err
	})
	if err != nil {
		return err
	}
	s.Log.Error("runs in the history were changed on disk; those that are in memory are written again, the others are taken out and asked of other primaries; see whether the disk fails",
		"runs", len(altered), "in_memory", len(again), "dir", s.Dir)
	s.mu.Lock()
	defer s.mu.Unlock()
	for serial := range altered {
		delete(s.altered, serial)
	}
	s.gaps = gaps
	signal(s.holes)
	return nil
}

// inMemory returns what the state and the queue have of runs that were found to be changed:
// those of their serial numbers, and those that ended when they did, as the number may be
// wrong.
func (s *Store) inMemory(altered map[int64][]time.Time) (runs []*state.Run) {
	times := map[int64]bool{}
	for _, finished := range altered {
		for _, at := range finished {
			times[nanos(at)] = true
		}
	}
	look := func(r *state.Run) {
		if _, is := altered[int64(r.Serial)]; is || times[nanos(r.Finished)] {
			runs = append(runs, r)
		}
	}
	s.view(func(st *state.State) {
		for r := range st.RunsByBirth() {
			if r.Phase.Final() {
				look(r)
			}
		}
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.queue.runs {
		if !slices.Contains(runs, r) {
			look(r)
		}
	}
	return runs
}

// load reads how far the history is, and what it may lack. Begun is the greatest serial
// number of what may be lost.
func (d *database) load(ctx context.Context) (kept raftstore.Point, gaps []Gap, begun uint64, err error) {
	var index, now int64
	row := d.read.QueryRowContext(ctx, "SELECT log_index, now, cluster FROM upto")
	if err := row.Scan(&index, &now, &kept.Cluster); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return kept, nil, 0, fmt.Errorf("reading how far the history is: %w", err)
	}
	last := int64(math.MaxInt64) // of what an older version has lost it did not say
	if err := d.read.QueryRowContext(ctx, "SELECT begun FROM lost").Scan(&last); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return kept, nil, 0, fmt.Errorf("reading what the history has lost: %w", err)
	}
	kept.Index, kept.Now = uint64(index), instant(now)
	err = each(ctx, d.read, func(rows *sql.Rows) error {
		var first, last int64
		var g Gap
		if err := rows.Scan(&first, &last, &g.Lost); err != nil {
			return err
		}
		g.First, g.Last = instant(first), instant(last)
		gaps = append(gaps, g)
		return nil
	}, "SELECT first, last, lost FROM gaps")
	if err != nil {
		return kept, nil, 0, fmt.Errorf("reading what the history lacks: %w", err)
	}
	if !anyLost(gaps) {
		last = 0
	}
	return kept, joined(gaps), uint64(last), nil
}

// querier is a pool of connections, or one of them.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// each calls f with each row of an answer.
func each(ctx context.Context, db querier, f func(*sql.Rows) error, query string, args ...any) (err error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := f(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}
