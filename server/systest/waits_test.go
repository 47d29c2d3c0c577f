package systest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// waitsAmiss looks for runs that wait and need not. Each that waits has a reason, which is
// told and is true: its next try is yet to come, as many of its job run as may, or no
// worker that it may run on has room.
func (w *world) waitsAmiss(say func(string, ...any)) {
	w.Helper()
	active := w.runs("active=true")
	going := map[string][]*schedv1.Run{} // by uid of the job: those that a worker has
	for _, r := range active {
		if r.GetPhase() != phasePending {
			going[r.GetJobUid()] = append(going[r.GetJobUid()], r)
		}
	}
	free := w.withRoom()
	for _, r := range active {
		if r.GetPhase() != phasePending {
			continue
		}
		if why := w.idle(r, going[r.GetJobUid()], free); why != "" {
			what := fmt.Sprintf("run %s of %s waits after %d attempts", r.GetId(), r.GetJob(), len(r.GetAttempts()))
			say("%s, and %s; it says %q", what, why, r.GetReason())
		}
	}
}

// withRoom returns the workers that can be given a run, by their own word and by what runs
// there: what was given up as lost, and goes on, takes a slot as well.
func (w *world) withRoom() (free []*schedv1.Worker) {
	w.Helper()
	for _, k := range w.workers {
		is := w.known(k.name)
		if is.GetPhase() == schedv1.WorkerPhase_WORKER_PHASE_ONLINE && is.GetConnectedTime() != nil && is.GetTrouble() == "" &&
			max(int(is.GetRunning()), len(k.host.Running())) < int(is.GetSlots()) {
			free = append(free, is)
		}
	}
	return free
}

// idle tells what is wrong with it that a run waits, when these of its job are with
// workers; "" if nothing is, or it can't be told. Where the clock of who led was set while a
// run rested, how long it rests is not for the clock on the wall to say.
func (w *world) idle(r *schedv1.Run, going []*schedv1.Run, free []*schedv1.Worker) string {
	d := w.definitionOf(r)
	if d == nil || d.GetTask().GetLimits() != nil {
		return ""
	}
	p, n, now := d.GetPolicy(), len(r.GetAttempts()), time.Now()
	all := w.terms.wrongs()
	if until, rests := restsUntil(r.GetReason()); rests {
		if n > 0 && until.After(now.Add(longestPause(r, p)+time.Second+all.mistimed(now, now))) {
			return "its next try is later than its job says"
		}
		return ""
	}
	if n > 0 && mayRest(r, p, all, now) {
		return ""
	}
	jitters := slices.ContainsFunc(d.GetTriggers(), func(t *schedv1.Trigger) bool { return t.GetJitter().AsDuration() > 0 }) // which is an order of its own
	if n == 0 && !jitters && slices.ContainsFunc(going, func(o *schedv1.Run) bool { return overtakes(o, r) }) {
		return "one of its job that was made later goes before it"
	}
	if p.GetOverlap() != schedv1.Overlap_OVERLAP_ALLOW && len(going) >= int(p.GetMaxConcurrent()) {
		if !strings.Contains(r.GetReason(), "active run") {
			return "others of its job run, and it does not say so"
		}
		return ""
	}
	for _, k := range free {
		if suits(d.GetTarget().GetSelector(), k.GetLabels()) && !w.tooOld(k.GetName(), p) {
			return "a worker has room for it"
		}
	}
	if !strings.Contains(r.GetReason(), "waits for a worker") {
		return "no worker has room for it, and it does not say so"
	}
	return ""
}

// mayRest tells whether a leader whose clock was set while a run rested may take it for resting
// still. It rests for no longer than its job says, and by how much that was taken wrong.
func mayRest(r *schedv1.Run, p *schedv1.Policy, all wrongs, now time.Time) bool {
	from := all.earliest(r.GetAttempts()[len(r.GetAttempts())-1].GetAssignedTime().AsTime())
	if began := now.Add(-longestPause(r, p) - time.Second - all.mismeasured(from, now)); began.After(from) {
		from = began
	}
	return all.mismeasured(from, now) > 0
}

// overtakes tells whether a run that was made after another, by the same definition, was
// given to a worker before it.
func overtakes(o, r *schedv1.Run) bool {
	return o.GetJobVersion() == r.GetJobVersion() && o.GetCreatedTime().AsTime().After(r.GetCreatedTime().AsTime())
}

// restsUntil returns until when a run waits for its next try, or for the jitter of its
// trigger, by what it says.
func restsUntil(reason string) (time.Time, bool) {
	_, said, ok := strings.Cut(reason, "waits until ")
	if !ok {
		return time.Time{}, false
	}
	said, _, _ = strings.Cut(said, " ")
	at, err := time.Parse(time.RFC3339, said)
	return at, err == nil
}

