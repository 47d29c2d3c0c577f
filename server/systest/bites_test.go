package systest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// bite is one thing that is not as it should be, and what a check has to say of it;
// nothing if that is "".
type bite struct {
	what string
	look func() // breaks it, and has the check look
	want string
}

// bites has checks look at one thing after the other.
func (w *world) bites(all []bite) {
	w.Helper()
	for _, b := range all {
		w.suspects = []string{}
		b.look()
		said := strings.Join(w.suspects, "\n")
		w.suspects = nil
		if said != "" && b.want == "" || !strings.Contains(said, b.want) {
			w.Errorf("%s: the check says:\n%s\nwant %q", b.what, said, b.want)
		}
	}
}

// cloned returns copies of runs, which may be altered.
func cloned(runs []*schedv1.Run) (all []*schedv1.Run) {
	for _, r := range runs {
		all = append(all, proto.CloneOf(r))
	}
	return all
}

// What was acknowledged and is not there is found, and what is there and was not asked for.
func TestAskedBites(t *testing.T) {
	story(t, func(w *world) {
		shop(w)
		w.does("j", func(runner.Spec) fakerunner.Behaviour {
			return fakerunner.Behaviour{Duration: time.Minute, IgnoreTerm: true}
		})
		w.define(job("j", overlapAllowed))
		w.run("j")
		ended := w.run("j").GetId()
		w.wait(5 * time.Second)
		w.cancel(ended)
		w.define(job("gone"))
		w.deleteJob("gone")
		w.settle(time.Hour)
		again := must[*schedv1.Run](w)(w.retryRun(ended, "")).GetId()
		w.settle(time.Hour)
		w.checkAll()
		is := w.runs("")
		third := func(alter func(*schedv1.Run)) func() {
			return func() {
				all := cloned(is)
				alter(all[2])
				w.checkAsked(all)
			}
		}
		madeLater := func(by time.Duration) func(fine, _ *schedv1.Run) {
			return func(r, _ *schedv1.Run) { r.CreatedTime = stamp(r.GetCreatedTime().AsTime().Add(by)) }
		}
		runs := func(alter func(fine, ended *schedv1.Run)) func() {
			return func() {
				all := cloned(is)
				alter(all[0], all[1])
				w.checkAsked(all)
			}
		}
		w.bites([]bite{
			{"nothing", runs(func(_, _ *schedv1.Run) {}), ""},
			{"a run is gone", func() { w.checkAsked(is[1:]) }, "was acknowledged, and is gone"},
			{"it is of another job", runs(func(r, _ *schedv1.Run) { r.Job = "k" }), "was asked for of j, and is of k"},
			{"it is of a trigger", runs(func(r, _ *schedv1.Run) { r.TriggerId = "t1" }), `is of j, by the trigger "t1"`},
			{"it was made before anybody asked", runs(madeLater(-time.Millisecond)), "and is said to have been made at"},
			{"it was made after the answer", runs(madeLater(time.Millisecond)), "and is said to have been made at"},
			{"so, and a clock was a second behind", w.wrongBy(-time.Second, runs(madeLater(-time.Millisecond))), ""},
			{"so, and a clock was a second ahead", w.wrongBy(time.Second, runs(madeLater(time.Millisecond))), ""},
			{"by more, and a clock was a second ahead", w.wrongBy(time.Second, runs(madeLater(1001*time.Millisecond))), "and is said to have been made at"},
			{"a run that nobody asked for", func() {
				more := proto.CloneOf(is[0])
				more.Id = "another"
				w.checkAsked(append(slices.Clone(is), more))
			}, "1 runs of j by hand that nobody has asked for"},
			{"a cancelled run is gone", func() { w.checkAsked(is[:1]) }, "was cancelled, and is gone"},
			{"it was not cancelled", runs(func(_, r *schedv1.Run) { r.CancelRequestedTime, r.Phase = nil, phaseSucceeded }), "and nothing is on record of that"},
			{"it ended otherwise", runs(func(_, r *schedv1.Run) { r.Phase = phaseLost }), "was cancelled at"},
			{"it was killed, and has failed", runs(func(_, r *schedv1.Run) { r.Phase = phaseFailed }), "was cancelled at"},
			{"it was tried again", runs(func(_, r *schedv1.Run) {
				more := proto.CloneOf(r.GetAttempts()[0])
				more.AssignedTime = stamp(r.GetCancelRequestedTime().AsTime().Add(time.Second))
				r.Attempts = append(r.Attempts, more)
			}), "after the run was to end"},
			{"nobody cancelled", runs(func(r, _ *schedv1.Run) { r.Phase = phaseCancelled }), "counts as cancelled, and nobody has asked for that"},
			{"nobody cancelled the attempt", runs(func(r, _ *schedv1.Run) { r.Attempts[0].Outcome = cancelled }), "attempt 1 counts as cancelled"},
			{"nobody asked for its end", runs(func(r, _ *schedv1.Run) { r.CancelRequestedTime = r.FinishedTime }), "was to end at"},
			{"a run again is gone", func() { w.checkAsked(is[:2]) }, "was acknowledged, and one of them is gone"},
			{"it is of another run", third(func(r *schedv1.Run) { r.RetryOf = is[0].GetId() }), "again, and is of"},
			{"it is for another time", third(func(r *schedv1.Run) { r.NominalTime = r.GetFinishedTime() }), "again, and is for"},
			{"nobody asked for a run again", func() {
				asked := w.asked.retries
				w.asked.retries = nil
				w.checkAsked(is)
				w.asked.retries = asked
			}, "again that nobody has asked for"},
			{"the same request for a run again is another run", func() {
				name := ended + " " + w.asked.retries[again].request
				w.asked.byID[name] = "another"
				w.askAgain()
				w.asked.byID[name] = again
			}, "and was another"},
			{"two requests are one run", func() {
				for id, asked := range w.asked.runs {
					other := proto.CloneOf(asked.RunJobRequest)
					other.RequestId = "another"
					w.asked.runs[id] = request{other, asked.uid, asked.when}
					must[*schedv1.RunJobResponse](w)(w.runJob(proto.CloneOf(asked.RunJobRequest)))
				}
			}, "for j are one run"},
			{"the same request is another run", func() {
				for name := range w.asked.byID {
					w.asked.byID[name] = "another"
				}
				w.askAgain()
			}, "and was another"},
		})
	})
}

