package systest

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

const (
	failed   = schedv1.Outcome_OUTCOME_FAILED
	timedOut = schedv1.Outcome_OUTCOME_TIMED_OUT
	refused  = schedv1.Outcome_OUTCOME_REFUSED
)

// checkTries: a run was tried as often as its job says, each time for a reason, and after
// the pause that it says; and it ended as the last attempt did. The rules are written down
// here once more, from the API's words.
func (w *world) checkTries(r *schedv1.Run, ran map[string]alive) {
	w.Helper()
	p := w.policyOf(r)
	if p == nil {
		return
	}
	who := fmt.Sprintf("run %s of %s", r.GetId(), r.GetJob())
	made := 0
	all := r.GetAttempts()
	for i, a := range all {
		if a.GetOutcome() != refused {
			made++
		}
		w.checkProcess(fmt.Sprintf("%s: attempt %d", who, a.GetNumber()), p, a, ran[attemptID(r, a)])
		if i == len(all)-1 {
			break
		}
		next := all[i+1]
		if !again(p, a, made) {
			w.Errorf("%s: attempt %d was made, and attempt %d had ended as %v with %d, by %v", who, next.GetNumber(), a.GetNumber(), a.GetOutcome(), a.GetExitCode(), p)
		}
		w.checkPauseAfter(who, p, a, ran[attemptID(r, a)], ran[attemptID(r, next)], made)
	}
	w.checkEnd(who, r, p, made)
}

// checkPauseAfter: the process of an attempt began no sooner than the job says after the
// attempt before it, the last of so many, had ended: or after that was given away, if it
// had no process, or nobody knew of its end.
func (w *world) checkPauseAfter(who string, p *schedv1.Policy, a *schedv1.Attempt, life, next alive, made int) {
	w.Helper()
	all := w.terms.wrongs()
	ended := all.earliest(a.GetAssignedTime().AsTime())
	if life.run != nil && ownEnd(a) && a.GetOutcome() != lost {
		ended = life.end()
	}
	if next.run != nil && next.From.Before(ended.Add(pauseAfter(p, a, made)-all.mismeasured(ended, next.From))) {
		w.Errorf("%s: attempt %d began at %v, and attempt %d had ended at %v, by %v", who, next.attempt.GetNumber(), next.From, a.GetNumber(), ended, p.GetRetry())
	}
}

// again tells whether a run may be tried again after an attempt, when so many were made
// that no worker refused.
func again(p *schedv1.Policy, a *schedv1.Attempt, made int) bool {
	most := max(1, int(p.GetRetry().GetMaxAttempts()))
	switch a.GetOutcome() {
	case refused:
		return true
	case lost, interrupted, leaseExpired:
		return p.GetOnLost() == onLostRetry && made < max(2, most)
	case failed:
		codes := p.GetRetry().GetExitCodes()
		return made < most && (len(codes) == 0 || a.GetSignal() == "" && slices.Contains(codes, a.GetExitCode()))
	case timedOut, notStarted:
		return made < most
	default:
		return false
	}
}

// pauseAfter is how long a run waits, at least, after an attempt that was the last of so
// many.
func pauseAfter(p *schedv1.Policy, a *schedv1.Attempt, made int) time.Duration {
	if a.GetOutcome() == refused {
		return time.Second
	}
	r := p.GetRetry()
	d := r.GetInitialDelay().AsDuration().Seconds() * math.Pow(r.GetMultiplier(), float64(made-1))
	return time.Duration(min(d, r.GetMaxDelay().AsDuration().Seconds()) * float64(time.Second)).Truncate(time.Microsecond)
}

// checkEnd: the phase of a run is what follows from its last attempt, and nothing was left
// to be tried.
func (w *world) checkEnd(who string, r *schedv1.Run, p *schedv1.Policy, made int) {
	w.Helper()
	all := r.GetAttempts()
	last := &schedv1.Attempt{}
	if len(all) > 0 {
		last = all[len(all)-1]
	}
	over := !again(p, last, made) || r.GetCancelRequestedTime() != nil
	for _, a := range all {
		if a.GetOutcome() == succeeded && (a != last || r.GetPhase() != phaseSucceeded) {
			w.Errorf("%s: attempt %d succeeded, and it is %v with %d attempts", who, a.GetNumber(), r.GetPhase(), len(all))
		}
	}
	fits := true
	switch r.GetPhase() {
	case phaseSucceeded:
		fits = last.GetOutcome() == succeeded
	case phaseFailed:
		fits = over && slices.Contains([]schedv1.Outcome{failed, notStarted}, last.GetOutcome())
	case phaseLost:
		fits = over && slices.Contains([]schedv1.Outcome{lost, interrupted, leaseExpired}, last.GetOutcome())
	case phaseTimedOut:
		fits = last.GetOutcome() == timedOut && over || w.outOfTime(r, p)
	case phaseSkipped, schedv1.Phase_PHASE_MISSED:
		fits = len(all) == 0
	default: // of what was cancelled, and of what goes on, others tell
	}
	if !fits {
		w.Errorf("%s is %v (%s), and its last attempt, of %d that count, ended as %v with %d, by %v", who, r.GetPhase(), r.GetReason(), made, last.GetOutcome(), last.GetExitCode(), p)
	}
}

