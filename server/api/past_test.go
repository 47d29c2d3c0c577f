package api

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore/state"
)

// forget takes runs out of the state.
func (p *primary) forget(runs ...*schedv1.Run) {
	p.t.Helper()
	var ids []state.RunID
	for _, r := range runs {
		ids = append(ids, p.id(r))
	}
	p.do(state.Prune{Runs: ids})
	p.store.View(func(st *state.State) {
		for _, id := range ids {
			if st.Run(id) != nil {
				p.t.Errorf("run %v is still in the state", id)
			}
		}
	})
}

// Nobody sees that a run has left the state, at once or after it was written.
func TestRunThatHasLeftTheState(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		ctx := t.Context()
		p.put(aJob("j", allow))
		p.worker("w")
		asked := &schedv1.RunJobRequest{Name: "j", RequestId: "once"}
		made, err := p.jobs.RunJob(ctx, asked)
		if err != nil {
			t.Fatal(err)
		}
		r := made.GetRun()
		fence := p.start(r, "w")
		p.append(p.logKey(r), 0, "hello")
		p.finish(r, fence, state.Attempt{Outcome: state.OutcomeFailed, ExitCode: 3, LogBytes: 5}, state.Failed)
		before := p.get(r)
		p.forget(r)
		for _, when := range []string{"at once", "after it was written"} {
			if d := cmp.Diff(before, p.get(r), protocmp.Transform()); d != "" {
				t.Errorf("%s: %s", when, d)
			}
			list, err := p.runs.ListRuns(ctx, &schedv1.ListRunsRequest{Filter: "job=j,phase=PHASE_FAILED,worker=w,active=false"})
			if err != nil || len(list.GetRuns()) != 1 || list.GetRuns()[0].GetId() != r.GetId() || list.GetIncompleteReason() != "" {
				t.Errorf("%s: %v, %v", when, list, err)
			}
			p.read(ctx, &schedv1.ReadLogRequest{RunId: r.GetId(), Follow: true}).is(t, 0, "hello", 1, true)
			_, err = p.runs.CancelRun(ctx, &schedv1.CancelRunRequest{Id: r.GetId()})
			says(t, err, codes.FailedPrecondition)
			if again, err := p.jobs.RunJob(ctx, asked); err != nil || again.GetRun().GetId() != r.GetId() || again.GetRun().GetPhase() != schedv1.Phase_PHASE_FAILED {
				t.Errorf("%s: the same request again: %v, %v", when, again, err)
			}
			sleep(5 * time.Second)
		}

		req := &schedv1.RetryRunRequest{Id: r.GetId(), RequestId: "again"}
		retried, err := p.runs.RetryRun(ctx, req)
		if err != nil || retried.GetRun().GetRetryOf() != r.GetId() {
			t.Fatal(retried, err)
		}
		p.do(state.Cancel{Run: p.id(retried.GetRun())})
		p.forget(retried.GetRun())
		if again, err := p.runs.RetryRun(ctx, req); err != nil || again.GetRun().GetId() != retried.GetRun().GetId() {
			t.Errorf("the same retry again: %v, %v", again, err)
		}
		_, err = p.runs.GetRun(ctx, &schedv1.GetRunRequest{Id: state.RunID{1}.String()})
		says(t, err, codes.NotFound)
	})
}

// A run that is repeated may stay in the state for longer than the repetition, as one does
// of which its worker has never told the end.
func TestRetryThatHasLeftTheState(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		p.put(aJob("j", allow))
		p.worker("w")
		r := p.run("j")
		p.finish(r, p.start(r, "w"), state.Attempt{Outcome: state.OutcomeFailed, ExitCode: 3}, state.Failed)
		req := &schedv1.RetryRunRequest{Id: r.GetId(), RequestId: "again"}
		retried, err := p.runs.RetryRun(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		p.do(state.Cancel{Run: p.id(retried.GetRun())})
		p.forget(retried.GetRun())
		if again, err := p.runs.RetryRun(t.Context(), req); err != nil || again.GetRun().GetPhase() != schedv1.Phase_PHASE_CANCELLED {
			t.Errorf("the same retry again: %v, %v; want the run that was cancelled", again, err)
		}
	})
}

// Page after page shows each run once that there was at the first page, whatever
// begins, ends and is forgotten in between.
func TestPagesWhileRunsMove(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			story(t, func(t *testing.T, p *primary) {
				dice := rand.New(rand.NewPCG(seed, 0))
				for _, job := range []string{"a", "b"} {
					p.put(aJob(job, allow))
				}
				var active, done []*schedv1.Run
				move := func() {
					for range dice.IntN(8) {
						switch n := dice.IntN(6); {
						case n < 2:
							active = append(active, p.run([]string{"a", "b"}[dice.IntN(2)]))
						case n < 4 && len(active) > 0:
							i := dice.IntN(len(active))
							p.do(state.Cancel{Run: p.id(active[i])})
							done = append(done, active[i])
							active = slices.Delete(active, i, i+1)
						case len(done) > 0:
							i := dice.IntN(len(done))
							p.forget(done[i])
							done = slices.Delete(done, i, i+1)
						}
						if dice.IntN(3) == 0 {
							sleep(time.Duration(dice.IntN(1500)) * time.Millisecond)
						}
					}
				}
				for range 20 {
					move()
				}
				filter := []string{"", "job=a", "job!=a", "namespace=default,job in (a,b)"}[seed%4]
				pages := func(pageSize int32, between func()) (ids []string) {
					req := &schedv1.ListRunsRequest{Filter: filter, PageSize: pageSize}
					for {
						r, err := p.runs.ListRuns(t.Context(), req)
						if err != nil || r.GetIncompleteReason() != "" {
							t.Fatal(r.GetIncompleteReason(), err)
						}
						for _, run := range r.GetRuns() {
							ids = append(ids, run.GetId())
						}
						if req.PageToken = r.GetNextPageToken(); req.GetPageToken() == "" {
							return ids
						}
						between()
					}
				}
				want := pages(1000, nil)
				if got := pages(int32(1+dice.IntN(5)), move); !slices.Equal(got, want) {
					t.Errorf("%d runs in pages, %d on one:\n%s", len(got), len(want), cmp.Diff(want, got))
				}
			})
		})
	}
}

// A history that can't be read is said to be so, and what is in the state is shown.
func TestListWithoutHistory(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		p.put(aJob("j", allow))
		r := p.run("j")
		sleep(5 * time.Second)
		dir := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(dir, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		p.reopen(dir) // there can be no file in it
		list, err := p.runs.ListRuns(t.Context(), &schedv1.ListRunsRequest{})
		if err != nil || len(list.GetRuns()) != 1 || !strings.Contains(list.GetIncompleteReason(), "not a directory") {
			t.Errorf("%v, %v", list, err)
		}
		list, err = p.runs.ListRuns(t.Context(), &schedv1.ListRunsRequest{Filter: "active"})
		if err != nil || len(list.GetRuns()) != 1 || list.GetIncompleteReason() != "" {
			t.Errorf("what is active is not in the history: %v, %v", list, err)
		}
		if got := p.get(r); got.GetId() != r.GetId() {
			t.Error(got)
		}
		_, err = p.runs.GetRun(t.Context(), &schedv1.GetRunRequest{Id: state.RunID{1}.String()})
		says(t, err, codes.Unavailable)
		if reasonOf(err) != reasonHistory {
			t.Error(err)
		}
		if _, err := p.jobs.RunJob(t.Context(), &schedv1.RunJobRequest{Name: "j", RequestId: "x"}); err != nil {
			t.Errorf("scheduling goes on: %v", err)
		}
	})
}