// A job that is not as it was put, and one that fires while it is paused, are found.
func TestJobsBite(t *testing.T) {
	story(t, func(w *world) {
		shop(w)
		w.define(job("j", every(10*time.Second)))
		w.define(job("gone"))
		w.deleteJob("gone")
		w.wait(time.Minute)
		w.settle(time.Hour)
		w.checkAll()
		is := w.jobs()[0]
		jobs := func(alter func(*schedv1.Job)) func() {
			return func() {
				j := proto.CloneOf(is)
				alter(j)
				w.checkJobs([]*schedv1.Job{j})
			}
		}
		w.bites([]bite{
			{"nothing", jobs(func(*schedv1.Job) {}), ""},
			{"it is gone", func() { w.checkJobs(nil) }, "j was put, and is gone"},
			{"another is back", func() { w.checkJobs([]*schedv1.Job{is, {Name: "gone"}}) }, "gone was deleted, and is there"},
			{"an older version", jobs(func(j *schedv1.Job) { j.Version = 0 }), "and was put as"},
			{"another policy", jobs(func(j *schedv1.Job) { j.Policy.MaxConcurrent = 7 }), "and was put as"},
			{"it is not paused", jobs(func(j *schedv1.Job) { j.Pause = nil }), "j was paused at"},
			{"it was resumed", func() {
				w.asked.held["j"] = false
				w.checkJobs([]*schedv1.Job{is})
			}, "j is paused, and nobody has asked for that"},
			{"it fired while it was paused", func() {
				w.asked.pauses["j"][0].from = time.Now().Add(-time.Hour)
				w.checkLedger(is, w.runsOf("j"))
			}, "was decided to run, and the job was paused"},
			{"nobody paused it", func() {
				delete(w.asked.pauses, "j")
				w.checkJobs([]*schedv1.Job{is})
			}, "j is paused, and nobody has asked for that"},
		})
	})
}

