package raftstore

import (
	"time"

	logv1 "github.com/schedd/schedd/proto/schedd/log/v1"
	"github.com/schedd/schedd/raftstore/state"
)

func (e *encoder) job(j *state.Job) *logv1.Job {
	p := &logv1.Job{
		Key: e.key(j.Key), Uid: j.UID, Version: j.Version, Created: e.time(j.Created), Updated: e.time(j.Updated),
		Definition: e.definition(j.Definition), Quarantine: e.text(j.Quarantine),
	}
	if j.Pause != nil {
		p.Pause = &logv1.Pause{Note: e.text(j.Pause.Note), Since: e.time(j.Pause.Since), Until: e.time(j.Pause.Until)}
	}
	return p
}

func (d *decoder) job(p *logv1.Job) *state.Job {
	j := &state.Job{
		Key: d.key(p.GetKey()), UID: p.GetUid(), Version: p.GetVersion(), Created: d.time(p.GetCreated()), Updated: d.time(p.GetUpdated()),
		Definition: d.definition(p.GetDefinition()), Quarantine: p.GetQuarantine(),
	}
	if q := p.GetPause(); q != nil {
		j.Pause = &state.Pause{Note: q.GetNote(), Since: d.time(q.GetSince()), Until: d.time(q.GetUntil())}
	}
	return j
}

func (e *encoder) definition(f *state.Definition) *logv1.Definition {
	if f == nil {
		return nil
	}
	return &logv1.Definition{
		Description: f.Description,
		Labels:      e.sharedPairs(f.Labels),
		Triggers:    each(f.Triggers, func(t *state.Trigger) *logv1.Trigger { return remembered(e.triggers, t, e.trigger) }),
		Task: &logv1.Task{
			Argv: f.Task.Argv, Script: f.Task.Script, Interpreter: f.Task.Interpreter, Env: e.pairs(f.Task.Env),
			WorkingDir: f.Task.WorkingDir, User: f.Task.User, Stdin: f.Task.Stdin, Limits: e.limits(f.Task.Limits),
		},
		Target: &logv1.Target{Selector: f.Target.Selector, Strategy: toEnum[logv1.Strategy](e, f.Target.Strategy, state.LeastLoaded)},
		Policy: remembered(e.policies, f.Policy, e.policy),
	}
}

// sharedPairs returns what pairs does, or did of the same ones before.
func (e *encoder) sharedPairs(p state.Pairs) []*logv1.Label {
	if len(p) == 0 {
		return nil
	}
	return remembered(e.sets, &p[0], func(*state.Pair) []*logv1.Label { return e.pairs(p) })
}

func (d *decoder) definition(p *logv1.Definition) *state.Definition {
	if p == nil {
		return nil
	}
	t := p.GetTask()
	return &state.Definition{
		Description: p.GetDescription(),
		Labels:      d.sharedPairs(p.GetLabels()),
		Triggers:    d.triggers(p.GetTriggers()),
		Task: state.Task{
			Argv: d.texts(t.GetArgv()), Script: t.GetScript(), Interpreter: d.texts(t.GetInterpreter()), Env: d.pairs(t.GetEnv()),
			WorkingDir: d.text(t.GetWorkingDir()), User: d.text(t.GetUser()), Stdin: t.GetStdin(), Limits: d.limits(t.GetLimits()),
		},
		Target: state.Target{Selector: d.text(p.GetTarget().GetSelector()), Strategy: fromEnum(d, p.GetTarget().GetStrategy(), state.LeastLoaded)},
		Policy: share(d, d.shared.policies, p.GetPolicy(), d.policy),
	}
}

func (e *encoder) limits(l state.Limits) *logv1.Limits {
	if l == (state.Limits{}) {
		return nil
	}
	return &logv1.Limits{Memory: l.Memory, Cpu: l.CPUMillis, Pids: l.PIDs}
}

func (d *decoder) limits(p *logv1.Limits) state.Limits {
	return state.Limits{Memory: p.GetMemory(), CPUMillis: p.GetCpu(), PIDs: p.GetPids()}
}

func (e *encoder) trigger(t *state.Trigger) *logv1.Trigger {
	if t == nil {
		return nil
	}
	p := &logv1.Trigger{
		Id: t.ID, At: e.time(t.At), Jitter: int64(t.Jitter), Start: e.time(t.Start), End: e.time(t.End), Disabled: t.Disabled,
		Exclude: each(t.Exclude, func(x state.Exclusion) *logv1.Exclusion {
			return &logv1.Exclusion{Date: x.Date, From: e.time(x.From), To: e.time(x.To)}
		}),
	}
	if c := t.Cron; c != nil {
		p.Cron = &logv1.Cron{
			Expression: c.Expression, TimeZone: c.TimeZone,
			Gap: toEnum[logv1.Gap](e, c.Gap, state.GapRunAfter), Overlap: toEnum[logv1.DSTOverlap](e, c.Overlap, state.DSTOverlapFirst),
		}
	}
	if v := t.Every; v != nil {
		p.Every = &logv1.Every{Interval: int64(v.Interval), Phase: int64(v.Phase)}
	}
	return p
}

