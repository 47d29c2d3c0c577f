//go:build e2e

package e2e_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// stop asks a program to end, and sees that it does so in order.
func (p *process) stop(t *testing.T) {
	t.Helper()
	asked := time.Now()
	p.signal(t, syscall.SIGTERM)
	if code := p.ended(t); code != 0 {
		t.Errorf("after SIGTERM %s exits with %d, want 0", p.name, code)
	}
	t.Logf("%s took %v to stop", p.name, time.Since(asked).Round(time.Millisecond))
}

// Both programs are stopped in order, with calls and runs under way, and started
// again: jobs, runs, logs and the worker are what they were.
func TestStopAndStartAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.worker.online(t, w.primary)
	job := w.put(t, every(w.script("tick", tell+"echo tack"), time.Second))
	w.awaitRuns(t, "tick", "ticks have run", succeeded(2))
	runs := w.pauseAll(t, "tick")
	w.put(t, w.script("count", count))
	long := w.awaitRunning(t, w.run(t, "count"))
	w.awaitTold(t, long)
	stream, err := w.runs.WatchRuns(t.Context(), &schedv1.WatchRunsRequest{})
	if err != nil {
		t.Fatal(err)
	}

	w.worker.stop(t)
	w.stop(t)
	for {
		if _, err := stream.Recv(); err != nil {
			if status.Code(err) != codes.Unavailable && !errors.Is(err, io.EOF) {
				t.Errorf("who watches is told %v, want Unavailable", err)
			}
			break
		}
	}

	w.start(t)
	after := w.worker.start(t, w.primary)
	if after.GetId() != before.GetId() || after.GetSessionEpoch() <= before.GetSessionEpoch() || !proto(after.GetFirstSeenTime(), before.GetFirstSeenTime()) {
		t.Errorf("the worker was %v, and is %v", before, after)
	}
	got, err := w.jobs.GetJob(t.Context(), &schedv1.GetJobRequest{Name: "tick"})
	if err != nil {
		t.Fatal(err)
	}
	output := protocmp.IgnoreFields(&schedv1.Job{}, "pause", "next_time")
	if diff := cmp.Diff(job, got.GetJob(), protocmp.Transform(), output); diff != "" {
		t.Errorf("the job is another one (-want +got)\n%s", diff)
	}
	if got.GetJob().GetPause().GetNote() == "" {
		t.Error("the job is no longer paused")
	}
	kept := map[string]*schedv1.Run{}
	for _, r := range w.listRuns(t, "job=tick") {
		kept[r.GetId()] = r
		sameBytes(t, "the log of a former life", w.readLog(t, r.GetId()), []byte("tack\n"))
	}
	durable := protocmp.IgnoreFields(&schedv1.Attempt{}, "log_durable_bytes") // known anew when the log is touched
	if diff := cmp.Diff(runs, kept, protocmp.Transform(), durable); diff != "" {
		t.Errorf("the runs are others (-want +got)\n%s", diff)
	}
	if err := os.WriteFile(w.file+".stop", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	long = w.awaitEnd(t, long)
	phase(t, long, unharmed)
	if wrong := counting(w.readLog(t, long.GetId())); wrong != "" {
		t.Errorf("the log of the run that went on is not whole: %s", wrong)
	}
	if _, err := w.jobs.ResumeJob(t.Context(), &schedv1.ResumeJobRequest{Name: "tick"}); err != nil {
		t.Fatal(err)
	}
	w.awaitRuns(t, "tick", "the job goes on", succeeded(len(runs)+2))
	account := w.verify(t, "tick")
	if v := account.GetTriggers()[0]; v.GetMissed() != 0 {
		t.Errorf("occurrences were missed, while the job was paused: %v", v)
	}
}

func proto(a, b any) bool { return cmp.Equal(a, b, protocmp.Transform()) }

