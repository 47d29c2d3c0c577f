package api

import (
	"context"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/proto/wire"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/plan"
	"github.com/schedd/schedd/server/schedule"
)

// Limits of a preview.
const (
	defaultPreview = 10
	maxPreview     = schedule.MaxPreview
)

// PreviewSchedule explains what comes next. Triggers that are disabled name
// nothing. What a pause takes out is an occurrence nevertheless, which is
// skipped; the note says so.
func (s jobService) PreviewSchedule(ctx context.Context, req *schedv1.PreviewScheduleRequest) (*schedv1.PreviewScheduleResponse, error) {
	c := request()
	count := int(number(c.in("count"), req.GetCount(), 1, maxPreview, defaultPreview))
	after := c.in("start_time").instant(req.GetStartTime())
	job, compiled, err := s.previewed(c, req)
	if err != nil {
		return nil, err
	}
	if after.IsZero() {
		after = s.wallClock()
	}
	var all []*schedv1.PreviewedOccurrence
	for i := range compiled {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		t := job.Definition.Triggers[i]
		if t.Disabled || compiled[i] == nil {
			continue
		}
		for _, x := range compiled[i].Preview(after, count) {
			all = append(all, showOccurrence(job, t.ID, x))
		}
	}
	slices.SortStableFunc(all, func(a, b *schedv1.PreviewedOccurrence) int {
		return a.GetNominalTime().AsTime().Compare(b.GetNominalTime().AsTime())
	})
	return &schedv1.PreviewScheduleResponse{Occurrences: all[:min(count, len(all))]}, nil
}

// previewed returns the job whose triggers are to be previewed, which need not
// exist, and its schedules.
func (s *Server) previewed(c scope, req *schedv1.PreviewScheduleRequest) (*state.Job, []*schedule.Trigger, error) {
	if len(req.GetTriggers()) == 0 {
		k := c.jobKey(req.GetNamespace(), req.GetName())
		if err := c.err(); err != nil {
			return nil, nil, err
		}
		j, _, err := s.job(k)
		if err != nil {
			return nil, nil, err
		}
		compiled := make([]*schedule.Trigger, len(j.Definition.Triggers))
		for i := range compiled {
			if compiled[i], err = plan.Compile(k, j.Definition.Triggers[i]); err != nil {
				// It was right when it was stored; the time zones have changed since.
				return nil, nil, status.Errorf(codes.FailedPrecondition, "trigger %q of job %v can't be scheduled any more: %v", j.Definition.Triggers[i].ID, k, err)
			}
		}
		return j, compiled, nil
	}
	k := state.JobKey{Namespace: DefaultNamespace}
	if req.GetNamespace() != "" {
		k.Namespace = c.in("namespace").name(req.GetNamespace())
	}
	if req.GetName() != "" {
		k.Name = c.in("name").name(req.GetName())
	}
	triggers, compiled := c.in("triggers").triggers(k, req.GetTriggers())
	return &state.Job{Key: k, Definition: &state.Definition{Triggers: triggers}}, compiled, c.err()
}

func showOccurrence(j *state.Job, trigger string, x schedule.Explanation) *schedv1.PreviewedOccurrence {
	p := &schedv1.PreviewedOccurrence{
		TriggerId: trigger, NominalTime: showTime(x.Nominal), DueTime: showTime(x.Nominal.Add(x.Jitter)),
		LocalTime: x.Local, ZoneAbbreviation: x.Zone, UtcOffset: durationpb.New(x.Offset), Fires: x.Fires, Note: x.Note,
	}
	if x.Fires && paused(j, x.Nominal) {
		if p.Note != "" {
			p.Note += "; "
		}
		p.Note += "will be skipped: the job is paused"
	}
	return p
}

