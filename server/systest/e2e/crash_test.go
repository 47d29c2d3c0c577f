//go:build e2e

package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// kills is how often a program is killed in a test.
const kills = 10

// chance makes moments random, by a seed that is told.
func chance(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, seed))
}

// moment lets a program go on for any time up to most: it is to be killed
// wherever it is then.
func moment(r *rand.Rand, most time.Duration) {
	timer := time.NewTimer(time.Duration(r.Int64N(int64(most))))
	defer timer.Stop()
	<-timer.C
}

// count is a process that counts until the test says stop, and counting makes
// the log that it has to leave.
const (
	count    = tell + `i=0; until [ -e "$E2E_FILE.stop" ]; do echo "line $i"; i=$((i+1)); sleep 0.02; done; echo "end $i"`
	burst    = tell + `seq 1 30000`
	unharmed = schedv1.Phase_PHASE_SUCCEEDED
)

// counting reports what is wrong with a log of count.
func counting(log []byte) string {
	lines := strings.Split(strings.TrimSuffix(string(log), "\n"), "\n")
	for i, line := range lines[:len(lines)-1] {
		if line != fmt.Sprint("line ", i) {
			return fmt.Sprintf("line %d is %q", i, line)
		}
	}
	if end := lines[len(lines)-1]; end != fmt.Sprint("end ", len(lines)-1) {
		return fmt.Sprintf("after %d lines comes %q", len(lines)-1, end)
	}
	return ""
}

// A primary is killed at any moment, again and again: while it starts, while it
// decides, while results and logs arrive. Nothing is decided twice or left out,
// nothing is started twice; what runs goes on, and its log and its result arrive
// whole.
func TestPrimaryIsKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.worker = nil // there are two
	second := newWorker(t, w.primary, "w2")
	second.start(t, w.primary)
	w.put(t, every(w.script("tick", tell+`echo "I am $SCHEDD_RUN_ID"`), time.Second))
	w.put(t, every(w.script("burst", burst), 3*time.Second))
	w.put(t, w.script("count", count))
	long := []*schedv1.Run{w.run(t, "count"), w.run(t, "count")}

	var followed []byte
	var follower sync.WaitGroup
	follower.Go(func() {
		log, err := w.followLog(t.Context(), long[0].GetId(), func([]byte) bool { return false })
		if err != nil {
			t.Errorf("following the log over all this: %v", err)
		}
		followed = log
	})
	rnd := chance(t)
	for range kills {
		if rnd.IntN(4) > 0 { // else it is killed while it starts
			w.busy(t)
		}
		moment(rnd, 1500*time.Millisecond)
		w.kill()
		w.launch(t)
	}
	w.busy(t)
	if err := os.WriteFile(w.file+".stop", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	follower.Wait()
	for _, r := range long {
		r = w.awaitEnd(t, r)
		phase(t, r, unharmed)
		log := w.readLog(t, r.GetId())
		if wrong := counting(log); wrong != "" || int64(len(log)) != last(r).GetLogBytes() {
			t.Errorf("the log of %d bytes is not whole: %s", len(log), wrong)
		}
		if r.GetId() == long[0].GetId() {
			sameBytes(t, "the log that was followed", followed, log)
		}
	}
	account(t, w, "tick", "every", time.Second)
	account(t, w, "burst", "every", 3*time.Second)
	var sequence bytes.Buffer
	for i := range 30000 {
		fmt.Fprintln(&sequence, i+1)
	}
	for _, r := range w.listRuns(t, "job=burst") {
		sameBytes(t, "the log of a burst", w.readLog(t, r.GetId()), sequence.Bytes())
	}
	for _, r := range w.listRuns(t, "job=tick") {
		sameBytes(t, "the log of a tick", w.readLog(t, r.GetId()), []byte("I am "+r.GetId()+"\n"))
	}
}

// busy waits until the primary leads and a worker is connected, so that there is
// something to be lost.
func (p *primary) busy(t *testing.T) {
	t.Helper()
	await(t, "the primary has a worker", func() (bool, any) {
		resp, err := p.workers.ListWorkers(t.Context(), &schedv1.ListWorkersRequest{})
		for _, w := range resp.GetWorkers() {
			if w.GetConnectedTime() != nil {
				return true, w
			}
		}
		return false, fmt.Sprint(resp, err)
	})
}

