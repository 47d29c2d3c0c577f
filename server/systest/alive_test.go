package systest

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/schedd/schedd/agent/runner/fakerunner"
	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// alive is the life of a process, as its host saw it, and what the primaries say of the
// attempt that it was.
type alive struct {
	fakerunner.Life
	run     *schedv1.Run
	attempt *schedv1.Attempt
}

// end is when it had ended; now if it has not. Of one that stands still with its host, or was
// killed before it could go on, it is when it did something last: nobody would know it from
// one that had ended then.
func (a alive) end() time.Time {
	to := orNow(a.To)
	if n := len(a.Still); n > 0 && !orNow(a.Still[n-1].To).Before(to) {
		return a.Still[n-1].From
	}
	return to
}

// took is how long it ran, without the time in which it stood still.
func (a alive) took() time.Duration {
	d := a.end().Sub(a.From)
	for _, s := range a.Still {
		if s.From.Before(a.end()) {
			d -= orNow(s.To).Sub(s.From)
		}
	}
	return d
}

// at is when it had run for so long.
func (a alive) at(d time.Duration) time.Time {
	at := a.From.Add(d)
	for _, s := range a.Still {
		if s.From.Before(at) {
			at = at.Add(orNow(s.To).Sub(s.From))
		}
	}
	return at
}

func orNow(t time.Time) time.Time {
	if t.IsZero() {
		return time.Now()
	}
	return t
}

// processes returns what ran of some runs, wherever it did, by attempt. Of what nobody
// knows checkStarts tells. What twins ran is left out: which of them was told of is not
// known.
func (w *world) processes(runs []*schedv1.Run) map[string]alive {
	ran := map[string]alive{}
	for _, r := range runs {
		for _, a := range r.GetAttempts() {
			ran[attemptID(r, a)] = alive{run: r, attempt: a}
		}
	}
	for _, h := range w.hosts {
		for _, l := range h.Lives() {
			if a, known := ran[l.Spec.ID]; known {
				a.Life = l
				ran[l.Spec.ID] = a
			}
		}
	}
	maps.DeleteFunc(ran, func(id string, a alive) bool {
		starts := w.book.of(id)
		return a.From.IsZero() || w.byTwins(starts) || a.attempt.GetOutcome() == notStarted && w.hasTwin(starts[0].worker)
	})
	return ran
}

// inOrder returns processes by what they have in common, in the order in which they began.
func inOrder(ran map[string]alive, by func(alive) string) map[string][]alive {
	all := map[string][]alive{}
	for _, a := range ran {
		all[by(a)] = append(all[by(a)], a)
	}
	for _, l := range all {
		slices.SortFunc(l, func(a, b alive) int {
			return cmp.Or(a.From.Compare(b.From), cmp.Compare(a.attempt.GetFence(), b.attempt.GetFence()))
		})
	}
	return all
}

// mayOutlive tells whether a process may be alive beside a later attempt of its run, which
// is as the design has it: it was given up as lost, its job wants another attempt then, and
// has no kill_after.
func mayOutlive(p *schedv1.Policy, a alive) bool {
	return a.attempt.GetOutcome() == lost && p.GetOnLost() == onLostRetry && p.GetKillAfter().AsDuration() == 0
}

// checkOverlaps: no two attempts of a run were alive at the same time, but for those that
// mayOutlive others, whatever anybody was told of them. It goes by what the hosts have
// seen, and not by what they have said.
func (w *world) checkOverlaps(ran map[string]alive) {
	w.Helper()
	for _, lives := range inOrder(ran, func(a alive) string { return a.run.GetId() }) {
		p := w.policyOf(lives[0].run)
		for i, b := range lives {
			for _, a := range lives[:i] {
				first := a
				if b.attempt.GetNumber() < a.attempt.GetNumber() {
					first = b
				}
				if b.From.Before(a.end()) && p != nil && !mayOutlive(p, first) {
					w.Errorf("run %s of %s: attempt %s ran from %v to %v, and %s from %v", a.run.GetId(), a.run.GetJob(), a.Spec.ID, a.From, a.end(), b.Spec.ID, b.From)
				}
			}
		}
	}
}

// checkConcurrency: no more processes of a job ran at the same time than the definition
// allows with which the last one of them was given to its worker. Those that were given up
// may have, if nothing has ended them.
func (w *world) checkConcurrency(ran map[string]alive) {
	w.Helper()
	for _, lives := range inOrder(ran, func(a alive) string { return a.run.GetJobUid() }) {
		lives = slices.DeleteFunc(lives, func(a alive) bool {
			p := w.policyOf(a.run)
			return p == nil || a.attempt.GetOutcome() == lost && p.GetKillAfter().AsDuration() == 0
		})
		var running []alive
		for _, b := range lives {
			running = append(slices.DeleteFunc(running, func(a alive) bool { return !b.From.Before(a.end()) }), b)
			last := slices.MaxFunc(running, func(a, b alive) int { return cmp.Compare(a.attempt.GetFence(), b.attempt.GetFence()) })
			p := w.policyOf(last.run)
			if p.GetOverlap() != schedv1.Overlap_OVERLAP_ALLOW && len(running) > int(p.GetMaxConcurrent()) {
				w.Errorf("%s: %d ran at %v, and its policy allows %d", b.run.GetJob(), len(running), b.From, p.GetMaxConcurrent())
			}
		}
	}
}

// meant returns what a process does when it is left alone.
func (w *world) meant(a alive) (b fakerunner.Behaviour) {
	for _, s := range w.book.of(a.Spec.ID) {
		b = s.does
	}
	return b
}

// effect is something that an attempt does to the world, with its fence.
type effect struct {
	at    time.Time
	fence uint64
	by    alive
}

// effects returns what a process did: it began, it said something, and it ended.
func (w *world) effects(a alive) []effect {
	fence, _ := strconv.ParseUint(env(a.Spec, "SCHEDD_FENCE"), 10, 64)
	all := []effect{{a.From, fence, a}}
	worked := time.Duration(0)
	for _, c := range w.meant(a).Output {
		worked += c.After
		at := a.at(worked)
		if at.After(a.end()) {
			break
		}
		all = append(all, effect{at, fence, a})
	}
	return append(all, effect{a.end(), fence, a})
}

// checkEffects plays what the attempts of each run did to a store that remembers the
// greatest fence that it has seen, and refuses whoever comes with a lower one. It refuses
// nobody but those that may outlive others, so never the one that the run ended with.
func (w *world) checkEffects(ran map[string]alive) {
	w.Helper()
	for _, lives := range inOrder(ran, func(a alive) string { return a.run.GetId() }) {
		p := w.policyOf(lives[0].run)
		if p == nil {
			continue
		}
		var all []effect
		for _, a := range lives {
			all = append(all, w.effects(a)...)
		}
		slices.SortStableFunc(all, func(a, b effect) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.fence, b.fence)) })
		greatest := uint64(0)
		for _, e := range all {
			if e.fence < greatest && !mayOutlive(p, e.by) {
				w.Errorf("run %s of %s: at %v attempt %d had an effect with the fence %d, after one with %d",
					e.by.run.GetId(), e.by.run.GetJob(), e.at, e.by.attempt.GetNumber(), e.fence, greatest)
				break
			}
			greatest = max(greatest, e.fence)
		}
	}
}