// outOfTime tells whether a run has used up its queue_timeout or its total_timeout.
func (w *world) outOfTime(r *schedv1.Run, p *schedv1.Policy) bool {
	all := w.terms.wrongs()
	made, over := all.earliest(r.GetCreatedTime().AsTime()), all.latest(r.GetFinishedTime().AsTime())
	took := over.Sub(made) + all.mismeasured(made, over) // at most, as far as leaders knew
	total := p.GetTotalTimeout().AsDuration()
	return total > 0 && took >= total && strings.Contains(r.GetReason(), "total_timeout") ||
		took >= p.GetQueueTimeout().AsDuration() && strings.Contains(r.GetReason(), "queue_timeout")
}

// startSlack is how old an order may be that a worker carries out, and a moment.
const startSlack = 45*time.Second + time.Second

// checkProcess: a process was started in time, was ended in time, and is told to have
// ended as it did.
func (w *world) checkProcess(who string, p *schedv1.Policy, a *schedv1.Attempt, life alive) {
	w.Helper()
	if life.run == nil {
		return // there was none
	}
	took, does := life.took(), w.meant(life)
	all, given := w.terms.wrongs(), a.GetAssignedTime().AsTime()
	slack := startSlack + all.mismeasured(all.earliest(given), life.From)
	if latest := all.latest(given).Add(p.GetStartWithin().AsDuration() + slack); life.From.After(latest) {
		w.Errorf("%s was given away at %v and started at %v, with a start_within of %v", who, given, life.From, p.GetStartWithin().AsDuration())
	}
	timeout, grace := p.GetTimeout().AsDuration(), p.GetKillGrace().AsDuration()
	if timeout > 0 && took > timeout+grace {
		w.Errorf("%s ran for %v, with a timeout of %v and a grace of %v", who, took, timeout, grace)
	}
	switch a.GetOutcome() {
	case succeeded, failed:
		if a.GetSignal() == "" && (took != does.Duration || int(a.GetExitCode()) != does.ExitCode) || (a.GetOutcome() == succeeded) != (a.GetExitCode() == 0) {
			w.Errorf("%s exited with %d after %v, and it is told to be %v with %d (%s)", who, does.ExitCode, took, a.GetOutcome(), a.GetExitCode(), a.GetSignal())
		}
	case timedOut:
		if (timeout == 0 || took < timeout) && !strings.Contains(a.GetReason(), "start_within") {
			w.Errorf("%s is told to have timed out (%s), ran for %v, and its timeout is %v", who, a.GetReason(), took, timeout)
		}
	default: // somebody else has ended it, or nobody knows
	}
}

// checkOverdue: what should have ended before all was mended has ended a minute after it
// was looked at: by then who carries it out was told, and has had its grace.
func (w *world) checkOverdue() {
	w.Helper()
	late := map[string]string{}
	for _, r := range w.runs("active=true") {
		if why := w.overdue(r); why != "" {
			late[r.GetId()] = why
		}
	}
	if len(late) == 0 {
		return
	}
	w.wait(time.Minute)
	for _, r := range w.runs("active=true") {
		if why := late[r.GetId()]; why != "" {
			w.Errorf("run %s of %s is %v (%s), and %s", r.GetId(), r.GetJob(), r.GetPhase(), r.GetReason(), why)
		}
	}
}

// overdue tells why a run that goes on should have ended; "" if it may go on. What a twin
// has is given up when lost_after is over, which begins anew with each leader.
func (w *world) overdue(r *schedv1.Run) string {
	p := w.policyOf(r)
	made := r.GetCreatedTime().AsTime()
	all := r.GetAttempts()
	if p == nil || len(all) > 0 && w.twinned[all[len(all)-1].GetWorkerName()] {
		return ""
	}
	wrongs := w.terms.wrongs()
	took := time.Since(made) - wrongs.mismeasured(wrongs.earliest(made), time.Now()) // at least, as far as leaders know
	if total := p.GetTotalTimeout().AsDuration(); total > 0 && took > total {
		return fmt.Sprintf("its total_timeout of %v was over at %v", total, made.Add(total))
	}
	if queue := p.GetQueueTimeout().AsDuration(); len(all) == 0 && took > queue {
		return fmt.Sprintf("its queue_timeout of %v was over at %v", queue, made.Add(queue))
	}
	return ""
}
