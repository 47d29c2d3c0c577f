package systest

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/schedd/schedd/agent/runner/fakerunner"
	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// check ends a story: it pauses all jobs, lets what is active come to its end,
// and holds the promises against what happened.
func (w *world) check() {
	w.Helper()
	w.settle(3 * time.Hour)
	w.checkAll()
}

// settle pauses all jobs and waits until nothing is active and nothing is left
// to tell on workers that live.
func (w *world) settle(limit time.Duration) {
	w.Helper()
	for _, j := range w.jobs() {
		if j.GetPause() == nil {
			w.pause(j.GetName(), "", nil)
		}
	}
	w.awaitEnds(limit)
	for _, k := range w.workers {
		if k.life != nil {
			w.wait(time.Second)
			for deadline := time.Now().Add(5 * time.Minute); len(k.spooled()) > 0 && time.Now().Before(deadline); {
				w.wait(time.Second)
			}
			if left := k.spooled(); len(left) > 0 {
				w.Errorf("%s keeps what it should no longer need: %q", k.name, left)
			}
		}
	}
}

// awaitEnds waits until all runs have ended. If some don't, what was promised may tell why.
func (w *world) awaitEnds(limit time.Duration) {
	w.Helper()
	pause := 10 * time.Millisecond
	for deadline := time.Now().Add(limit); ; time.Sleep(pause) {
		left := w.runs("active=true")
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			w.Errorf("%d runs have not ended within %v, the first one is %v", len(left), limit, left[0])
			return
		}
		pause = min(2*pause, 5*time.Second)
	}
}

// checkAll holds the promises against what happened. Nothing may be active.
func (w *world) checkAll() {
	w.Helper()
	runs := w.runs("")
	byJob := map[string][]*schedv1.Run{}
	for _, r := range runs {
		byJob[r.GetJobUid()] = append(byJob[r.GetJobUid()], r)
	}
	jobs := w.jobs()
	for _, j := range jobs {
		w.checkLedger(j, byJob[j.GetUid()])
	}
	ran := w.processes(runs)
	w.checkJobs(jobs)
	w.checkAsked(runs)
	w.checkStarts(runs)
	w.checkConcurrency(ran)
	w.checkOverlaps(ran)
	w.checkFences(runs)
	w.checkEffects(ran)
	for _, r := range runs {
		w.checkTries(r, ran)
		w.checkLost(r)
		w.checkRun(w.get(r.GetId()), ran) // lists say less about logs
	}
}

// verdicts returns the ledger of a job as the primary judges it, and complains
// when it is not in order.
func (w *world) verdicts(name string) []*schedv1.TriggerVerdict {
	w.Helper()
	r := must[*schedv1.VerifyLedgerResponse](w)(w.primary.jobs.VerifyLedger(w.Context(), &schedv1.VerifyLedgerRequest{Name: name}))
	for _, v := range r.GetTriggers() {
		if len(v.GetDifferences()) > 0 || !r.GetOk() {
			w.Errorf("%s: the ledger of %s is not in order (ok=%v): %v", name, v.GetTriggerId(), r.GetOk(), v.GetDifferences())
		}
		if v.GetRan()+v.GetSkipped()+v.GetMissed() != v.GetNominal() {
			w.Errorf("%s: the ledger of %s does not add up: %v", name, v.GetTriggerId(), v)
		}
	}
	return r.GetTriggers()
}

// occurrence names an occurrence of a job.
type occurrence struct {
	trigger string
	nominal time.Time
}

