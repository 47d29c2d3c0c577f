package plan

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

// Ended says what becomes of a run whose attempt ended: the command that records
// it.
func Ended(r *state.Run, fence uint64, result state.Attempt, now time.Time) state.Finish {
	live := r.Live()
	current := live != nil && live.Fence == fence
	if current {
		result = asAsked(r, result)
	}
	f := state.Finish{Run: r.ID, Fence: fence, Attempt: result}
	f.Attempt.Reason = shortened(result.Reason, reasonRoom(r))
	f.Phase, f.Reason = verdict(r, result)
	if !current || f.Phase == state.Succeeded || f.Phase == state.Cancelled {
		return f
	}
	switch n := len(r.Attempts) - refusals(r); {
	case result.Outcome == state.OutcomeRefused && r.CancelTime.IsZero():
		f.NotBefore = now.Add(refusedPause(len(r.Attempts) - FirstRefused(r)))
	case result.Outcome != state.OutcomeRefused && n < attemptsAllowed(r, result):
		f.NotBefore = now.Add(backoff(r, n))
	default:
		return f
	}
	f.Reason = fmt.Sprintf("attempt %d: %s", len(r.Attempts), f.Reason)
	f.Phase = state.Pending
	return f
}

const (
	// maxReasons bounds the reasons of all attempts of a run together, in bytes, and
	// leastReason how much each may have all the same. The run's own reason is that of the
	// latest attempt, whole. So a run of a hundred attempts and more than a hundred refusals
	// takes less than fifty kilobytes, whatever workers say.
	maxReasons  = 16 << 10
	leastReason = 100
)

// reasonRoom is how many bytes are left for the reason of another attempt.
func reasonRoom(r *state.Run) int {
	room := maxReasons
	for i := range r.Attempts {
		room -= len(r.Attempts[i].Reason)
	}
	return max(room, leastReason)
}

// shortened returns a text, or its beginning.
func shortened(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-len("…")], "") + "…"
}

// asAsked returns a result as what it is, if it says that somebody asked for the end, and
// nobody has: the leader itself has an attempt killed that was not seen to start within
// start_within. That is a timeout, and is tried again like one.
func asAsked(r *state.Run, a state.Attempt) state.Attempt {
	if a.Outcome == state.OutcomeCancelled && r.CancelTime.IsZero() {
		a.Outcome = state.OutcomeTimedOut
	}
	return a
}

// verdict is the phase of a run that ends with this result. One that was ended
// since it took too long in all is not cancelled: nobody has asked for that.
func verdict(r *state.Run, a state.Attempt) (state.Phase, string) {
	phase, why := verdictOf(r, a)
	if phase != state.Cancelled || !stopped(r) {
		return phase, why
	}
	if !strings.Contains(why, r.CancelNote) {
		why = r.CancelNote + "; " + why
	}
	return state.TimedOut, why
}

// stopped tells whether a run was to end since it took too long in all. The time at which
// that was asked for does not tell: a clock that was set shows that a run of a minute has
// taken an hour, and people cancel what is about to be stopped.
func stopped(r *state.Run) bool { return !r.CancelTime.IsZero() && r.CancelNote == tooLong(r) }

// tooLong is why a run is to end that takes too long.
func tooLong(r *state.Run) string {
	if r.Definition == nil {
		return ""
	}
	return fmt.Sprintf("it took longer than its total_timeout of %v", r.Definition.Policy.TotalTimeout)
}

// deadline is when a run has to have ended; zero: it may take any time, or has
// ended.
func deadline(r *state.Run) time.Time {
	if r.Definition == nil || r.Definition.Policy.TotalTimeout == 0 {
		return time.Time{}
	}
	return r.Created.Add(r.Definition.Policy.TotalTimeout)
}

