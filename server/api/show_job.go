package api

import (
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/plan"
)

// showTime returns an instant as the API has it: nil for none.
func showTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// showJob returns a job as the API has it at that time. Its maps and lists are
// the job's own.
func (s *Server) showJob(j *state.Job, now time.Time) *schedv1.Job {
	decided := make(map[string]time.Time, len(j.Definition.Triggers))
	s.Store.View(func(st *state.State) {
		for i := range j.Definition.Triggers {
			id := j.Definition.Triggers[i].ID
			decided[id] = decidedUntil(st, j, id)
		}
	})
	return showJob(j, decided, now)
}

// showJob is pure. decided is up to when each of its triggers is decided.
func showJob(j *state.Job, decided map[string]time.Time, now time.Time) *schedv1.Job {
	p := showDefinition(j.Key, j.Definition)
	p.Version = j.Version
	if j.UID != 0 {
		p.Uid = strconv.FormatUint(j.UID, 10)
	}
	p.CreatedTime, p.UpdatedTime = showTime(j.Created), showTime(j.Updated)
	if paused(j, now) {
		p.Pause = &schedv1.Pause{Note: j.Pause.Note, Until: showTime(j.Pause.Until), Since: showTime(j.Pause.Since)}
	}
	p.Quarantine = j.Quarantine
	if j.Quarantine == "" {
		p.NextTime = showTime(plan.NextTime(j, func(trigger string) time.Time { return decided[trigger] }, now))
	}
	return p
}

// paused reports whether a job's pause lasts at that time.
func paused(j *state.Job, now time.Time) bool {
	return j.Pause != nil && (j.Pause.Until.IsZero() || j.Pause.Until.After(now))
}

// showDefinition returns what a user defined, with the defaults filled in.
func showDefinition(k state.JobKey, d *state.Definition) *schedv1.Job {
	return &schedv1.Job{
		Namespace: k.Namespace, Name: k.Name,
		Description: d.Description,
		Labels:      d.Labels.Map(),
		Triggers:    each(d.Triggers, func(t **state.Trigger) *schedv1.Trigger { return showTrigger(*t) }),
		Task:        showTask(&d.Task),
		Target:      &schedv1.Target{Selector: d.Target.Selector, Strategy: strategies.show(d.Target.Strategy)},
		Policy:      showPolicy(d.Policy),
	}
}

// each returns f of each of a list; nil for an empty one.
func each[A, B any](list []A, f func(*A) B) []B {
	if len(list) == 0 {
		return nil
	}
	out := make([]B, len(list))
	for i := range list {
		out[i] = f(&list[i])
	}
	return out
}

func showTrigger(t *state.Trigger) *schedv1.Trigger {
	p := &schedv1.Trigger{
		Id: t.ID, StartTime: showTime(t.Start), EndTime: showTime(t.End), Disabled: t.Disabled,
		Exclude: each(t.Exclude, showExclusion),
	}
	if t.Jitter != 0 {
		p.Jitter = durationpb.New(t.Jitter)
	}
	switch {
	case t.Cron != nil:
		p.When = &schedv1.Trigger_Cron{Cron: &schedv1.Cron{
			Expression: t.Cron.Expression, TimeZone: t.Cron.TimeZone,
			DstGap: gaps.show(t.Cron.Gap), DstOverlap: dstOverlaps.show(t.Cron.Overlap),
		}}
	case t.Every != nil:
		p.When = &schedv1.Trigger_Every{Every: &schedv1.Every{
			Interval: durationpb.New(t.Every.Interval), Phase: durationpb.New(t.Every.Phase),
		}}
	case !t.At.IsZero():
		p.When = &schedv1.Trigger_At{At: &schedv1.At{Time: showTime(t.At)}}
	}
	return p
}

func showExclusion(x *state.Exclusion) *schedv1.Exclusion {
	if x.Date != "" {
		return &schedv1.Exclusion{What: &schedv1.Exclusion_Date{Date: x.Date}}
	}
	return &schedv1.Exclusion{What: &schedv1.Exclusion_Period{
		Period: &schedv1.Period{StartTime: showTime(x.From), EndTime: showTime(x.To)},
	}}
}

func showTask(t *state.Task) *schedv1.Task {
	p := &schedv1.Task{Env: t.Env.Map(), WorkingDir: t.WorkingDir, User: t.User, Stdin: t.Stdin}
	if l := t.Limits; l != (state.Limits{}) {
		p.Limits = &schedv1.Limits{MemoryBytes: l.Memory, Cpus: float64(l.CPUMillis) / 1000, Pids: l.PIDs}
	}
	switch {
	case len(t.Argv) > 0:
		p.Do = &schedv1.Task_Exec{Exec: &schedv1.Exec{Argv: t.Argv}}
	case t.Script != "":
		p.Do = &schedv1.Task_Script{Script: &schedv1.Script{Interpreter: t.Interpreter, Body: t.Script}}
	}
	return p
}

func showPolicy(p *state.Policy) *schedv1.Policy {
	return &schedv1.Policy{
		Overlap:       overlaps.show(p.Overlap),
		MaxConcurrent: uint32(p.MaxConcurrent),
		CatchUp:       catchUps.show(p.CatchUp),
		CatchUpWindow: durationpb.New(p.CatchUpWindow),
		Timeout:       durationpb.New(p.Timeout),
		KillGrace:     durationpb.New(p.KillGrace),
		QueueTimeout:  durationpb.New(p.QueueTimeout),
		StartWithin:   durationpb.New(p.StartWithin),
		TotalTimeout:  durationpb.New(p.TotalTimeout),
		Retry: &schedv1.Retry{
			MaxAttempts: uint32(p.Retry.MaxAttempts), InitialDelay: durationpb.New(p.Retry.InitialDelay),
			Multiplier: p.Retry.Multiplier, MaxDelay: durationpb.New(p.Retry.MaxDelay),
			ExitCodes: each(p.Retry.ExitCodes, func(n *int) int32 { return int32(*n) }),
		},
		OnLost:        onLosts.show(p.OnLost),
		LostAfter:     durationpb.New(p.LostAfter),
		KillAfter:     durationpb.New(p.KillAfter),
		LogLimitBytes: p.LogLimit,
	}
}