// What a primary has acknowledged it never denies, not even for a moment: as
// long as it has not read all that it knew before a crash, it says that it can't
// be asked.
func TestNothingIsDeniedAfterACrash(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put(t, w.exec("known", "/bin/true"))
	run := w.awaitEnd(t, w.run(t, "known"))
	w.kill()
	w.launch(t)
	ask := map[string]func(context.Context) error{
		"GetJob": func(ctx context.Context) error {
			_, err := w.jobs.GetJob(ctx, &schedv1.GetJobRequest{Name: "known"})
			return err
		},
		"GetRun": func(ctx context.Context) error {
			_, err := w.runs.GetRun(ctx, &schedv1.GetRunRequest{Id: run.GetId()})
			return err
		},
		"ListWorkers": func(ctx context.Context) error {
			resp, err := w.workers.ListWorkers(ctx, &schedv1.ListWorkersRequest{})
			if err == nil && len(resp.GetWorkers()) == 0 {
				return status.Error(codes.NotFound, "the list is empty")
			}
			return err
		},
		"RunJob": func(ctx context.Context) error {
			_, err := w.jobs.RunJob(ctx, &schedv1.RunJobRequest{Name: "known", RequestId: "again"})
			return err
		},
	}
	for name, call := range ask {
		await(t, name+" is answered", func() (bool, any) {
			err := call(t.Context())
			if err != nil && status.Code(err) != codes.Unavailable {
				t.Errorf("right after the start %s says: %v", name, err)
			}
			return err == nil || t.Failed(), err
		})
	}
}

// A runner is killed at any moment while it runs jobs, and every other time its agent
// with it. The next one ends what the last one left behind and says so; nothing is
// started twice, what may be tried again is, and it is still the same worker.
func TestRunnerIsKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.worker.online(t, w.primary).GetId()
	family := `sleep 86400 & setsid sleep 86401 & setsid sh -c 'sleep 86402 & wait' & echo started` + "\n" + tell + "wait"
	w.put(t, w.script("family", family))
	patient := w.script("patient", family)
	patient.Policy.OnLost = schedv1.OnLost_ON_LOST_RETRY
	patient.Policy.Retry = &schedv1.Retry{MaxAttempts: 100, Multiplier: 1}
	w.put(t, patient)
	w.put(t, every(w.script("tick", tell), time.Second))

	rnd := chance(t)
	retried := w.awaitRunning(t, w.run(t, "patient"))
	const times = 4
	for n := range times {
		w.awaitRuns(t, "tick", "ticks have run", succeeded(3*n+1))
		w.awaitRun(t, retried, "is at its next attempt", func(r *schedv1.Run) bool {
			return len(r.GetAttempts()) > n && r.GetPhase() == schedv1.Phase_PHASE_RUNNING
		})
		run := w.awaitRunning(t, w.run(t, "family"))
		w.awaitTold(t, run)
		moment(rnd, time.Second)
		if n%2 == 0 {
			w.worker.killRunner(t)
		} else {
			w.worker.kill()
			w.worker.killRunner(t)
			if r, err := w.runs.GetRun(t.Context(), &schedv1.GetRunRequest{Id: run.GetId()}); err != nil || over(r.GetRun()) {
				t.Errorf("a broken connection says nothing about a run, got %v, %v", r, err)
			}
			if again := w.worker.start(t, w.primary).GetId(); again != id {
				t.Errorf("worker %s came back as %s", id, again)
			}
		}
		run = w.awaitEnd(t, run)
		phase(t, run, schedv1.Phase_PHASE_LOST)
		reasons := []string{"runner died"}
		if n%2 != 0 { // within the first 200 ms the next agent does not know that it ran
			reasons = append(reasons, "the agent stopped while it was being started, or soon after")
		}
		says := func(reason string) bool { return strings.Contains(last(run).GetReason(), reason) }
		if last(run).GetOutcome() != schedv1.Outcome_OUTCOME_INTERRUPTED || !slices.ContainsFunc(reasons, says) || run.GetReason() == "" {
			t.Errorf("an interrupted attempt with the reason is wanted, got %v", run)
		}
		sameBytes(t, "the log up to the crash", w.readLog(t, run.GetId()), []byte("started\n"))
		await(t, "what was left behind is gone", func() (bool, any) {
			pids := w.straysOf(t, run.GetId())
			return len(pids) == 0, pids
		})
	}
	w.awaitRun(t, retried, "is at its last attempt", func(r *schedv1.Run) bool {
		return len(r.GetAttempts()) > 1 && r.GetPhase() == schedv1.Phase_PHASE_RUNNING
	})
	if _, err := w.runs.CancelRun(t.Context(), &schedv1.CancelRunRequest{Id: retried.GetId(), Note: "enough"}); err != nil {
		t.Fatal(err)
	}
	retried = w.awaitEnd(t, retried)
	runs := w.pauseAll(t, "tick")
	runs[retried.GetId()] = retried
	for _, r := range w.listRuns(t, "job=family") {
		runs[r.GetId()] = r
	}
	w.startedOnce(t, runs)
	w.verify(t, "tick")
	await(t, "no process is left", func() (bool, any) {
		pids := w.strays(t)
		return len(pids) == 0, pids
	})
}

