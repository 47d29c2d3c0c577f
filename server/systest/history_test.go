package systest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/server"
)

// shortMemory has primaries keep next to nothing in memory.
func shortMemory(c *server.Config) {
	c.Hot.Runs, c.Hot.RunsPerJob, c.Hot.RunAge = 20, 5, 10*time.Minute
}

// Memory holds the last few runs only, and nobody notices: each primary lists and shows
// all that ever ran, with its output, after it was killed and with its history damaged
// too.
func TestHistoryOnEachPrimary(t *testing.T) {
	story(t, func(w *world) {
		w.settings = shortMemory
		w.startGroup(3)
		w.startWorker("shop-1", nil, 4)
		w.awaitOnline()
		w.define(job("often", every(time.Minute)))
		w.define(job("rare", every(time.Hour)))
		w.wait(90 * time.Minute)
		follower := w.follower()
		follower.kill()
		w.wait(30 * time.Minute)
		follower.start()
		w.wait(30 * time.Minute)
		w.sameRunsEverywhere(140)

		broken := w.follower()
		broken.leave()
		file := filepath.Join(broken.dir, "history", "history.db")
		if err := os.WriteFile(file, []byte(strings.Repeat("this is no database ", 1000)), 0o600); err != nil {
			w.Fatal(err)
		}
		broken.start()
		w.wait(3 * time.Minute)
		w.settle(time.Hour)
		w.sameRunsEverywhere(150)
		w.checkEverywhere()
	})
}

// follower returns a member that is up and does not lead.
func (w *world) follower() *member {
	w.Helper()
	leader := w.awaitLeader()
	for _, m := range w.alive() {
		if m != leader {
			return m
		}
	}
	w.Fatal("nobody follows")
	return nil
}

// sameRunsEverywhere sees that all members list the same runs, so many at least, and
// say that they lack none.
func (w *world) sameRunsEverywhere(least int) {
	w.Helper()
	want := w.runs("")
	if len(want) < least {
		w.Errorf("%d runs are listed, want %d at least", len(want), least)
	}
	any := w.primary
	defer func() { w.primary = any }()
	for _, m := range w.alive() {
		w.primary = m.own
		r := must[*schedv1.ListRunsResponse](w)(m.own.runs.ListRuns(w.Context(), &schedv1.ListRunsRequest{}))
		if why := r.GetIncompleteReason(); why != "" {
			w.Errorf("%s: %s", m.id, why)
		}
		if got := w.runs(""); len(got) != len(want) {
			w.Errorf("%s lists %d runs, want %d", m.id, len(got), len(want))
		}
	}
}

// A run that leaves the history takes its output along, on disk too, and nothing else
// does.
func TestOutputGoesWithItsRun(t *testing.T) {
	story(t, func(w *world) {
		w.settings = func(c *server.Config) {
			shortMemory(c)
			c.History.Runs, c.History.Age = 1000, 6*time.Hour
		}
		shop(w)
		w.define(job("j", every(10*time.Minute)))
		w.wait(30 * time.Minute)
		first := w.runsOf("j")[0]
		w.wait(5 * time.Hour)
		if data, complete := w.readLog(&schedv1.ReadLogRequest{RunId: first.GetId()}); len(data) == 0 || !complete {
			w.Errorf("a run of five hours ago: %d bytes, complete: %v", len(data), complete)
		}
		w.wait(5 * time.Hour)
		if _, err := w.primary.runs.GetRun(w.Context(), &schedv1.GetRunRequest{Id: first.GetId()}); status.Code(err) != codes.NotFound {
			w.Errorf("a run of ten hours ago: %v, want not found", err)
		}
		kept := map[string]bool{}
		for _, r := range w.runs("") {
			kept[r.GetId()] = true
		}
		if len(kept) < 30 || len(kept) > 50 {
			w.Errorf("%d runs are kept of ten hours, six an hour; want those of six hours and a bit", len(kept))
		}
		logs := map[string]bool{}
		for _, name := range must[[]string](w)(filepath.Glob(filepath.Join(w.dir, "primary", "runlogs", "*", "*.log"))) {
			id, _, _ := strings.Cut(filepath.Base(name), ".")
			logs[id] = true
		}
		if logs[first.GetId()] {
			w.Error("its output is still on disk")
		}
		for id := range kept {
			if !logs[id] {
				w.Errorf("the output of run %s is gone", id)
			}
		}
	})
}

// A lone primary loses its history, when its log no longer goes back as far, and nobody has
// another one. That stays told, and the output of the runs that are lost stays on disk. When
// a copy is put in place, days later, they are shown again, with their output.
func TestLoneHistoryIsLost(t *testing.T) {
	story(t, func(w *world) {
		w.settings = shortMemory
		shop(w)
		w.define(job("j", every(2*time.Second), overlapAllowed))
		file := filepath.Join(w.dir, "primary", "history", "history.db")
		// place stops the primary, and puts a file in the place of its history.
		place := func(data []byte) (before []byte) {
			w.stopPrimary()
			before = must[[]byte](w)(os.ReadFile(file))
			if err := os.WriteFile(file, data, 0o600); err != nil {
				w.Fatal(err)
			}
			w.startPrimary()
			return before
		}
		logs := func() int {
			return len(must[[]string](w)(filepath.Glob(filepath.Join(w.dir, "primary", "runlogs", "*", "*.log"))))
		}
		w.wait(4 * time.Hour) // the log has been cut off behind a snapshot
		first := w.runsOf("j")[0]
		w.define(job("j", every(time.Hour)))
		w.wait(time.Minute)
		before := logs()
		copied := place([]byte(strings.Repeat("this is no database ", 1000)))
		w.wait(48 * time.Hour)
		lists := func(after time.Time) string {
			req := &schedv1.ListRunsRequest{CreatedAfter: timestamppb.New(after)}
			return must[*schedv1.ListRunsResponse](w)(w.primary.runs.ListRuns(w.Context(), req)).GetIncompleteReason()
		}
		_, err := w.primary.runs.GetRun(w.Context(), &schedv1.GetRunRequest{Id: first.GetId()})
		if why := lists(time.Unix(1, 0)); status.Code(err) != codes.DataLoss || !strings.Contains(why, "no primary may have all runs that ended until") {
			w.Errorf("two days later, of a run that is lost: %v; of lists: %q", err, why)
		}
		if why := lists(time.Now().Add(-time.Hour)); why != "" {
			w.Errorf("of the last hour: %q", why)
		}
		if n := logs(); n < before || before < 7000 {
			w.Errorf("%d logs are on disk, which were %d", n, before)
		}

		place(copied)
		w.wait(time.Minute)
		data, complete := w.readLog(&schedv1.ReadLogRequest{RunId: first.GetId()})
		if r := w.get(first.GetId()); r.GetPhase() != schedv1.Phase_PHASE_SUCCEEDED || len(data) == 0 || !complete {
			w.Errorf("a run of the copy: %v, %d bytes of output, complete: %v", r, len(data), complete)
		}
	})
}
