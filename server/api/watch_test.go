package api

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore/state"
)

// watching is one call of WatchRuns.
type watching struct {
	t      *testing.T
	stream schedv1.RunService_WatchRunsClient
	names  map[string]string // of runs, by id
}

func (p *primary) watch(ctx context.Context, req *schedv1.WatchRunsRequest) *watching {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Hour) // who waits in vain is told so
	p.t.Cleanup(cancel)
	stream, err := p.runs.WatchRuns(ctx, req)
	if err != nil {
		p.t.Fatal(err)
	}
	return &watching{p.t, stream, map[string]string{}}
}

// next returns what is sent until nothing more comes by itself.
func (w *watching) next(n int) string {
	w.t.Helper()
	var words []string
	for range n {
		m, err := w.stream.Recv()
		if err != nil {
			return strings.Join(append(words, status.Code(err).String()), " ")
		}
		if m.GetSynced() {
			words = append(words, "synced")
			continue
		}
		phase := strings.ToLower(strings.TrimPrefix(m.GetRun().GetPhase().String(), "PHASE_"))
		words = append(words, w.names[m.GetRun().GetId()]+":"+phase)
	}
	return strings.Join(words, " ")
}

func expect(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("sent %q, want %q", got, want)
	}
}

func TestWatchRuns(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		p.put(aJob("j", allow))
		p.worker("w")
		a, b := p.run("j"), p.run("j")
		ctx, cancel := context.WithCancel(t.Context())
		w := p.watch(ctx, &schedv1.WatchRunsRequest{})
		w.names[a.GetId()], w.names[b.GetId()] = "a", "b"
		expect(t, w.next(3), "b:pending a:pending synced")
		fence := p.start(a, "w")
		synctest.Wait()
		p.finish(a, fence, state.Attempt{Outcome: state.OutcomeSucceeded}, state.Succeeded)
		got := w.next(1)
		for got != "a:succeeded" { // those in between may be skipped, the last one not
			got = w.next(1)
		}
		c := p.run("j")
		w.names[c.GetId()] = "c"
		expect(t, w.next(1), "c:pending")
		cancel()
		expect(t, w.next(1), "Canceled")
	})
}

// A run that no longer matches is sent once more, so that its end is seen.
func TestWatchRunsThatMatch(t *testing.T) {
	for _, changesOnly := range []bool{false, true} {
		story(t, func(t *testing.T, p *primary) {
			p.put(aJob("j", allow))
			p.put(aJob("k", allow))
			a, k := p.run("j"), p.run("k")
			w := p.watch(t.Context(), &schedv1.WatchRunsRequest{Filter: "job=j,active", ChangesOnly: changesOnly})
			w.names[a.GetId()], w.names[k.GetId()] = "a", "k"
			if changesOnly {
				expect(t, w.next(1), "synced")
			} else {
				expect(t, w.next(2), "a:pending synced")
			}
			p.do(state.Cancel{Run: p.id(k)})
			p.do(state.Cancel{Run: p.id(a)})
			expect(t, w.next(1), "a:cancelled")
			p.do(state.Prune{Runs: []state.RunID{p.id(a), p.id(k)}}) // is not told
			b := p.run("j")
			w.names[b.GetId()] = "b"
			expect(t, w.next(1), "b:pending")
			p.store.restore()
			expect(t, w.next(1), "b:pending")
			p.server.Close()
			expect(t, w.next(1), "Unavailable")
		})
	}
}

func TestWatchRefuses(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		w := p.watch(t.Context(), &schedv1.WatchRunsRequest{Filter: "colour=red"})
		_, err := w.stream.Recv()
		says(t, err, codes.InvalidArgument, "filter")
	})
}

// A watcher that takes nothing costs no more than one entry for each run, and
// sees the latest state when it goes on.
func TestSlowWatcher(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		p.put(aJob("j", allow))
		p.worker("w")
		w := p.watch(t.Context(), &schedv1.WatchRunsRequest{})
		expect(t, w.next(1), "synced")
		const n = 300 // some more than fit the connection's windows together
		var runs []*schedv1.Run
		for i := range n {
			r, err := p.runs1("j", "")
			if err != nil {
				t.Fatal(err)
			}
			w.names[r.GetId()] = fmt.Sprint(i)
			runs = append(runs, r)
		}
		note := strings.Repeat("x", 1024)
		for range 20 {
			for _, r := range runs {
				res := p.store.apply(state.Assign{Run: p.id(r), Attempt: 1 + len(p.attempts(r)), Worker: "w"})[0]
				if res.Err != nil {
					continue
				}
				p.finish(r, res.Run.Live().Fence, state.Attempt{Outcome: state.OutcomeFailed, Reason: note}, state.Pending)
			}
			synctest.Wait()
		}
		for _, r := range runs {
			p.do(state.Cancel{Run: p.id(r)})
		}
		sent, ended := 0, map[string]bool{}
		for len(ended) < n {
			m, err := w.stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			sent++
			if m.GetRun().GetPhase() == schedv1.Phase_PHASE_CANCELLED {
				ended[m.GetRun().GetId()] = true
			}
		}
		if all := n * (2*20 + 2); sent > all/4 {
			t.Errorf("%d messages for %d changes: nothing was skipped", sent, all)
		}
	})
}

func (p *primary) attempts(r *schedv1.Run) (as []state.Attempt) {
	p.store.View(func(s *state.State) { as = s.Run(p.id(r)).Attempts })
	return as
}
