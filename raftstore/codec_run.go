package raftstore

import (
	"time"

	logv1 "github.com/schedd/schedd/proto/schedd/log/v1"
	"github.com/schedd/schedd/raftstore/state"
)

func (e *encoder) phase(p state.Phase) logv1.Phase { return toEnum[logv1.Phase](e, p, state.Pending) }
func (d *decoder) phase(p logv1.Phase) state.Phase { return fromEnum(d, p, state.Pending) }

func (e *encoder) outcome(o state.Outcome) logv1.Outcome {
	return toEnum[logv1.Outcome](e, o, state.Unfinished)
}
func (d *decoder) outcome(o logv1.Outcome) state.Outcome { return fromEnum(d, o, state.Unfinished) }

func (e *encoder) decision(v state.Decision) logv1.Decision {
	return toEnum[logv1.Decision](e, v, state.DecidedRun)
}

func (d *decoder) decision(p logv1.Decision) state.Decision {
	return fromEnum(d, p, state.DecidedRun)
}

func (e *encoder) run(r *state.Run) *logv1.Run {
	return &logv1.Run{
		Id: r.ID[:], Job: e.key(r.Job), Uid: r.UID, Version: r.Version, Trigger: r.Trigger, Nominal: e.time(r.Nominal),
		Phase: e.phase(r.Phase), Reason: e.text(r.Reason), Created: e.time(r.Created), Finished: e.time(r.Finished), NotBefore: e.time(r.NotBefore),
		Attempts: each(r.Attempts, e.attempt), Missed: r.Missed, RetryOf: e.ref(r.RetryOf),
		CancelTime: e.time(r.CancelTime), CancelNote: e.text(r.CancelNote), Definition: e.definition(r.Definition), Serial: r.Serial,
	}
}

func (d *decoder) run(p *logv1.Run) *state.Run {
	return &state.Run{
		ID: d.id(p.GetId()), Job: d.key(p.GetJob()), UID: p.GetUid(), Version: p.GetVersion(), Trigger: d.text(p.GetTrigger()), Nominal: d.time(p.GetNominal()),
		Phase: d.phase(p.GetPhase()), Reason: p.GetReason(), Created: d.time(p.GetCreated()), Finished: d.time(p.GetFinished()), NotBefore: d.time(p.GetNotBefore()),
		Attempts: each(p.GetAttempts(), d.attempt), Missed: p.GetMissed(), RetryOf: d.ref(p.GetRetryOf()),
		CancelTime: d.time(p.GetCancelTime()), CancelNote: p.GetCancelNote(), Definition: d.definition(p.GetDefinition()), Serial: p.GetSerial(),
	}
}

func (e *encoder) attempt(a state.Attempt) *logv1.Attempt {
	return &logv1.Attempt{
		Number: int64(a.Number), Fence: a.Fence, Worker: string(a.Worker), WorkerName: e.text(a.WorkerName),
		Assigned: e.time(a.Assigned), Started: e.time(a.Started), Finished: e.time(a.Finished),
		Outcome: e.outcome(a.Outcome), Late: e.outcome(a.Late), ExitCode: int64(a.ExitCode), Signal: e.text(a.Signal), Reason: e.text(a.Reason),
		LogBytes: a.LogBytes, LogDropped: a.LogDropped, CpuTime: int64(a.CPUTime), MaxRss: a.MaxRSS,
	}
}

func (d *decoder) attempt(p *logv1.Attempt) state.Attempt {
	return state.Attempt{
		Number: d.int(p.GetNumber()), Fence: p.GetFence(), Worker: state.WorkerID(d.text(p.GetWorker())), WorkerName: d.text(p.GetWorkerName()),
		Assigned: d.time(p.GetAssigned()), Started: d.time(p.GetStarted()), Finished: d.time(p.GetFinished()),
		Outcome: d.outcome(p.GetOutcome()), Late: d.outcome(p.GetLate()), ExitCode: d.int(p.GetExitCode()), Signal: p.GetSignal(), Reason: p.GetReason(),
		LogBytes: p.GetLogBytes(), LogDropped: p.GetLogDropped(), CPUTime: time.Duration(p.GetCpuTime()), MaxRSS: p.GetMaxRss(),
	}
}

