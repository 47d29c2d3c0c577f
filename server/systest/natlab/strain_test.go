//go:build e2e && linux

package natlab_test

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"
)

// What is promised is promised of schedd on a machine that is its own. This one is
// shared, by all labs at least, so a test allows for how long the machine itself was
// seen to take meanwhile, by somebody who has nothing to do with schedd.
const (
	// slack is how many times as long as promised something may always take.
	slack = 2
	// steps is how many of the machine's steps come on top of it, each as long as the
	// longest that was seen: of those that wait for each other when a primary takes
	// over, or a worker comes back, there are about as many.
	steps = 10
	// lookEvery is how often somebody looks how long a step takes.
	lookEvery = 200 * time.Millisecond
	// standstill is a step after which a load balancer may have taken a connection for
	// idle that was not: a ping comes 3 s before the idle timeout at the latest.
	standstill = time.Second
)

// machine is what all labs of this run are on.
var machine strain

// strain is how long one step took at which time: to wake up, write something to
// the disk for good, and start a process.
type strain struct {
	mu    sync.Mutex
	steps []step    // by time
	due   time.Time // when the next one is, or the one under way was
}

type step struct {
	end  time.Time
	took time.Duration
}

// watch looks at the machine until ctx is done.
func (s *strain) watch(ctx context.Context) error {
	f, err := os.CreateTemp("", "natlab-strain")
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // nobody reads it
	if err := os.Remove(f.Name()); err != nil {
		return err
	}
	rest := time.NewTimer(0)
	defer rest.Stop()
	for {
		due := time.Now().Add(lookEvery)
		s.expect(due)
		rest.Reset(lookEvery)
		select {
		case <-ctx.Done():
			return nil
		case <-rest.C:
		}
		if _, err := f.WriteAt([]byte(due.String()), 0); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		if err := exec.CommandContext(ctx, "true").Run(); err != nil && ctx.Err() == nil {
			return err
		}
		s.note(step{time.Now(), time.Since(due)})
	}
}

func (s *strain) expect(due time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.due = due
}

func (s *strain) note(one step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps = append(s.steps, one)
}

// worst returns the longest step of those that ended after since, and of the one that
// is under way now.
func (s *strain) worst(since, now time.Time) (most time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	most = max(0, now.Sub(s.due))
	from, _ := slices.BinarySearchFunc(s.steps, since, func(one step, at time.Time) int { return one.end.Compare(at) })
	for _, one := range s.steps[from:] {
		most = max(most, one.took)
	}
	return most
}

// allowed is how long something that was promised within a time, and began at since,
// may take on a machine whose longest step meanwhile was worst.
func allowed(within, worst time.Duration) time.Duration { return slack*within + steps*worst }

// promised tells how long something took that began at since, and fails the test if it
// is too much longer than was promised.
func promised(t *testing.T, what string, since time.Time, took, within time.Duration) {
	t.Helper()
	worst := machine.worst(since, time.Now())
	measured(t, "%s %v (promised: %v; the machine's longest step: %v)", what, took.Round(time.Millisecond), within, worst.Round(time.Millisecond))
	if limit := allowed(within, worst); took > limit {
		t.Errorf("%s %v; more than %v is too long even here", what, took, limit)
	}
}

// uncut reports whether the load balancers can't have cut anything because the
// machine stood still, after since.
func uncut(t *testing.T, since time.Time) bool {
	t.Helper()
	worst := machine.worst(since, time.Now())
	if worst > standstill {
		measured(t, "the machine stood still for %v: sessions may have been cut", worst.Round(time.Millisecond))
	}
	return worst <= standstill
}

// What the machine takes adds to what is allowed, while it lasts; without it a
// promise that is broken is found.
func TestMachineIsAllowedFor(t *testing.T) {
	begin := time.Unix(1_800_000_000, 0)
	s := strain{due: begin.Add(10 * time.Second)}
	for n, took := range []time.Duration{5 * time.Millisecond, 4 * time.Second, 10 * time.Millisecond, 20 * time.Millisecond} {
		s.note(step{begin.Add(time.Duration(n) * time.Second), took})
	}
	for after, want := range []time.Duration{4 * time.Second, 4 * time.Second, 20 * time.Millisecond, 20 * time.Millisecond, 0} {
		if got := s.worst(begin.Add(time.Duration(after)*time.Second), begin.Add(5*time.Second)); got != want {
			t.Errorf("the longest step after %d s is %v, want %v", after, got, want)
		}
	}
	if got, want := s.worst(begin, begin.Add(17*time.Second)), 7*time.Second; got != want {
		t.Errorf("with one under way the longest step is %v, want %v", got, want)
	}
	if got, want := allowed(3*time.Second, 20*time.Millisecond), 6200*time.Millisecond; got != want {
		t.Errorf("allowed are %v, want %v", got, want)
	}
}
