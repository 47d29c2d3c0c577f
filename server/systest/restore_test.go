package systest

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// saved is a snapshot in pieces.
type saved []*schedv1.SaveSnapshotResponse

// save saves a snapshot of what is agreed.
func (w *world) save() (all saved) {
	w.Helper()
	stream, err := w.primary.clusters.SaveSnapshot(w.Context(), &schedv1.SaveSnapshotRequest{})
	for err == nil {
		var piece *schedv1.SaveSnapshotResponse
		if piece, err = stream.Recv(); err == nil {
			all = append(all, piece)
		}
	}
	if !errors.Is(err, io.EOF) {
		w.Fatalf("saving a snapshot: %v", err)
	}
	return all
}

// restore puts a snapshot in the place of what is agreed. What was acknowledged after it
// was saved is forgotten.
func (w *world) restore(all saved) {
	w.Helper()
	stream, err := w.primary.clusters.RestoreSnapshot(w.Context())
	for _, piece := range all {
		if err == nil {
			err = stream.Send(&schedv1.RestoreSnapshotRequest{Data: piece.GetData()})
		}
	}
	if err == nil {
		_, err = stream.CloseAndRecv()
	}
	if err != nil {
		w.Fatalf("restoring a snapshot: %v", err)
	}
	w.asked, w.final, w.safe = newAsked(), map[string]end{}, map[string]int64{} // of a past that is another now
}

// says is a process that prints one thing and takes a second.
func says(text string) script {
	return func(runner.Spec) fakerunner.Behaviour {
		return fakerunner.Behaviour{Duration: time.Second, Output: []fakerunner.Chunk{{Data: []byte(text)}}}
	}
}

// logs checks that the log of a run's last attempt is whole, and the same, on all
// members that are up.
func (w *world) logs(r *schedv1.Run, want string) {
	w.Helper()
	any := w.primary
	defer func() { w.primary = any }()
	for _, m := range w.alive() {
		w.primary = m.own
		if data, complete := w.readLog(&schedv1.ReadLogRequest{RunId: r.GetId()}); string(data) != want || !complete {
			w.Errorf("%s has the log %q (complete: %v), want %q", m.id, data, complete, want)
		}
	}
}

// A run is pending in a snapshot, and runs on a worker when that is restored. It begins on
// another one at once, while the first one, which nobody knows of any more, is ended: when it
// is heard, or, if it is cut off, when its lease is over. That is how long both may run, and
// what of kill_after is not promised over a restore.
func TestRestoreForgetsALease(t *testing.T) {
	for name, test := range map[string]struct {
		cut  bool
		most time.Duration // that both run
	}{
		"of a worker that is heard":   {false, 12 * time.Second},
		"of a worker that is cut off": {true, 72 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(w *world) {
				w.startPrimary()
				first, second := w.startWorker("shop-1", nil, 4), w.startWorker("shop-2", nil, 4)
				w.awaitOnline()
				w.does("j", deafForEver)
				w.define(job("j", policy(leases())))
				first.end()
				second.end()
				w.wait(time.Minute)
				w.run("j")
				pending := w.save()
				first.start()
				w.wait(time.Minute)
				second.start()
				w.wait(time.Minute)
				if len(first.host.Running()) != 1 || len(second.host.Running()) != 0 {
					t.Fatalf("%q and %q run", first.host.Running(), second.host.Running())
				}
				if test.cut {
					first.link.cut()
				}
				w.restore(pending)
				restored := time.Now()
				w.wait(3 * time.Minute)
				if len(first.host.Running()) != 0 || len(second.host.Running()) != 1 {
					w.Errorf("three minutes later %q and %q run", first.host.Running(), second.host.Running())
				}
				for _, l := range first.host.Lives() {
					if after := l.To.Sub(restored); after > test.most {
						w.Errorf("what was forgotten ran for another %v, and may for %v", after, test.most)
					}
				}
			})
		})
	}
}

