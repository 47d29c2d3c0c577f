package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/server/bench/baseline"
	"github.com/schedd/schedd/server/bench/measure"
	"github.com/schedd/schedd/server/bench/report"
)

var trigger = Scenario{
	Name:     "trigger",
	What:     "RunJob until the process runs, 200 in a row; then by 1, 8 and 32 callers at once",
	Anywhere: true,
	Run:      runTrigger,
}

// callers is how many call at once, in turn. Each has a job of its own.
var callers = []int{1, 8, 32}

func runTrigger(ctx context.Context, l *Lab, r *report.Result) (err error) {
	c, err := l.Start(ctx, Setup{Primaries: 1, Workers: 1, Slots: slots})
	if err != nil {
		return err
	}
	most := callers[len(callers)-1]
	p, err := l.newPipe(most)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	t := &triggers{pipe: p, prefix: newPrefix("trigger")}
	jobs := make([]*schedv1.Job, most)
	for i := range jobs {
		jobs[i] = Job(jobName(t.prefix, i), p.argv(i))
	}
	if err := c.Put(ctx, jobs); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Remove(ctx, jobNames(t.prefix, most))) }()
	if err := t.inARow(ctx, l, c, r); err != nil {
		return err
	}
	if err := t.atOnce(ctx, l, c, r); err != nil {
		return err
	}
	rest(ctx, afterAll)
	missed, twice := p.count(t.asked)
	r.Add("missed", float64(missed), "")
	r.Add("twice", float64(twice), "")
	r.Note("A process tells that it runs by a line in a named pipe; what a shell needs to come to that is part of each figure, and is the baseline.")
	return c.crashed()
}

// triggers runs jobs by hand.
type triggers struct {
	*pipe
	prefix string
	asked  []string // runs that were acknowledged
}

// afterAll is how long after the last start another one is waited for, which must not
// come; mostWait is how long a start is waited for at all.
const (
	afterAll = time.Second
	mostWait = time.Minute
)

// quantiles are which ones are told of what was measured one after the other.
var quantiles = []struct {
	name string
	q    float64
}{{"p50", 0.5}, {"p99", 0.99}}

// inARow measures one start after the other, and the same processes without schedd.
func (t *triggers) inARow(ctx context.Context, l *Lab, c *Cluster, r *report.Result) error {
	n := Pick(l, 200, 20)
	bare, syncs, err := t.bareInARow(ctx, l, n)
	if err != nil {
		return err
	}
	left := n
	s := t.callOne(ctx, c.Client(), 0, func() bool { left--; return left >= 0 })
	t.asked = append(t.asked, s.asked...)
	if s.err != nil {
		return s.err
	}
	for _, q := range quantiles {
		r.Beside("to first instruction "+q.name, measure.Milliseconds(measure.Quantile(s.took, q.q)), "ms",
			"the same process started here", measure.Milliseconds(measure.Quantile(bare, q.q)))
	}
	if c.Local == nil {
		return nil // its disks are elsewhere
	}
	r.Note("Before the process three syncs of the disk are waited for in a row, two for the primary's log and one for the worker's journal. What one takes was measured between the baseline's processes, by a page in a file that has its room.")
	for _, q := range quantiles {
		r.Add("a sync of the disk "+q.name, measure.Milliseconds(measure.Quantile(syncs, q.q)), "ms")
	}
	return nil
}

// bareInARow starts the same processes without schedd, one after the other, and has the disk
// sync a page after each.
func (t *triggers) bareInARow(ctx context.Context, l *Lab, n int) (bare, syncs []time.Duration, err error) {
	disk, err := baseline.NewDisk(l.Dir)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, disk.Close()) }()
	for i := range n {
		begin := time.Now()
		run := fmt.Sprint("bare-", i)
		if err := baseline.Run(ctx, t.argv(0), "SCHEDD_RUN_ID="+run); err != nil {
			return nil, nil, err
		}
		at, err := t.await(ctx, 0, run)
		if err != nil {
			return nil, nil, err
		}
		took, err := disk.Sync(ctx)
		if err != nil {
			return nil, nil, err
		}
		bare, syncs, t.asked = append(bare, at.Sub(begin)), append(syncs, took), append(t.asked, run)
	}
	return bare, syncs, nil
}

// atOnce measures how many starts several callers get.
func (t *triggers) atOnce(ctx context.Context, l *Lab, c *Cluster, r *report.Result) error {
	for _, n := range callers {
		var s started
		var span time.Duration
		var before, after costs
		bare, err := l.ForkExecAround(ctx, func(float64) (err error) {
			if before, err = c.costs(); err != nil {
				return err
			}
			s, span, err = t.callMany(ctx, c, n, Pick(l, 15*time.Second, time.Second))
			t.asked = append(t.asked, s.asked...)
			if err != nil {
				return err
			}
			after, err = c.costs()
			return err
		})
		if err != nil {
			return err
		}
		who := "1 caller"
		if n > 1 {
			who = fmt.Sprintf("%d callers", n)
		}
		r.Beside("runs, "+who, measure.Rate(len(s.took), span), "/s", "bare fork and exec", bare)
		r.Add("p50, "+who, measure.Milliseconds(measure.Quantile(s.took, 0.5)), "ms")
		r.Add("p99, "+who, measure.Milliseconds(measure.Quantile(s.took, 0.99)), "ms")
		if n == callers[len(callers)-1] {
			c.reportCosts(r, before, after, len(s.took))
		}
	}
	return nil
}

// started is what callers got.
type started struct {
	asked []string
	took  []time.Duration // from the call until the process ran
	err   error
}

// callMany has n callers trigger one run after the other for some time, each over a
// connection of its own.
func (t *triggers) callMany(ctx context.Context, c *Cluster, n int, span time.Duration) (all started, took time.Duration, err error) {
	clients, closeAll, err := c.DialMany(n)
	if err != nil {
		return all, 0, err
	}
	defer closeAll()
	parts := make([]started, n)
	g, ctx := errgroup.WithContext(ctx)
	begin := time.Now()
	for w := range n {
		g.Go(func() error {
			parts[w] = t.callOne(ctx, clients[w], w, func() bool { return time.Since(begin) < span })
			return parts[w].err
		})
	}
	err = g.Wait()
	took = time.Since(begin)
	for _, p := range parts {
		all.asked, all.took = append(all.asked, p.asked...), append(all.took, p.took...)
	}
	return all, took, err
}

// callOne is one caller.
func (t *triggers) callOne(ctx context.Context, client *Client, caller int, more func() bool) (s started) {
	for more() {
		begin := time.Now()
		resp, err := client.Jobs.RunJob(ctx, &schedv1.RunJobRequest{Namespace: Namespace, Name: jobName(t.prefix, caller)})
		if err != nil {
			s.err = fmt.Errorf("run the job %s: %w", jobName(t.prefix, caller), err)
			return s
		}
		run := resp.GetRun().GetId()
		s.asked = append(s.asked, run)
		at, err := t.await(ctx, caller, run)
		if err != nil {
			s.err = err
			return s
		}
		s.took = append(s.took, at.Sub(begin))
	}
	return s
}

// await waits until the process of a run tells that it runs.
func (t *triggers) await(ctx context.Context, caller int, run string) (time.Time, error) {
	timer := time.NewTimer(mostWait)
	defer timer.Stop()
	for {
		select {
		case a := <-t.arrived[caller]:
			if a.run == run {
				return a.at, nil
			}
		case <-timer.C:
			return time.Time{}, fmt.Errorf("no process of run %s has told within %v that it runs: the workers have to be on this host, and their processes must be able to write there; see --effects", run, mostWait)
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		}
	}
}
