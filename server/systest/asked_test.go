package systest

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// asked is what people have asked for, call by call, and what they were told. What was
// acknowledged has to be there in the end, and nothing else.
type asked struct {
	requests int
	runs     map[string]request      // that were acknowledged, by run
	byID     map[string]string       // the run of each request that was acknowledged
	unsure   map[string]int          // requests without an answer, by job: there may be a run of each
	retries  map[string]retry        // runs of runs that had ended, which were acknowledged, by the new run
	unsureOf map[string]int          // requests for such a run without an answer, by the one that had ended
	cancels  map[string]time.Time    // runs that were to end: when that was acknowledged; zero: nobody knows
	jobs     map[string]*schedv1.Job // as each was acknowledged last; nil: it was deleted
	pauses   map[string][]span       // when each job was paused for sure, the oldest first
	tries    map[string][]span       // when it may have been: from when that was asked for, until it was resumed for sure
	held     map[string]bool         // whether each job is paused; of one that is not here nobody knows
}

// request is one for a run of the job with that uid, and from when to when somebody waited for
// its first answer.
type request struct {
	*schedv1.RunJobRequest
	uid  string
	when span
}

// retry is a request to make a run again that has ended, of the job with that uid.
type retry struct{ of, request, job, uid string }

func newAsked() asked {
	return asked{
		retries: map[string]retry{}, unsureOf: map[string]int{},
		runs: map[string]request{}, byID: map[string]string{}, unsure: map[string]int{},
		cancels: map[string]time.Time{}, jobs: map[string]*schedv1.Job{}, pauses: map[string][]span{}, tries: map[string][]span{}, held: map[string]bool{},
	}
}

// putJob puts a job, and takes note of what it is told.
func (w *world) putJob(j *schedv1.Job) (*schedv1.Job, error) {
	asked := time.Now()
	r, err := w.primary.jobs.PutJob(w.Context(), &schedv1.PutJobRequest{Job: j})
	if err != nil {
		return nil, err
	}
	w.isPut(put{asked, r.GetJob()})
	return r.GetJob(), nil
}

// isPut takes note of what a job is. One that is new is not paused.
func (w *world) isPut(p put) {
	name := p.job.GetName()
	if w.asked.jobs[name] == nil {
		w.asked.held[name] = false
	}
	w.put[name] = append(w.put[name], p)
	w.asked.jobs[name] = p.job
}

// runJob runs a job by hand, under a request of its own if it is given none, and takes
// note of what it is told.
func (w *world) runJob(req *schedv1.RunJobRequest) (*schedv1.RunJobResponse, error) {
	w.Helper()
	if req.GetRequestId() == "" {
		w.asked.requests++
		req.RequestId = fmt.Sprint("request-", w.asked.requests)
	}
	began := time.Now()
	r, err := w.primary.jobs.RunJob(w.Context(), req)
	switch status.Code(err) {
	case codes.OK:
		id, uid := r.GetRun().GetId(), r.GetRun().GetJobUid()
		name := uid + " " + req.GetRequestId()
		if was := w.asked.byID[name]; was != "" && was != id {
			w.Errorf("the request %s for %s is run %s, and was %s", req.GetRequestId(), req.GetName(), id, was)
		}
		if was := w.asked.runs[id].GetRequestId(); was != "" && was != req.GetRequestId() {
			w.Errorf("the requests %s and %s for %s are one run, %s", was, req.GetRequestId(), req.GetName(), id)
		}
		if _, again := w.asked.runs[id]; !again {
			w.asked.runs[id] = request{req, uid, span{began, time.Now()}}
		}
		w.asked.byID[name] = id
	case codes.FailedPrecondition, codes.NotFound, codes.InvalidArgument: // it was refused
	default:
		w.asked.unsure[req.GetName()]++
	}
	return r, err
}

// retryRun makes a run again that has ended, under a request of its own if it is given
// none, and takes note of what it is told.
func (w *world) retryRun(of, request string) (*schedv1.Run, error) {
	w.Helper()
	if request == "" {
		w.asked.requests++
		request = fmt.Sprint("request-", w.asked.requests)
	}
	r, err := w.primary.runs.RetryRun(w.Context(), &schedv1.RetryRunRequest{Id: of, RequestId: request})
	switch status.Code(err) {
	case codes.OK:
		name := of + " " + request
		if was := w.asked.byID[name]; was != "" && was != r.GetRun().GetId() {
			w.Errorf("the request %s for run %s again is run %s, and was %s", request, of, r.GetRun().GetId(), was)
		}
		w.asked.retries[r.GetRun().GetId()] = retry{of, request, r.GetRun().GetJob(), r.GetRun().GetJobUid()}
		w.asked.byID[name] = r.GetRun().GetId()
	case codes.FailedPrecondition, codes.NotFound, codes.InvalidArgument: // it was refused
	default:
		w.asked.unsureOf[of]++
	}
	return r.GetRun(), err
}

