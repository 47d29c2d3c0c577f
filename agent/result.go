package agent

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/session"
	"github.com/schedd/schedd/agent/spool"
	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
)

// journalAgain is how often the agent tries to put a result on record that could
// not be.
const journalAgain = 30 * time.Second

// maxReason bounds a reason, in bytes.
const maxReason = 2000

// newResult returns the result of an attempt that ends now. Reasons may quote
// anything; what is not UTF-8 could not be sent.
func (t *table) newResult(a *attempt, outcome agentv1.Outcome, reason string) *agentv1.Result {
	reason = strings.ToValidUTF8(reason[:min(len(reason), maxReason)], "?")
	return &agentv1.Result{
		Key: a.protoKey(), Fence: a.fence, Outcome: outcome, Reason: reason, FinishedTime: timestamppb.Now(),
	}
}

func (t *table) declined(a *attempt, reason string) *agentv1.Result {
	return t.newResult(a, agentv1.Outcome_OUTCOME_REFUSED, reason)
}

func (t *table) notStarted(a *attempt, reason string) *agentv1.Result {
	return t.newResult(a, agentv1.Outcome_OUTCOME_NOT_STARTED, reason)
}

// ended makes the result of an attempt whose process has ended.
func (t *table) ended(a *attempt, log *spool.Log, exit runner.Exit, why cause) *agentv1.Result {
	var err error
	outcome, reason := verdict(exit, why)
	if exit.LeaseExpired {
		reason = joined(fmt.Sprintf("ended by its worker, which had no lease from the leader for %v (kill_after)", a.killAfter), reason)
	}
	r := t.newResult(a, outcome, reason)
	if !exit.Interrupted {
		r.ExitCode, r.Signal = int32(exit.Code), exit.Signal
	}
	r.StartedTime, r.FinishedTime = stamp(exit.Started), stamp(exit.Finished)
	r.CpuTime, r.MaxRssBytes = durationpb.New(exit.CPUTime), exit.MaxRSS
	r.LogBytes, r.LogDroppedBytes, err = t.seal(a, log)
	if err != nil {
		r.Reason = joined(sealReason, r.GetReason())
	}
	return r
}

// sealReason is told beside how it ended, when the worker's disk did not even let it
// find out how long the log is.
const sealReason = "the worker could not keep the end of its log: output may be missing"

// verdict says how an attempt ended, and why if there is more to tell than its
// exit code.
func verdict(exit runner.Exit, why cause) (agentv1.Outcome, string) {
	switch {
	case exit.Interrupted:
		return agentv1.Outcome_OUTCOME_INTERRUPTED, cmp.Or(exit.Reason, "how it ended nobody saw")
	case exit.TimedOut:
		return agentv1.Outcome_OUTCOME_TIMED_OUT, cmp.Or(exit.Reason, "it took longer than its timeout")
	case exit.LeaseExpired:
		return agentv1.Outcome_OUTCOME_LEASE_EXPIRED, exit.Reason
	case exit.Killed:
		why.set(agentv1.Outcome_OUTCOME_KILLED, "")
		return why.outcome, joined(why.reason, exit.Reason)
	case exit.Code == 0 && exit.Signal == "":
		return agentv1.Outcome_OUTCOME_SUCCEEDED, exit.Reason
	}
	return agentv1.Outcome_OUTCOME_FAILED, exit.Reason
}

func joined(first, second string) string {
	if first == "" || second == "" {
		return first + second
	}
	return first + "; " + second
}

// seal fixes the log. One that can't be fixed is as long as what is known of it; one
// that is not there is empty.
func (t *table) seal(a *attempt, log *spool.Log) (size, dropped int64, err error) {
	if log == nil {
		return 0, 0, nil
	}
	size, dropped, err = log.Seal()
	if err != nil {
		t.log.Error("log can't be sealed; its end may be missing", "run", a.key.Run, "attempt", a.key.Attempt, "err", err)
		t.mu.Lock()
		size = a.logSize
		t.mu.Unlock()
	}
	return size, dropped, err
}

// end puts the result on record and tells it. A result that can't be put on
// record is told all the same: the leader can.
func (t *table) end(a *attempt, r *agentv1.Result) {
	t.keepExit(a, r)
	t.log.Info("finished", "run", a.key.Run, "attempt", a.key.Attempt, "fence", a.fence, "job", a.job, "pid", a.started.GetPid(),
		"outcome", r.GetOutcome().String(), "exit_code", r.GetExitCode(), "reason", r.GetReason(), "log_bytes", r.GetLogBytes())
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open--
	a.phase = agentv1.AttemptPhase_ATTEMPT_PHASE_ENDED
	a.result = r
	a.logSize = r.GetLogBytes()
	t.reportLocked(a.key)
	if a.shippingLocked() {
		t.logGrewLocked(a.key)
	}
	wake(t.changed)
}

