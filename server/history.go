package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/history"
	"github.com/schedd/schedd/server/plan"
	"github.com/schedd/schedd/server/runlog"
)

// keepHistory fills and shortens the history.
func (s *Server) keepHistory(ctx context.Context) { s.history.Tend(ctx, s.primaries) }

// Others implements [history.Peers].
func (p *primaries) Others() (ids []string, in bool) {
	for _, v := range p.Status().Servers {
		if v.ID == p.self {
			in = true
		} else {
			ids = append(ids, v.ID)
		}
	}
	return ids, in
}

// HistoryConn implements [history.Peers].
func (p *primaries) HistoryConn(id string) (grpc.ClientConnInterface, error) { return p.LogConn(id) }

// attemptOfPast returns the attempt whose log that is, of a run that has left the state:
// its worker may be slow, or have been away. It returns nil when there is none, and while
// the run is in the state, which is no reason to look elsewhere.
func (s *Server) attemptOfPast(ctx context.Context, id state.RunID, k runlog.Key) *state.Attempt {
	here := false
	s.store.View(func(st *state.State) { here = st.Run(id) != nil })
	if here {
		return nil
	}
	r, err := s.history.Run(ctx, id)
	if err != nil { // the worker tries again
		s.log.Debug("whose output it is can't be told until the history can be read", "run", id, "err", err)
	}
	return attemptOf(r, k)
}

// checkRetention returns all that is wrong with what is to be kept.
func checkRetention(hot plan.Retention, past history.Retention) (errs []error) {
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, n := range []struct {
		flag string
		is   int
	}{
		{"--hot-runs", hot.Runs},
		{"--hot-runs-per-job", hot.RunsPerJob},
		{"--history-runs", past.Runs},
		{"--history-runs-per-job", past.RunsPerJob},
	} {
		if n.is < 1 {
			wrong("%s: %d runs can't be kept; keep one at least", n.flag, n.is)
		}
	}
	for _, d := range []struct {
		flag string
		is   time.Duration
	}{{"--hot-age", hot.RunAge}, {"--history-age", past.Age}} {
		if d.is < time.Minute {
			wrong("%s: %v is too short; keep runs for a minute at least", d.flag, d.is)
		}
	}
	if hot.Runs > hot.MostRuns {
		wrong("--hot-runs: %d is more than memory is meant for; keep %d at most there, and as many as you like in the history", hot.Runs, hot.MostRuns)
	}
	if len(errs) == 0 && (past.Runs < hot.Runs || past.RunsPerJob < hot.RunsPerJob || past.Age < hot.RunAge) {
		errs = append(errs, errors.New("--history-runs, --history-runs-per-job and --history-age: the history can't keep less than memory does; raise them, or lower --hot-runs, --hot-runs-per-job and --hot-age"))
	}
	return errs
}

// watchHistory adds what is read of the history.
func (m *metrics) watchHistory(h *history.Store) {
	m.gauge("history_bytes", "Bytes of the history's file, and of its write-ahead log.", func() float64 { return float64(h.Stats().Bytes) })
	m.gauge("history_queued_runs", "Runs that ended and are not yet on disk.", func() float64 { return float64(h.Stats().Queued) })
	m.gauge("history_failed", "1 while the history can't be written.", func() float64 {
		if h.Stats().Failed {
			return 1
		}
		return 0
	})
	m.gauge("history_gaps", "Times of which this primary still lacks runs that other primaries may have.", func() float64 { return float64(h.Stats().Gaps) })
	m.gauge("history_gaps_lost", "Times of which no primary may have all runs that ended.", func() float64 { return float64(h.Stats().Lost) })
}