// A run that was tried too often, too early or not often enough is found, and one that is
// told to have ended otherwise than it has.
func TestTriesBite(t *testing.T) {
	story(t, func(w *world) {
		shop(w)
		w.does("j", exits(75))
		w.does("slow", deafForEver)
		w.define(job("j", policy(&schedv1.Policy{Retry: &schedv1.Retry{MaxAttempts: 3, InitialDelay: seconds(10), ExitCodes: []int32{75}}})))
		w.define(job("slow", policy(&schedv1.Policy{Timeout: seconds(20), KillGrace: seconds(5)})))
		w.define(job("nowhere", selector("zone=mars"), policy(&schedv1.Policy{QueueTimeout: seconds(60)})))
		for _, name := range []string{"j", "slow", "nowhere"} {
			w.run(name)
		}
		w.wait(2 * time.Minute)
		w.settle(time.Hour)
		w.checkAll()
		w.ended(w.only("j"), phaseFailed, failed, failed, failed)
		w.ended(w.only("slow"), phaseTimedOut, timedOut)
		w.ended(w.only("nowhere"), phaseTimedOut)
		of := func(name string, alter func(r *schedv1.Run, life *alive)) func() {
			return func() {
				r := w.get(w.only(name).GetId())
				ran := w.processes([]*schedv1.Run{r})
				life := ran[r.GetId()+"/1"]
				alter(r, &life)
				if life.run != nil {
					ran[r.GetId()+"/1"] = life
				}
				w.checkTries(r, ran)
				w.checkRun(r, ran)
			}
		}
		w.bites([]bite{
			{"nothing", of("j", func(*schedv1.Run, *alive) {}), ""},
			{"tried too often", of("j", func(r *schedv1.Run, _ *alive) {
				more := proto.CloneOf(r.GetAttempts()[2])
				more.Number, more.AssignedTime = 4, r.FinishedTime
				r.Attempts = append(r.Attempts, more)
			}), "attempt 4 was made, and attempt 3 had ended as OUTCOME_FAILED with 75"},
			{"not often enough", of("j", func(r *schedv1.Run, _ *alive) { r.Attempts = r.Attempts[:2] }), "and its last attempt, of 2 that count, ended as"},
			{"tried for another exit code", of("j", func(r *schedv1.Run, _ *alive) { r.Attempts[0].ExitCode = 1 }), "attempt 2 was made, and attempt 1"},
			{"tried too early", of("j", func(_ *schedv1.Run, l *alive) { l.From, l.To = l.From.Add(2*time.Second), l.To.Add(2*time.Second) }), "attempt 2 began at"},
			{"too early again", func() {
				r := w.only("j")
				ran := w.processes([]*schedv1.Run{r})
				l := ran[r.GetId()+"/2"]
				l.To = l.To.Add(3 * time.Second)
				ran[r.GetId()+"/2"] = l
				w.checkTries(r, ran)
			}, "attempt 3 began at"},
			{"tried after it had succeeded", of("j", func(r *schedv1.Run, _ *alive) { r.Attempts[0].Outcome, r.Attempts[0].ExitCode = succeeded, 0 }), "attempt 1 succeeded, and it is"},
			{"it ended as it can't have", of("j", func(r *schedv1.Run, _ *alive) { r.Phase = phaseLost }), "is PHASE_LOST"},
			{"it exited otherwise", of("slow", func(r *schedv1.Run, _ *alive) {
				a := r.GetAttempts()[0]
				a.Outcome, a.Signal, r.Phase = failed, "", phaseFailed
			}), "it is told to be OUTCOME_FAILED"},
			{"it ran for too long", of("slow", func(_ *schedv1.Run, l *alive) { l.To = l.To.Add(time.Second) }), "with a timeout of 20s and a grace of 5s"},
			{"it was ended too early", of("slow", func(_ *schedv1.Run, l *alive) { l.To = l.From.Add(19 * time.Second) }), "is told to have timed out"},
			{"it started too late", of("j", func(_ *schedv1.Run, l *alive) {
				l.From, l.To = l.From.Add(6*time.Minute), l.To.Add(6*time.Minute)
			}), "with a start_within of 5m0s"},
			{"it waited for too short a time", of("nowhere", func(r *schedv1.Run, _ *alive) {
				r.FinishedTime = stamp(r.GetCreatedTime().AsTime().Add(59 * time.Second))
			}), "nowhere is PHASE_TIMED_OUT"},
			{"its log lacks the end", of("j", func(_ *schedv1.Run, l *alive) { l.Wrote = 10 }), "printed 10 bytes, the log of attempt 1 has"},
			{"what was safe is gone", of("j", func(r *schedv1.Run, _ *alive) { w.safe[r.GetId()+"/1"] = 1000 }), "1000 bytes of the log of attempt 1 were safe, and it has"},
		})
	})
}

// Runs that go on for too long after all was mended are found.
func TestOverdueBites(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		w.startWorker("shop-1", nil, 4)
		w.awaitOnline()
		w.takes("long", 10*time.Minute)
		w.define(job("long", policy(&schedv1.Policy{TotalTimeout: seconds(3600)})))
		w.define(job("nowhere", selector("zone=mars")))
		w.run("long")
		w.run("nowhere")
		w.wait(5 * time.Minute)
		policies := w.put["long"][0].job.Policy
		w.bites([]bite{
			{"nothing", w.checkOverdue, ""},
			{"it runs for too long", func() { policies.TotalTimeout = seconds(120); w.checkOverdue() }, "its total_timeout of 2m0s was over"},
			{"it waits for too long", func() { w.put["nowhere"][0].job.Policy.QueueTimeout = seconds(120); w.checkOverdue() }, "its queue_timeout of 2m0s was over"},
		})
		policies.TotalTimeout = seconds(3600)
	})
}

