package systest

import (
	"slices"
	"strings"
	"testing"
	"time"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

const phaseMissed = schedv1.Phase_PHASE_MISSED

// decidesWithin is how late an occurrence may be decided and still just run, as job.proto
// has it.
const decidesWithin = 60 * time.Second

// decidesSoon is how long it takes to decide what has come due, at most: who is killed in
// that time has decided nothing.
const decidesSoon = time.Second

// ledgerOf is what the ledger of a job is held against when an occurrence has no run.
type ledgerOf struct {
	*world
	name    string
	runs    []*schedv1.Run
	records map[occurrence]*schedv1.Run // of what was skipped or missed, if there is one
}

// newLedgerOf sorts the runs of a job.
func (w *world) newLedgerOf(name string, runs []*schedv1.Run) *ledgerOf {
	l := &ledgerOf{world: w, name: name, runs: runs, records: map[occurrence]*schedv1.Run{}}
	for _, r := range runs {
		if (r.GetPhase() == phaseSkipped || r.GetPhase() == phaseMissed) && r.GetRetryOf() == "" {
			l.records[occurrence{r.GetTriggerId(), r.GetNominalTime().AsTime()}] = r
		}
	}
	return l
}

// checkCause: there was a reason not to run an occurrence, and it is the one that is told.
func (l *ledgerOf) checkCause(trigger string, span *schedv1.LedgerSpan, at time.Time) {
	l.Helper()
	why := ""
	switch span.GetDecision() {
	case schedv1.Decision_DECISION_MISSED:
		why = l.whyNotMissed(at)
	case schedv1.Decision_DECISION_SKIPPED:
		why = l.whyNotSkipped(trigger, span.GetReason(), at)
	default:
	}
	if why != "" {
		l.Errorf("%s: %s at %v is %v (%s), and %s", l.name, trigger, at, span.GetDecision(), span.GetReason(), why)
	}
}

// whyNotMissed: what was missed came due while nobody decided, for so long that it was too
// late to just run, by the clock of who did then.
func (l *ledgerOf) whyNotMissed(at time.Time) string {
	soon := decidesSoon + l.terms.wrongs().mistimed(at, at.Add(decidesWithin))
	if l.net.troubles.longest(at, at.Add(decidesWithin), l.ofPrimaries) < decidesWithin-soon {
		return "somebody could decide that in time"
	}
	return ""
}

// whyNotSkipped: what was skipped came due while its job was paused, or as many runs of it
// were active as it may have, by the reason that is told. That there are too many of all
// jobs no story of this kind comes to.
func (l *ledgerOf) whyNotSkipped(trigger, reason string, at time.Time) string {
	r := l.records[occurrence{trigger, at}]
	switch {
	case strings.HasPrefix(reason, "the job was paused"):
		if !l.asked.mayBePaused(l.name, at, l.terms.wrongs().mistimed(at, at.Add(decidesWithin))) {
			return "nobody has paused it"
		}
		return ""
	case r == nil:
		return "no record of it is among the runs"
	case l.policyOf(r) == nil || strings.HasPrefix(reason, "limit: "):
		return ""
	}
	p, active := l.policyOf(r), l.activeAt(r.GetCreatedTime().AsTime())
	switch {
	case p.GetOverlap() == schedv1.Overlap_OVERLAP_SKIP && strings.Contains(reason, "active"):
		if active < int(p.GetMaxConcurrent()) {
			return "fewer of its runs were active than may be"
		}
	case p.GetOverlap() == overlapQueue && strings.Contains(reason, "wait already"):
		if active < 100 {
			return "fewer of its runs waited than may"
		}
	default:
		return "that is no reason by its policy"
	}
	return ""
}

// activeAt counts the runs that had not ended at an instant of the state's clock: what
// ended or began in that moment may have been active.
func (l *ledgerOf) activeAt(at time.Time) (n int) {
	for _, r := range l.runs {
		never := r.GetPhase() == phaseSkipped || r.GetPhase() == phaseMissed
		ended := r.GetFinishedTime() != nil && r.GetFinishedTime().AsTime().Before(at)
		if !never && !ended && !r.GetCreatedTime().AsTime().After(at) {
			n++
		}
	}
	return n
}

// mayBePaused tells whether a job may have been paused at an instant, by a clock that may have
// been wrong by so much: when nobody answers, it takes a while until a pause, or its end, is
// acknowledged.
func (a *asked) mayBePaused(name string, at time.Time, wrong time.Duration) bool {
	edge := 2*time.Minute + wrong
	return slices.ContainsFunc(a.tries[name], func(p span) bool {
		return at.After(p.from.Add(-edge)) && (p.to.IsZero() || at.Before(p.to.Add(edge)))
	})
}

// What was missed or skipped for no reason, or for one that is not true, is found.
func TestCausesBite(t *testing.T) {
	story(t, func(w *world) {
		shop(w)
		w.takes("j", 90*time.Second)
		w.define(job("j", cron("* * * * *", ""), policy(&schedv1.Policy{CatchUp: schedv1.CatchUp_CATCH_UP_NONE})))
		w.nextMinute()
		w.wait(5 * time.Minute)
		w.restart(3 * time.Minute)
		w.wait(5 * time.Minute)
		w.pause("j", "", nil)
		w.wait(5 * time.Minute)
		w.resume("j") // which decides them
		w.wait(time.Second)
		w.settle(time.Hour)
		w.checkAll()
		is, runs, put := w.jobs()[0], w.runsOf("j"), w.put["j"][0].job
		if n := count(runs); n[phaseSkipped] < 4 || n[phaseMissed] < 1 {
			w.Errorf("the runs are %v, want some that were skipped, and one for those that were missed", n)
		}
		look := func() { w.checkLedger(is, runs) }
		but := func(drop func(*schedv1.Run) bool) func() {
			return func() { w.checkLedger(is, slices.DeleteFunc(cloned(runs), drop)) }
		}
		without := func(these *[]*trouble) func() {
			return func() {
				was := *these
				*these = nil
				look()
				*these = was
			}
		}
		tries := w.asked.tries["j"]
		w.bites([]bite{
			{"nothing", look, ""},
			{"there was no outage", without(&w.net.troubles.all), "somebody could decide that in time"},
			{"there was no outage, and a clock was a second ahead", w.wrongBy(time.Second, without(&w.net.troubles.all)), "somebody could decide that in time"},
			{"there was no outage, and a clock was an hour ahead", w.wrongBy(time.Hour, without(&w.net.troubles.all)), ""},
			{"nobody paused it", func() { w.asked.tries["j"] = nil; look(); w.asked.tries["j"] = tries }, "and nobody has paused it"},
			{"no run was active", func() {
				all := cloned(runs)
				for _, r := range all {
					if r.GetPhase() == phaseSucceeded {
						r.FinishedTime = r.CreatedTime
					}
				}
				w.checkLedger(is, all)
			}, "fewer of its runs were active than may be"},
			{"two may be active", func() { put.Policy.MaxConcurrent = 2; look(); put.Policy.MaxConcurrent = 1 }, "fewer of its runs were active than may be"},
			{"it may have any number", func() {
				put.Policy.Overlap = schedv1.Overlap_OVERLAP_ALLOW
				look()
				put.Policy.Overlap = schedv1.Overlap_OVERLAP_SKIP
			}, "that is no reason by its policy"},
			{"few wait", func() { put.Policy.Overlap = overlapQueue; look(); put.Policy.Overlap = schedv1.Overlap_OVERLAP_SKIP }, "that is no reason by its policy"},
			{"what was skipped is not on record", but(func(r *schedv1.Run) bool { return r.GetPhase() == phaseSkipped }), "no record of it is among the runs"},
		})
	})
}