// A host crashes with a primary and a worker on it, at any moment. What was
// decided stays decided, what was started is not started again, and the rest of
// the story is told when both are back.
func TestBothAreKilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put(t, every(w.script("tick", tell+"echo tack; sleep 0.5; echo done"), time.Second))
	rnd := chance(t)
	const times = 4
	for n := range times {
		w.awaitRuns(t, "tick", "ticks have run", succeeded(n+1))
		moment(rnd, time.Second)
		for _, p := range [][]*process{{w.process, w.worker.process}, {w.worker.process, w.process}}[rnd.IntN(2)] {
			p.kill()
		}
		w.worker.killRunner(t)
		w.launch(t)
		w.worker.start(t, w.primary)
	}
	w.awaitRuns(t, "tick", "ticks run again", succeeded(times+2))
	runs := w.pauseAll(t, "tick")
	w.startedOnce(t, runs)
	if v := w.verify(t, "tick").GetTriggers()[0]; v.GetRan() != int64(len(runs)) || v.GetMissed() != 0 {
		t.Errorf("the ledger has %d that ran and %d missed, and there are %d runs", v.GetRan(), v.GetMissed(), len(runs))
	}
	for _, r := range runs {
		switch log := string(w.readLog(t, r.GetId())); r.GetPhase() {
		case schedv1.Phase_PHASE_SUCCEEDED:
			sameBytes(t, "the log of a run that succeeded", []byte(log), []byte("tack\ndone\n"))
		case schedv1.Phase_PHASE_LOST:
			if !strings.HasPrefix("tack\ndone\n", log) || last(r).GetOutcome() != schedv1.Outcome_OUTCOME_INTERRUPTED {
				t.Errorf("an interrupted run with the log up to the crash is wanted, got %q, %v", log, r)
			}
		default:
			t.Errorf("the run %v is neither done nor interrupted", r)
		}
	}
}

// Two clusters that know nothing of each other have workers on one host, and
// jobs that are alike in all that they are named by. When one of the workers
// crashes and cleans up, what the other one runs is none of its business.
func TestTwoClustersOnOneHost(t *testing.T) {
	t.Parallel()
	worlds := []*world{newWorld(t), newWorld(t)}
	var runs []*schedv1.Run
	for _, w := range worlds {
		w.put(t, w.script("alike", tell+`until [ -e "$E2E_FILE.stop" ]; do sleep 0.1; done; echo done`))
		resp, err := w.jobs.RunJob(t.Context(), &schedv1.RunJobRequest{Name: "alike", RequestId: "alike"})
		if err != nil {
			t.Fatal(err)
		}
		run := w.awaitRunning(t, resp.GetRun())
		w.awaitTold(t, run)
		runs = append(runs, run)
	}
	worlds[0].worker.kill()
	worlds[0].worker.killRunner(t)
	worlds[0].worker.start(t, worlds[0].primary)
	phase(t, worlds[0].awaitEnd(t, runs[0]), schedv1.Phase_PHASE_LOST)
	if err := os.WriteFile(worlds[1].file+".stop", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	phase(t, worlds[1].awaitEnd(t, runs[1]), schedv1.Phase_PHASE_SUCCEEDED)
	sameBytes(t, "the log of the other one", worlds[1].readLog(t, runs[1].GetId()), []byte("done\n"))
}

// awaitTold waits until the process of a run has written down that it runs.
func (w *world) awaitTold(t *testing.T, r *schedv1.Run) {
	t.Helper()
	await(t, "the process says that it runs", func() (bool, any) {
		text, err := os.ReadFile(w.file)
		return strings.Contains(string(text), r.GetId()), err
	})
}

// straysOf are the processes of one run that are left.
func (w *world) straysOf(t *testing.T, run string) (pids []int) {
	t.Helper()
	for _, pid := range w.strays(t) {
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)) // it may have ended
		if strings.Contains(string(env), run) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// startedOnce compares runs that may have been interrupted with what their
// processes wrote down: each attempt once at most, and nobody else. An attempt
// that was killed in its first moment may have written nothing.
func (w *world) startedOnce(t *testing.T, runs map[string]*schedv1.Run) {
	t.Helper()
	effects := w.effects(t)
	for _, e := range effects {
		r := runs[e.run]
		if r == nil || e.attempt > uint64(len(r.GetAttempts())) {
			t.Errorf("a process ran as %+v, and there is no such attempt: %v", e, r)
			continue
		}
		if a := r.GetAttempts()[e.attempt-1]; a.GetFence() != e.fence || a.GetOutcome() == schedv1.Outcome_OUTCOME_NOT_STARTED {
			t.Errorf("a process ran as %+v, and the attempt is %v", e, a)
		}
	}
	for _, r := range runs {
		for _, a := range r.GetAttempts() {
			_, told := effects[fmt.Sprintf("%s/%d", r.GetId(), a.GetNumber())]
			if a.GetOutcome() == schedv1.Outcome_OUTCOME_SUCCEEDED && !told {
				t.Errorf("attempt %d of run %s has succeeded, and its process wrote nothing down", a.GetNumber(), r.GetId())
			}
		}
	}
}
