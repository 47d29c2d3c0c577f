package agent_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/schedd/schedd/agent"
	"github.com/schedd/schedd/agent/runner/fakerunner"
	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
)

// minutes is an attempt of three minutes that prints all the time and ends with 3.
func minutes(output []byte) fakerunner.Behaviour {
	third := len(output) / 3
	return fakerunner.Behaviour{Duration: 3 * time.Minute, ExitCode: 3, CPUTime: time.Second, Output: []fakerunner.Chunk{
		{Data: output[:third]}, {After: time.Minute, Data: output[third : 2*third]}, {After: time.Minute, Data: output[2*third:]},
	}}
}

// An agent is stopped, or dies, while a process runs. It goes on, and the next one
// looks after it: exit code, times and log are as if nothing had been, whether it
// ended before or after there was an agent again.
func TestWhatRunsOutlivesTheAgent(t *testing.T) {
	output := text(30_000)
	for name, away := range map[string]time.Duration{"for a moment": time.Second, "until it has ended": 10 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			story(t, polite, map[string]fakerunner.Behaviour{"r1": minutes(output)}, func(w *world) {
				one := w.start()
				began := time.Now()
				w.gateway.last().launch(launchOf("r1"))
				w.wait(5 * time.Second)
				one.end()
				if took := time.Since(began); took > 6*time.Second {
					t.Errorf("the agent took until %v after the launch to stop", took)
				}
				w.says(w.gateway.last(), "inventory", "started r1/1", "goodbye")
				w.wait(away)
				w.start()
				w.wait(4 * time.Minute)
				if got := w.gateway.last().story(); len(got) != 2 || got[1] != "result r1/1 FAILED" {
					t.Errorf("the next agent says %q", got)
				}
				r := w.gateway.result("r1")
				if r.GetExitCode() != 3 || r.GetCpuTime().AsDuration() != time.Second || !r.GetStartedTime().AsTime().Equal(began) ||
					r.GetFinishedTime().AsTime().Sub(began) != 3*time.Minute || r.GetFence() != 41 {
					t.Errorf("result %v", r)
				}
				if got := w.gateway.log("r1"); got != string(output) {
					t.Errorf("%d of %d bytes of the log arrived", len(got), len(output))
				}
				w.nothingLeft()
				w.startsOf("r1", 1)
			})
		})
	}
}

// nothingLeft checks that neither spool nor runner keep anything.
func (w *world) nothingLeft() {
	w.Helper()
	if left, _ := filepath.Glob(filepath.Join(w.dir, "spool", "*")); len(left) > 0 {
		w.Errorf("left in the spool: %q", left)
	}
	if left := append(w.host.Running(), w.host.Ended()...); len(left) > 0 {
		w.Errorf("left on the host: %q", left)
	}
}

// The agent dies in the midst of it, and its successor finds what runs in a copy of
// the disk as it was at that moment. A launch that comes again changes nothing.
func TestCrashWhileItRuns(t *testing.T) {
	output := text(30_000)
	story(t, polite, map[string]fakerunner.Behaviour{"r1": minutes(output)}, func(w *world) {
		w.start()
		w.gateway.last().launch(launchOf("r1"))
		w.wait(5 * time.Second)
		w.startIn(w.image(), w.boot)
		v := w.gateway.last()
		v.launch(launchOf("r1"))
		w.wait(4 * time.Minute)
		w.says(v, "inventory r1/1=RUNNING", "result r1/1 FAILED")
		w.startsOf("r1", 1)
	})
}

// What was found again can be killed, with the grace that the kill says, and keeps
// its timeout.
func TestKillAfterTheAgentWasAway(t *testing.T) {
	stubborn := forever
	stubborn.IgnoreTerm = true
	story(t, polite, map[string]fakerunner.Behaviour{"killed": stubborn, "late": forever, "lost": forever}, func(w *world) {
		one := w.start()
		late := launchOf("late")
		late.Timeout = launchOf("late").GetStartWithin() // a minute
		for _, l := range []*agentv1.Launch{launchOf("killed"), late, launchOf("lost")} {
			w.gateway.last().launch(l)
		}
		w.wait(time.Second)
		one.end()
		w.wait(5 * time.Minute)
		w.start()
		w.gateway.last().kill(launchOf("killed"), 10*time.Second)
		w.wait(5 * time.Second)
		if r := w.gateway.result("killed"); r != nil {
			t.Errorf("it ended before its grace was over: %v", r)
		}
		w.wait(10 * time.Second)
		w.outcomeOf("killed", agentv1.Outcome_OUTCOME_KILLED, "somebody asked")
		if r := w.outcomeOf("late", agentv1.Outcome_OUTCOME_TIMED_OUT, "timed out after 1m0s"); r.GetFinishedTime().AsTime().Sub(r.GetStartedTime().AsTime()) != time.Minute {
			t.Errorf("timed out %v", r)
		}
		w.host.Die()
		w.wait(time.Second)
		if r := w.outcomeOf("lost", agentv1.Outcome_OUTCOME_INTERRUPTED, "runner died"); r.GetExitCode() != 0 || r.GetSignal() != "" {
			t.Errorf("how it ended nobody knows, and the result says %v", r)
		}
	})
}

