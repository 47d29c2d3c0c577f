package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/server/bench/fleet"
	"github.com/schedd/schedd/server/bench/measure"
	"github.com/schedd/schedd/server/bench/report"
)

var reconnect = Scenario{
	Name: "reconnect",
	What: "10,000 sessions over TLS are cut, since the balancer restarts: until all are back, and how long runs take to a worker meanwhile",
	Run:  runReconnect,
}

const (
	// stayers are workers whose sessions do not go through the balancer.
	stayers = 10
	// balancerDown is how long the balancer takes to restart.
	balancerDown = time.Second
	// dispatchEach is how often a run is asked for.
	dispatchEach = 50 * time.Millisecond
	// steadyTime is how long runs are asked for before the restart and after all are back.
	steadyTime = 5 * time.Second
	// backTime bounds how long all may take to come back.
	backTime = 5 * time.Minute
)

func runReconnect(ctx context.Context, l *Lab, r *report.Result) (err error) {
	n := Pick(l, manySessions, fewSessions)
	c, err := l.Start(ctx, Setup{Primaries: 1})
	if err != nil {
		return err
	}
	pid := c.Local.Primaries()[0].PID()
	a := newArrivals()
	stay, err := fleet.Start(ctx, fleet.Config{Servers: c.Local.Servers(), Workers: stayers, Slots: wireSlots, Name: "direct", Launched: a.launched})
	if err != nil {
		return err
	}
	defer stay.Stop()
	b, err := newBehind(ctx, c, n, a)
	if err != nil {
		return err
	}
	defer b.stop()
	l.Say("%d sessions are there", n)
	d := &dispatcher{client: c.Client(), prefix: newPrefix("reconnect"), arrivals: a}
	if err := d.define(ctx, c); err != nil {
		return err
	}
	before := d.during(ctx, func() error { rest(ctx, steadyTime); return nil })
	begun, err := UsageOf(pid)
	if err != nil {
		return err
	}
	failed, opened, begin := b.Counts().Failed, b.Counts().Opened, time.Now()
	var told time.Duration
	meanwhile := d.during(ctx, func() (err error) { told, err = b.restart(ctx); return err })
	took := time.Since(begin)
	if err := errors.Join(before.err, meanwhile.err); err != nil {
		return err
	}
	back, err := UsageOf(pid)
	if err != nil {
		return err
	}
	r.Add("sessions", float64(n), "")
	r.Add("all back after", took.Seconds(), "s")
	r.Add("the last was told of the cut after", told.Seconds(), "s")
	r.Add("dispatch p99 meanwhile", measure.Quantile(meanwhile.took, 0.99).Seconds(), "s")
	r.Add("dispatch p50 meanwhile", measure.Quantile(meanwhile.took, 0.5).Seconds(), "s")
	r.Add("dispatch, longest meanwhile", measure.Quantile(meanwhile.took, 1).Seconds(), "s")
	r.Add("dispatch p99 before", measure.Quantile(before.took, 0.99).Seconds(), "s")
	r.Add("runs meanwhile", float64(len(meanwhile.took)), "")
	r.Add("missed", float64(before.missed+meanwhile.missed), "")
	r.Add("twice", float64(a.twice()), "")
	r.Add("processor of the primary, each session", microseconds(back.Processor-begun.Processor)/float64(n), "us")
	r.Add("tries that failed, each session", float64(b.Counts().Failed-failed)/float64(n), "")
	r.Add("sessions opened, each worker", float64(b.Counts().Opened-opened)/float64(n), "")
	r.Add("peak memory (primary)", Megabytes(back.Peak), "MB")
	noteTLS(r)
	r.Note(fmt.Sprintf("The balancer is away for %v, and time counts from when it cut. %d workers do not go through it; runs are asked for each %v, and any worker may get them.", balancerDown, stayers, dispatchEach))
	return c.crashed()
}

