package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/schedd/schedd/agent/journal"
	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/session"
	"github.com/schedd/schedd/agent/spool"
	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
)

// acceptance is what is kept of a launch. The task is not: it may hold secrets,
// and is never carried out a second time.
type acceptance struct {
	Boot  string        `json:"boot,omitempty"` // of the host
	Job   string        `json:"job,omitempty"`
	Grace time.Duration `json:"grace,omitempty"` // between TERM and KILL

	KillAfter time.Duration `json:"kill_after,omitempty"` // without a lease

	File     string `json:"file,omitempty"`      // of the spool, reserved for its log
	LogLimit int64  `json:"log_limit,omitempty"` // in bytes; of a log in a file that was reserved
}

func (a *attempt) newRecord(kind journal.Kind, payload []byte) journal.Record {
	return journal.Record{Kind: kind, Key: journal.Key(a.key), Fence: a.fence, Time: time.Now(), Payload: payload}
}

func (t *table) acceptedRecord(a *attempt) journal.Record {
	accepted := acceptance{Boot: t.boot, Job: a.job, Grace: a.grace, KillAfter: a.killAfter, File: a.file}
	if a.file != "" {
		accepted.LogLimit = a.logLimit()
	}
	payload, err := json.Marshal(accepted)
	if err != nil {
		payload = nil // strings and a number: it can't fail; without them the attempt is still on record
	}
	return a.newRecord(journal.Accepted, payload)
}

func (a *attempt) exitedRecord(r *agentv1.Result) (journal.Record, error) {
	payload, err := proto.Marshal(r)
	if err != nil {
		return journal.Record{}, fmt.Errorf("encode the result: %w", err)
	}
	return a.newRecord(journal.Exited, payload), nil
}

func (a *attempt) ackedRecord() journal.Record { return a.newRecord(journal.Acked, nil) }

// noteStart puts on record that the process runs.
func (t *table) noteStart(a *attempt) {
	t.mu.Lock()
	started := a.started
	t.mu.Unlock()
	payload, err := proto.Marshal(started)
	if err == nil {
		err = t.noteRecord(a.newRecord(journal.Started, payload))
	}
	if err != nil {
		t.log.Warn("start can't be put on record", "run", a.key.Run, "attempt", a.key.Attempt, "err", err)
	}
}

// resume takes up the attempts of former lives. It is called before there is a
// session.
func (t *table) resume(entries []journal.Entry) {
	kept := t.kept()
	t.mu.Lock()
	defer t.mu.Unlock()
	// The newest first: should damage have taken the end of one off the record, the file of
	// its log is that of a later one by now.
	for _, e := range slices.Backward(entries) {
		a := newAttempt(session.Key(e.Key), e.Fence)
		a.recovered = true
		known := recall(a, e)
		a.log = t.logOf(a, known)
		proc := kept[a.id()]
		delete(kept, a.id())
		switch {
		case a.result != nil:
			a.exitKept = true
			a.logSize = a.result.GetLogBytes()
			if a.log != nil {
				a.log.Resume(a.logSize)
			}
			t.runnerForgets(a)
			t.beginLocked(a, t.bury)
		case proc != nil && (isClosed(proc.Done()) || !t.rebooted(known)):
			t.reattachLocked(a, proc, e.Started == nil)
		default:
			t.beginLocked(a, func(a *attempt) { t.settle(a, known) })
		}
	}
	for id, proc := range kept {
		t.lives.Go(func() { t.disown(id, proc) })
	}
}

// logOf returns the log of an attempt of a former life; nil without one. The file that was
// reserved for one that has printed nothing, and has ended, may be another's by now.
func (t *table) logOf(a *attempt, known acceptance) *spool.Log {
	if a.result != nil && a.result.GetLogBytes() == 0 {
		log, _ := t.spool.Get(spool.Key(a.key))
		return log
	}
	return t.spool.Claim(spool.Key(a.key), known.LogLimit, known.File)
}

// kept returns what the runner has of former lives.
func (t *table) kept() map[string]runner.Process {
	if t.lasting == nil {
		return nil
	}
	return t.lasting.Known()
}

// rebooted reports whether the host was, since an attempt was accepted. No process
// outlives that.
func (t *table) rebooted(known acceptance) bool {
	return known.Boot != "" && t.boot != "" && known.Boot != t.boot
}