// Whoever stops the runner stops the agent, and what runs: that is told before the
// agent ends, as interrupted.
func TestRunnerIsStopped(t *testing.T) {
	stubborn := forever
	stubborn.IgnoreTerm = true
	story(t, polite, map[string]fakerunner.Behaviour{"r1": forever, "r2": stubborn}, func(w *world) {
		one := w.start()
		v := w.gateway.last()
		v.launch(launchOf("r1"))
		v.launch(launchOf("r2"))
		w.wait(time.Second)
		w.host.Stop()
		w.wait(time.Second)
		v.launch(launchOf("r3"))
		one.wg.Wait()
		w.outcomeOf("r1", agentv1.Outcome_OUTCOME_INTERRUPTED, "the worker was stopped")
		w.outcomeOf("r2", agentv1.Outcome_OUTCOME_INTERRUPTED, "the worker was stopped")
		w.outcomeOf("r3", agentv1.Outcome_OUTCOME_REFUSED, "being stopped")
		if got := v.story(); got[len(got)-1] != "goodbye" {
			t.Errorf("the last words were %q", got)
		}
		w.startsOf("r3", 0)
		w.nothingLeft()
	})
}

// Whoever stops a worker for good may remove its host: what its jobs have written goes
// with the results, if the gateway takes it within some seconds.
func TestOutputIsShippedBeforeTheEnd(t *testing.T) {
	output := text(50_000)
	does := forever
	does.Output = []fakerunner.Chunk{{Data: output}}
	for _, taken := range []bool{true, false} {
		t.Run(fmt.Sprintf("taken %v", taken), func(t *testing.T) {
			m := polite
			m.logError = "no space left"
			story(t, m, map[string]fakerunner.Behaviour{"r1": does}, func(w *world) {
				one := w.start()
				w.gateway.last().launch(launchOf("r1"))
				w.wait(time.Second)
				stopped := time.Now()
				w.host.Stop()
				w.wait(time.Second)
				w.outcomeOf("r1", agentv1.Outcome_OUTCOME_INTERRUPTED, "the worker was stopped")
				if taken {
					w.gateway.behave(func(m *manners) { m.logError = "" })
				}
				one.wg.Wait()
				if got := w.gateway.log("r1"); taken && got != string(output) {
					t.Errorf("%d of %d bytes of the log arrived", len(got), len(output))
				}
				if took := time.Since(stopped); took > 11*time.Second {
					t.Errorf("the worker ended %v after it was stopped", took)
				}
			})
		})
	}
}

// A data directory is restored from a copy that is too old. What runs and is not in
// its journal will be told to nobody, so it does not go on.
func TestRunnerKnowsMoreThanTheJournal(t *testing.T) {
	story(t, polite, map[string]fakerunner.Behaviour{"r1": forever, "r2": {Duration: time.Second}}, func(w *world) {
		one := w.start()
		old := w.image()
		w.gateway.last().launch(launchOf("r1"))
		w.gateway.last().launch(launchOf("r2"))
		w.wait(time.Millisecond)
		one.end()
		w.wait(time.Minute)
		w.startIn(old, w.boot)
		w.says(w.gateway.last(), "inventory")
		if left := append(w.host.Running(), w.host.Ended()...); len(left) > 0 {
			t.Errorf("left on the host: %q", left)
		}
	})
}

// absent is a runner that can't be reached until gone is closed, and then is left.
type absent struct {
	*fakerunner.Fake
	gone chan struct{}
}

func (a absent) EndStrays(string, []string) (int, error) {
	<-a.gone
	return 0, errors.New("the agent is leaving its runner")
}

// An agent is stopped before it could see to what a former life may have left, since
// its runner was away. It does not say that it has; the next one does it.
func TestStopBeforeTheRunnerIsThere(t *testing.T) {
	story(t, polite, map[string]fakerunner.Behaviour{"r1": {Duration: time.Second}}, func(w *world) {
		w.start()
		var image string
		w.onStart = func(string) { image = w.image() }
		w.gateway.last().launch(launchOf("r1"))
		w.wait(time.Minute)

		gone := make(chan struct{})
		w.change = func(c *agent.Config, s *agent.Seams) { s.Runner = absent{w.host, gone} }
		second := w.startIn(image, w.boot)
		second.stop()
		w.wait(10 * time.Second)
		close(gone)
		second.wg.Wait()
		w.says(w.gateway.last(), "inventory r1/1=ACCEPTED", "goodbye")

		w.change = func(*agent.Config, *agent.Seams) {}
		w.startIn(image, w.boot)
		w.wait(time.Minute)
		w.outcomeOf("r1", agentv1.Outcome_OUTCOME_INTERRUPTED, "while it was being started")
		w.startsOf("r1", 1)
	})
}
