package api

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/plan"
)

func TestPutJobFillsInDefaults(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		j := p.put(aJob("j"))
		if j.GetNamespace() != "default" || j.GetVersion() != 1 || j.GetUid() == "" || j.GetTriggers()[0].GetId() != "every" {
			t.Errorf("stored %v", j)
		}
		if got, want := j.GetNextTime().AsTime(), time.Now().Add(time.Minute).UTC(); !got.Equal(want) {
			t.Errorf("next time %v, want %v", got, want)
		}
		want := &schedv1.Policy{}
		unmarshal(t, want, `{
			"overlap":"OVERLAP_SKIP","max_concurrent":1,"catch_up":"CATCH_UP_LATEST","catch_up_window":"3600s","timeout":"0s","total_timeout":"0s","kill_after":"0s",
			"kill_grace":"10s","queue_timeout":"3600s","start_within":"300s","on_lost":"ON_LOST_FAIL","lost_after":"180s","log_limit_bytes":67108864,
			"retry":{"max_attempts":1,"initial_delay":"1s","multiplier":2,"max_delay":"300s"}}`)
		if d := cmp.Diff(want, j.GetPolicy(), protocmp.Transform()); d != "" {
			t.Error(d)
		}
		again, err := p.jobs.GetJob(t.Context(), &schedv1.GetJobRequest{Name: "j"})
		if d := cmp.Diff(j, again.GetJob(), protocmp.Transform()); err != nil || d != "" {
			t.Error(err, d)
		}
	})
}

func TestPutJobVersions(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		put := func(j *schedv1.Job, expected *uint64, validate bool) (*schedv1.Job, error) {
			r, err := p.jobs.PutJob(t.Context(), &schedv1.PutJobRequest{Job: j, ExpectedVersion: expected, ValidateOnly: validate})
			return r.GetJob(), err
		}
		_, err := put(aJob("j"), proto.Uint64(3), false)
		says(t, err, codes.Aborted)
		if j, err := put(aJob("j"), proto.Uint64(0), true); err != nil || j.GetVersion() != 1 || j.GetUid() != "" {
			t.Errorf("would be %v, %v", j, err)
		}
		if _, err := p.jobs.GetJob(t.Context(), &schedv1.GetJobRequest{Name: "j"}); err == nil {
			t.Error("validate_only made the job")
		}
		first, err := put(aJob("j"), proto.Uint64(0), false)
		if err != nil {
			t.Fatal(err)
		}
		_, err = put(aJob("j"), proto.Uint64(0), false)
		says(t, err, codes.Aborted)

		sleep(90 * time.Second) // an occurrence comes due meanwhile
		same, err := put(aJob("j"), nil, false)
		if err != nil || same.GetVersion() != 1 || !proto.Equal(same.GetUpdatedTime(), first.GetUpdatedTime()) {
			t.Errorf("applied again: %v, %v", same, err)
		}
		other := aJob("j", func(j *schedv1.Job) { j.Description = "x" })
		if j, err := put(other, nil, true); err != nil || j.GetVersion() != 2 || j.GetUid() != first.GetUid() {
			t.Errorf("would be %v, %v", j, err)
		}
		_, err = put(other, proto.Uint64(2), true)
		says(t, err, codes.Aborted)
		second, err := put(other, proto.Uint64(1), false)
		if err != nil || second.GetVersion() != 2 || second.GetUid() != first.GetUid() || second.GetDescription() != "x" {
			t.Errorf("changed: %v, %v", second, err)
		}
	})
}

// What came due before a change is decided by what held then, and before it.
func TestChangesSettleFirst(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		p.put(aJob("j"))
		sleep(61 * time.Second)
		p.put(aJob("j", func(j *schedv1.Job) { j.Triggers[0].GetEvery().Interval.Seconds = 3600 }))
		p.verify("j", 1)
		sleep(time.Hour)
		if _, err := p.jobs.PauseJob(t.Context(), &schedv1.PauseJobRequest{Name: "j", Note: "holiday"}); err != nil {
			t.Fatal(err)
		}
		sleep(time.Hour)
		r, err := p.jobs.ResumeJob(t.Context(), &schedv1.ResumeJobRequest{Name: "j"})
		if err != nil || r.GetJob().GetPause() != nil {
			t.Fatal(r, err)
		}
		v := p.verify("j", 3)
		if last := v.GetTriggers()[1]; last.GetSkipped() != 2 || last.GetSpans()[1].GetReason() != "the job was paused: holiday" {
			t.Errorf("ledger: %v", last)
		}
		if _, err := p.jobs.DeleteJob(t.Context(), &schedv1.DeleteJobRequest{Name: "j", ExpectedVersion: proto.Uint64(1)}); err == nil {
			t.Error("deleted another version")
		}
		if _, err := p.jobs.DeleteJob(t.Context(), &schedv1.DeleteJobRequest{Name: "j", ExpectedVersion: proto.Uint64(2)}); err != nil {
			t.Fatal(err)
		}
		_, err = p.jobs.DeleteJob(t.Context(), &schedv1.DeleteJobRequest{Name: "j"})
		says(t, err, codes.NotFound)
	})
}

