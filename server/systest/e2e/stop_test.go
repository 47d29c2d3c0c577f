//go:build e2e

package e2e_test

import (
	"errors"
	"io"
	"os"
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

// promptly is what a graceful end takes at the very most.
const promptly = 40 * time.Second

// stop asks a program to end, and sees that it does so in order.
func (p *process) stop(t *testing.T) {
	t.Helper()
	asked := time.Now()
	p.signal(t, syscall.SIGTERM)
	if code := p.ended(t); code != 0 {
		t.Errorf("after SIGTERM %s exits with %d, want 0", p.name, code)
	}
	if took := time.Since(asked); took > promptly {
		t.Errorf("%s took %v to stop", p.name, took)
	}
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
	w.put(t, w.script("wait", "echo waiting\n"+tell+"sleep 86400"))
	interrupted := w.awaitRunning(t, w.run(t, "wait"))
	w.awaitTold(t, interrupted)
	stream, err := w.runs.WatchRuns(t.Context(), &schedv1.WatchRunsRequest{})
	if err != nil {
		t.Fatal(err)
	}

	w.worker.stop(t)
	interrupted = w.awaitEnd(t, interrupted)
	phase(t, interrupted, schedv1.Phase_PHASE_LOST)
	if a := last(interrupted); a.GetOutcome() != schedv1.Outcome_OUTCOME_INTERRUPTED || !strings.Contains(a.GetReason(), "worker was stopped") {
		t.Errorf("an interrupted attempt with the reason is wanted, got %v", a)
	}
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
	sameBytes(t, "the log of the run that was interrupted", w.readLog(t, interrupted.GetId()), []byte("waiting\n"))
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

// A worker that waits for a job which won't end is stopped by a second signal,
// at once, and its next process tells how that was.
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
			await(t, "the worker stops", func() (bool, any) {
				return strings.Contains(w.worker.said(t), "worker stops"), nil
			})
			if !w.worker.running() {
				t.Fatalf("the worker ended without its job, exit code %d", w.worker.code)
			}
			w.worker.signal(t, signal)
			if code := w.worker.ended(t); code == 0 {
				t.Error("the worker says that it stopped in order")
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
