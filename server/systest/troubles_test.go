package systest

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// troubles is what was done to hosts, and to the ways between them, as far as it may keep
// one from being heard: who is said to have been silent has to have had some.
type troubles struct {
	mu   sync.Mutex
	all  []*trouble
	open map[trouble]*trouble // that are not over, by what they are, without their time
}

// trouble is one of them.
type trouble struct {
	what string
	a, b string // between which hosts; b is "" if a has it with everybody
	span
}

// recovers is how long it takes, at most, until all is as ever after a trouble: workers
// wait for up to 30 s before they dial again, and somebody may have to be elected. It is
// less than the shortest lost_after: a connection that breaks is no reason to give up.
const recovers = 50 * time.Second

// begins takes note of a trouble that lasts until it ends. One that is there already goes on.
func (t *troubles) begins(what, a, b string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := trouble{what: what, a: a, b: b}
	if t.open[k] != nil {
		return
	}
	if t.open == nil {
		t.open = map[trouble]*trouble{}
	}
	now := k
	now.from = time.Now()
	t.open[k] = &now
	t.all = append(t.all, &now)
}

// ends takes note that a trouble is over, if there is one.
func (t *troubles) ends(what, a, b string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := trouble{what: what, a: a, b: b}
	if is := t.open[k]; is != nil {
		is.to = time.Now()
		delete(t.open, k)
	}
}

// moment takes note of a trouble that is over at once.
func (t *troubles) moment(what, a, b string) {
	t.begins(what, a, b)
	t.ends(what, a, b)
}

// longest returns for how long, between two instants, there was trouble without a break,
// or it was not long ago.
func (t *troubles) longest(from, to time.Time, counts func(trouble) bool) (most time.Duration) {
	t.mu.Lock()
	var all []span
	for _, x := range t.all {
		s := span{x.from, orNow(x.to).Add(recovers)}
		if s.from.Before(from) {
			s.from = from
		}
		if s.to.After(to) {
			s.to = to
		}
		if s.from.Before(s.to) && counts(*x) {
			all = append(all, s)
		}
	}
	t.mu.Unlock()
	slices.SortFunc(all, func(a, b span) int { return a.from.Compare(b.from) })
	var whole span
	for _, s := range all {
		if s.from.After(whole.to) {
			whole = s
		} else if s.to.After(whole.to) {
			whole.to = s.to
		}
		most = max(most, whole.to.Sub(whole.from))
	}
	return most
}

// isPrimary tells whether a primary is, or was, on a host.
func (w *world) isPrimary(host string) bool {
	return host == "primary-1" || slices.ContainsFunc(slices.Concat(w.group, w.left), func(m *member) bool { return m.id == host || m.host == host })
}

// ofPrimaries tells whether a trouble may keep primaries from hearing each other.
func (w *world) ofPrimaries(t trouble) bool {
	return w.isPrimary(t.a) && (t.b == "" || w.isPrimary(t.b))
}

// ofWorker returns whether a trouble may keep the leader from hearing a worker.
func (w *world) ofWorker(name string) func(trouble) bool {
	return func(t trouble) bool { return t.a == name || t.b == name || w.ofPrimaries(t) }
}

// checkLost: an attempt is given up as lost only when its worker may have been silent for
// lost_after, or came back, or was taken away, and may not have it any more. What the
// worker's copy has done nobody can tell.
func (w *world) checkLost(r *schedv1.Run) {
	w.Helper()
	all, wrongs := r.GetAttempts(), w.terms.wrongs()
	for i, a := range all {
		given, until := wrongs.earliest(a.GetAssignedTime().AsTime()), r.GetFinishedTime().AsTime() // it was given up between the two
		if i+1 < len(all) {
			until = all[i+1].GetAssignedTime().AsTime()
		}
		until = wrongs.latest(until)
		p, name := w.policyOf(r), a.GetWorkerName()
		if a.GetOutcome() != lost || p == nil || w.twinned[name] {
			continue
		}
		silent := w.net.troubles.longest(given.Add(-time.Minute), until, w.ofWorker(name))
		switch lostAfter := p.GetLostAfter().AsDuration(); {
		case strings.Contains(a.GetReason(), "has been silent for longer than lost_after"):
			if silent < lostAfter {
				w.Errorf("run %s of %s: attempt %d was given up by %v, after a silence of %v, and its worker can have been silent for %v only",
					r.GetId(), r.GetJob(), a.GetNumber(), until, lostAfter, silent)
			}
		case strings.Contains(a.GetReason(), "its worker came back without it") && silent > 0:
		case strings.Contains(a.GetReason(), "was removed"): // by people
		default:
			w.Errorf("run %s of %s: attempt %d was given up by %v, and its worker had no trouble (%s)", r.GetId(), r.GetJob(), a.GetNumber(), until, a.GetReason())
		}
	}
}

// Attempts that were given up too soon, or for nothing, are found.
func TestLostBites(t *testing.T) {
	story(t, func(w *world) {
		k := shop(w)
		w.takes("j", 10*time.Minute)
		w.define(job("j", policy(&schedv1.Policy{LostAfter: seconds(180)})))
		w.wait(10 * time.Minute) // what began with the world is over
		r := w.run("j")
		w.wait(3 * time.Minute)
		k.link.cut()
		r = w.awaitPhase(r.GetId(), 10*time.Minute, phaseLost)
		k.link.mend()
		w.wait(10 * time.Minute) // its process comes to its end
		w.settle(time.Hour)
		w.checkAll()
		with := func(alter func(r *schedv1.Run, a *schedv1.Attempt)) func() {
			return func() {
				all := cloned([]*schedv1.Run{r})
				alter(all[0], all[0].GetAttempts()[0])
				w.checkLost(all[0])
			}
		}
		earlier := func(by time.Duration) func(*schedv1.Run, *schedv1.Attempt) {
			return func(r *schedv1.Run, _ *schedv1.Attempt) {
				r.FinishedTime = stamp(r.GetFinishedTime().AsTime().Add(-by))
			}
		}
		nothing := func(*schedv1.Run, *schedv1.Attempt) {}
		w.bites([]bite{
			{"nothing", with(nothing), ""},
			{"after a tenth of lost_after", with(earlier(162 * time.Second)), "and its worker can have been silent for 18"},
			{"before there was any trouble", with(earlier(4 * time.Minute)), "can have been silent for 0s only"},
			{"and a clock was a second ahead", w.wrongBy(time.Second, with(earlier(4*time.Minute))), "can have been silent for 0s only"},
			{"and a clock was an hour behind", w.wrongBy(-time.Hour, with(earlier(4*time.Minute))), ""},
			{"for another reason", with(func(_ *schedv1.Run, a *schedv1.Attempt) { a.Reason = "who knows" }), "and its worker had no trouble (who knows)"},
			{"its worker came back without it", with(func(_ *schedv1.Run, a *schedv1.Attempt) { a.Reason = "its worker came back without it" }), ""},
			{"and was there all the time", with(func(r *schedv1.Run, a *schedv1.Attempt) {
				earlier(4*time.Minute)(r, a)
				a.Reason = "its worker came back without it"
			}), "and its worker had no trouble"},
			{"nobody said how it ended", func() {
				late := w.get(r.GetId())
				late.Attempts[0].LateResult = 0
				w.checkRun(late, w.processes([]*schedv1.Run{late}))
			}, "which is back, and there is no late result"},
			{"it was not lost", with(func(r *schedv1.Run, a *schedv1.Attempt) { earlier(4*time.Minute)(r, a); a.Outcome = failed }), ""},
		})
	})
}