// verify fails the test unless the ledger agrees, with so many occurrences.
func (p *primary) verify(job string, nominal int64) *schedv1.VerifyLedgerResponse {
	p.t.Helper()
	v, err := p.jobs.VerifyLedger(p.t.Context(), &schedv1.VerifyLedgerRequest{Name: job})
	if err != nil {
		p.t.Fatal(err)
	}
	var n int64
	for _, t := range v.GetTriggers() {
		n += t.GetNominal()
		if t.GetNominal() != t.GetRan()+t.GetSkipped()+t.GetMissed() {
			p.t.Errorf("verdict %v", t)
		}
	}
	if !v.GetOk() || n != nominal {
		p.t.Fatalf("%d occurrences, want %d: %v", n, nominal, v)
	}
	return v
}

// What a leader with a faster clock has decided is not decided again by a change
// that comes through a slower one.
func TestChangeBehindTheClock(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		p.put(aJob("j"))
		k := state.JobKey{Namespace: "default", Name: "j"}
		fast := time.Now().Add(10 * time.Minute).UTC()
		var decide []state.Command
		p.store.View(func(s *state.State) { decide, _ = plan.Settle(s, k, plan.DefaultBounds, fast) })
		p.store.ahead = 10 * time.Minute
		p.do(decide...)
		p.store.ahead = 0
		sleep(time.Minute)
		p.put(aJob("j", func(j *schedv1.Job) { j.Triggers[0].GetEvery().Interval.Seconds = 30 }))
		p.store.View(func(s *state.State) {
			if since := s.Track(s.Job(k).UID, "every").Since; since.Before(fast) {
				t.Errorf("the new definition counts from %v, and %v was decided already", since, fast)
			}
		})
		p.verify("j", 10)
	})
}

// active returns the one active run of a job.
func (p *primary) active(job string) (id state.RunID) {
	p.t.Helper()
	p.store.View(func(s *state.State) {
		runs := s.ActiveRuns(s.Job(state.JobKey{Namespace: "default", Name: job}).UID)
		if len(runs) != 1 {
			p.t.Fatalf("%d active runs", len(runs))
		}
		id = runs[0].ID
	})
	return id
}

// The leader decides beside us: a change that is stale is prepared anew.
func TestChangesAreTriedAgain(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		p.put(aJob("j"))
		sleep(2 * time.Minute)
		p.store.before = func() { p.run("j") } // another activity than was assumed
		p.put(aJob("j", func(j *schedv1.Job) { j.Triggers[0].GetEvery().Interval.Seconds = 3600 }))
		p.verify("j", 2)
	})
}

func TestPause(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		ctx := t.Context()
		p.put(aJob("j"))
		_, err := p.jobs.PauseJob(ctx, &schedv1.PauseJobRequest{Name: "j", Note: strings.Repeat("x", 1025), Until: timestamppb.Now()})
		says(t, err, codes.InvalidArgument, "note", "until")
		_, err = p.jobs.PauseJob(ctx, &schedv1.PauseJobRequest{Name: "k"})
		says(t, err, codes.NotFound)

		until := time.Now().Add(10 * time.Minute)
		r, err := p.jobs.PauseJob(ctx, &schedv1.PauseJobRequest{Name: "j", Until: timestamppb.New(until)})
		if err != nil || !r.GetJob().GetPause().GetUntil().AsTime().Equal(until) || !r.GetJob().GetNextTime().AsTime().Equal(until.Add(time.Minute)) {
			t.Errorf("paused: %v, %v", r, err)
		}
		if p.put(aJob("j", func(j *schedv1.Job) { j.Description = "x" })).GetPause() == nil {
			t.Error("PutJob ended the pause")
		}
		sleep(11 * time.Minute)
		j, err := p.jobs.GetJob(ctx, &schedv1.GetJobRequest{Name: "j"})
		if err != nil || j.GetJob().GetPause() != nil {
			t.Errorf("the pause is over: %v, %v", j, err)
		}
		begin := time.Now()
		r, err = p.jobs.PauseJob(ctx, &schedv1.PauseJobRequest{Name: "j"})
		if err != nil || !r.GetJob().GetPause().GetSince().AsTime().Equal(begin) || r.GetJob().GetNextTime() != nil {
			t.Errorf("another pause began then: %v, %v", r, err)
		}
		if _, err := p.runs1("j", ""); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("beside the run that came due at the end of the pause: %v", err)
		}
		p.do(state.Cancel{Run: p.active("j")})
		p.run("j") // by hand stays possible
	})
}