// triggers shares each of them, and the list where there is but one.
func (d *decoder) triggers(ps []*logv1.Trigger) []*state.Trigger {
	read := func(p *logv1.Trigger) *sharedTrigger {
		t := &sharedTrigger{Trigger: *d.trigger(p)}
		t.alone[0] = &t.Trigger
		return t
	}
	if len(ps) == 1 {
		return share(d, d.shared.triggers, ps[0], read).alone[:]
	}
	return each(ps, func(p *logv1.Trigger) *state.Trigger { return &share(d, d.shared.triggers, p, read).Trigger })
}

func (d *decoder) trigger(p *logv1.Trigger) *state.Trigger {
	t := &state.Trigger{
		ID: p.GetId(), At: d.time(p.GetAt()), Jitter: time.Duration(p.GetJitter()), Start: d.time(p.GetStart()), End: d.time(p.GetEnd()), Disabled: p.GetDisabled(),
		Exclude: each(p.GetExclude(), func(x *logv1.Exclusion) state.Exclusion {
			return state.Exclusion{Date: x.GetDate(), From: d.time(x.GetFrom()), To: d.time(x.GetTo())}
		}),
	}
	if c := p.GetCron(); c != nil {
		t.Cron = &state.Cron{
			Expression: c.GetExpression(), TimeZone: c.GetTimeZone(),
			Gap: fromEnum(d, c.GetGap(), state.GapRunAfter), Overlap: fromEnum(d, c.GetOverlap(), state.DSTOverlapFirst),
		}
	}
	if v := p.GetEvery(); v != nil {
		t.Every = &state.Every{Interval: time.Duration(v.GetInterval()), Phase: time.Duration(v.GetPhase())}
	}
	return t
}

func (e *encoder) policy(p *state.Policy) *logv1.Policy {
	return &logv1.Policy{
		Overlap:       toEnum[logv1.Overlap](e, p.Overlap, state.OverlapSkip),
		MaxConcurrent: int64(p.MaxConcurrent),
		CatchUp:       toEnum[logv1.CatchUp](e, p.CatchUp, state.CatchUpLatest),
		CatchUpWindow: int64(p.CatchUpWindow),
		Timeout:       int64(p.Timeout),
		KillGrace:     int64(p.KillGrace),
		QueueTimeout:  int64(p.QueueTimeout),
		StartWithin:   int64(p.StartWithin),
		Retry: &logv1.Retry{
			MaxAttempts: int64(p.Retry.MaxAttempts), InitialDelay: int64(p.Retry.InitialDelay), Multiplier: p.Retry.Multiplier,
			MaxDelay: int64(p.Retry.MaxDelay), ExitCodes: each(p.Retry.ExitCodes, func(n int) int64 { return int64(n) }),
		},
		OnLost:    toEnum[logv1.OnLost](e, p.OnLost, state.OnLostFail),
		LostAfter: int64(p.LostAfter),
		LogLimit:  p.LogLimit,

		TotalTimeout: int64(p.TotalTimeout),
		KillAfter:    int64(p.KillAfter),
	}
}

func (d *decoder) policy(p *logv1.Policy) *state.Policy {
	r := p.GetRetry()
	return &state.Policy{
		Overlap:       fromEnum(d, p.GetOverlap(), state.OverlapSkip),
		MaxConcurrent: d.int(p.GetMaxConcurrent()),
		CatchUp:       fromEnum(d, p.GetCatchUp(), state.CatchUpLatest),
		CatchUpWindow: time.Duration(p.GetCatchUpWindow()),
		Timeout:       time.Duration(p.GetTimeout()),
		KillGrace:     time.Duration(p.GetKillGrace()),
		QueueTimeout:  time.Duration(p.GetQueueTimeout()),
		StartWithin:   time.Duration(p.GetStartWithin()),
		Retry: state.Retry{
			MaxAttempts: d.int(r.GetMaxAttempts()), InitialDelay: time.Duration(r.GetInitialDelay()), Multiplier: r.GetMultiplier(),
			MaxDelay: time.Duration(r.GetMaxDelay()), ExitCodes: each(r.GetExitCodes(), d.int),
		},
		OnLost:    fromEnum(d, p.GetOnLost(), state.OnLostFail),
		LostAfter: time.Duration(p.GetLostAfter()),
		LogLimit:  p.GetLogLimit(),

		TotalTimeout: time.Duration(p.GetTotalTimeout()),
		KillAfter:    time.Duration(p.GetKillAfter()),
	}
}