func verdictOf(r *state.Run, a state.Attempt) (state.Phase, string) {
	cancelled := !r.CancelTime.IsZero()
	switch a.Outcome {
	case state.OutcomeSucceeded:
		return state.Succeeded, a.Reason
	case state.OutcomeTimedOut:
		return state.TimedOut, reason(a, "its timeout ended it")
	case state.OutcomeCancelled:
		return state.Cancelled, reason(a, r.CancelNote)
	case state.OutcomeLost, state.OutcomeInterrupted, state.OutcomeLeaseExpired:
		if cancelled {
			return state.Cancelled, reason(a, r.CancelNote)
		}
		return state.Lost, reason(a, "its worker was lost")
	case state.OutcomeNotStarted, state.OutcomeRefused:
		if cancelled {
			return state.Cancelled, reason(a, r.CancelNote)
		}
		return state.Failed, reason(a, "it could not be started")
	default:
		if cancelled {
			return state.Cancelled, reason(a, r.CancelNote)
		}
		if a.Signal != "" {
			return state.Failed, reason(a, "it was ended by "+a.Signal)
		}
		return state.Failed, reason(a, fmt.Sprintf("it exited with %d", a.ExitCode))
	}
}

func reason(a state.Attempt, otherwise string) string {
	if a.Reason != "" {
		return a.Reason
	}
	return otherwise
}

// attemptsAllowed is how many attempts the run may have in all, when the last
// one ended so.
func attemptsAllowed(r *state.Run, a state.Attempt) int {
	p := r.Definition.Policy
	switch {
	case !r.CancelTime.IsZero():
		return 0
	case a.Outcome == state.OutcomeLost || a.Outcome == state.OutcomeInterrupted || a.Outcome == state.OutcomeLeaseExpired:
		if p.OnLost == state.OnLostRetry {
			return max(p.Retry.MaxAttempts, 2) // asked for, so it means something where failures are not retried
		}
		return 0
	case a.Outcome == state.OutcomeFailed && len(p.Retry.ExitCodes) > 0:
		if a.Signal != "" || !slices.Contains(p.Retry.ExitCodes, a.ExitCode) {
			return 0
		}
	}
	return p.Retry.MaxAttempts
}

// backoff is the delay after attempt n, with up to a tenth more so that runs
// that failed together don't come back together.
func backoff(r *state.Run, n int) time.Duration {
	p := r.Definition.Policy.Retry
	d := min(float64(p.InitialDelay)*math.Pow(p.Multiplier, float64(n-1)), float64(p.MaxDelay))
	spread := float64(state.Mix(r.Created.Add(time.Duration(r.Serial)+time.Duration(n)))%1000) / 10000
	return time.Duration(d * (1 + spread))
}

// Since returns from when, by the state's clock, a run that has not ended counts what it
// waits for: its attempt was assigned then, or the one before ended, or it was made.
func Since(r *state.Run) time.Time {
	n := len(r.Attempts)
	switch {
	case r.Live() != nil:
		return r.Live().Assigned
	case n == 0 || r.NotBefore.IsZero():
		return r.Created
	case Refused(r):
		return r.NotBefore.Add(-refusedPause(n - FirstRefused(r)))
	}
	return r.NotBefore.Add(-backoff(r, n-refusals(r)))
}

// The pace of what is said again.
const (
	// resend is when a Launch or Kill that shows no effect is sent again.
	resend = 10 * time.Second
	// hearsay is how long after the last moment for a start the leader waits for word of
	// one: what began just in time has yet to be told.
	hearsay = 5 * time.Second
)

// Look is what to do about a run, and when to look at it again.
type Look struct {
	Command state.Command // to propose; nil: nothing
	Queue   bool          // put it in the queue
	Launch  bool          // send Launch (again)
	Kill    bool          // send Kill (again)
	Next    time.Time     // zero: when it changes
}