func TestRunJob(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		p.put(aJob("j", func(j *schedv1.Job) { j.Policy = &schedv1.Policy{Overlap: schedv1.Overlap_OVERLAP_ALLOW} }))
		a, err := p.runs1("j", "once")
		if err != nil || a.GetPhase() != schedv1.Phase_PHASE_PENDING || a.GetTriggerId() != "" || !strings.Contains(a.GetReason(), "waits for a worker") {
			t.Fatalf("run %v, %v", a, err)
		}
		if b, err := p.runs1("j", "once"); err != nil || b.GetId() != a.GetId() {
			t.Errorf("asked twice: %v, %v", b, err)
		}
		if b, c := p.run("j"), p.run("j"); b.GetId() == c.GetId() || b.GetId() == a.GetId() {
			t.Error("runs without a request_id are one")
		}
		_, err = p.runs1("j", strings.Repeat("x", 129))
		says(t, err, codes.InvalidArgument, "request_id")
		_, err = p.runs1("k", "")
		says(t, err, codes.NotFound)

		p.put(aJob("skip"))
		p.run("skip")
		_, err = p.runs1("skip", "")
		says(t, err, codes.FailedPrecondition)
	})
}

// More runs than there may be are refused; a retry is one more. One that is there is found.
func TestTooManyRuns(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		p.server.Decider = decider{p.server.Store, plan.Bounds{RunsPerJob: 2, Runs: 3}}
		allow := func(j *schedv1.Job) { j.Policy = &schedv1.Policy{Overlap: schedv1.Overlap_OVERLAP_ALLOW} }
		p.put(aJob("j", allow))
		p.put(aJob("k", allow))
		ended, err := p.runs1("j", "1")
		if err != nil {
			t.Fatal(err)
		}
		p.do(state.GiveUp{Run: p.id(ended), Phase: state.Failed})
		for _, id := range []string{"2", "3"} {
			if _, err := p.runs1("j", id); err != nil {
				t.Fatal(err)
			}
		}
		_, err = p.runs1("j", "4")
		full(t, err, "2 runs of the job")
		_, err = p.runs.RetryRun(t.Context(), &schedv1.RetryRunRequest{Id: ended.GetId()})
		full(t, err, "2 runs of the job")
		if again, err := p.runs1("j", "3"); err != nil || again.GetPhase() != schedv1.Phase_PHASE_PENDING {
			t.Errorf("the last one that was taken, asked for again: %v, %v", again, err)
		}
		p.run("k")
		_, err = p.runs1("k", "")
		full(t, err, "3 runs of all jobs")
	})
}

// full sees that a run was refused for want of room, and that it was said what to do.
func full(t *testing.T, err error, why string) {
	t.Helper()
	says(t, err, codes.ResourceExhausted)
	for _, want := range []string{why, "ListRuns", "--active-runs-per-job"} {
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%v, want it to say %q", err, want)
		}
	}
}