// VerifyLedger compares schedule and ledger. Verifying is a computation of
// some seconds where a ledger is long, so one is done at a time, and none of it
// while the state is locked.
func (s jobService) VerifyLedger(ctx context.Context, req *schedv1.VerifyLedgerRequest) (*schedv1.VerifyLedgerResponse, error) {
	c := request()
	k := c.jobKey(req.GetNamespace(), req.GetName())
	from, to := c.in("start_time").instant(req.GetStartTime()), c.in("end_time").instant(req.GetEndTime())
	if !from.IsZero() && !to.IsZero() && to.Before(from) {
		c.in("end_time").failf("lies before start_time")
	}
	if err := c.err(); err != nil {
		return nil, err
	}
	select {
	case s.verifying <- struct{}{}:
		defer func() { <-s.verifying }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var alone *state.State
	s.Store.View(func(st *state.State) { alone = apart(st, k) })
	verdicts, err := plan.Verify(alone, k, from, to)
	if err != nil {
		return nil, err
	}
	return showVerdicts(verdicts), nil
}

// apart returns a state with nothing but a job and its ledger, which can be read
// without a lock.
func apart(st *state.State, k state.JobKey) *state.State {
	n := &state.Snapshot{Index: st.Index(), Now: st.Now()}
	if j := st.Job(k); j != nil {
		n.Jobs = []*state.Job{j}
		for i := range j.Definition.Triggers {
			id := j.Definition.Triggers[i].ID
			n.Tracks = append(n.Tracks, state.KeyedTrack{Key: state.TrackKey{UID: j.UID, Trigger: id}, Track: st.Track(j.UID, id)})
		}
		for _, t := range st.PastTracks(j.UID) {
			n.Past = append(n.Past, state.KeyedTrack{Key: state.TrackKey{UID: j.UID, Trigger: t.Trigger.ID}, Track: t})
		}
	}
	return n.Restore()
}

// Limits of what is told of a ledger, so that the answer can be sent. The
// numbers and whether all is well are of the whole of it.
const (
	maxDifferences = 1000                               // of all triggers
	maxSpanBytes   = wire.MaxResponse - wire.MaxMessage // of the spans of all triggers; the latest are told
)

func showVerdicts(verdicts []plan.Verdict) *schedv1.VerifyLedgerResponse {
	answer := &schedv1.VerifyLedgerResponse{Ok: true}
	differences, room := maxDifferences, maxSpanBytes
	for i := range verdicts {
		v := &verdicts[i]
		answer.Ok = answer.Ok && len(v.Differences) == 0
		told := v.Differences[:min(differences, len(v.Differences))]
		differences -= len(told)
		answer.Triggers = append(answer.Triggers, &schedv1.TriggerVerdict{
			TriggerId: v.Trigger, StartTime: showTime(v.Since), DecidedUntil: showTime(v.DecidedUntil),
			Nominal: v.Nominal, Ran: v.Ran, Skipped: v.Skipped, Missed: v.Missed,
			Differences: each(told, showDifference),
		})
	}
	for i, v := range slices.Backward(verdicts) { // those in force come last
		answer.Triggers[i].Spans = showSpans(v.Spans, &room)
	}
	return answer
}

func showDifference(d *plan.Difference) *schedv1.LedgerDifference {
	return &schedv1.LedgerDifference{
		StartTime: showTime(d.From), EndTime: showTime(d.To), Nominal: d.Nominal, Decided: d.Decided, Problem: d.Problem,
	}
}

// showSpans returns the latest spans that there is room for, the oldest first.
func showSpans(spans []state.Span, room *int) []*schedv1.LedgerSpan {
	var told []*schedv1.LedgerSpan
	for _, s := range slices.Backward(spans) {
		p := &schedv1.LedgerSpan{
			FirstTime: showTime(s.First), LastTime: showTime(s.Last), Count: s.Count,
			Decision: decisions.show(s.Decision), Reason: s.Reason, JobVersion: s.Version,
		}
		if *room -= proto.Size(p) + 8; *room < 0 {
			break
		}
		told = append(told, p)
	}
	slices.Reverse(told)
	return told
}
