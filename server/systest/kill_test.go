package systest

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/schedd/schedd/agent/runner"
	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// upTo returns a random duration in [0, d).
func upTo(dice *rand.Rand, d time.Duration) time.Duration {
	return time.Duration(dice.Int64N(int64(d)))
}

// slow gives the primary's disk, the network and the hosts' starts some time, so
// that there are moments in the midst of things at which to kill.
func (w *world) slow(dice *rand.Rand) {
	var mu sync.Mutex
	dice = rand.New(rand.NewPCG(dice.Uint64(), 0)) // who uses it next is not up to the seed
	pause := func(most time.Duration) {
		mu.Lock()
		d := upTo(dice, most)
		mu.Unlock()
		time.Sleep(d)
	}
	w.disk.BeforeWrite(func() { pause(15 * time.Millisecond) })
	w.net.takes(func() { pause(5 * time.Millisecond) })
	w.hold(func(runner.Spec) { pause(8 * time.Millisecond) })
}

// swift is the reverse of slow.
func (w *world) swift() {
	w.disk.BeforeWrite(nil)
	w.net.takes(nil)
	w.hold(func(runner.Spec) {})
}

// jobsToKillAmong are jobs of all kinds of triggers, some of which run for
// minutes and print all the time.
func (w *world) jobsToKillAmong(until time.Time) {
	w.Helper()
	allow := policy(&schedv1.Policy{Overlap: schedv1.Overlap_OVERLAP_ALLOW})
	catchUp := func(c schedv1.CatchUp) func(*schedv1.Job) {
		return policy(&schedv1.Policy{CatchUp: c, CatchUpWindow: seconds(7200)})
	}
	all, latest, none := catchUp(schedv1.CatchUp_CATCH_UP_ALL), catchUp(schedv1.CatchUp_CATCH_UP_LATEST), catchUp(schedv1.CatchUp_CATCH_UP_NONE)
	w.does("long", talker(7*time.Minute, 3*time.Second))
	w.does("mid", talker(75*time.Second, time.Second))
	w.define(job("quick", allow, latest, every(20*time.Second)))
	w.define(job("quick-all", allow, all, every(time.Minute)))
	w.define(job("quick-none", allow, none, every(45*time.Second)))
	w.define(job("minutely", allow, all, cron("* * * * *", "Europe/Berlin"), cron("30 */2 * * * *", "Asia/Kolkata")))
	w.define(job("mid", allow, latest, cron("*/3 * * * *", "America/New_York")))
	w.define(job("long", allow, all, cron("7,22,37,52 * * * *", "")))
	for i := range 5 {
		w.define(job(fmt.Sprint("once-", i), latest, at(time.Now().Add(time.Until(until)/6*time.Duration(i+1)))))
	}
}

// The primary is killed at any moment, and comes back at once or much later.
// Nothing is started twice, nothing is missed that should have run, what runs
// goes on, and the logs are whole.
func TestKilledPrimary(t *testing.T) {
	n := 16
	if testing.Short() {
		n = 4
	}
	seeds(t, n, func(w *world, dice *rand.Rand) {
		w.startPrimary()
		w.startWorker("a", nil, 40)
		w.startWorker("b", nil, 40)
		w.awaitOnline()
		w.slow(dice)
		end := time.Now().Add(time.Hour)
		w.jobsToKillAmong(end)
		for time.Now().Before(end) {
			w.wait(upTo(dice, 20*time.Minute))
			if dice.IntN(2) == 0 { // in the midst of what happens at a full minute
				w.waitUntil(time.Now().Truncate(time.Minute).Add(time.Minute))
				time.Sleep(upTo(dice, 60*time.Millisecond))
			}
			w.restart([]time.Duration{0, upTo(dice, time.Second), upTo(dice, time.Minute), upTo(dice, 5*time.Minute), upTo(dice, 30*time.Minute)}[dice.IntN(5)])
		}
		w.awaitOnline()
		w.wait(time.Minute)
		w.swift()
		w.settle(time.Hour)
		w.checkAll()
		w.checkOutages(5 * time.Second)
		w.checkAllWell()
	})
}

// checkAllWell: whatever came to run has run well, unless the primary was away
// for all the time in which it might have been started.
func (w *world) checkAllWell() {
	w.Helper()
	for _, r := range w.runs("") {
		attempts := r.GetAttempts()
		if slices.Contains([]schedv1.Phase{phaseSucceeded, schedv1.Phase_PHASE_MISSED, phaseSkipped}, r.GetPhase()) {
			continue
		}
		if len(attempts) == 1 && attempts[0].GetOutcome() == schedv1.Outcome_OUTCOME_NOT_STARTED && w.down(attempts[0].GetAssignedTime().AsTime()) >= 4*time.Minute {
			continue
		}
		w.Errorf("run %s of %s at %v is %v: %s", r.GetId(), r.GetJob(), r.GetNominalTime().AsTime(), r.GetPhase(), r.GetReason())
	}
}

// down returns how long the outage lasted that began right after an instant.
func (w *world) down(after time.Time) time.Duration {
	for _, o := range w.outages {
		if !o.from.Before(after) && o.from.Sub(after) < time.Minute {
			return o.to.Sub(o.from)
		}
	}
	return 0
}