// longestPause is how long a run may wait for its next try: what its job says and a tenth,
// and after refusals an eighth of all the pauses before, or a second.
func longestPause(r *schedv1.Run, p *schedv1.Policy) time.Duration {
	all := r.GetAttempts()
	last := all[len(all)-1]
	if last.GetOutcome() != refused {
		made := 0
		for _, a := range all {
			if a.GetOutcome() != refused {
				made++
			}
		}
		return pauseAfter(p, last, made) * 11 / 10
	}
	var before, pause time.Duration
	for i := len(all) - 1; i >= 0 && all[i].GetOutcome() == refused; i-- {
		pause = max(time.Second, before/8)
		before += pause
	}
	return pause
}

// suits tells whether a selector matches labels. It knows what the stories use, and takes
// anything else for no match.
func suits(selector string, labels map[string]string) bool {
	for part := range strings.SplitSeq(selector, ",") {
		is := part == ""
		if key, unwanted, not := strings.Cut(part, "!="); not {
			is = labels[key] != unwanted
		} else if key, wanted, same := strings.Cut(part, "="); same {
			is = labels[key] == wanted
		}
		if !is {
			return false
		}
	}
	return true
}

// Runs that wait and need not are found, and those that have to wait are left alone.
func TestWaitsBite(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		w.startWorker("shop-1", map[string]string{"zone": "eu"}, 3)
		w.awaitOnline()
		w.takes("turn", time.Hour)
		w.does("again", exits(1))
		w.define(job("nowhere", selector("zone!=eu")))
		w.define(job("turn", policy(&schedv1.Policy{Overlap: overlapQueue})))
		w.define(job("again", policy(&schedv1.Policy{Retry: &schedv1.Retry{MaxAttempts: 2, InitialDelay: seconds(600), MaxDelay: seconds(600)}})))
		for _, name := range []string{"nowhere", "turn", "turn", "again"} {
			w.run(name)
		}
		w.wait(time.Minute)
		look := func() { w.waitsAmiss(w.Errorf) }
		// overtaken has the check believe that the run that waits for its turn was made first.
		overtaken := func() {
			runs := w.runsOf("turn")
			runs[1].CreatedTime = stamp(runs[0].GetCreatedTime().AsTime().Add(-time.Second))
			if why := w.idle(runs[1], runs[:1], nil); why != "" {
				w.Errorf("%s", why)
			}
		}
		// as has a check believe that a job is another one.
		as := func(name string, alter func(*schedv1.Job), look func()) func() {
			return func() {
				was := w.put[name][0].job
				j := proto.CloneOf(was)
				alter(j)
				w.put[name][0].job = j
				look()
				w.put[name][0].job = was
			}
		}
		with := func(name string, alter func(*schedv1.Job)) func() { return as(name, alter, look) }
		// rested has the check believe that the run that rests does not, by its own word, and that
		// the leader's clock was a second ahead, until so long ago.
		rested := func(ago time.Duration) func() {
			return as("again", func(j *schedv1.Job) { j.Policy.Retry.InitialDelay = seconds(10) }, func() {
				r, m := w.only("again"), w.awaitLeader()
				r.Reason = "waits for a worker"
				m.clock.was = []wrong{{span{w.born, time.Now().Add(-ago)}, time.Second}}
				if why := w.idle(r, nil, w.withRoom()); why != "" {
					w.Errorf("%s", why)
				}
				m.clock.was = nil
			})
		}
		w.bites([]bite{
			{"nothing", look, ""},
			{"a clock is wrong, and it may rest", rested(0), ""},
			{"a clock was wrong, and its rest is over", rested(40 * time.Second), "a worker has room for it"},
			{"a worker is there", with("nowhere", func(j *schedv1.Job) { j.Target.Selector = "zone=eu" }), "of nowhere waits after 0 attempts, and a worker has room for it"},
			{"any worker will do", with("nowhere", func(j *schedv1.Job) { j.Target.Selector = "" }), "of nowhere waits after 0 attempts, and a worker has room for it"},
			{"two may run", with("turn", func(j *schedv1.Job) { j.Policy.MaxConcurrent = 2 }), "of turn waits after 0 attempts, and a worker has room for it"},
			{"it was overtaken", overtaken, "one of its job that was made later goes before it"},
			{"it should be tried soon", with("again", func(j *schedv1.Job) { j.Policy.Retry.InitialDelay = seconds(60) }), "of again waits after 1 attempts, and its next try is later"},
			{"it waits for no worker", with("nowhere", func(j *schedv1.Job) { j.Policy.MaxConcurrent = 0 }), "others of its job run, and it does not say so"},
		})
		w.takes("busy", time.Hour)
		w.define(job("busy", overlapAllowed))
		w.run("busy")
		w.run("busy")
		w.wait(time.Second)
		w.bites([]bite{
			{"no worker has room", with("nowhere", func(j *schedv1.Job) { j.Target.Selector = "" }), ""},
			{"others are not what it waits for", with("turn", func(j *schedv1.Job) { j.Policy.MaxConcurrent = 2 }), "no worker has room for it, and it does not say so"},
		})
	})
}