// A primary that is restarted does not touch what runs: its worker goes on, and
// comes back with the result.
func TestRunsSurviveARestartOfThePrimary(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put(t, w.script("count", count))
	run := w.awaitRunning(t, w.run(t, "count"))
	w.stop(t)
	if !w.worker.running() {
		t.Fatalf("the worker ended with its primary: exit code %d", w.worker.code)
	}
	if err := os.WriteFile(w.file+".stop", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	await(t, "the process has ended while nobody is there to be told", func() (bool, any) {
		pids := w.strays(t)
		return len(pids) == 0, pids
	})
	w.start(t)
	run = w.awaitEnd(t, run)
	phase(t, run, schedv1.Phase_PHASE_SUCCEEDED)
	if wrong := counting(w.readLog(t, run.GetId())); wrong != "" {
		t.Errorf("the log is not whole: %s", wrong)
	}
}

// A worker is stopped with all that it runs: that is told, as interrupted, and then
// there is no process of it any more.
func TestStopEverything(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put(t, w.script("long", "echo begun\n"+tell+"sleep 86400"))
	run := w.awaitRunning(t, w.run(t, "long"))
	w.awaitTold(t, run)
	stop := []string{binary("schedagent"), "stop", "--data-dir", w.worker.dir}
	if r := command(t, nil, stop...); r.code != 0 || r.err != "" || r.out != "stopped; 1 attempts were running\n" {
		t.Errorf("schedagent stop exits with %d and says %q %q", r.code, r.out, r.err)
	}
	if pids := w.strays(t); len(pids) > 0 {
		t.Errorf("processes %v are left", pids)
	}
	if code := w.worker.ended(t); code != 0 {
		t.Errorf("the agent exits with %d", code)
	}
	await(t, "the runner has ended", func() (bool, any) { return w.worker.runner(t) == 0, nil })
	if r := command(t, nil, stop...); r.code != 0 || !strings.Contains(r.out, "nothing to stop") {
		t.Errorf("schedagent stop, once more, exits with %d and says %q %q", r.code, r.out, r.err)
	}
	w.worker.start(t, w.primary) // it tells what there was no time for, on a slow machine
	run = w.awaitEnd(t, run)
	phase(t, run, schedv1.Phase_PHASE_LOST)
	if a := last(run); a.GetOutcome() != schedv1.Outcome_OUTCOME_INTERRUPTED || !strings.Contains(a.GetReason(), "worker was stopped") {
		t.Errorf("an interrupted attempt with the reason is wanted, got %v", a)
	}
	sameBytes(t, "the log", w.readLog(t, run.GetId()), []byte("begun\n"))
}

// A runner that waits for a job which won't end is stopped by a second signal, at
// once, and the next one ends the job and tells how that was.
func TestSecondSignalStopsAtOnce(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			stubborn := w.script("stubborn", tell+`trap "" TERM INT; echo deaf; while :; do sleep 1; done`)
			stubborn.Policy.KillGrace = seconds(3600)
			w.put(t, stubborn)
			run := w.run(t, "stubborn")
			if log, err := w.followLog(t.Context(), run.GetId(), func(log []byte) bool { return len(log) > 0 }); err != nil || string(log) != "deaf\n" {
				t.Fatalf("the job says %q, %v", log, err)
			}
			w.worker.signal(t, signal)
			if code := w.worker.ended(t); code != 0 {
				t.Errorf("the agent exits with %d", code)
			}
			runner := w.worker.runner(t)
			for _, said := range []string{"ending what runs", ""} {
				if err := syscall.Kill(runner, signal); err != nil {
					t.Fatalf("signal the runner, process %d: %v", runner, err)
				}
				await(t, "the runner stops", func() (bool, any) {
					log := readFile(t, filepath.Join(w.worker.dir, "runner.log"))
					return said != "" && strings.Contains(log, said) || w.worker.runner(t) != runner, log
				})
			}
			if len(w.strays(t)) == 0 {
				t.Error("the job has ended, though it is deaf")
			}
			w.worker.start(t, w.primary)
			run = w.awaitEnd(t, run)
			phase(t, run, schedv1.Phase_PHASE_LOST)
			await(t, "no process is left", func() (bool, any) {
				pids := w.strays(t)
				return len(pids) == 0, pids
			})

			// The primary has nothing to wait for: it may be done before the
			// second signal comes. It starts again either way.
			w.signal(t, signal)
			_ = w.cmd.Process.Signal(signal)
			w.ended(t)
			w.start(t)
			w.awaitEnd(t, run)
		})
	}
}
