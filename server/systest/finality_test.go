package systest

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// end is how a run was seen to have ended.
type end struct {
	record string                     // of the run, but for what may still be told
	late   map[uint64]schedv1.Outcome // what was told too late, by fence
}

// finality: a run that has ended is there, as it was when it was first seen to have
// ended. What may come later is told of attempts that were given up, once each.
func (w *world) finality() {
	w.Helper()
	runs, incomplete, err := w.list("")
	if err != nil {
		w.Fatalf("the API refused: %v", err)
	}
	w.checkFinality(runs, incomplete == "")
}

// checkFinality holds runs against those that were seen before. Where a primary says that
// some may be missing, those that are say nothing.
func (w *world) checkFinality(runs []*schedv1.Run, whole bool) {
	w.Helper()
	missing := maps.Clone(w.final)
	for _, r := range runs {
		delete(missing, r.GetId())
		if !final(r.GetPhase()) {
			w.noteSafe(r)
			if _, was := w.final[r.GetId()]; was {
				w.Errorf("run %s of %s had ended, and is %v", r.GetId(), r.GetJob(), r.GetPhase())
			}
			continue
		}
		is, was := endOfRun(r), w.final[r.GetId()]
		switch {
		case was.record != "" && was.record != is.record:
			before := &schedv1.Run{}
			if err := proto.Unmarshal([]byte(was.record), before); err != nil {
				w.Fatal(err)
			}
			w.Errorf("run %s of %s had ended as\n%v\nand now as\n%v", r.GetId(), r.GetJob(), before, r)
		case !lateOnce(was.late, is.late):
			w.Errorf("run %s of %s had the late results %v, and has %v", r.GetId(), r.GetJob(), was.late, is.late)
		}
		w.final[r.GetId()] = is
	}
	for id := range missing {
		if whole {
			w.Errorf("run %s had ended, and is gone", id)
		}
	}
}

// endOfRun takes what may still be told out of a run, and returns both.
func endOfRun(r *schedv1.Run) end {
	e := end{}
	for _, a := range r.GetAttempts() {
		if late := a.GetLateResult(); late != schedv1.Outcome_OUTCOME_UNSPECIFIED {
			if e.late == nil {
				e.late = map[uint64]schedv1.Outcome{}
			}
			e.late[a.GetFence()] = late
		}
		a.LateResult, a.LogBytes, a.LogDroppedBytes, a.LogDurableBytes = schedv1.Outcome_OUTCOME_UNSPECIFIED, 0, 0, 0
	}
	record, _ := proto.MarshalOptions{Deterministic: true}.Marshal(r)
	e.record = string(record)
	return e
}

// lateOnce tells whether what was told late is still so.
func lateOnce(was, is map[uint64]schedv1.Outcome) bool {
	for fence, o := range was {
		if is[fence] != o {
			return false
		}
	}
	return true
}

// noteSafe takes note of how much of the output of a run that goes on is said to be safe.
func (w *world) noteSafe(r *schedv1.Run) {
	for _, a := range r.GetAttempts() {
		if n := a.GetLogDurableBytes(); n > 0 {
			id := attemptID(r, a)
			w.safe[id] = max(w.safe[id], n)
		}
	}
}

// ownEnd tells whether an attempt came to its end on a worker, which then had all of its
// output.
func ownEnd(a *schedv1.Attempt) bool {
	o := a.GetOutcome()
	if o == lost {
		o = a.GetLateResult()
	}
	return slices.Contains([]schedv1.Outcome{succeeded, failed, timedOut, cancelled, leaseExpired}, o)
}
