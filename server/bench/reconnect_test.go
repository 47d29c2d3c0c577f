package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

func launchOf(run string) *agentv1.Launch {
	return &agentv1.Launch{Key: &agentv1.AttemptKey{RunId: run, Attempt: 1}}
}

// Who waits for a run is told when it came, whether that was before or after, and that
// it did not come.
func TestArrivals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, begin := newArrivals(), time.Now()
		a.launched(launchOf("early"), begin)
		time.AfterFunc(2*time.Second, func() { a.launched(launchOf("other"), time.Now()) })
		time.AfterFunc(3*time.Second, func() { a.launched(launchOf("late"), time.Now()) })
		for run, want := range map[string]time.Duration{"early": 0, "late": 3 * time.Second} {
			if at, ok := a.await(t.Context(), run); !ok || at.Sub(begin) != want {
				t.Errorf("%s came after %v (%v), want %v", run, at.Sub(begin), ok, want)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if at, ok := a.await(ctx, "never"); ok {
			t.Errorf("what never came came at %v", at)
		}
		if a.twice() != 0 {
			t.Error("each came once")
		}
		a.launched(launchOf("early"), time.Now())
		if at, _ := a.await(t.Context(), "early"); a.twice() != 1 || !at.Equal(begin) {
			t.Errorf("%d came twice, and the first time is %v", a.twice(), at)
		}
	})
}

// caller stands for a primary: it acknowledges each run at once, and what then happens to
// it is up to the test.
type caller struct {
	schedv1.JobServiceClient
	mu   sync.Mutex
	runs int
	jobs map[string]bool
	then func(number int, run string) error
}

func (c *caller) RunJob(_ context.Context, r *schedv1.RunJobRequest, _ ...grpc.CallOption) (*schedv1.RunJobResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.runs++
	c.jobs[r.GetName()] = true
	run := fmt.Sprint("run-", c.runs)
	return &schedv1.RunJobResponse{Run: &schedv1.Run{Id: run}}, c.then(c.runs, run)
}

// Runs are asked for at a steady rate, however long they take, and the longest is not
// left out.
func TestDispatcher(t *testing.T) {
	const usual, longest = 10 * time.Millisecond, 7 * time.Second
	synctest.Test(t, func(t *testing.T) {
		a := newArrivals()
		c := &caller{jobs: map[string]bool{}, then: func(number int, run string) error {
			switch number {
			case 3:
				time.AfterFunc(longest, func() { a.launched(launchOf(run), time.Now()) })
			case 4: // it never comes
			default:
				time.AfterFunc(usual, func() { a.launched(launchOf(run), time.Now()) })
			}
			return nil
		}}
		d := &dispatcher{client: &Client{Jobs: c}, prefix: "job-", arrivals: a}
		all := d.during(t.Context(), func() error { time.Sleep(time.Second); return nil })

		const most = int(time.Second / dispatchEach)
		if all.err != nil || all.missed != 1 || len(all.took) < most-2 || len(all.took) > most {
			t.Fatalf("%d came and %d were missed in a second: %v", len(all.took), all.missed, all.err)
		}
		times := map[time.Duration]int{}
		for _, took := range all.took {
			times[took]++
		}
		if times[longest] != 1 || times[usual] != len(all.took)-1 {
			t.Errorf("they took %v", times)
		}
		if len(c.jobs) != c.runs {
			t.Errorf("%d runs are of %d jobs, want one of each", c.runs, len(c.jobs))
		}
	})
}

// What goes wrong is told: what is waited for, and a call.
func TestDispatcherFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &caller{jobs: map[string]bool{}, then: func(int, string) error { return errors.New("no leader") }}
		d := &dispatcher{client: &Client{Jobs: c}, prefix: "job-", arrivals: newArrivals()}
		all := d.during(t.Context(), func() error { time.Sleep(time.Second); return errors.New("no balancer") })
		if err := fmt.Sprint(all.err); !strings.Contains(err, "no leader") || !strings.Contains(err, "job-") || !strings.Contains(err, "no balancer") {
			t.Errorf("it is %q", err)
		}
	})
}

func TestOpenFiles(t *testing.T) {
	if err := openFiles(10); err != nil {
		t.Error(err)
	}
	if err := openFiles(1 << 40); err == nil || !strings.Contains(err.Error(), "ulimit") {
		t.Errorf("for more than any system has: %v", err)
	}
}
