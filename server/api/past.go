package api

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/history"
)

// History is the runs that have ended, and may have left the state; [history.Store]
// has them.
type History interface {
	// Run returns the run of that id, nil when there is none.
	Run(ctx context.Context, id state.RunID) (*state.Run, error)
	// List returns runs, the newest first.
	List(ctx context.Context, q history.Query) ([]*state.Run, error)
	// Missing says what a list may lack that other primaries have; "" when nothing.
	Missing() string
	// Lost says what a list of runs created after a time may lack for good; "" when
	// nothing.
	Lost(after time.Time) string
}

// findRun returns a run that is in the state or in the history. It looks there in the
// order in which runs move, so that one which moves meanwhile is not missed.
func (s *Server) findRun(ctx context.Context, id state.RunID) (r *state.Run, err error) {
	s.Store.View(func(st *state.State) { r = st.Run(id) })
	if r != nil {
		return r, nil
	}
	if r, err = s.History.Run(ctx, id); err == nil && r == nil {
		err = noRun(id)
	}
	return r, err
}

// pastRun returns a run that has left the state; nil when it has not, or when there is
// none.
func (s *Server) pastRun(ctx context.Context, id state.RunID) (*state.Run, error) {
	r, err := s.findRun(ctx, id)
	switch {
	case errors.Is(err, state.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	}
	s.Store.View(func(st *state.State) {
		if st.Run(id) != nil {
			r = nil
		}
	})
	return r, nil
}

// asked returns the run that a request made whose run has left the state; nil when there
// is none, and also when the history can't tell: then the state alone knows which
// requests came twice, those of the last while.
func (s *Server) asked(ctx context.Context, id state.RunID) (*state.Run, error) {
	r, err := s.pastRun(ctx, id)
	if errors.Is(err, history.ErrUnavailable) || errors.Is(err, state.ErrLost) {
		return nil, nil
	}
	return r, err
}

// askedOf is [Server.asked] for a request to run a job.
func (s *Server) askedOf(ctx context.Context, k state.JobKey, request string) (r *state.Run, err error) {
	var j *state.Job
	s.Store.View(func(st *state.State) { j = st.Job(k) })
	if j == nil {
		return nil, nil
	}
	return s.asked(ctx, state.RequestRunID(j.UID, request))
}

// pastQuery returns what of a filter the history can find by an index. What it finds is
// held to the whole filter, which has been checked.
func pastQuery(text string) history.Query {
	var q history.Query
	requirements, err := labels.ParseToRequirements(text)
	if err != nil {
		return q
	}
	for _, r := range requirements {
		values := r.ValuesUnsorted()
		switch r.Operator() {
		case selection.In, selection.Equals, selection.DoubleEquals:
			narrow(&q, r.Key(), values)
		case selection.NotIn, selection.NotEquals:
			if r.Key() == "phase" {
				q.Phases = both(q.Phases, slices.DeleteFunc(finalPhases(), func(p state.Phase) bool { return slices.Contains(values, phaseNames[p]) }))
			}
		case selection.Exists:
			if r.Key() == "active" {
				q.Phases = []state.Phase{}
			}
		default:
		}
	}
	return q
}

// narrow takes into a query that a field has one of some values.
func narrow(q *history.Query, field string, values []string) {
	list := map[string]*[]string{"namespace": &q.Namespaces, "job": &q.Jobs, "trigger": &q.Triggers, "worker": &q.Workers}[field]
	switch {
	case field == "phase":
		q.Phases = both(q.Phases, slices.DeleteFunc(finalPhases(), func(p state.Phase) bool { return !slices.Contains(values, phaseNames[p]) }))
	case field == "active" && !slices.Contains(values, "false"):
		q.Phases = []state.Phase{} // what is active is not in the history
	case field == "worker" && slices.Contains(values, ""):
	case field == "worker" && *list != nil: // another attempt may have had another one
	case list != nil:
		*list = both(*list, values)
	}
}

// both returns what is in two lists; the first may be nil for all there is.
func both[T comparable](a, b []T) []T {
	out := []T{}
	for _, v := range b {
		if (a == nil || slices.Contains(a, v)) && !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

func finalPhases() (all []state.Phase) {
	for p := state.Succeeded; p <= state.Missed; p++ {
		all = append(all, p)
	}
	return all
}

// runList goes through the runs in the state and in the history, the newest first, as
// if they were one list.
type runList struct {
	*Server
	now  runScan       // of the state
	past history.Query // of the history
	both filter[*state.Run]

	found []glance     // of the state, to be returned
	old   []*state.Run // of the history, likewise
	dry   bool         // there is no more in the history
	why   string       // what the list may lack; "": nothing
}

// newRunList returns the list of what matches below a serial number; 0: of all.
func (s *Server) newRunList(f filter[*state.Run], text string, after, before time.Time, below uint64, most int) *runList {
	l := &runList{Server: s, both: f, now: runScan{filter: f, after: after, from: below, most: most}, past: pastQuery(text)}
	l.past.After, l.past.Before, l.past.Below, l.past.Limit = after, before, below, most
	l.dry = l.past.Phases != nil && len(l.past.Phases) == 0
	if !l.dry {
		l.why = cmp.Or(s.History.Missing(), s.History.Lost(after))
	}
	return l
}

// next returns the next run; false when there is none. The state is looked at before
// the history, since that is how runs move.
func (l *runList) next(ctx context.Context) (g glance, ok bool, err error) {
	for len(l.found) == 0 && !l.now.done {
		if err := ctx.Err(); err != nil {
			return g, false, err
		}
		l.found = l.scan(&l.now)
	}
	for len(l.old) == 0 && !l.dry {
		if err := l.turn(ctx); err != nil {
			return g, false, err
		}
	}
	switch {
	case len(l.found) > 0 && (len(l.old) == 0 || l.found[0].run.Serial >= l.old[0].Serial):
		if g = l.found[0]; len(l.old) > 0 && l.old[0].Serial == g.run.Serial {
			l.old = l.old[1:]
		}
		l.found = l.found[1:]
		return g, true, nil
	case len(l.old) > 0:
		g = glance{l.old[0], l.old[0].Reason}
		l.old = l.old[1:]
		return g, true, nil
	}
	return g, false, nil
}

// turn reads a page of the history. One that can't be read leaves the list without it,
// and says so.
func (l *runList) turn(ctx context.Context) error {
	page, err := l.History.List(ctx, l.past)
	if errors.Is(err, history.ErrUnavailable) {
		l.dry, l.why = true, err.Error()
		return nil
	}
	if err != nil {
		return err
	}
	if l.dry = len(page) < l.past.Limit; len(page) > 0 {
		l.past.Below = page[len(page)-1].Serial
	}
	for _, r := range page {
		if l.both.matches(r) {
			l.old = append(l.old, r)
		}
	}
	if len(l.old) == 0 { // what matches is rare
		l.past.Limit = min(4*l.past.Limit, maxScan)
	}
	return nil
}
