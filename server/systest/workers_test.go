package systest

import (
	"strings"
	"testing"
	"time"

	"github.com/schedd/schedd/agent/runner"
	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

const (
	succeeded   = schedv1.Outcome_OUTCOME_SUCCEEDED
	interrupted = schedv1.Outcome_OUTCOME_INTERRUPTED
	lost        = schedv1.Outcome_OUTCOME_LOST
	notStarted  = schedv1.Outcome_OUTCOME_NOT_STARTED
	cancelled   = schedv1.Outcome_OUTCOME_CANCELLED
)

// shop returns a world with a primary and one worker.
func shop(w *world) *worker {
	w.Helper()
	w.startPrimary()
	k := w.startWorker("shop-1", nil, 4)
	w.awaitOnline()
	return k
}

// ended checks how a run's attempts ended, and in which phase it is.
func (w *world) ended(r *schedv1.Run, phase schedv1.Phase, want ...schedv1.Outcome) {
	w.Helper()
	var got []string
	for _, a := range r.GetAttempts() {
		got = append(got, a.GetOutcome().String())
	}
	var wanted []string
	for _, o := range want {
		wanted = append(wanted, o.String())
	}
	if r.GetPhase() != phase || strings.Join(got, " ") != strings.Join(wanted, " ") {
		w.Errorf("the run of %s is %v with %v (%s), want %v with %v", r.GetJob(), r.GetPhase(), got, r.GetReason(), phase, wanted)
	}
}

// An agent crashes at each stage of an attempt, and comes back at once. What runs
// goes on, and ends as if nothing had been. What may have been started and does not
// run is not started again.
func TestAgentCrashesAtEachStage(t *testing.T) {
	for _, stage := range []struct {
		name  string
		crash func(w *world, k *worker) // called a second before the run is due
		want  schedv1.Outcome
		phase schedv1.Phase
		left  int // processes that live on
	}{
		{"accepted", func(w *world, k *worker) {
			w.hold(func(runner.Spec) { time.Sleep(time.Minute) })
			w.wait(30 * time.Second)
			k.crash()
		}, interrupted, schedv1.Phase_PHASE_LOST, 0},
		{"started", func(w *world, k *worker) {
			w.wait(5 * time.Second)
			k.crash()
		}, succeeded, schedv1.Phase_PHASE_SUCCEEDED, 1},
		{"started, unheard of", func(w *world, k *worker) {
			w.hold(func(runner.Spec) { time.Sleep(2 * time.Second) })
			w.wait(2 * time.Second)
			k.link.cut()
			w.wait(4 * time.Second)
			k.crash()
		}, succeeded, schedv1.Phase_PHASE_SUCCEEDED, 1},
		{"ended, unheard of", func(w *world, k *worker) {
			w.wait(5 * time.Second)
			k.link.cut()
			w.wait(30 * time.Second)
			k.crash()
		}, succeeded, schedv1.Phase_PHASE_SUCCEEDED, 0},
		{"ended, half of its log heard of", func(w *world, k *worker) {
			w.wait(10500 * time.Millisecond)
			k.link.freeze()
			w.wait(12 * time.Second)
			k.crash()
		}, succeeded, schedv1.Phase_PHASE_SUCCEEDED, 0},
		{"acknowledged", func(w *world, k *worker) {
			w.wait(25 * time.Second)
			k.crash()
		}, succeeded, schedv1.Phase_PHASE_SUCCEEDED, 0},
	} {
		t.Run(stage.name, func(t *testing.T) {
			story(t, func(w *world) {
				k := shop(w)
				w.does("j", talker(20*time.Second, time.Second))
				w.define(job("j", at(time.Now().Truncate(time.Minute).Add(time.Minute))))
				w.waitUntil(time.Now().Truncate(time.Minute).Add(59 * time.Second))
				stage.crash(w, k)
				if n := len(k.host.Running()); n != stage.left {
					w.Errorf("%d processes live on, want %d", n, stage.left)
				}
				w.hold(func(runner.Spec) {})
				k.start()
				w.awaitOnline()
				w.wait(time.Minute)
				w.ended(w.only("j"), stage.phase, stage.want)
				if n := len(k.host.Running()); n != 0 {
					w.Errorf("%d processes still run", n)
				}
				w.check()
			})
		})
	}
}

// A worker is gone for less than lost_after. Its run goes on, and is as if
// nothing had happened.
func TestShortSilence(t *testing.T) {
	story(t, func(w *world) {
		k := shop(w)
		w.does("j", talker(5*time.Minute, time.Second))
		w.define(job("j"))
		r := w.run("j")
		w.wait(time.Minute)
		k.link.cut()
		w.wait(2*time.Minute + 20*time.Second) // it comes back within half a minute
		if p := w.known("shop-1").GetPhase(); p != schedv1.WorkerPhase_WORKER_PHASE_OFFLINE {
			w.Errorf("the worker is %v", p)
		}
		if r := w.get(r.GetId()); r.GetPhase() != schedv1.Phase_PHASE_RUNNING {
			w.Errorf("the run is %v (%s)", r.GetPhase(), r.GetReason())
		}
		k.link.mend()
		w.ended(w.awaitPhase(r.GetId(), 10*time.Minute, schedv1.Phase_PHASE_SUCCEEDED), schedv1.Phase_PHASE_SUCCEEDED, succeeded)
		w.check()
	})
}

// A worker is gone for longer than lost_after, and so its run is lost. When it
// comes back, what it says is kept and changes nothing else.
func TestLostFails(t *testing.T) {
	for name, back := range map[string]time.Duration{"while it runs": 5 * time.Minute, "when it has ended": 20 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			story(t, func(w *world) {
				k := shop(w)
				w.does("j", talker(10*time.Minute, time.Second))
				w.define(job("j"))
				r := w.run("j")
				w.wait(time.Minute)
				k.link.cut()
				cut := time.Now()
				r = w.awaitPhase(r.GetId(), 5*time.Minute, schedv1.Phase_PHASE_LOST)
				if after := r.GetFinishedTime().AsTime().Sub(cut); after < 3*time.Minute || after > 3*time.Minute+2*time.Second {
					w.Errorf("lost after %v", after)
				}
				w.waitUntil(cut.Add(back))
				k.link.mend()
				w.wait(20 * time.Minute)
				r = w.only("j")
				w.ended(r, schedv1.Phase_PHASE_LOST, lost)
				if late := r.GetAttempts()[0].GetLateResult(); late != succeeded {
					w.Errorf("the late result is %v", late)
				}
				w.check()
			})
		})
	}
}