// The state goes back to before a run was decided. It is decided again, under the
// name that it had, and runs on another worker: its log is what is printed then,
// whatever the primaries have of the one that is forgotten. A worker that has run
// it says so, and does not run it again; the run does not hang.
func TestRestoreAndRunAgain(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		first := w.startWorker("first", nil, 4)
		w.awaitOnline()
		w.define(job("j", at(time.Now().Add(time.Minute)), policy(&schedv1.Policy{CatchUpWindow: seconds(86400)})))
		before := w.save()
		const old, young = "what it printed in a life that is forgotten\n", "short\n"
		w.does("j", says(old))
		w.wait(2 * time.Minute)
		r := w.only("j")
		w.logs(r, old)

		first.end()
		second := w.startWorker("second", nil, 4)
		w.wait(2 * time.Minute)
		w.does("j", says(young))
		w.restore(before)
		w.wait(2 * time.Minute)
		again := w.awaitPhase(r.GetId(), time.Minute, schedv1.Phase_PHASE_SUCCEEDED)
		if a, b := r.GetAttempts()[0], again.GetAttempts()[0]; a.GetFence() >= b.GetFence() || a.GetWorkerId() == b.GetWorkerId() {
			t.Errorf("attempt %v, after %v", b, a)
		}
		w.logs(again, young)

		// What is left of the other one is removed in time, and what counts stays.
		w.wait(125 * time.Minute)
		w.logs(again, young)
		for _, m := range w.group {
			files, err := filepath.Glob(filepath.Join(m.dir, "runlogs", "*", r.GetId()+".*.log"))
			if err != nil || len(files) != 1 {
				t.Errorf("%s has the logs %q, %v, want one", m.id, files, err)
			}
		}

		first.start()
		second.end()
		w.wait(2 * time.Minute)
		w.restore(before)
		w.wait(10 * time.Second)
		last := w.awaitPhase(r.GetId(), 3*time.Minute, schedv1.Phase_PHASE_LOST)
		if !strings.Contains(last.GetReason(), "has carried out attempt 1 of this run before") {
			t.Errorf("reason: %q", last.GetReason())
		}
		w.logs(again, "")
		if n := len(w.book.of(r.GetId() + "/1")); n != 2 {
			t.Errorf("it ran %d times, want twice: once on each worker", n)
		}
	})
}

// A run is under way when the state goes back to before it was decided, and it is
// given to the worker that runs it. That one ends what is forgotten, and takes none
// of it for the new one.
func TestRestoreUnderARun(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		w.startWorker("first", nil, 4)
		w.awaitOnline()
		w.define(job("j", at(time.Now().Add(time.Minute)), policy(&schedv1.Policy{OnLost: schedv1.OnLost_ON_LOST_RETRY, KillGrace: seconds(1)})))
		before := w.save()
		w.does("j", talker(time.Hour, time.Second))
		w.wait(2 * time.Minute)
		r := w.only("j")
		if r.GetPhase() != phaseRunning {
			t.Fatalf("the run is %v", r.GetPhase())
		}
		w.does("j", says("again\n"))
		w.restore(before)
		w.wait(10 * time.Second)
		last := w.awaitPhase(r.GetId(), 5*time.Minute, schedv1.Phase_PHASE_SUCCEEDED)
		if n := len(last.GetAttempts()); n != 2 || last.GetAttempts()[0].GetOutcome() != schedv1.Outcome_OUTCOME_INTERRUPTED {
			t.Errorf("attempts: %v", last.GetAttempts())
		}
		w.logs(last, "again\n")
		data, _ := w.readLog(&schedv1.ReadLogRequest{RunId: r.GetId(), Attempt: 1})
		if len(data) > 0 {
			t.Errorf("the attempt that did not start printed %q", bytes.TrimSpace(data[:min(len(data), 100)]))
		}
	})
}
