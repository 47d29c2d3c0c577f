package systest

import (
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

const (
	phasePending   = schedv1.Phase_PHASE_PENDING
	phaseAssigned  = schedv1.Phase_PHASE_ASSIGNED
	phaseRunning   = schedv1.Phase_PHASE_RUNNING
	phaseSucceeded = schedv1.Phase_PHASE_SUCCEEDED
	phaseFailed    = schedv1.Phase_PHASE_FAILED
	phaseTimedOut  = schedv1.Phase_PHASE_TIMED_OUT
	phaseCancelled = schedv1.Phase_PHASE_CANCELLED
	phaseSkipped   = schedv1.Phase_PHASE_SKIPPED
)

// has checks in which phases the runs of a job are, the oldest first.
func (w *world) has(name string, want ...schedv1.Phase) []*schedv1.Run {
	w.Helper()
	runs := w.runsOf(name)
	same := len(runs) == len(want)
	for i := range min(len(runs), len(want)) {
		same = same && runs[i].GetPhase() == want[i]
	}
	if !same {
		w.Errorf("the runs of %s are %v, want %v", name, phases(runs), want)
	}
	return runs
}

// nextMinute waits until a second after the next full minute.
func (w *world) nextMinute() {
	w.waitUntil(time.Now().Truncate(time.Minute).Add(61 * time.Second))
}

// A job comes due every minute and takes two and a half: what becomes of those
// that come meanwhile is up to its overlap policy, and nobody runs beside
// another who must not.
func TestOverlap(t *testing.T) {
	for _, test := range []struct {
		overlap schedv1.Overlap
		most    int // at the same time
		want    []schedv1.Phase
	}{
		{schedv1.Overlap_OVERLAP_SKIP, 1, []schedv1.Phase{phaseSucceeded, phaseSkipped, phaseSkipped, phaseSucceeded, phaseSkipped, phaseSkipped}},
		{schedv1.Overlap_OVERLAP_ALLOW, 3, []schedv1.Phase{phaseSucceeded, phaseSucceeded, phaseSucceeded, phaseSucceeded, phaseSucceeded, phaseSucceeded}},
		{schedv1.Overlap_OVERLAP_QUEUE, 1, []schedv1.Phase{phaseSucceeded, phaseSucceeded, phaseSucceeded, phaseSucceeded, phaseSucceeded, phaseSucceeded}},
		{schedv1.Overlap_OVERLAP_REPLACE, 1, []schedv1.Phase{phaseCancelled, phaseCancelled, phaseCancelled, phaseCancelled, phaseCancelled, phaseSucceeded}},
	} {
		t.Run(test.overlap.String(), func(t *testing.T) {
			story(t, func(w *world) {
				k := shop(w)
				w.does("j", talker(150*time.Second, 10*time.Second))
				from := time.Now().Truncate(time.Minute).Add(time.Minute)
				j := job("j", cron("* * * * *", ""), policy(&schedv1.Policy{Overlap: test.overlap}))
				j.Triggers[0].EndTime = stamp(from.Add(6 * time.Minute))
				w.define(j)
				most := 0
				for time.Now().Before(from.Add(20 * time.Minute)) {
					w.wait(time.Second)
					most = max(most, len(k.host.Running()))
				}
				if most != test.most {
					w.Errorf("up to %d ran at the same time, want %d", most, test.most)
				}
				w.has("j", test.want...)
				w.check()
			})
		})
	}
}

// The overlap policy holds for what is asked for by hand, too, and the caller is
// told so. The same request is the same run.
func TestRunByHand(t *testing.T) {
	story(t, func(w *world) {
		shop(w)
		w.takes("j", time.Minute)
		w.define(job("j"))
		ask := func(id string) (*schedv1.RunJobResponse, error) {
			return w.runJob(&schedv1.RunJobRequest{Name: "j", RequestId: id})
		}
		first := must[*schedv1.RunJobResponse](w)(ask("1"))
		again := must[*schedv1.RunJobResponse](w)(ask("1"))
		if first.GetRun().GetId() != again.GetRun().GetId() {
			w.Errorf("the same request is %s and %s", first.GetRun().GetId(), again.GetRun().GetId())
		}
		_, err := ask("2")
		if told := w.refused(err, codes.FailedPrecondition); !strings.Contains(told, "active") {
			w.Errorf("told %q", told)
		}
		w.wait(2 * time.Minute)
		w.restart(time.Minute)
		again = must[*schedv1.RunJobResponse](w)(ask("1"))
		if again.GetRun().GetPhase() != phaseSucceeded || len(w.runsOf("j")) != 1 {
			w.Errorf("asked again after a restart: %v", again)
		}
		w.awaitOnline()
		repeat := must[*schedv1.Run](w)(w.retryRun(first.GetRun().GetId(), ""))
		w.awaitPhase(repeat.GetId(), 2*time.Minute, phaseSucceeded)
		if repeat.GetRetryOf() != first.GetRun().GetId() {
			w.Errorf("the repetition is of %q", repeat.GetRetryOf())
		}
		w.check()
	})
}

// A run is cancelled at each stage of its life. It ends, once, and a process that
// there is ends with it.
func TestCancel(t *testing.T) {
	t.Run("pending", func(t *testing.T) {
		story(t, func(w *world) {
			w.startPrimary()
			w.define(job("j"))
			r := w.run("j")
			if !strings.Contains(w.get(r.GetId()).GetReason(), "waits for a worker") {
				w.Errorf("it waits because %q", w.get(r.GetId()).GetReason())
			}
			w.cancel(r.GetId())
			w.ended(w.get(r.GetId()), phaseCancelled)
			_, err := w.cancelRun(r.GetId())
			w.refused(err, codes.FailedPrecondition)
			w.startWorker("shop-1", nil, 1)
			w.awaitOnline()
			w.wait(time.Minute)
			w.ended(w.get(r.GetId()), phaseCancelled)
			w.check()
		})
	})
	t.Run("assigned, to a worker that can't hear it", func(t *testing.T) {
		story(t, func(w *world) {
			k := shop(w)
			w.define(job("j"))
			k.link.freeze()
			r := w.run("j")
			w.wait(time.Second)
			w.ended(w.get(r.GetId()), phaseAssigned, 0)
			w.cancel(r.GetId())
			w.wait(time.Second)
			w.ended(w.get(r.GetId()), phaseAssigned, 0)
			k.link.reset() // what was sent is lost
			w.awaitPhase(r.GetId(), 2*time.Minute, phaseCancelled)
			w.ended(w.get(r.GetId()), phaseCancelled, notStarted)
			w.check()
		})
	})
	t.Run("running", func(t *testing.T) {
		story(t, func(w *world) {
			shop(w)
			w.does("j", talker(-1, 0))
			w.define(job("j", policy(&schedv1.Policy{Retry: &schedv1.Retry{MaxAttempts: 5}})))
			r := w.run("j")
			w.wait(time.Minute)
			w.cancel(r.GetId())
			w.wait(time.Second)
			w.ended(w.get(r.GetId()), phaseCancelled, cancelled)
			w.check()
		})
	})
	t.Run("running, and deaf to TERM", func(t *testing.T) {
		story(t, func(w *world) {
			k := shop(w)
			w.does("j", func(runner.Spec) fakerunner.Behaviour { return fakerunner.Behaviour{Duration: -1, IgnoreTerm: true} })
			w.define(job("j", policy(&schedv1.Policy{KillGrace: seconds(40)})))
			r := w.run("j")
			w.wait(time.Minute)
			w.cancel(r.GetId())
			w.wait(39 * time.Second)
			if len(k.host.Running()) != 1 {
				w.Error("it was killed before its grace was over")
			}
			w.wait(2 * time.Second)
			w.ended(w.get(r.GetId()), phaseCancelled, cancelled)
			if s := w.get(r.GetId()).GetAttempts()[0].GetSignal(); s != "SIGKILL" {
				w.Errorf("it ended by %q", s)
			}
			w.check()
		})
	})
	t.Run("running, while the primary is killed", func(t *testing.T) {
		story(t, func(w *world) {
			k := shop(w)
			w.does("j", talker(-1, 0))
			w.define(job("j"))
			r := w.run("j")
			w.wait(time.Minute)
			k.link.cut()
			w.cancel(r.GetId())
			w.restart(time.Minute)
			k.link.mend()
			w.awaitPhase(r.GetId(), 2*time.Minute, phaseCancelled)
			w.check()
		})
	})
}

// What takes too long is ended: in the queue, until it starts, and when it runs.
func TestTimeouts(t *testing.T) {
	story(t, func(w *world) {
		shop(w)
		w.does("slow", talker(time.Hour, time.Minute))
		w.define(job("slow", policy(&schedv1.Policy{Timeout: seconds(90), Retry: &schedv1.Retry{MaxAttempts: 2, InitialDelay: seconds(5)}})))
		w.define(job("homeless", selector("zone=moon"), policy(&schedv1.Policy{QueueTimeout: seconds(120)})))
		slow, homeless := w.run("slow"), w.run("homeless")
		w.wait(100 * time.Second)
		if why := w.get(homeless.GetId()).GetReason(); !strings.Contains(why, `"zone=moon"`) {
			w.Errorf("it waits because %q", why)
		}
		w.wait(21 * time.Second)
		w.ended(w.get(homeless.GetId()), phaseTimedOut)
		w.wait(2 * time.Minute)
		r := w.get(slow.GetId())
		timedOut := schedv1.Outcome_OUTCOME_TIMED_OUT
		w.ended(r, phaseTimedOut, timedOut, timedOut)
		a := r.GetAttempts()[0]
		if d := a.GetFinishedTime().AsTime().Sub(a.GetStartedTime().AsTime()); d != 90*time.Second {
			w.Errorf("its timeout ended it after %v", d)
		}
		w.check()
	})
}

// An attempt fails, and is tried again as the policy says: with growing delays,
// for the exit codes that are worth it, and not for others.
func TestRetry(t *testing.T) {
	story(t, func(w *world) {
		shop(w)
		exits := func(codes ...int) script {
			return func(s runner.Spec) fakerunner.Behaviour {
				n := int(env(s, "SCHEDD_ATTEMPT")[0] - '1')
				return fakerunner.Behaviour{Duration: time.Second, ExitCode: codes[min(n, len(codes)-1)], Output: []fakerunner.Chunk{{Data: []byte(s.ID)}}}
			}
		}
		retry := policy(&schedv1.Policy{Retry: &schedv1.Retry{MaxAttempts: 4, InitialDelay: seconds(10), Multiplier: 3, ExitCodes: []int32{75}}})
		w.does("third-time", exits(75, 75, 0))
		w.does("never", exits(75))
		w.does("not-worth-it", exits(75, 1))
		w.does("no-such-user", func(runner.Spec) fakerunner.Behaviour {
			return fakerunner.Behaviour{StartError: errors.New(`there is no user "nobody-knows"`)}
		})
		for _, name := range []string{"third-time", "never", "not-worth-it", "no-such-user"} {
			w.define(job(name, retry))
			w.run(name)
		}
		w.wait(15 * time.Second)
		r := w.only("third-time")
		if r.GetPhase() != phaseRunning && !strings.Contains(r.GetReason(), "attempt") {
			w.Errorf("it is %v because %q", r.GetPhase(), r.GetReason())
		}
		w.wait(10 * time.Minute)
		failed := schedv1.Outcome_OUTCOME_FAILED
		w.ended(w.only("third-time"), phaseSucceeded, failed, failed, succeeded)
		w.ended(w.only("never"), phaseFailed, failed, failed, failed, failed)
		w.ended(w.only("not-worth-it"), phaseFailed, failed, failed)
		w.ended(w.only("no-such-user"), phaseFailed, notStarted, notStarted, notStarted, notStarted)
		if why := w.only("no-such-user").GetReason(); !strings.Contains(why, "nobody-knows") {
			w.Errorf("it failed because %q", why)
		}
		a := w.only("never").GetAttempts()
		for i, least := range []time.Duration{10 * time.Second, 30 * time.Second, 90 * time.Second} {
			delay := a[i+1].GetStartedTime().AsTime().Sub(a[i].GetFinishedTime().AsTime())
			if delay < least || delay > least*11/10+time.Second {
				w.Errorf("attempt %d came %v after the one before, want %v and up to a tenth more", i+2, delay, least)
			}
		}
		w.check()
	})
}

// A run may take a minute in all: with its retries, with a process that will not
// end, without a worker that may have it, and while its worker is away.
func TestTotalTimeout(t *testing.T) {
	story(t, func(w *world) {
		k := shop(w)
		limit := func(p *schedv1.Policy) func(*schedv1.Job) {
			p.TotalTimeout = seconds(60)
			return policy(p)
		}
		w.does("fails", func(runner.Spec) fakerunner.Behaviour {
			return fakerunner.Behaviour{Duration: 10 * time.Second, ExitCode: 1}
		})
		w.does("deaf", func(runner.Spec) fakerunner.Behaviour { return fakerunner.Behaviour{Duration: -1, IgnoreTerm: true} })
		w.takes("quick", 50*time.Second)
		w.define(job("fails", limit(&schedv1.Policy{Retry: &schedv1.Retry{MaxAttempts: 100, InitialDelay: seconds(5), Multiplier: 1}})))
		w.define(job("deaf", limit(&schedv1.Policy{KillGrace: seconds(7)})))
		w.define(job("quick", limit(&schedv1.Policy{})))
		w.define(job("nowhere", selector("zone=moon"), limit(&schedv1.Policy{})))
		w.define(job("away", limit(&schedv1.Policy{OnLost: schedv1.OnLost_ON_LOST_WAIT})))
		w.does("away", talker(3*time.Hour, time.Minute))
		began := time.Now()
		for _, j := range []string{"fails", "deaf", "quick", "nowhere"} {
			w.run(j)
		}
		w.wait(30 * time.Second)
		w.restart(time.Second) // it counts on
		w.wait(2 * time.Minute)
		w.has("quick", phaseSucceeded)
		for name, end := range map[string]time.Duration{"fails": 60 * time.Second, "deaf": 67 * time.Second, "nowhere": 60 * time.Second} {
			r := w.has(name, phaseTimedOut)[0]
			if took := r.GetFinishedTime().AsTime().Sub(began); took < end || took > end+2*time.Second || !strings.Contains(r.GetReason(), "total_timeout of 1m0s") {
				w.Errorf("%s took %v (%s), want %v", name, took, r.GetReason(), end)
			}
		}

		// Its worker is away when the time is up, and learns of it later.
		w.run("away")
		w.wait(10 * time.Second)
		k.link.cut()
		w.wait(2 * time.Minute)
		k.link.mend()
		w.wait(time.Minute)
		w.has("away", phaseTimedOut)
		if n := len(k.host.Running()); n != 0 {
			w.Errorf("%d processes still run", n)
		}
		w.check()
	})
}

// The primary is killed between two attempts: the retry is not forgotten.
func TestRetrySurvives(t *testing.T) {
	story(t, func(w *world) {
		k := shop(w)
		w.does("j", func(s runner.Spec) fakerunner.Behaviour {
			return fakerunner.Behaviour{Duration: time.Second, ExitCode: int('2' - env(s, "SCHEDD_ATTEMPT")[0])}
		})
		w.define(job("j", policy(&schedv1.Policy{Retry: &schedv1.Retry{MaxAttempts: 2, InitialDelay: seconds(60)}})))
		r := w.run("j")
		w.wait(10 * time.Second)
		w.restart(20 * time.Second)
		k.crash()
		k.start()
		w.awaitPhase(r.GetId(), 2*time.Minute, phaseSucceeded)
		w.check()
	})
}

// A job is deleted while a run of it waits to be tried again: it is, as its job said when
// it was there.
func TestDeletedBetweenAttempts(t *testing.T) {
	story(t, func(w *world) {
		shop(w)
		w.does("j", func(s runner.Spec) fakerunner.Behaviour {
			return fakerunner.Behaviour{Duration: time.Second, ExitCode: int('3' - env(s, "SCHEDD_ATTEMPT")[0])}
		})
		w.define(job("j", policy(&schedv1.Policy{Retry: &schedv1.Retry{MaxAttempts: 3, InitialDelay: seconds(60), Multiplier: 1}})))
		r := w.run("j")
		w.wait(10 * time.Second)
		w.deleteJob("j")
		w.wait(time.Minute)
		w.restart(20 * time.Second)
		w.awaitPhase(r.GetId(), 3*time.Minute, phaseSucceeded)
		if n := len(w.runsOf("j")[0].GetAttempts()); n != 3 {
			w.Errorf("it took %d attempts, want 3", n)
		}
		w.check()
	})
}

// A run waits with a reason that a person can read, until somebody can take it.
func TestWaitsForItsWorker(t *testing.T) {
	story(t, func(w *world) {
		w.startPrimary()
		w.define(job("j", selector("gpu"), every(time.Minute), policy(&schedv1.Policy{Overlap: schedv1.Overlap_OVERLAP_ALLOW})))
		w.nextMinute()
		for _, stage := range []struct {
			do   func()
			want string
		}{
			{func() {}, `none matches "gpu"`},
			{func() { w.startWorker("plain", nil, 4); w.awaitOnline() }, `none matches "gpu"`},
			{func() {
				w.startWorker("strong", map[string]string{"gpu": ""}, 2)
				w.takes("j", 210*time.Second)
				w.awaitOnline()
				w.wait(2 * time.Minute)
			}, "slots"},
		} {
			stage.do()
			pending := w.runs("job=j,phase=PHASE_PENDING")
			if len(pending) == 0 {
				w.Fatalf("none waits: %v", phases(w.runsOf("j")))
			}
			if why := pending[len(pending)-1].GetReason(); !strings.Contains(why, stage.want) {
				w.Errorf("it waits because %q, want %q", why, stage.want)
			}
		}
		if n := len(w.workers[0].host.Specs()); n > 0 {
			w.Errorf("%d were started where none may be", n)
		}
		w.takes("j", time.Second)
		w.wait(10 * time.Minute)
		w.all(w.runsOf("j"), phaseSucceeded)
		w.check()
	})
}

// A worker that drains finishes what it has and is given nothing new.
func TestDrain(t *testing.T) {
	story(t, func(w *world) {
		k := shop(w)
		drain := func(undo bool) {
			w.Helper()
			must[*schedv1.DrainWorkerResponse](w)(w.primary.workers.DrainWorker(w.Context(), &schedv1.DrainWorkerRequest{Id: w.known("shop-1").GetId(), Undo: undo, Note: "new disks"}))
		}
		w.takes("j", 90*time.Second)
		w.define(job("j", every(time.Minute), policy(&schedv1.Policy{Overlap: schedv1.Overlap_OVERLAP_ALLOW})))
		w.nextMinute()
		drain(false)
		w.restart(5 * time.Second)
		w.wait(5 * time.Minute)
		runs := w.runsOf("j")
		if n := count(runs); n[phaseSucceeded] != 1 || n[phasePending] != len(runs)-1 || len(k.host.Running()) != 0 {
			w.Errorf("while it drains: %v", phases(runs))
		}
		if why := runs[1].GetReason(); !strings.Contains(why, "drain") {
			w.Errorf("it waits because %q", why)
		}
		drain(true)
		w.wait(10 * time.Minute)
		w.check()
		w.all(w.runsOf("j"), phaseSucceeded)
	})
}

// A pause ends by itself. What came due meanwhile is skipped, with the reason,
// and not caught up with. By hand a paused job runs.
func TestPause(t *testing.T) {
	story(t, func(w *world) {
		shop(w)
		w.define(job("j", cron("* * * * *", "")))
		w.nextMinute()
		until := time.Now().Add(10 * time.Minute)
		w.pause("j", "holidays", stamp(until))
		w.wait(2 * time.Minute)
		w.run("j")
		w.wait(time.Minute)
		w.restart(time.Minute)
		w.wait(7 * time.Minute)
		w.nextMinute()
		w.nextMinute()
		v := w.verdicts("j")[0]
		if v.GetSkipped() != 10 || v.GetMissed() != 0 || v.GetRan() < 2 || !strings.Contains(v.GetSpans()[1].GetReason(), "holidays") {
			w.Errorf("the ledger has %v", v)
		}
		w.check()
	})
}

// A job is redefined at the very second in which an occurrence is due, again and
// again: each occurrence is decided by one of the definitions, once.
func TestRedefinedWhenDue(t *testing.T) {
	story(t, func(w *world) {
		shop(w)
		w.disk.BeforeWrite(func() { time.Sleep(2 * time.Millisecond) })
		due := time.Now().Truncate(time.Minute).Add(time.Minute)
		w.define(job("j", cron("* * * * *", "")))
		ways := []func(*schedv1.Job){every(30 * time.Second), cron("* * * * *", "Europe/Berlin"), cron("*/2 * * * *", ""), cron("0,30 * * * * *", "")}
		for i := range 40 {
			time.Sleep(time.Until(due) + time.Duration(i%9-4)*time.Millisecond)
			j := job("j", ways[i%len(ways)])
			j.Description = strings.Repeat("x", i) // another version in any case
			w.define(j)
			due = due.Add(30 * time.Second)
		}
		w.disk.BeforeWrite(nil)
		w.check()
		w.all(w.runsOf("j"), phaseSucceeded)
	})
}

// A job is deleted while it runs: the run goes on to its end. A job made later
// under its name is another job.
func TestDeletedWhileItRuns(t *testing.T) {
	story(t, func(w *world) {
		shop(w)
		w.does("j", talker(3*time.Minute, time.Second))
		first := w.define(job("j", cron("* * * * *", "")))
		w.nextMinute()
		w.deleteJob("j")
		w.restart(time.Second)
		second := w.define(job("j", cron("*/2 * * * *", ""), policy(&schedv1.Policy{Overlap: schedv1.Overlap_OVERLAP_ALLOW})))
		if first.GetUid() == second.GetUid() || second.GetVersion() != 1 {
			w.Errorf("the new job has uid %s and version %d, the old had uid %s", second.GetUid(), second.GetVersion(), first.GetUid())
		}
		w.wait(4 * time.Minute)
		old := w.runsOf("j")[0]
		if old.GetJobUid() != first.GetUid() {
			w.Errorf("the first run is of %s", old.GetJobUid())
		}
		w.ended(old, phaseSucceeded, succeeded)
		w.check()
	})
}

// A run with limits waits for a worker that can keep them, and gets them there. What
// each worker can keep is shown, and may change when its agent comes back.
func TestLimits(t *testing.T) {
	story(t, func(w *world) {
		w.startPrimary()
		none := runner.Enforcement{Memory: runner.MeansNone, CPU: runner.MeansNone, PIDs: runner.MeansNone, Usage: runner.MeansProc, Tree: runner.MeansProc, Note: "not delegated"}
		plain := w.newWorker("plain", nil, 4)
		plain.host.SetEnforcement(none)
		plain.start()
		w.awaitOnline()
		j := job("j")
		j.Task.Limits = &schedv1.Limits{MemoryBytes: 1 << 30, Cpus: 1.5}
		if got := w.define(j).GetTask().GetLimits(); got.GetMemoryBytes() != 1<<30 || got.GetCpus() != 1.5 {
			w.Errorf("defined with limits %v", got)
		}
		r := w.run("j")
		w.wait(time.Minute)
		if got := w.get(r.GetId()); got.GetPhase() != schedv1.Phase_PHASE_PENDING || !strings.Contains(got.GetReason(), "can keep the job's limits (memory_bytes, cpus)") {
			w.Errorf("it is %v: %s", got.GetPhase(), got.GetReason())
		}
		if e := w.known("plain").GetEnforcement(); e.GetMemory() != schedv1.Means_MEANS_NONE || e.GetTree() != schedv1.Means_MEANS_PROC || e.GetNote() != "not delegated" {
			w.Errorf("plain shows %v", e)
		}

		strong := w.startWorker("strong", nil, 4)
		w.awaitPhase(r.GetId(), time.Minute, phaseSucceeded)
		if got, want := strong.host.Specs()[0].Limits, (runner.Limits{Memory: 1 << 30, CPUMillis: 1500}); got != want || len(plain.host.Specs()) != 0 {
			w.Errorf("started with %+v, want %+v; elsewhere %d", got, want, len(plain.host.Specs()))
		}
		if e := w.known("strong").GetEnforcement(); e.GetMemory() != schedv1.Means_MEANS_CGROUP_V2 || e.GetNote() != "" {
			w.Errorf("strong shows %v", e)
		}

		// Its host is set up anew, without delegation.
		strong.crash()
		strong.host.SetEnforcement(none)
		strong.start()
		w.awaitOnline()
		w.restart(5 * time.Second)
		w.awaitOnline()
		if e := w.known("strong").GetEnforcement(); e.GetMemory() != schedv1.Means_MEANS_NONE {
			w.Errorf("strong shows %v", e)
		}
		w.check()
	})
}
