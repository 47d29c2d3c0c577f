//go:build e2e

package e2e_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// An agent is killed at any moment, again and again, while jobs run. They go on: exit
// code and log are as if nothing had been. Nothing is started twice.
func TestAgentIsKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put(t, w.script("count", count))
	w.put(t, w.script("seven", count+"\nexit 7"))
	w.put(t, every(w.script("tick", tell+"echo tack; sleep 0.7; echo done"), time.Second))
	good, bad := w.awaitRunning(t, w.run(t, "count")), w.awaitRunning(t, w.run(t, "seven"))
	runner := w.worker.runner(t)
	rnd := chance(t)
	for n := range kills {
		w.awaitRuns(t, "tick", "ticks have run", succeeded(n+1))
		moment(rnd, time.Second)
		w.worker.kill()
		if n%3 == 0 { // it is away while a tick or two end
			moment(rnd, 3*time.Second)
		}
		w.worker.start(t, w.primary)
	}
	if now := w.worker.runner(t); now != runner {
		t.Errorf("the runner was process %d, and is %d", runner, now)
	}
	if err := os.WriteFile(w.file+".stop", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	good, bad = w.awaitEnd(t, good), w.awaitEnd(t, bad)
	phase(t, good, schedv1.Phase_PHASE_SUCCEEDED)
	phase(t, bad, schedv1.Phase_PHASE_FAILED)
	if last(bad).GetExitCode() != 7 {
		t.Errorf("exit code 7 is wanted, got %v", last(bad))
	}
	for _, r := range []*schedv1.Run{good, bad} {
		log := w.readLog(t, r.GetId())
		if wrong := counting(log); wrong != "" || int64(len(log)) != last(r).GetLogBytes() {
			t.Errorf("the log of %d bytes is not whole: %s", len(log), wrong)
		}
	}
	runs := w.pauseAll(t, "tick")
	interrupted := 0 // may be many where the disk is slow: the record waits for it
	for _, r := range runs {
		switch a := last(r); a.GetOutcome() {
		case schedv1.Outcome_OUTCOME_SUCCEEDED:
			sameBytes(t, "the log of a tick", w.readLog(t, r.GetId()), []byte("tack\ndone\n"))
		case schedv1.Outcome_OUTCOME_INTERRUPTED: // killed between its record and its start
			interrupted++
			if !strings.Contains(a.GetReason(), "while it was being started") {
				t.Errorf("a tick was interrupted: %v", a)
			}
		default:
			t.Errorf("a tick ended as %v", r)
		}
	}
	t.Logf("measured: %d of %d ticks were interrupted by %d kills", interrupted, len(runs), kills)
	runs[good.GetId()], runs[bad.GetId()] = good, bad
	w.startedOnce(t, runs)
	w.verify(t, "tick")
	w.worker.emptied(t)
}

// The timeout of a job passes while there is no agent. The runner ends the job in
// time, and the next agent says so.
func TestTimeoutWithoutAnAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	job := w.script("slow", "echo begun\n"+tell+"sleep 86400 & wait")
	job.Policy.Timeout, job.Policy.KillGrace = seconds(10), seconds(1) // time enough to kill the agent
	w.put(t, job)
	run := w.awaitRunning(t, w.run(t, "slow"))
	w.awaitTold(t, run)
	w.worker.kill()
	await(t, "the job is ended while there is no agent", func() (bool, any) {
		pids := w.strays(t)
		return len(pids) == 0, pids
	})
	w.worker.start(t, w.primary)
	run = w.awaitEnd(t, run)
	phase(t, run, schedv1.Phase_PHASE_TIMED_OUT)
	a := last(run)
	took := a.GetFinishedTime().AsTime().Sub(a.GetStartedTime().AsTime())
	t.Logf("measured: with a timeout of 10 s it was ended after %v", took.Round(time.Millisecond))
	if took < 10*time.Second {
		t.Errorf("it was ended after %v", took)
	}
	sameBytes(t, "the log", w.readLog(t, run.GetId()), []byte("begun\n"))
}

// A job is cancelled that another life of the agent has started.
func TestCancelWhatWasFoundAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put(t, w.script("family", `sleep 86400 & setsid sleep 86401 & setsid sh -c 'sleep 86402 & wait' & echo started`+"\n"+tell+"wait"))
	run := w.awaitRunning(t, w.run(t, "family"))
	w.awaitTold(t, run)
	w.worker.kill()
	w.worker.start(t, w.primary)
	if _, err := w.runs.CancelRun(t.Context(), &schedv1.CancelRunRequest{Id: run.GetId(), Note: "enough"}); err != nil {
		t.Fatal(err)
	}
	run = w.awaitEnd(t, run)
	phase(t, run, schedv1.Phase_PHASE_CANCELLED)
	await(t, "no process is left", func() (bool, any) {
		pids := w.strays(t)
		return len(pids) == 0, pids
	})
	sameBytes(t, "the log", w.readLog(t, run.GetId()), []byte("started\n"))
}

// A runner has none of what its agent was started with, and none of its terminal,
// group or session.
func TestRunnerIsDetached(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pid := w.worker.runner(t)
	env := readFile(t, fmt.Sprintf("/proc/%d/environ", pid))
	if strings.Contains(env, "E2E_") || strings.Contains(env, "SCHEDAGENT_") {
		t.Errorf("the runner's environment is %q", env)
	}
	stat := strings.Fields(readFile(t, fmt.Sprintf("/proc/%d/stat", pid)))
	if group, session := stat[4], stat[5]; group != fmt.Sprint(pid) || session != fmt.Sprint(pid) {
		t.Errorf("runner %d is in group %s, session %s", pid, group, session)
	}
	for fd := range 3 {
		to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
		if err != nil || to != "/dev/null" && to != w.worker.dir+"/runner.log" {
			t.Errorf("descriptor %d of the runner is %s, %v", fd, to, err)
		}
	}
}