// cancelRun has a run end, and takes note of what it is told.
func (w *world) cancelRun(id string) (*schedv1.CancelRunResponse, error) {
	r, err := w.primary.runs.CancelRun(w.Context(), &schedv1.CancelRunRequest{Id: id})
	if err == nil {
		w.asked.cancels[id] = time.Now()
	} else if w.asked.cancels[id].IsZero() {
		w.asked.cancels[id] = time.Time{} // a first try may have done it, whose answer was lost
	}
	return r, err
}

// pause holds a job's triggers, until an instant if there is one.
func (w *world) pause(name, note string, until *timestamppb.Timestamp) {
	w.Helper()
	if err := w.pauseJob(name, note, until); err != nil {
		w.Fatalf("the API refused: %v", err)
	}
}

// pauseJob does so, and takes note of what it is told.
func (w *world) pauseJob(name, note string, until *timestamppb.Timestamp) error {
	w.asked.unpaused(name)
	try := span{from: time.Now()}
	if until != nil {
		try.to = until.AsTime()
	}
	w.asked.tries[name] = append(w.asked.tries[name], try)
	_, err := w.primary.jobs.PauseJob(w.Context(), &schedv1.PauseJobRequest{Name: name, Note: note, Until: until})
	if err == nil {
		w.asked.isPaused(name, until)
	}
	return err
}

// resume lets a job's triggers fire again.
func (w *world) resume(name string) {
	w.Helper()
	if err := w.resumeJob(name); err != nil {
		w.Fatalf("the API refused: %v", err)
	}
}

// resumeJob does so, and takes note of what it is told.
func (w *world) resumeJob(name string) error {
	w.asked.unpaused(name)
	_, err := w.primary.jobs.ResumeJob(w.Context(), &schedv1.ResumeJobRequest{Name: name})
	if err == nil {
		w.asked.held[name] = false
		for i := range w.asked.tries[name] {
			if try := &w.asked.tries[name][i]; try.to.IsZero() || try.to.After(time.Now()) {
				try.to = time.Now()
			}
		}
	}
	return err
}

// isPaused takes note that a job is paused from now on, for sure.
func (a *asked) isPaused(name string, until *timestamppb.Timestamp) {
	p := span{from: time.Now()}
	if until != nil {
		p.to = until.AsTime()
	}
	a.pauses[name], a.held[name] = append(a.pauses[name], p), true
}

// unpaused takes note that a job may be paused no longer.
func (a *asked) unpaused(name string) {
	delete(a.held, name)
	if n := len(a.pauses[name]); n > 0 {
		if p := &a.pauses[name][n-1]; p.to.IsZero() || p.to.After(time.Now()) {
			p.to = time.Now()
		}
	}
}

// deleted takes note that a job is gone.
func (a *asked) deleted(name string) {
	a.unpaused(name)
	a.jobs[name] = nil
}

// paused tells whether a job was paused from one instant to another, for sure: what is on
// the edge may be either.
func (a *asked) paused(name string, from, to time.Time) bool {
	return slices.ContainsFunc(a.pauses[name], func(p span) bool {
		return from.After(p.from) && (p.to.IsZero() || to.Before(p.to))
	})
}

// checkAsked: what was acknowledged is there as it was asked for, and there is nothing
// that nobody has asked for.
func (w *world) checkAsked(runs []*schedv1.Run) {
	w.Helper()
	is := map[string]*schedv1.Run{}
	unasked := map[string]int{}
	for _, r := range runs {
		is[r.GetId()] = r
		if r.GetTriggerId() == "" && r.GetRetryOf() == "" && w.asked.runs[r.GetId()].RunJobRequest == nil {
			unasked[r.GetJob()]++
		}
		w.checkCancelled(runs, r)
	}
	all := w.terms.wrongs()
	for id, req := range w.asked.runs {
		made := is[id].GetCreatedTime().AsTime()
		switch r := is[id]; {
		case r == nil:
			w.Errorf("run %s of %s was acknowledged, and is gone", id, req.GetName())
		case r.GetJob() != req.GetName() || r.GetTriggerId() != "":
			w.Errorf("run %s was asked for of %s, and is of %s, by the trigger %q", id, req.GetName(), r.GetJob(), r.GetTriggerId())
		case all.earliest(made).After(req.when.to) || all.latest(made).Before(req.when.from):
			w.Errorf("run %s of %s was asked for at %v, which was answered at %v, and is said to have been made at %v; clocks of leaders were wrong as %v",
				id, req.GetName(), req.when.from, req.when.to, made, all)
		}
	}
	for name, n := range unasked {
		if n > w.asked.unsure[name] {
			w.Errorf("%d runs of %s by hand that nobody has asked for (%d requests had no answer)", n, name, w.asked.unsure[name])
		}
	}
	for id, told := range w.asked.cancels {
		if !told.IsZero() {
			w.checkCancel(id, is[id], told)
		}
	}
	w.checkRetries(is)
}

