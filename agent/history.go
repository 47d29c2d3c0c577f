package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/schedd/schedd/agent/journal"
	"github.com/schedd/schedd/agent/session"
	"github.com/schedd/schedd/agent/spool"
	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
)

// acceptance is what is kept of a launch. The task is not: it may hold secrets,
// and is never carried out a second time.
type acceptance struct {
	Boot string `json:"boot,omitempty"` // of the host
	Job  string `json:"job,omitempty"`
}

func (a *attempt) newRecord(kind journal.Kind, payload []byte) journal.Record {
	return journal.Record{Kind: kind, Key: journal.Key(a.key), Fence: a.fence, Time: time.Now(), Payload: payload}
}

func (t *table) acceptedRecord(a *attempt) journal.Record {
	payload, err := json.Marshal(acceptance{Boot: t.boot, Job: a.job})
	if err != nil {
		payload = nil // two strings: it can't fail; without them the attempt is still on record
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
		err = t.journal.Append(a.newRecord(journal.Started, payload))
	}
	if err != nil {
		t.log.Warn("start can't be put on record", "run", a.key.Run, "attempt", a.key.Attempt, "err", err)
	}
}

// resume takes up the attempts of former lives. It is called before there is a
// session.
func (t *table) resume(entries []journal.Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range entries {
		a := newAttempt(session.Key(e.Key), e.Fence)
		a.recovered = true
		a.log, _ = t.spool.Get(spool.Key(e.Key))
		known := recall(a, e)
		if a.result != nil {
			a.exitKept = true
			a.logSize = a.result.GetLogBytes()
			t.beginLocked(a, t.bury)
			continue
		}
		t.beginLocked(a, func(a *attempt) { t.settle(a, known) })
	}
}

// recall fills in what the journal knows of an attempt. What it can't read it
// leaves out: the attempt is still known.
func recall(a *attempt, e journal.Entry) (known acceptance) {
	if e.Accepted != nil && json.Unmarshal(e.Accepted.Payload, &known) == nil {
		a.job = known.Job
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
// life of the agent ended. It may have started, so it never starts again; what
// is left of it is ended.
func (t *table) settle(a *attempt, known acceptance) {
	reason := "the agent stopped while it ran"
	if known.Boot != "" && t.boot != "" && known.Boot != t.boot {
		reason = "the host rebooted"
	} else if err := t.endStrays(a); err != nil {
		reason += "; processes that it left may still run: " + err.Error()
	}
	r := t.newResult(a, agentv1.Outcome_OUTCOME_INTERRUPTED, reason)
	r.StartedTime = a.startedTime()
	if a.log != nil {
		r.LogBytes, r.LogDroppedBytes = t.seal(a, a.log)
	}
	t.end(a, r)
	t.bury(a)
}

// strays is what the runner of real processes can do beyond [runner.Runner].
type strays interface {
	EndStrays(id string, env []string) (int, error)
}

// endStrays ends the processes that an attempt of a former life left behind.
func (t *table) endStrays(a *attempt) error {
	r, ok := t.runner.(strays)
	if !ok {
		return nil
	}
	n, err := r.EndStrays(a.id(), []string{
		"SCHEDD_RUN_ID=" + a.key.Run, fmt.Sprint("SCHEDD_ATTEMPT=", a.key.Attempt), "SCHEDD_WORKER=" + t.worker,
	})
	if n > 0 {
		t.log.Warn("ended processes of an attempt of a former life", "run", a.key.Run, "attempt", a.key.Attempt, "processes", n)
	}
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		t.log.Error("processes of an attempt of a former life may still run", "run", a.key.Run, "attempt", a.key.Attempt, "err", err)
	}
	return err
}
