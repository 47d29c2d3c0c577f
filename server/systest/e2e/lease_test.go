//go:build e2e

package e2e_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// leased has a job's attempts go on for 40 s without a lease, and be given up after a
// minute of silence.
func leased(j *schedv1.Job, onLost schedv1.OnLost) *schedv1.Job {
	j.Policy.KillAfter, j.Policy.LostAfter, j.Policy.KillGrace, j.Policy.OnLost = seconds(40), seconds(60), seconds(1), onLost
	return j
}

// deaf is a family of processes that ignore SIGTERM, one of them in a session of its
// own.
const deaf = "trap '' TERM; setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' & " + tell + "while :; do sleep 1; done"

// attemptOf are the processes of one attempt that are left.
func (w *world) attemptOf(t *testing.T, run string, attempt int) (pids []int) {
	t.Helper()
	for _, pid := range w.straysOf(t, run) {
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)) // it may have ended
		if strings.Contains(string(env), fmt.Sprintf("SCHEDD_ATTEMPT=%d\x00", attempt)) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// An agent is stopped by SIGSTOP: its connection is there, and it does nothing. Its
// runner ends what it runs when the lease is over, and only then another worker makes the
// next attempt. When the agent goes on it tells of that, and it comes late.
func TestStoppedAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put(t, leased(w.script("deaf", deaf), schedv1.OnLost_ON_LOST_RETRY))
	run := w.awaitRunning(t, w.run(t, "deaf"))
	w.awaitTold(t, run)
	w.worker.signal(t, syscall.SIGSTOP)
	other := newWorker(t, w.primary, "w2")
	other.start(t, w.primary)
	await(t, "the second attempt says that it runs", func() (bool, any) {
		text, err := os.ReadFile(w.file)
		second := strings.Contains(string(text), run.GetId()+" 2 ")
		if first := w.attemptOf(t, run.GetId(), 1); second && len(first) > 0 {
			t.Errorf("the second attempt runs, and of the first one there are %v", first)
		}
		return second, err
	})
	w.worker.signal(t, syscall.SIGCONT)
	run = w.awaitRun(t, run, "the first attempt is heard of", func(r *schedv1.Run) bool {
		return r.GetAttempts()[0].GetLateResult() != schedv1.Outcome_OUTCOME_UNSPECIFIED
	})
	if a := run.GetAttempts()[0]; a.GetOutcome() != schedv1.Outcome_OUTCOME_LOST || a.GetLateResult() != schedv1.Outcome_OUTCOME_LEASE_EXPIRED {
		t.Errorf("the first attempt is %v", a)
	}
	if _, err := w.runs.CancelRun(t.Context(), &schedv1.CancelRunRequest{Id: run.GetId(), Note: "enough"}); err != nil {
		t.Fatal(err)
	}
	phase(t, w.awaitEnd(t, run), schedv1.Phase_PHASE_CANCELLED)
}

// The primary and the agent are both killed. The runner is alone, and ends what it runs;
// the next ones learn how it ended, and that is how the run ends.
func TestRunnerAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put(t, leased(w.script("deaf", deaf), schedv1.OnLost_ON_LOST_FAIL))
	run := w.awaitRunning(t, w.run(t, "deaf"))
	w.awaitTold(t, run)
	w.kill()
	w.worker.kill()
	await(t, "the runner ends the job", func() (bool, any) {
		pids := w.strays(t)
		return len(pids) == 0, pids
	})
	w.start(t)
	w.worker.start(t, w.primary)
	run = w.awaitEnd(t, run)
	phase(t, run, schedv1.Phase_PHASE_LOST)
	if a := last(run); a.GetOutcome() != schedv1.Outcome_OUTCOME_LEASE_EXPIRED || !strings.Contains(a.GetReason(), "no lease from the leader for 40s (kill_after); its lease expired, did not end after SIGTERM and was ended with SIGKILL") {
		t.Errorf("its attempt is %v", a)
	}
}
