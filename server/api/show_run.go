package api

import (
	"context"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/plan"
	"github.com/schedd/schedd/server/runlog"
)

// glance is a run at one moment, with why it is where it is. It outlives the
// look at the state that it was taken in.
type glance struct {
	run    *state.Run
	reason string
}

// looker takes glances at runs. Many that wait do so for the same reason, which
// it finds once. It lasts for one look at the state.
type looker struct {
	state *state.State
	now   time.Time
	why   map[waiting]string
}

// waiting is all that the reason of a pending run depends on.
type waiting struct {
	uid        uint64
	definition *state.Definition
	reason     string
	notBefore  time.Time
	attempts   int
}

func look(s *state.State, now time.Time) looker {
	return looker{state: s, now: now, why: map[waiting]string{}}
}

func (l looker) at(r *state.Run) glance {
	switch {
	case r.Phase.Final():
		return glance{r, r.Reason}
	case !r.CancelTime.IsZero():
		return glance{r, "is being ended: " + r.CancelNote}
	case r.Phase != state.Pending:
		return glance{r, r.Reason}
	}
	k := waiting{r.UID, r.Definition, r.Reason, r.NotBefore, len(r.Attempts)}
	why, ok := l.why[k]
	if !ok {
		why = plan.WhyPending(l.state, r, l.now)
		l.why[k] = why
	}
	return glance{r, why}
}

// showWhole returns a run as showOne does, and what other primaries know of its
// logs, of which there may be nothing here.
func (s *Server) showWhole(ctx context.Context, r *state.Run) *schedv1.Run {
	p := s.showOne(r)
	for _, a := range p.GetAttempts() {
		if a.GetFinishedTime() == nil || a.GetLogDurableBytes() < a.GetLogBytes() {
			k := runlog.Key{Run: p.GetId(), Attempt: a.GetNumber(), Fence: a.GetFence()}
			a.LogDurableBytes = max(a.GetLogDurableBytes(), s.Logs.Durable(ctx, k))
		}
	}
	return p
}

// showOne returns a run as it is now, with what is known here of its logs; as it
// was, when it is gone. Of an attempt that came after what it is given there was no log to
// ask for: to look for one is a read of the disk, for each run that is asked for by hand.
func (s *Server) showOne(r *state.Run) *schedv1.Run {
	var g glance
	had := len(r.Attempts)
	s.Store.View(func(st *state.State) {
		if newer := st.Run(r.ID); newer != nil {
			r = newer
		}
		g = look(st, s.wallClock()).at(r)
	})
	p := showRun(g)
	for i, a := range p.GetAttempts()[:min(had, len(r.Attempts))] {
		a.LogDurableBytes = s.durable(&r.Attempts[i], r.ID)
	}
	return p
}

// showMany returns one of many runs. Of logs it looks only at those that are
// being written: the others may not be in memory, and are a read of the disk
// each.
func (s *Server) showMany(g glance) *schedv1.Run {
	p := showRun(g)
	if live := g.run.Live(); live != nil {
		p.Attempts[len(p.Attempts)-1].LogDurableBytes = s.durable(live, g.run.ID)
	}
	return p
}

func (s *Server) durable(a *state.Attempt, id state.RunID) int64 {
	info, _ := s.Logs.Stat(logKey(id, a))
	return info.Durable
}

// logKey names the log of an attempt.
func logKey(id state.RunID, a *state.Attempt) runlog.Key {
	return runlog.Key{Run: id.String(), Attempt: uint32(a.Number), Fence: a.Fence}
}

// showRun returns a run as the API has it, but for what only the logs know.
func showRun(g glance) *schedv1.Run {
	r := g.run
	p := &schedv1.Run{
		Id: r.ID.String(), Namespace: r.Job.Namespace, Job: r.Job.Name,
		JobUid: strconv.FormatUint(r.UID, 10), JobVersion: r.Version,
		TriggerId: r.Trigger, NominalTime: showTime(r.Nominal),
		Phase: phases.show(r.Phase), Reason: g.reason,
		CreatedTime: showTime(r.Created), FinishedTime: showTime(r.Finished), CancelRequestedTime: showTime(r.CancelTime),
		MissedCount: r.Missed,
		Attempts:    each(r.Attempts, showAttempt),
	}
	if r.RetryOf != (state.RunID{}) {
		p.RetryOf = r.RetryOf.String()
	}
	return p
}

func showAttempt(a *state.Attempt) *schedv1.Attempt {
	p := &schedv1.Attempt{
		Number: uint32(a.Number), Fence: a.Fence,
		WorkerId: string(a.Worker), WorkerName: a.WorkerName,
		AssignedTime: showTime(a.Assigned), StartedTime: showTime(a.Started), FinishedTime: showTime(a.Finished),
		Outcome: outcomes.show(a.Outcome), LateResult: outcomes.show(a.Late),
		ExitCode: int32(a.ExitCode), Signal: a.Signal, Reason: a.Reason,
		LogBytes: a.LogBytes, LogDroppedBytes: a.LogDropped,
		MaxRssBytes: a.MaxRSS,
	}
	if a.CPUTime != 0 {
		p.CpuTime = durationpb.New(a.CPUTime)
	}
	return p
}