func TestPreview(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		p.put(aJob("j", func(j *schedv1.Job) {
			j.Triggers = append(j.Triggers,
				&schedv1.Trigger{Id: "berlin", When: cron("30 0 * * *", "Europe/Berlin")},
				&schedv1.Trigger{Id: "off", Disabled: true, When: cron("* * * * *", "")})
			j.Triggers[0].GetEvery().Interval.Seconds = 3600 * 12
		}))
		r, err := p.jobs.PreviewSchedule(t.Context(), &schedv1.PreviewScheduleRequest{Name: "j", Count: 3})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, o := range r.GetOccurrences() {
			got = append(got, fmt.Sprint(o.GetTriggerId(), " ", o.GetLocalTime(), " ", o.GetZoneAbbreviation(), " ", o.GetFires(), o.GetNote()))
		}
		want := []string{"every 2000-01-01 12:00:00 UTC true", "berlin 2000-01-02 00:30:00 CET true", "every 2000-01-02 00:00:00 UTC true"}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		_, err = p.jobs.PreviewSchedule(t.Context(), &schedv1.PreviewScheduleRequest{
			Count: 1001, Triggers: []*schedv1.Trigger{{When: cron("61 * * * *", "Mars/Olympus")}},
		})
		says(t, err, codes.InvalidArgument, "count", "triggers[0].cron.expression", "triggers[0].cron.time_zone")
		_, err = p.jobs.PreviewSchedule(t.Context(), &schedv1.PreviewScheduleRequest{})
		says(t, err, codes.InvalidArgument, "name")
		r, err = p.jobs.PreviewSchedule(t.Context(), &schedv1.PreviewScheduleRequest{
			Triggers: []*schedv1.Trigger{{When: cron("H * * * *", "")}}, Count: 1000,
		})
		if err != nil || len(r.GetOccurrences()) != 1000 {
			t.Errorf("%d occurrences, %v", len(r.GetOccurrences()), err)
		}
	})
}

func cron(expression, zone string) *schedv1.Trigger_Cron {
	return &schedv1.Trigger_Cron{Cron: &schedv1.Cron{Expression: expression, TimeZone: zone}}
}

func TestVerifyLedgerBounds(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		p.put(aJob("j"))
		now := time.Now()
		_, err := p.jobs.VerifyLedger(t.Context(), &schedv1.VerifyLedgerRequest{
			Name: "j", StartTime: timestamppb.New(now), EndTime: timestamppb.New(now.Add(-time.Hour)),
		})
		says(t, err, codes.InvalidArgument, "end_time")
		_, err = p.jobs.VerifyLedger(t.Context(), &schedv1.VerifyLedgerRequest{Name: "k"})
		says(t, err, codes.NotFound)
	})
}

// Each error of the store has a code that says what to do next; what nobody gave
// a code is logged whole, and the caller is told nothing of it.
func TestErrorsOfTheStore(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		for _, tt := range []struct {
			err  error
			want codes.Code
		}{
			{raftstore.ErrNotLeader, codes.Unavailable},
			{raftstore.ErrUnknown, codes.Unavailable},
			{raftstore.ErrStopped, codes.Unavailable},
			{raftstore.ErrTooLarge, codes.ResourceExhausted},
			{raftstore.ErrOldPrimary, codes.FailedPrecondition},
			{context.DeadlineExceeded, codes.DeadlineExceeded},
			{state.ErrStale, codes.Aborted},
			{errors.New("the secret of the disk"), codes.Internal},
		} {
			p.store.err = fmt.Errorf("proposing: %w", tt.err)
			_, err := p.jobs.PutJob(t.Context(), &schedv1.PutJobRequest{Job: aJob("j")})
			says(t, err, tt.want)
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the caller learns %v", err)
			}
		}
		if !strings.Contains(p.log.String(), "the secret of the disk") {
			t.Error("the log does not have what happened")
		}
		p.store.err = nil
		p.store.before = func() { panic("a bug") }
		_, err := p.jobs.PutJob(t.Context(), &schedv1.PutJobRequest{Job: aJob("j")})
		says(t, err, codes.Internal)
		if log := p.log.String(); !strings.Contains(log, "a bug") || !strings.Contains(log, "jobs_test.go") {
			t.Error("the log has no stack of the panic")
		}
		p.server.Logs = nil // the next one panics in a stream
		p.put(aJob("j", allow))
		p.worker("w")
		r := p.run("j")
		p.start(r, "w")
		says(t, p.read(t.Context(), &schedv1.ReadLogRequest{RunId: r.GetId()}).err, codes.Internal)
		if n := len(p.calls); n != 12 || p.calls[8] != "/schedd.v1.JobService/PutJob Internal" || p.calls[n-1] != "/schedd.v1.RunService/ReadLog Internal" {
			t.Errorf("observed %q", p.calls)
		}
	})
}