// With on_lost retry, another worker makes another attempt. When the first worker
// comes back, what still runs there is ended.
func TestLostRetries(t *testing.T) {
	story(t, func(w *world) {
		k := shop(w)
		w.does("j", talker(30*time.Minute, 10*time.Second))
		w.define(job("j", policy(&schedv1.Policy{OnLost: schedv1.OnLost_ON_LOST_RETRY, LostAfter: seconds(60)})))
		r := w.run("j")
		w.wait(time.Minute)
		other := w.startWorker("shop-2", nil, 4)
		w.awaitOnline()
		k.link.cut()
		w.wait(75 * time.Second)
		if len(k.host.Running()) != 1 || len(other.host.Running()) != 1 {
			w.Fatalf("%v and %v run", k.host.Running(), other.host.Running())
		}
		k.link.mend()
		w.wait(time.Minute)
		if len(k.host.Running()) != 0 || len(other.host.Running()) != 1 {
			w.Errorf("%v and %v run", k.host.Running(), other.host.Running())
		}
		r = w.awaitPhase(r.GetId(), time.Hour, schedv1.Phase_PHASE_SUCCEEDED)
		w.ended(r, schedv1.Phase_PHASE_SUCCEEDED, lost, succeeded)
		if late := r.GetAttempts()[0].GetLateResult(); late != cancelled {
			w.Errorf("the late result is %v", late)
		}
		w.check()
	})
}

// With on_lost wait, a run waits for its worker for as long as it takes.
func TestLostWaits(t *testing.T) {
	story(t, func(w *world) {
		k := shop(w)
		w.does("j", talker(10*time.Minute, 10*time.Second))
		w.define(job("j", policy(&schedv1.Policy{OnLost: schedv1.OnLost_ON_LOST_WAIT})))
		r := w.run("j")
		w.wait(time.Minute)
		k.link.cut()
		w.wait(time.Hour)
		w.restart(time.Minute)
		w.wait(5 * time.Hour)
		if r := w.get(r.GetId()); r.GetPhase() != schedv1.Phase_PHASE_RUNNING {
			w.Errorf("the run is %v (%s)", r.GetPhase(), r.GetReason())
		}
		k.link.mend()
		w.ended(w.awaitPhase(r.GetId(), 2*time.Minute, schedv1.Phase_PHASE_SUCCEEDED), schedv1.Phase_PHASE_SUCCEEDED, succeeded)
		w.check()
	})
}