// checkLedger holds a job's ledger against the oracle, instant by instant, and
// its runs against the ledger.
func (w *world) checkLedger(j *schedv1.Job, runs []*schedv1.Run) {
	w.Helper()
	ran := map[occurrence]int{}
	standsFor := map[occurrence]int64{}
	for _, r := range runs {
		if r.GetRetryOf() != "" {
			continue // that was decided by somebody
		}
		standsFor[occurrence{r.GetTriggerId(), r.GetNominalTime().AsTime()}] = r.GetMissedCount()
		if p := r.GetPhase(); r.GetTriggerId() != "" && p != schedv1.Phase_PHASE_SKIPPED && p != schedv1.Phase_PHASE_MISSED {
			ran[occurrence{r.GetTriggerId(), r.GetNominalTime().AsTime()}]++
		}
	}
	causes := w.newLedgerOf(j.GetName(), runs)
	for _, v := range w.verdicts(j.GetName()) {
		due := instants(w.definition(j.GetName(), v), v.GetStartTime().AsTime(), v.GetDecidedUntil().AsTime())
		if int64(len(due)) != v.GetNominal() {
			w.Errorf("%s: %s has %d occurrences from %v to %v, the ledger says %d", j.GetName(), v.GetTriggerId(),
				len(due), v.GetStartTime().AsTime(), v.GetDecidedUntil().AsTime(), v.GetNominal())
			continue
		}
		missed := int64(0) // without a break before the next instant
		for _, span := range v.GetSpans() {
			n := int(span.GetCount())
			if n > len(due) || !due[0].Equal(span.GetFirstTime().AsTime()) || !due[n-1].Equal(span.GetLastTime().AsTime()) {
				w.Errorf("%s: %s: the ledger has %v where %d instants are left from %v", j.GetName(), v.GetTriggerId(), span, len(due), due[:min(1, len(due))])
				break
			}
			w.checkSpan(j.GetName(), v.GetTriggerId(), span, due[:n], ran)
			for i, at := range due[:n] {
				causes.checkCause(v.GetTriggerId(), span, at)
				if span.GetDecision() != schedv1.Decision_DECISION_RUN {
					continue
				}
				if m := standsFor[occurrence{v.GetTriggerId(), at}]; m > 0 && (i > 0 || m > missed) {
					w.Errorf("%s: the run at %v stands for %d that were missed, and there were %d", j.GetName(), at, m, missed)
				}
			}
			if missed += span.GetCount(); span.GetDecision() != schedv1.Decision_DECISION_MISSED {
				missed = 0
			}
			due = due[n:]
		}
	}
	for o, n := range ran {
		w.Errorf("%s: %d runs of %s at %v that the ledger does not have", j.GetName(), n, o.trigger, o.nominal)
	}
}

// checkSpan takes the runs that a span decided out of ran.
func (w *world) checkSpan(name, id string, span *schedv1.LedgerSpan, due []time.Time, ran map[occurrence]int) {
	w.Helper()
	decision := span.GetDecision()
	if (span.GetReason() == "") != (decision == schedv1.Decision_DECISION_RUN) {
		w.Errorf("%s: %s: %v with the reason %q", name, id, decision, span.GetReason())
	}
	if decision != schedv1.Decision_DECISION_RUN {
		return // a run that is there all the same is left over
	}
	all := w.terms.wrongs()
	for _, at := range due {
		o, wrong := occurrence{id, at}, all.mistimed(at, at.Add(time.Minute))
		if w.asked.paused(name, at.Add(-wrong), at.Add(wrong)) {
			w.Errorf("%s: %s at %v was decided to run, and the job was paused", name, id, at)
		}
		if ran[o] != 1 {
			w.Errorf("%s: %s at %v was decided to run, and there are %d runs", name, id, at, ran[o])
		}
		delete(ran, o)
	}
}

// definition returns what a verdict is about: the trigger as it was defined
// last before the ledger began: by the true time, or by the clock of who took it, if that
// was behind. One that was ahead leaves a mark in the state, which the ledger does not go by.
// When it was set back the clock of the state stands, and neither tells: then it is the version
// of which the ledger says that it was decided by.
func (w *world) definition(name string, v *schedv1.TriggerVerdict) *schedv1.Trigger {
	w.Helper()
	for _, p := range slices.Backward(w.put[name]) {
		if p.job.GetUid() != w.asked.jobs[name].GetUid() {
			continue // another one was deleted that had the name
		}
		began := v.GetStartTime().AsTime()
		later := p.at.After(began) && p.job.GetUpdatedTime().AsTime().After(began)
		named := len(v.GetSpans()) > 0 && v.GetSpans()[0].GetJobVersion() == p.job.GetVersion()
		if later && (!named || p.at.After(began.Add(w.terms.wrongs().mistimed(began, began)))) {
			continue
		}
		for _, t := range p.job.GetTriggers() {
			if t.GetId() == v.GetTriggerId() {
				return t
			}
		}
	}
	w.Fatalf("%s: nobody defined a trigger %s before %v", name, v.GetTriggerId(), v.GetStartTime().AsTime())
	return nil
}

func attemptID(r *schedv1.Run, a *schedv1.Attempt) string {
	return r.GetId() + "/" + strconv.Itoa(int(a.GetNumber()))
}