// Check says what to do about a run that has not ended. silent is since when
// its worker has no session, or none in which it tells what it has; zero when it has one. absent is since when its worker has
// said that it does not have the attempt, though it was seen to run, or was given a lease;
// zero when it has not said so.
func Check(r *state.Run, silent, absent, now time.Time) Look {
	at := deadline(r)
	switch {
	case at.IsZero() || !r.CancelTime.IsZero():
		return check(r, silent, absent, now)
	case !now.Before(at):
		return Look{Command: stop(r)}
	}
	look := check(r, silent, absent, now)
	if look.Next.IsZero() || at.Before(look.Next) {
		look.Next = at
	}
	return look
}

// stop ends a run that takes too long.
func stop(r *state.Run) state.Command {
	why := tooLong(r)
	if r.Live() == nil {
		return state.GiveUp{Run: r.ID, Phase: state.TimedOut, Reason: why}
	}
	return state.Cancel{Run: r.ID, Note: why}
}

func check(r *state.Run, silent, absent, now time.Time) Look {
	p := r.Definition
	live := r.Live()
	switch {
	case live == nil:
		return checkPending(r, now)
	case !absent.IsZero():
		return checkAbsent(r, absent, now)
	case !silent.IsZero():
		return checkSilent(r, silent, now)
	case !r.CancelTime.IsZero():
		return Look{Kill: true, Next: now.Add(max(resend, p.Policy.KillGrace))}
	case r.Phase == state.Running:
		return Look{}
	}
	switch deadline := live.Assigned.Add(p.Policy.StartWithin); {
	case now.Before(deadline):
		return Look{Launch: true, Next: now.Add(resend)}
	case now.Before(deadline.Add(hearsay)):
		return Look{Next: deadline.Add(hearsay)}
	}
	return Look{Kill: true, Next: now.Add(resend)}
}

func checkPending(r *state.Run, now time.Time) Look {
	timeout := r.Definition.Policy.QueueTimeout
	deadline := QueuedSince(r).Add(timeout)
	switch {
	case !r.CancelTime.IsZero(): // somebody asked while it was agreed that it is tried again
		return Look{Command: giveUpCancelled(r)}
	case !now.Before(deadline):
		why := fmt.Sprintf("it waited longer than its queue_timeout of %v", timeout)
		if Refused(r) {
			why += "; " + r.Reason
		}
		return Look{Command: state.GiveUp{Run: r.ID, Phase: state.TimedOut, Reason: why}}
	case r.NotBefore.After(now):
		return Look{Next: earlier(r.NotBefore, deadline)}
	}
	return Look{Queue: true, Next: deadline}
}

// giveUpCancelled ends a run that was to end and has no attempt any more.
func giveUpCancelled(r *state.Run) state.Command {
	phase := state.Cancelled
	if stopped(r) {
		phase = state.TimedOut
	}
	return state.GiveUp{Run: r.ID, Phase: phase, Reason: r.CancelNote}
}

func checkSilent(r *state.Run, silent, now time.Time) Look {
	p := r.Definition.Policy
	if p.OnLost == state.OnLostWait && r.CancelTime.IsZero() {
		return Look{}
	}
	if deadline := silent.Add(p.LostAfter); now.Before(deadline) {
		return Look{Next: deadline}
	}
	live := r.Live()
	process := "whether the process still runs is not known"
	if p.KillAfter > 0 {
		process = fmt.Sprintf("by then the worker had to have ended the process, without a lease for %v (kill_after)", p.KillAfter)
	}
	return Look{Command: Ended(r, live.Fence, state.Attempt{
		Outcome: state.OutcomeLost,
		Reason:  fmt.Sprintf("worker %s has been silent for longer than lost_after, %v; %s", live.WorkerName, p.LostAfter, process),
	}, now)}
}

// forgotten is the result of an attempt that its worker says it does not know,
// though its process was seen to run.
func forgotten(r *state.Run, now time.Time) state.Finish {
	return Ended(r, r.Live().Fence, state.Attempt{
		Outcome: state.OutcomeLost,
		Reason:  "its worker came back without it: its data directory was lost or replaced",
	}, now)
}