// restart takes the balancer away, brings it back, and waits until all workers are back. It
// returns after what time the last of them was told that it is cut.
func (b *behind) restart(ctx context.Context) (told time.Duration, err error) {
	begin, all := time.Now(), b.balancer.Down()
	up := time.AfterFunc(balancerDown, b.balancer.Up)
	defer up.Stop()
	ctx, cancel := context.WithTimeout(ctx, backTime)
	defer cancel()
	select {
	case <-all: // before, some that seem to be there are not back yet
	case <-ctx.Done():
	}
	told = time.Since(begin)
	return told, b.AwaitOnline(ctx)
}

// arrivals is when runs came to a worker.
type arrivals struct {
	mu     sync.Mutex // guards what follows
	at     map[string]time.Time
	again  int
	notify chan struct{} // closed when the next one comes
}

func newArrivals() *arrivals {
	return &arrivals{at: map[string]time.Time{}, notify: make(chan struct{})}
}

func (a *arrivals) launched(m *agentv1.Launch, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	run := m.GetKey().GetRunId()
	if _, ok := a.at[run]; ok {
		a.again++
		return
	}
	a.at[run] = at
	close(a.notify)
	a.notify = make(chan struct{})
}

// twice is how many runs came to a second worker, or as a second attempt.
func (a *arrivals) twice() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.again
}

// await waits until a run has come.
func (a *arrivals) await(ctx context.Context, run string) (at time.Time, ok bool) {
	for {
		a.mu.Lock()
		at, ok, notify := a.at[run], !a.at[run].IsZero(), a.notify
		a.mu.Unlock()
		if ok {
			return at, true
		}
		select {
		case <-notify:
		case <-ctx.Done():
			return at, false
		}
	}
}

// dispatcher asks for runs, one after the other, whether the last one came or not.
type dispatcher struct {
	client   *Client
	prefix   string // of the names of its jobs
	next     int    // whose turn it is
	arrivals *arrivals
}

// dispatchJobs is how many jobs take turns: calls for one job get into each other's way.
const dispatchJobs = 100

func (d *dispatcher) define(ctx context.Context, c *Cluster) error {
	jobs := make([]*schedv1.Job, dispatchJobs)
	for i := range jobs {
		jobs[i] = Job(jobName(d.prefix, i), []string{"/bin/true"})
	}
	return c.Put(ctx, jobs)
}

// dispatched is how long runs took from the call until they came to a worker.
type dispatched struct {
	took   []time.Duration
	missed int // that never came
	err    error
}

// longestDispatch bounds how long a run is waited for.
const longestDispatch = time.Minute

// during asks for runs while f goes on, and waits until the last one has come.
func (d *dispatcher) during(ctx context.Context, f func() error) (all dispatched) {
	var wg sync.WaitGroup
	var mu sync.Mutex // guards all
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	over := make(chan error, 1)
	go func() { over <- f() }()
	tick := time.NewTicker(dispatchEach)
	defer tick.Stop()
	for {
		job := jobName(d.prefix, d.next%dispatchJobs)
		d.next++
		wg.Go(func() {
			took, came, err := d.once(ctx, job)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				all.err = err
			case came:
				all.took = append(all.took, took)
			default:
				all.missed++
			}
		})
		select {
		case <-tick.C:
		case err := <-over:
			wg.Wait()
			all.err = errors.Join(err, all.err)
			return all
		}
	}
}

// once asks for a run, and waits for it.
func (d *dispatcher) once(ctx context.Context, job string) (took time.Duration, came bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, longestDispatch)
	defer cancel()
	begin := time.Now()
	resp, err := d.client.Jobs.RunJob(ctx, &schedv1.RunJobRequest{Namespace: Namespace, Name: job})
	if err != nil {
		return 0, false, fmt.Errorf("run the job %s: %w", job, err)
	}
	at, came := d.arrivals.await(ctx, resp.GetRun().GetId())
	return at.Sub(begin), came, nil
}