// checkStarts: no process was started twice, none for nobody, and none of what
// is said to have run was not.
func (w *world) checkStarts(runs []*schedv1.Run) {
	w.Helper()
	known := map[string]*schedv1.Attempt{}
	for _, r := range runs {
		for _, a := range r.GetAttempts() {
			known[attemptID(r, a)] = a
		}
	}
	for _, id := range w.book.attempts() {
		starts := w.book.of(id)
		if len(starts) > 1 && !w.byTwins(starts) {
			w.Errorf("attempt %s was started %d times: at %v on %s and at %v on %s", id, len(starts), starts[0].at, starts[0].worker, starts[1].at, starts[1].worker)
		}
		a := known[id]
		switch {
		case a == nil:
			w.Errorf("attempt %s of %s was started, and nobody knows of it", id, starts[0].env("SCHEDD_JOB"))
		case starts[0].env("SCHEDD_FENCE") != fmt.Sprint(a.GetFence()):
			w.Errorf("attempt %s was started with the fence %s, and has %d", id, starts[0].env("SCHEDD_FENCE"), a.GetFence())
		case a.GetOutcome() == notStarted && starts[0].does.StartError == nil && !w.hasTwin(starts[0].worker):
			w.Errorf("attempt %s was started, and is said not to have been", id)
		}
	}
	for id, a := range known {
		ran := []schedv1.Outcome{schedv1.Outcome_OUTCOME_SUCCEEDED, schedv1.Outcome_OUTCOME_FAILED, schedv1.Outcome_OUTCOME_TIMED_OUT}
		if slices.Contains(ran, a.GetOutcome()) && len(w.book.of(id)) == 0 {
			w.Errorf("attempt %s has %v, and was never started", id, a.GetOutcome())
		}
	}
}

// byTwins tells whether an attempt was started by a worker and by its copy, once each.
// That twins work is not promised: the copy may be connected before the leader has heard
// that the worker started it, and is told to start it as well.
func (w *world) byTwins(starts []start) bool {
	if len(starts) != 2 {
		return false
	}
	a, b := starts[0].worker, starts[1].worker
	return w.copies[a] == b || w.copies[b] == a
}

// hasTwin tells whether a worker is a copy, or had one: of an attempt that one of them
// started the other may have said that it did not.
func (w *world) hasTwin(worker string) bool { return w.twinned[worker] || w.copies[worker] != "" }

// checkFences: who was assigned later has a greater fence.
func (w *world) checkFences(runs []*schedv1.Run) {
	w.Helper()
	var all []*schedv1.Attempt
	seen := map[uint64]bool{}
	for _, r := range runs {
		last := uint64(0)
		for _, a := range r.GetAttempts() {
			if a.GetFence() <= last || seen[a.GetFence()] {
				w.Errorf("attempt %s has the fence %d, which is not greater than those before", attemptID(r, a), a.GetFence())
			}
			last, seen[a.GetFence()] = a.GetFence(), true
			all = append(all, a)
		}
	}
	slices.SortFunc(all, func(a, b *schedv1.Attempt) int { return cmp.Compare(a.GetFence(), b.GetFence()) })
	for i := 1; i < len(all); i++ {
		if all[i].GetAssignedTime().AsTime().Before(all[i-1].GetAssignedTime().AsTime()) {
			w.Errorf("fence %d was given before fence %d", all[i].GetFence(), all[i-1].GetFence())
		}
	}
}

// checkRun: a run says what happened, and its log is what was printed.
func (w *world) checkRun(r *schedv1.Run, ran map[string]alive) {
	w.Helper()
	who := fmt.Sprintf("run %s of %s at %v", r.GetId(), r.GetJob(), r.GetNominalTime().AsTime())
	if !final(r.GetPhase()) {
		w.Errorf("%s is %v (%s)", who, r.GetPhase(), r.GetReason())
		return
	}
	if r.GetPhase() != schedv1.Phase_PHASE_SUCCEEDED && r.GetReason() == "" {
		w.Errorf("%s is %v without a reason", who, r.GetPhase())
	}
	attempts := r.GetAttempts()
	if r.GetPhase() == schedv1.Phase_PHASE_SUCCEEDED {
		last := attempts[len(attempts)-1]
		if last.GetOutcome() != schedv1.Outcome_OUTCOME_SUCCEEDED || last.GetExitCode() != 0 {
			w.Errorf("%s succeeded with %v and exit code %d", who, last.GetOutcome(), last.GetExitCode())
		}
	}
	for i, a := range attempts {
		if int(a.GetNumber()) != i+1 {
			w.Errorf("%s has attempt %d in place %d", who, a.GetNumber(), i+1)
		}
		w.checkLog(who, r, a, ran[attemptID(r, a)].Life)
		w.checkLate(who, a, ran[attemptID(r, a)].Life)
	}
}

// tellsWithin is how long a worker that is there may take to tell how a process ended.
const tellsWithin = time.Minute

// checkLate: of an attempt that was given up as lost its worker tells how it ended, once it
// is back. It may have lost its data directory, as the primaries then say.
func (w *world) checkLate(who string, a *schedv1.Attempt, life fakerunner.Life) {
	w.Helper()
	name := a.GetWorkerName()
	ended := !life.From.IsZero() && !life.To.IsZero() && time.Since(life.To) > tellsWithin
	forgot := strings.Contains(a.GetReason(), "came back without it")
	if a.GetOutcome() == lost && a.GetLateResult() == 0 && ended && !forgot && !w.twinned[name] && !w.gone[name] && w.isBack(a) {
		w.Errorf("%s: attempt %d was lost, its process ended at %v on %s, which is back, and there is no late result", who, a.GetNumber(), life.To, name)
	}
}