// A worker is reinstalled: it comes back under its name as another worker, and
// what the one before had is lost after its time.
func TestReinstalledWorker(t *testing.T) {
	story(t, func(w *world) {
		k := shop(w)
		w.does("j", talker(10*time.Minute, 10*time.Second))
		w.define(job("j", policy(&schedv1.Policy{OnLost: schedv1.OnLost_ON_LOST_RETRY})))
		r := w.run("j")
		w.wait(time.Minute)
		k.crash()
		k.dir += "-new"
		k.host.Close() // the host was wiped
		k.host = w.newHost(k.name)
		w.net.troubles.begins("wiped", k.name, "") // the worker that there was is never back
		k.start()
		w.awaitPhase(r.GetId(), 20*time.Minute, schedv1.Phase_PHASE_SUCCEEDED)
		r = w.get(r.GetId())
		w.ended(r, schedv1.Phase_PHASE_SUCCEEDED, lost, succeeded)
		if a := r.GetAttempts(); a[0].GetWorkerId() == a[1].GetWorkerId() || a[0].GetWorkerName() != a[1].GetWorkerName() {
			w.Errorf("the attempts were on %s (%s) and %s (%s)", a[0].GetWorkerId(), a[0].GetWorkerName(), a[1].GetWorkerId(), a[1].GetWorkerName())
		}
		w.check()
	})
}

// An agent is away while what it has started goes on: it was stopped or it crashed,
// for a moment or beyond the end of it. All that time the run is running, and then it
// is as if nothing had been.
func TestAgentIsAway(t *testing.T) {
	for name, away := range map[string]time.Duration{"for a moment": 2 * time.Second, "for a while": 2 * time.Minute, "beyond its end": 20 * time.Minute} {
		for how, goes := range map[string]func(*worker){"stopped": (*worker).end, "crashed": (*worker).crash} {
			t.Run(how+" "+name, func(t *testing.T) {
				story(t, func(w *world) {
					k := shop(w)
					w.does("j", talker(10*time.Minute, time.Second))
					w.define(job("j", policy(&schedv1.Policy{OnLost: schedv1.OnLost_ON_LOST_WAIT})))
					r := w.run("j")
					w.wait(time.Minute)
					gone := time.Now()
					goes(k)
					if took := time.Since(gone); took > 10*time.Second {
						w.Errorf("it took %v", took)
					}
					w.wait(away)
					if r := w.get(r.GetId()); r.GetPhase() != schedv1.Phase_PHASE_RUNNING {
						w.Errorf("meanwhile the run is %v (%s)", r.GetPhase(), r.GetReason())
					}
					k.start()
					r = w.awaitPhase(r.GetId(), 11*time.Minute, schedv1.Phase_PHASE_SUCCEEDED)
					w.ended(r, schedv1.Phase_PHASE_SUCCEEDED, succeeded)
					a := r.GetAttempts()[0]
					if took := a.GetFinishedTime().AsTime().Sub(a.GetStartedTime().AsTime()); took != 10*time.Minute {
						w.Errorf("it is said to have taken %v", took)
					}
					w.check()
				})
			})
		}
	}
}

// An agent is upgraded while something runs, which is cancelled after that: the kill
// reaches what another agent has started.
func TestCancelAfterAnUpgrade(t *testing.T) {
	story(t, func(w *world) {
		k := shop(w)
		w.does("j", talker(10*time.Minute, time.Second))
		w.define(job("j"))
		r := w.run("j")
		w.wait(time.Minute)
		k.end()
		w.wait(time.Second)
		k.start()
		w.awaitOnline()
		w.cancel(r.GetId())
		w.wait(time.Minute)
		w.ended(w.get(r.GetId()), phaseCancelled, cancelled)
		if n := len(k.host.Running()); n != 0 {
			w.Errorf("%d processes still run", n)
		}
		w.check()
	})
}

// The runner dies, or is stopped with all that runs: that is interrupted, told at
// once, and done again elsewhere if the job wants that.
func TestRunnerEnds(t *testing.T) {
	for name, end := range map[string]func(*worker){
		"killed":                   func(k *worker) { k.host.Die() },
		"killed without its agent": func(k *worker) { k.crash(); k.host.Die(); k.start() },
		"stopped":                  func(k *worker) { k.host.Stop(); k.wg.Wait(); k.end() },
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(w *world) {
				k := shop(w)
				w.does("j", talker(10*time.Minute, time.Second))
				w.define(job("j", policy(&schedv1.Policy{OnLost: schedv1.OnLost_ON_LOST_RETRY})))
				r := w.run("j")
				w.wait(time.Minute)
				other := w.startWorker("shop-2", nil, 4)
				w.awaitOnline()
				ended := time.Now()
				end(k)
				w.wait(2 * time.Second)
				r = w.get(r.GetId())
				w.ended(r, schedv1.Phase_PHASE_RUNNING, interrupted, 0)
				if at := r.GetAttempts()[0].GetFinishedTime().AsTime(); at.Sub(ended) > time.Second {
					w.Errorf("it was interrupted %v after the end of its runner", at.Sub(ended))
				}
				if len(other.host.Running()) != 1 {
					w.Errorf("%v runs on the other worker", other.host.Running())
				}
				w.awaitPhase(r.GetId(), time.Hour, schedv1.Phase_PHASE_SUCCEEDED)
				w.check()
			})
		})
	}
}