// keepExit writes the result to the journal, unless that is done, or the attempt
// is not in it.
func (t *table) keepExit(a *attempt, r *agentv1.Result) {
	if a.exitKept || a.volatile {
		return
	}
	rec, err := a.exitedRecord(r)
	if err == nil {
		err = t.appendSoon(rec)
	}
	if err != nil {
		t.log.Error("result can't be put on record; it is reported and lost if the agent stops before the leader has it",
			"run", a.key.Run, "attempt", a.key.Attempt, "err", err)
		return
	}
	a.exitKept = true
	t.runnerForgets(a)
}

// runnerForgets tells the runner that how an attempt ended is on record here.
func (t *table) runnerForgets(a *attempt) {
	if t.lasting != nil {
		t.lasting.Forget(a.id())
	}
}

// bury waits until an attempt that has ended may be forgotten, and forgets it.
// The log goes first: what is left after a crash in between, or of the host a little
// later, is a result that is sent once more.
func (t *table) bury(a *attempt) {
	if !t.awaitRelease(a) {
		return
	}
	t.setAside(a)
	t.removeLog(a)
	if !a.volatile {
		t.keepExit(a, a.result)
		if err := t.noteSoon(a.ackedRecord()); err != nil {
			t.log.Warn("attempt stays in the journal and will be reported again", "run", a.key.Run, "attempt", a.key.Attempt, "err", err)
		}
	}
	t.forget(a)
}

// removeLog gives back the room that the log of an attempt takes. Its file may be the next
// one's if the end of this one is on record: of two that are not, nobody could tell later
// whose it is.
func (t *table) removeLog(a *attempt) {
	if a.log == nil {
		return
	}
	remove := a.log.Remove
	if a.exitKept {
		remove = a.log.Release
	}
	if err := remove(); err != nil && !errors.Is(err, spool.ErrRemoved) {
		t.log.Warn("spool log was not removed", "run", a.key.Run, "attempt", a.key.Attempt, "err", err)
	}
}

// awaitRelease reports whether the attempt was released; otherwise the agent
// stops. Meanwhile it tries to put on record what could not be.
func (t *table) awaitRelease(a *attempt) bool {
	var again <-chan time.Time
	if !a.exitKept && !a.volatile {
		ticker := time.NewTicker(journalAgain)
		defer ticker.Stop()
		again = ticker.C
	}
	for {
		select {
		case <-a.released:
			return true
		case <-t.closing:
			return isClosed(a.released)
		case <-again:
			t.keepExit(a, a.result)
		}
	}
}

// Unshipped returns the attempts with a log that is not durable.
func (t *table) Unshipped() []session.Key {
	t.mu.Lock()
	defer t.mu.Unlock()
	var keys []session.Key
	for k, a := range t.attempts {
		if a.shippingLocked() && a.logSize > 0 {
			keys = append(keys, k)
		}
	}
	return keys
}

// LogSize returns how much of a log can be shipped; false when none of it is
// needed any more.
func (t *table) LogSize(k session.Key) (size int64, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.attempts[k]
	if a == nil || !a.shippingLocked() {
		return 0, false
	}
	return a.logSize, true
}

// LogFence returns the fence of an attempt, 0 when it is not known any more, and whether
// its log was never read to be shipped.
func (t *table) LogFence(k session.Key) (fence uint64, fresh bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a := t.attempts[k]; a != nil {
		return a.fence, !a.recovered && !a.read
	}
	return 0, false
}

// ReadLog reads a log from the disk.
func (t *table) ReadLog(k session.Key, offset int64, parts ...[]byte) (int, error) {
	t.mu.Lock()
	var log *spool.Log
	if a := t.attempts[k]; a != nil {
		log, a.read = a.log, true
	}
	t.mu.Unlock()
	if log == nil {
		return 0, spool.ErrRemoved
	}
	return log.ReadParts(offset, parts...)
}

// LogDurable takes note of how much of a log is safe elsewhere.
func (t *table) LogDurable(k session.Key, durable int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a := t.attempts[k]; a != nil && durable > a.durable {
		a.durable = durable
		if a.log != nil {
			a.log.Acknowledge(durable)
		}
		a.releaseLocked()
		wake(t.changed)
	}
}

// LogRefused takes note that the primaries never take a log.
func (t *table) LogRefused(k session.Key, fence uint64, reason string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a := t.attempts[k]; a != nil && a.fence == fence && a.refused == "" {
		a.refused = cmp.Or(reason, "they did not say why")
		a.releaseLocked()
		wake(t.changed)
	}
}

// setAside keeps a log for people that the primaries have refused, in the place that the
// spool has for such: the attempt was carried out, and nobody else can tell what it did here.
func (t *table) setAside(a *attempt) {
	t.mu.Lock()
	refused := a.refused
	t.mu.Unlock()
	if refused == "" || a.log == nil {
		return
	}
	log := t.log.With("run", a.key.Run, "attempt", a.key.Attempt, "fence", a.fence, "job", a.job, "reason", refused)
	path, err := a.log.SetAside()
	if err != nil {
		log.Error("log refused, and removed, since it can't be set aside: the primaries have another one of this attempt; see that no other host has a copy of this worker's data directory", "err", err)
		return
	}
	log.Error("log refused, and set aside: the primaries have another one of this attempt; see that no other host has a copy of this worker's data directory", "path", path)
}
