//go:build e2e

package e2e_test

import (
	"strings"
	"syscall"
	"testing"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// notTold sees that no process of a run has said that it ran.
func (w *world) notTold(t *testing.T, r *schedv1.Run) {
	t.Helper()
	for _, e := range w.effects(t) {
		if e.run == r.GetId() {
			t.Errorf("a process of run %s, which is %v, was started: %+v", r.GetId(), r.GetPhase(), e)
		}
	}
}

// An agent is stopped by SIGSTOP, as a paused container or virtual machine is. What it is
// told to start then lies in the buffer of its connection, until the run is given up. When
// the agent goes on it does not start that, and works as before.
func TestStoppedAgentStartsNothingLate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	given := w.script("given", tell)
	given.Policy.LostAfter, given.Policy.OnLost = seconds(60), schedv1.OnLost_ON_LOST_FAIL
	w.put(t, given)
	w.put(t, w.script("later", tell))
	w.worker.signal(t, syscall.SIGSTOP)
	run := w.awaitEnd(t, w.run(t, "given"))
	phase(t, run, schedv1.Phase_PHASE_LOST)
	w.worker.signal(t, syscall.SIGCONT)
	phase(t, w.awaitEnd(t, w.run(t, "later")), schedv1.Phase_PHASE_SUCCEEDED)
	w.notTold(t, run)
}

// A runner is stopped by SIGSTOP. Its worker says so, and takes nothing; and what was to be
// started meanwhile is not started when it is too late.
func TestStoppedRunner(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	late := w.script("late", tell)
	late.Policy.StartWithin = seconds(5)
	w.put(t, late)
	w.put(t, w.script("later", tell))
	pid := w.worker.runner(t)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) }) // it may go on already
	run := w.run(t, "late")
	troubled := func(with string) {
		t.Helper()
		await(t, "the worker says "+with, func() (bool, any) {
			resp, err := w.workers.ListWorkers(t.Context(), &schedv1.ListWorkersRequest{Filter: "name=" + w.worker.name})
			if err != nil || len(resp.GetWorkers()) != 1 {
				return false, err
			}
			why := resp.GetWorkers()[0].GetTrouble()
			return strings.Contains(why, with) && (why == "") == (with == ""), why
		})
	}
	troubled("has not answered for 10s")
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	troubled("")
	phase(t, w.awaitEnd(t, w.run(t, "later")), schedv1.Phase_PHASE_SUCCEEDED)
	w.notTold(t, w.awaitEnd(t, run))
}