// isBack tells whether the worker of an attempt is there, by the primaries' word and by the
// host's. One whose host was wiped is another one.
func (w *world) isBack(a *schedv1.Attempt) bool {
	w.Helper()
	r := must[*schedv1.ListWorkersResponse](w)(w.primary.workers.ListWorkers(w.Context(), &schedv1.ListWorkersRequest{Filter: "name=" + a.GetWorkerName()}))
	return slices.ContainsFunc(r.GetWorkers(), func(is *schedv1.Worker) bool {
		return is.GetId() == a.GetWorkerId() && is.GetPhase() == schedv1.WorkerPhase_WORKER_PHASE_ONLINE
	}) && slices.ContainsFunc(w.workers, func(k *worker) bool { return k.name == a.GetWorkerName() && k.life != nil })
}

// checkLog reads a log from the beginning and from its middle.
func (w *world) checkLog(who string, r *schedv1.Run, a *schedv1.Attempt, life fakerunner.Life) {
	w.Helper()
	starts := w.book.of(attemptID(r, a))
	if len(starts) == 0 {
		return
	}
	printed := starts[0].printed()
	twins := w.byTwins(starts)                 // either of them may have told of it
	if a.GetOutcome() != succeeded && !twins { // it may have been ended before it had printed all
		printed = printed[:min(int64(len(printed)), life.Wrote)]
	}
	whole, complete := w.readLog(&schedv1.ReadLogRequest{RunId: r.GetId(), Attempt: a.GetNumber()})
	safe, unplugged := w.unplugged[attemptID(r, a)]
	switch limit := w.logLimit; {
	case a.GetLogDroppedBytes() > 0:
		if half := limit / 2; !bytes.HasPrefix(whole, printed[:half]) || !bytes.HasSuffix(whole, printed[len(printed)-half:]) {
			w.Errorf("%s: the log of attempt %d is not the beginning and the end of what was printed", who, a.GetNumber())
		}
		if n := int64(len(printed)) - a.GetLogDroppedBytes(); n != int64(limit) {
			w.Errorf("%s: %d bytes were kept of attempt %d, want %d", who, n, a.GetNumber(), limit)
		}
	case ownEnd(a) && !twins && !w.gone[starts[0].worker] && !bytes.Equal(whole, printed):
		w.Errorf("%s printed %d bytes, the log of attempt %d has %d (same beginning: %v)", who, len(printed), a.GetNumber(), len(whole), bytes.HasPrefix(printed, whole))
	case unplugged:
		w.checkUnplugged(who, a, printed, whole, safe)
	case !bytes.HasPrefix(printed, whole):
		w.Errorf("%s: the log of attempt %d is not what was printed", who, a.GetNumber())
	}
	if n := w.safe[attemptID(r, a)]; int64(len(whole)) < n {
		w.Errorf("%s: %d bytes of the log of attempt %d were safe, and it has %d", who, n, a.GetNumber(), len(whole))
	}
	lost := w.gone[starts[0].worker] || a.GetOutcome() == schedv1.Outcome_OUTCOME_LOST && a.GetLateResult() == schedv1.Outcome_OUTCOME_UNSPECIFIED
	if !lost && (!complete || a.GetLogBytes() != int64(len(whole)) || a.GetLogDurableBytes() != int64(len(whole))) {
		w.Errorf("%s: the log of attempt %d has %d bytes (complete: %v), %d are said to be and %d durable", who, a.GetNumber(), len(whole), complete, a.GetLogBytes(), a.GetLogDurableBytes())
	}
	middle := len(whole) / 2
	rest, _ := w.readLog(&schedv1.ReadLogRequest{RunId: r.GetId(), Attempt: a.GetNumber(), Offset: int64(middle)})
	if !bytes.Equal(rest, whole[middle:]) {
		w.Errorf("%s: the log of attempt %d from its middle has %d bytes, want %d", who, a.GetNumber(), len(rest), len(whole)-middle)
	}
}

// count counts runs by phase.
func count(runs []*schedv1.Run) map[schedv1.Phase]int {
	n := map[schedv1.Phase]int{}
	for _, r := range runs {
		n[r.GetPhase()]++
	}
	return n
}

// all checks that all runs are in one phase.
func (w *world) all(runs []*schedv1.Run, want schedv1.Phase) {
	w.Helper()
	if n := count(runs); n[want] != len(runs) {
		w.Errorf("the runs are %v, want all %v", slices.Collect(maps.Keys(n)), want)
	}
}