// reattachLocked looks after what was started in a former life, and has gone on, or
// ended, without an agent.
func (t *table) reattachLocked(a *attempt, proc runner.Process, note bool) {
	t.log.Info("found again", "run", a.key.Run, "attempt", a.key.Attempt, "fence", a.fence, "job", a.job, "pid", proc.PID())
	a.phase = agentv1.AttemptPhase_ATTEMPT_PHASE_RUNNING
	if a.started == nil {
		a.started = a.startedBy(proc)
	}
	t.beginLocked(a, func(a *attempt) { t.conclude(a, t.follow(a, proc, note)) })
}

// disown sees to what the runner has and the journal knows no more: an attempt that
// was acknowledged, or one that damage took. Nobody waits for that one, and another
// may be made in its place, so it is ended.
func (t *table) disown(id string, proc runner.Process) {
	if !isClosed(proc.Done()) {
		t.log.Error("ending an attempt that the journal does not know", "attempt", id, "pid", proc.PID())
		proc.Kill(0)
		select {
		case <-proc.Done():
		case <-t.closing:
			return
		}
	}
	t.lasting.Forget(id)
}

// recall fills in what the journal knows of an attempt. What it can't read it
// leaves out: the attempt is still known.
func recall(a *attempt, e journal.Entry) (known acceptance) {
	if e.Accepted != nil && json.Unmarshal(e.Accepted.Payload, &known) == nil {
		// An agent of a former version had both as the leader said.
		a.job, a.grace, a.killAfter = known.Job, runner.ClampGrace(known.Grace), min(known.KillAfter, longest)
		a.wants = a.killAfter > 0
	}
	if e.Started != nil {
		a.phase = agentv1.AttemptPhase_ATTEMPT_PHASE_RUNNING
		started := new(agentv1.Started)
		if proto.Unmarshal(e.Started.Payload, started) == nil {
			a.started = started
		}
	}
	if e.Exited == nil {
		return known
	}
	result := new(agentv1.Result)
	if err := proto.Unmarshal(e.Exited.Payload, result); err != nil || result.GetOutcome() == 0 {
		result = &agentv1.Result{
			Key: a.protoKey(), Fence: a.fence, Outcome: agentv1.Outcome_OUTCOME_INTERRUPTED,
			Reason: "it ended, but the worker can't read its record of how", StartedTime: a.startedTime(), FinishedTime: stamp(e.Exited.Time),
		}
	}
	a.phase = agentv1.AttemptPhase_ATTEMPT_PHASE_ENDED
	a.result = result
	return known
}

// settle is the rest of the life of an attempt that was under way when a former
// life of the agent ended, and that no runner knows. It may have started, so it
// never starts again; what is left of it is ended.
func (t *table) settle(a *attempt, known acceptance) {
	reason := "the agent stopped while it was being started, or soon after"
	if a.started != nil {
		reason = "the worker's runner died while it ran"
	}
	if t.lasting == nil {
		reason = "the agent stopped while it ran"
	}
	if t.rebooted(known) {
		reason = "the host rebooted"
	} else if err := t.endStrays(a); err != nil {
		if t.isLeaving() {
			t.leave(a) // before it could be done: the next agent does it
			return
		}
		reason += "; processes that it left may still run: " + err.Error()
	}
	r := t.newResult(a, agentv1.Outcome_OUTCOME_INTERRUPTED, reason)
	r.StartedTime = a.startedTime()
	var err error
	if r.LogBytes, r.LogDroppedBytes, err = t.seal(a, a.log); err != nil {
		r.Reason = joined(r.GetReason(), sealReason)
	}
	t.conclude(a, r)
}

// endStrays ends the processes that an attempt of a former life left behind.
func (t *table) endStrays(a *attempt) error {
	n, err := t.runner.EndStrays(a.id(), marks(t.worker, a.id()))
	if n > 0 {
		t.log.Warn("ended processes of an attempt of a former life", "run", a.key.Run, "attempt", a.key.Attempt, "processes", n)
	}
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		t.log.Error("processes of an attempt of a former life may still run", "run", a.key.Run, "attempt", a.key.Attempt, "err", err)
	}
	return err
}