// checkRetries: each run that was acknowledged as a run of another one again is there, and
// is that; and there is none that nobody has asked for.
func (w *world) checkRetries(is map[string]*schedv1.Run) {
	w.Helper()
	unasked := map[string]int{}
	for id, r := range is {
		if of := r.GetRetryOf(); of != "" && w.asked.retries[id].of == "" {
			unasked[of]++
		}
	}
	for id, asked := range w.asked.retries {
		switch r, of := is[id], is[asked.of]; {
		case r == nil || of == nil:
			w.Errorf("run %s, of run %s again, was acknowledged, and one of them is gone", id, asked.of)
		case r.GetRetryOf() != asked.of || r.GetJobUid() != of.GetJobUid():
			w.Errorf("run %s was asked for as run %s of %s again, and is of %q, of %s", id, asked.of, of.GetJob(), r.GetRetryOf(), r.GetJob())
		case r.GetTriggerId() != of.GetTriggerId() || !proto.Equal(r.GetNominalTime(), of.GetNominalTime()):
			w.Errorf("run %s is run %s again, and is for %v, not %v", id, asked.of, r.GetNominalTime().AsTime(), of.GetNominalTime().AsTime())
		}
	}
	for of, n := range unasked {
		if n > w.asked.unsureOf[of] {
			w.Errorf("%d runs of run %s again that nobody has asked for (%d requests had no answer)", n, of, w.asked.unsureOf[of])
		}
	}
}

// checkCancel: a run whose end was acknowledged has ended so, unless it had come to
// another end before.
func (w *world) checkCancel(id string, r *schedv1.Run, told time.Time) {
	w.Helper()
	switch p := r.GetPhase(); {
	case r == nil:
		w.Errorf("run %s was cancelled, and is gone", id)
	case r.GetCancelRequestedTime() == nil:
		w.Errorf("run %s of %s was cancelled at %v, and nothing is on record of that", id, r.GetJob(), told)
	case slices.Contains([]schedv1.Phase{phaseCancelled, phaseSucceeded, schedv1.Phase_PHASE_TIMED_OUT}, p):
	case p == schedv1.Phase_PHASE_FAILED && !w.endOf(r).After(told): // it had failed, which was not on record yet
	case p == phaseLost && !r.GetFinishedTime().AsTime().After(r.GetCancelRequestedTime().AsTime()): // so it was given up, which was not on record yet
	default:
		w.Errorf("run %s of %s was cancelled at %v, and is %v (%s)", id, r.GetJob(), told, p, r.GetReason())
	}
}

// endOf returns when the last process of a run had ended; zero when it had none.
func (w *world) endOf(r *schedv1.Run) (end time.Time) {
	for _, l := range w.lives(map[string]bool{r.GetId(): true})[r.GetId()] {
		if l.To.After(end) {
			end = l.To
		}
	}
	return end
}

// checkCancelled: a run counts as cancelled only if somebody has asked for its end, and
// nothing is begun for it after that.
func (w *world) checkCancelled(runs []*schedv1.Run, r *schedv1.Run) {
	w.Helper()
	who := fmt.Sprintf("run %s of %s", r.GetId(), r.GetJob())
	asked := r.GetCancelRequestedTime()
	for _, a := range r.GetAttempts() {
		if asked != nil && a.GetAssignedTime().AsTime().After(asked.AsTime()) {
			w.Errorf("%s: attempt %d was given to %s after the run was to end", who, a.GetNumber(), a.GetWorkerName())
		}
		if a.GetOutcome() == cancelled && asked == nil {
			w.Errorf("%s: attempt %d counts as cancelled, and nobody has asked for that", who, a.GetNumber())
		}
	}
	if r.GetPhase() == phaseCancelled && asked == nil {
		w.Errorf("%s counts as cancelled, and nobody has asked for that", who)
	}
	if asked == nil {
		return
	}
	_, byHand := w.asked.cancels[r.GetId()]
	timedOut := r.GetPhase() != phaseCancelled && w.policyOf(r).GetTotalTimeout().AsDuration() > 0
	if !byHand && !timedOut && !w.replaced(runs, r) {
		w.Errorf("%s was to end at %v, and nobody has asked for that: it is %v (%s)", who, asked.AsTime(), r.GetPhase(), r.GetReason())
	}
}