func (e *encoder) birth(b state.Birth) *logv1.Birth {
	return &logv1.Birth{
		Phase: e.phase(b.Phase), Nominal: e.time(b.Nominal), NotBefore: e.time(b.NotBefore), Reason: e.text(b.Reason), Missed: b.Missed,
		Replaces: each(b.Replaces, func(id state.RunID) []byte { return id[:] }),
	}
}

func (d *decoder) birth(p *logv1.Birth) state.Birth {
	return state.Birth{
		Phase: d.phase(p.GetPhase()), Nominal: d.time(p.GetNominal()), NotBefore: d.time(p.GetNotBefore()), Reason: p.GetReason(), Missed: p.GetMissed(),
		Replaces: each(p.GetReplaces(), d.id),
	}
}

func (e *encoder) decided(c state.Decided) *logv1.Decided {
	p := &logv1.Decided{
		Decision: e.decision(c.Decision), First: e.time(c.First), Last: e.time(c.Last), Count: c.Count, Digest: c.Digest, Reason: e.text(c.Reason),
	}
	if c.Run != nil {
		p.Run = e.birth(*c.Run)
	}
	return p
}

func (d *decoder) decided(p *logv1.Decided) state.Decided {
	c := state.Decided{
		Decision: d.decision(p.GetDecision()), First: d.time(p.GetFirst()), Last: d.time(p.GetLast()), Count: p.GetCount(), Digest: p.GetDigest(), Reason: p.GetReason(),
	}
	if p.GetRun() != nil {
		b := d.birth(p.GetRun())
		c.Run = &b
	}
	return c
}

func (e *encoder) span(s state.Span) *logv1.Span {
	return &logv1.Span{
		First: e.time(s.First), Last: e.time(s.Last), Count: s.Count, Digest: s.Digest,
		Decision: e.decision(s.Decision), Reason: e.text(s.Reason), Version: s.Version,
	}
}

func (d *decoder) span(p *logv1.Span) state.Span {
	return state.Span{
		First: d.time(p.GetFirst()), Last: d.time(p.GetLast()), Count: p.GetCount(), Digest: p.GetDigest(),
		Decision: d.decision(p.GetDecision()), Reason: p.GetReason(), Version: p.GetVersion(),
	}
}

// track returns a track without its closed spans, which follow it, and, while it
// is in force, without its trigger, which its job has.
func (e *encoder) track(k state.KeyedTrack, inForce bool) *logv1.Track {
	t := k.Track
	p := &logv1.Track{
		Uid: k.Key.UID, TriggerId: k.Key.Trigger, Version: t.Version,
		Since: e.time(t.Since), DecidedUntil: e.time(t.DecidedUntil), Ended: e.time(t.Ended), Closed: uint64(len(t.Closed)),
	}
	if !inForce {
		p.Trigger = e.trigger(t.Trigger)
	}
	if t.Open.Count != 0 {
		p.Open = e.span(t.Open)
	}
	return p
}

// track returns a track without its closed spans.
func (d *decoder) track(p *logv1.Track) state.KeyedTrack {
	t := &state.Track{
		Version: p.GetVersion(), Since: d.time(p.GetSince()), DecidedUntil: d.time(p.GetDecidedUntil()), Ended: d.time(p.GetEnded()),
	}
	if p.GetTrigger() != nil {
		t.Trigger = d.trigger(p.GetTrigger())
	}
	if p.GetOpen() != nil {
		t.Open = d.span(p.GetOpen())
	}
	return state.KeyedTrack{Key: state.TrackKey{UID: p.GetUid(), Trigger: p.GetTriggerId()}, Track: t}
}