// Processes that were alive when they should not have been are found.
func TestAliveBites(t *testing.T) {
	story(t, func(w *world) {
		shop(w)
		w.does("j", func(s runner.Spec) fakerunner.Behaviour {
			b := talker(10*time.Second, time.Second)(s)
			b.ExitCode = 1
			return b
		})
		w.define(job("j", policy(&schedv1.Policy{Retry: &schedv1.Retry{MaxAttempts: 2, InitialDelay: seconds(10)}})))
		for range 2 {
			w.run("j")
			w.wait(time.Minute)
		}
		w.settle(time.Hour)
		w.checkAll()
		runs := w.runsOf("j")
		move := func(run, number int, by time.Duration, check func(map[string]alive)) func() {
			return func() {
				all := cloned(runs)
				ran := w.processes(all)
				id := attemptID(all[run], all[run].GetAttempts()[number-1])
				l := ran[id]
				l.From, l.To = l.From.Add(by), l.To.Add(by)
				ran[id] = l
				check(ran)
			}
		}
		w.bites([]bite{
			{"nothing", move(0, 1, 0, func(ran map[string]alive) {
				w.checkConcurrency(ran)
				w.checkOverlaps(ran)
				w.checkEffects(ran)
			}), ""},
			{"two runs at the same time", move(0, 2, 35*time.Second, w.checkConcurrency), "j: 2 ran at"},
			{"two attempts at the same time", move(0, 2, -12*time.Second, w.checkOverlaps), "/1 ran from"},
			{"the second one before the first", move(0, 2, -25*time.Second, w.checkOverlaps), "/2 ran from"},
			{"an effect too late", move(0, 1, 15*time.Second, w.checkEffects), "attempt 1 had an effect with the fence"},
			{"what was given up may have one", move(0, 1, 15*time.Second, func(ran map[string]alive) {
				for _, a := range ran {
					a.attempt.Outcome = lost
				}
				w.put["j"][0].job.Policy.OnLost = onLostRetry
				w.checkOverlaps(ran)
				w.checkEffects(ran)
			}), ""},
			{"and may not if it needs leases", move(0, 1, 15*time.Second, func(ran map[string]alive) {
				for _, a := range ran {
					a.attempt.Outcome = lost
				}
				w.put["j"][0].job.Policy.KillAfter = seconds(60)
				w.checkOverlaps(ran)
			}), "ran from"},
		})
	})
}

// A run that is otherwise than it had ended is found.
func TestFinalityBites(t *testing.T) {
	story(t, func(w *world) {
		k := shop(w)
		w.define(job("j"))
		w.run("j")
		w.wait(time.Minute)
		w.takes("j", 10*time.Minute)
		gone := w.run("j")
		w.wait(time.Minute)
		w.finality()
		if n := len(w.safe); n != 1 {
			w.Errorf("of %d attempts that go on it is known how much of their output is safe, want 1", n)
		}
		k.link.cut()
		w.awaitPhase(gone.GetId(), 10*time.Minute, phaseLost)
		w.finality()
		k.link.mend()
		w.wait(20 * time.Minute)
		w.finality() // the late result changes nothing else
		runs := w.runs("")
		now := func(alter func(ended, gone *schedv1.Run)) func() {
			return func() {
				all := cloned(runs)
				alter(all[0], all[1])
				seen := w.final[all[0].GetId()]
				w.checkFinality(all, true)
				w.final[all[0].GetId()] = seen
			}
		}
		w.bites([]bite{
			{"nothing", now(func(_, _ *schedv1.Run) {}), ""},
			{"it ended otherwise", now(func(r, _ *schedv1.Run) { r.Phase = phaseFailed }), "had ended as"},
			{"for another reason", now(func(r, _ *schedv1.Run) { r.Reason = "none" }), "had ended as"},
			{"with another exit code", now(func(r, _ *schedv1.Run) { r.Attempts[0].ExitCode = 1 }), "had ended as"},
			{"it was tried again", now(func(r, _ *schedv1.Run) { r.Attempts = append(r.Attempts, r.GetAttempts()[0]) }), "had ended as"},
			{"it goes on", now(func(r, _ *schedv1.Run) { r.Phase = phaseRunning }), "had ended, and is PHASE_RUNNING"},
			{"it is gone", func() { w.checkFinality(cloned(runs[1:]), true) }, "had ended, and is gone"},
			{"it may be missing", func() { w.checkFinality(cloned(runs[1:]), false) }, ""},
			{"another late result", now(func(_, r *schedv1.Run) { r.Attempts[0].LateResult = interrupted }), "had the late results"},
		})
	})
}

// A change without an answer is known again by what was asked for, and by nothing less.
func TestFilledInBites(t *testing.T) {
	asked := job("j", every(time.Minute)).GetTriggers()[0]
	is := proto.CloneOf(asked)
	is.GetEvery().Phase = seconds(0)
	if !filledIn(is, asked) {
		t.Error("a default that is filled in is taken for another trigger")
	}
	is.GetEvery().Interval = seconds(61)
	if filledIn(is, asked) {
		t.Error("another interval is taken for the one that was asked for")
	}
}