// replaced tells whether a newer run has taken the place of one, at the very instant at
// which it was made.
func (w *world) replaced(runs []*schedv1.Run, r *schedv1.Run) bool {
	return slices.ContainsFunc(runs, func(o *schedv1.Run) bool {
		return o.GetJobUid() == r.GetJobUid() && o.GetId() != r.GetId() && o.GetCreatedTime().AsTime().Equal(r.GetCancelRequestedTime().AsTime()) &&
			w.policyOf(o).GetOverlap() == overlapReplace
	})
}

// policyOf returns the policy that a run was made with; nil when nobody has written down
// what that was.
func (w *world) policyOf(r *schedv1.Run) *schedv1.Policy { return w.definitionOf(r).GetPolicy() }

// definitionOf returns the definition that a run was made with; nil if it is not known.
func (w *world) definitionOf(r *schedv1.Run) *schedv1.Job {
	for _, p := range slices.Backward(w.put[r.GetJob()]) {
		if p.job.GetUid() == r.GetJobUid() && p.job.GetVersion() == r.GetJobVersion() {
			return p.job
		}
	}
	return nil
}

// checkJobs: each job is as somebody was told last.
func (w *world) checkJobs(jobs []*schedv1.Job) {
	w.Helper()
	is := map[string]*schedv1.Job{}
	for _, j := range jobs {
		is[j.GetName()] = j
	}
	for name, want := range w.asked.jobs {
		switch j := is[name]; {
		case want == nil && j != nil:
			w.Errorf("%s was deleted, and is there", name)
		case want == nil:
		case j == nil:
			w.Errorf("%s was put, and is gone", name)
		case !proto.Equal(definitionOf(j), definitionOf(want)):
			w.Errorf("%s is\n%v\nand was put as\n%v", name, definitionOf(j), definitionOf(want))
		default:
			w.checkPause(j)
		}
	}
}

// checkPause: a job is paused if that was asked for last, and is not if it was resumed last,
// or was never paused.
func (w *world) checkPause(j *schedv1.Job) {
	w.Helper()
	all := w.asked.pauses[j.GetName()]
	if now := time.Now(); w.asked.paused(j.GetName(), now, now) && j.GetPause() == nil {
		p := all[len(all)-1]
		if p.to.IsZero() || now.Add(w.terms.wrongs().mismeasured(p.from, now)).Before(p.to) { // one that was ahead has it end sooner
			w.Errorf("%s was paused at %v, and is not", j.GetName(), p.from)
		}
	}
	if held, sure := w.asked.held[j.GetName()]; j.GetPause() != nil && (len(all) == 0 || sure && !held) {
		w.Errorf("%s is paused, and nobody has asked for that", j.GetName())
	}
}

// definitionOf is what a user has said of a job, and which definition it is.
func definitionOf(j *schedv1.Job) *schedv1.Job {
	return &schedv1.Job{
		Namespace: j.GetNamespace(), Name: j.GetName(), Description: j.GetDescription(), Labels: j.GetLabels(),
		Triggers: j.GetTriggers(), Task: j.GetTask(), Target: j.GetTarget(), Policy: j.GetPolicy(),
		Uid: j.GetUid(), Version: j.GetVersion(),
	}
}

// askAgain repeats each request that was acknowledged: it is the same run, whatever has
// happened meanwhile.
func (w *world) askAgain() {
	w.Helper()
	for _, id := range slices.Sorted(maps.Keys(w.asked.runs)) {
		req := w.asked.runs[id]
		if w.asked.jobs[req.GetName()].GetUid() != req.uid {
			continue // of a job that is gone
		}
		if _, err := w.runJob(proto.CloneOf(req.RunJobRequest)); err != nil {
			w.Errorf("the request %s for %s was acknowledged, and now: %v", req.GetRequestId(), req.GetName(), err)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(w.asked.retries)) {
		asked := w.asked.retries[id]
		if w.asked.jobs[asked.job].GetUid() != asked.uid {
			continue
		}
		if _, err := w.retryRun(asked.of, asked.request); err != nil {
			w.Errorf("the request %s for run %s again was acknowledged, and now: %v", asked.request, asked.of, err)
		}
	}
}