// checkOutages holds what was decided against when there was a primary, whose
// first decision after a start takes it no more than warmUp: what came due while
// there was one ran, and what came due while there was none ran late, as the
// job's catch_up asks for.
func (w *world) checkOutages(warmUp time.Duration) {
	w.Helper()
	for _, j := range w.jobs() {
		for _, v := range w.verdicts(j.GetName()) {
			t := w.definition(j.GetName(), v)
			due := instants(t, v.GetStartTime().AsTime(), v.GetDecidedUntil().AsTime())
			missed := map[time.Time]bool{}
			if len(due) != int(v.GetNominal()) {
				continue // checkLedger has said so
			}
			for _, span := range v.GetSpans() {
				switch span.GetDecision() {
				case schedv1.Decision_DECISION_MISSED:
					for _, at := range due[:span.GetCount()] {
						missed[at] = true
					}
				case schedv1.Decision_DECISION_SKIPPED:
					if j.GetPause() == nil || span.GetFirstTime().AsTime().Before(j.GetPause().GetSince().AsTime()) {
						w.Errorf("%s: %s was skipped from %v: %s", j.GetName(), v.GetTriggerId(), span.GetFirstTime().AsTime(), span.GetReason())
					}
				default: // checkLedger looks at those that ran
				}
				due = due[span.GetCount():]
			}
			w.checkMissed(j, t, missed, warmUp)
		}
	}
	for _, r := range w.runs("") {
		nominal := r.GetNominalTime().AsTime()
		if late := r.GetCreatedTime().AsTime().Sub(nominal); late > time.Second && !w.away(nominal, warmUp) {
			w.Errorf("%s: %s at %v was decided %v late while there was a primary", r.GetJob(), r.GetTriggerId(), nominal, late)
		}
	}
}

// away reports whether there was no primary at an instant.
func (w *world) away(at time.Time, warmUp time.Duration) bool {
	return slices.ContainsFunc(w.outages, func(o outage) bool {
		return !at.Before(o.from.Add(-inFlight)) && !at.After(o.to.Add(warmUp))
	})
}

// inFlight is how long before its end a primary may have begun what it could
// not write down any more.
const inFlight = 100 * time.Millisecond

// checkMissed says whether just those occurrences were missed that had to be.
func (w *world) checkMissed(j *schedv1.Job, t *schedv1.Trigger, missed map[time.Time]bool, warmUp time.Duration) {
	w.Helper()
	catchUp, window := j.GetPolicy().GetCatchUp(), j.GetPolicy().GetCatchUpWindow().AsDuration()
	wrong := func(at time.Time, format string, args ...any) {
		w.Errorf("%s: %s at %v, catch_up %v: %s", j.GetName(), t.GetId(), at, catchUp, fmt.Sprintf(format, args...))
	}
	for _, o := range w.outages {
		if o.to.IsZero() {
			continue
		}
		due := instants(t, o.from.Add(-inFlight), o.to.Add(warmUp))
		for i, at := range due {
			late, latest := o.to.Sub(at), o.to.Add(warmUp).Sub(at) // as the primary may have seen it
			was := missed[at]
			delete(missed, at)
			switch {
			case !at.After(o.from): // either
			case latest <= time.Minute && was:
				wrong(at, "missed, though it was only %v late", latest)
			case late <= time.Minute:
			case late > window || catchUp == schedv1.CatchUp_CATCH_UP_NONE:
				if !was {
					wrong(at, "ran %v late", late)
				}
			case catchUp == schedv1.CatchUp_CATCH_UP_ALL && len(due) <= 100:
				if was {
					wrong(at, "missed")
				}
			case catchUp == schedv1.CatchUp_CATCH_UP_LATEST && i == len(due)-1 && was:
				wrong(at, "missed, and none came after it")
			case catchUp == schedv1.CatchUp_CATCH_UP_LATEST && i < len(due)-1 && !due[i+1].After(o.to) && !was:
				wrong(at, "ran, and so did %v after it", due[i+1])
			}
		}
	}
	for _, at := range slices.SortedFunc(maps.Keys(missed), time.Time.Compare) {
		wrong(at, "missed while there was a primary")
	}
}

// The primary is killed when it has a log and not yet the result. The result
// comes again, the log does not have to: it is whole, and known to be safe.
func TestKilledBetweenLogAndResult(t *testing.T) {
	story(t, func(w *world) {
		w.startPrimary()
		w.startWorker("a", nil, 4)
		w.awaitOnline()
		w.takes("j", 10*time.Second)
		w.define(job("j"))
		r := w.run("j")
		w.wait(9 * time.Second)
		w.disk.BeforeWrite(func() { time.Sleep(5 * time.Second) })
		w.wait(3 * time.Second)
		if r := w.get(r.GetId()); r.GetPhase() != schedv1.Phase_PHASE_RUNNING {
			w.Fatalf("the run is %v already", r.GetPhase())
		}
		w.killPrimary()
		w.disk.BeforeWrite(nil)
		w.startPrimary()
		w.awaitPhase(r.GetId(), time.Minute, schedv1.Phase_PHASE_SUCCEEDED)
		w.check()
	})
}
