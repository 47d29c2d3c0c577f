package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"google.golang.org/grpc/metadata"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/server/bench/measure"
	"github.com/schedd/schedd/server/bench/report"
)

var control = Scenario{
	Name: "control",
	What: "most runs each second that primaries fire, assign, see start and finish, all on record, without processes",
	Run:  runControl,
}

// The workers of the fleet. They have more slots than runs are ever due at once, so that
// none waits for one.
const (
	controlWorkers = 12
	controlSlots   = 5000
)

// How many callers the bare Raft loop has that the figures are shown beside, and how large
// its entries are: about as large as what is on record of a run that was assigned.
const (
	bareCallers = 64
	bareSize    = 256
)

func runControl(ctx context.Context, l *Lab, r *report.Result) error {
	base, err := l.BareRaft(ctx, bareCallers, bareSize)
	if err != nil {
		return err
	}
	r.Note("The workers are at the wire: each keeps a session, and a run ends there as it begins. What a worker itself costs is in sustain.")
	r.Note("A run is four commands (decided, assigned, started, finished), which share entries of Raft's log with those of others. In the bare loop each entry has one.")
	r.Note(fmt.Sprintf("Carried is what was on record within %v of the end of its span.", overdue))
	var v verdict
	for _, size := range []struct {
		primaries int
		name      string
		guess     int
	}{{1, "one primary", 8000}, {3, "three primaries", 4000}} {
		found, jobs, err := controlled(ctx, l, size.primaries, size.guess, &v)
		if err != nil {
			return fmt.Errorf("with %s: %w", size.name, err)
		}
		if jobs == 0 {
			r.Note(fmt.Sprintf("With %s no load was carried over its whole length; the other figures are those of %d jobs.", size.name, found.jobs))
		}
		r.Beside("runs, "+size.name, float64(jobs), "/s", fmt.Sprintf("a bare Raft loop with %d callers", bareCallers), base)
		r.Add("launched after its instant p99, "+size.name, measure.Milliseconds(measure.Quantile(found.Lateness, 0.99)), "ms")
		r.Add("processor of the primaries, each run, "+size.name, found.each(found.all()), "us")
		if size.primaries > 1 {
			r.Add("of which the leader", found.each(slices.Max(found.primaries)), "us")
		}
		r.Add("processor of the workers at the wire, each run, "+size.name, found.each(found.workers), "us")
		r.Add("entries of Raft's log, each run, "+size.name, float64(found.entries)/float64(found.occurrences()), "")
		r.Add("largest primary, "+size.name, Megabytes(found.peak), "MB")
	}
	v.report(r)
	return nil
}

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// controlTrial is a load that was tried.
type controlTrial struct {
	schedule
	measure.Tally
	effort      // that it took
	inTime bool // all results were on record soon after the end
}

// effort is what was spent.
type effort struct {
	primaries []time.Duration // of processors, by each of them
	workers   time.Duration   // likewise, by all of them
	entries   uint64          // of Raft's log
	peak      int64           // of the largest primary's memory
}

// since is what was spent after that.
func (e effort) since(before effort) effort {
	e.workers, e.entries = e.workers-before.workers, e.entries-before.entries
	e.primaries = slices.Clone(e.primaries)
	for i := range e.primaries {
		e.primaries[i] -= before.primaries[i]
	}
	return e
}

// all is what the primaries have spent together.
func (e effort) all() (sum time.Duration) {
	for _, d := range e.primaries {
		sum += d
	}
	return sum
}

// each is the share of one run, in microseconds.
func (t controlTrial) each(d time.Duration) float64 {
	return microseconds(d) / float64(t.occurrences())
}

// controlled looks for the largest load that so many primaries carry for half a minute. It
// returns the last trial, and the load that was carried, 0 if none.
func controlled(ctx context.Context, l *Lab, primaries, guess int, v *verdict) (found controlTrial, jobs int, err error) {
	c, err := l.Start(ctx, Setup{Primaries: primaries})
	if err != nil {
		return found, 0, err
	}
	wire, err := newWire(ctx, c, controlWorkers, controlSlots)
	if err != nil {
		return found, 0, err
	}
	defer wire.Stop()
	search := measure.NewSearch(Pick(l, guess, 100), Pick(l, 5, 2), Pick(l, 4, 2))
	for jobs, full, ok := search.Next(); ok; jobs, full, ok = search.Next() {
		seconds := Pick(l, 10, 2)
		if full {
			seconds = Pick(l, 30, 3)
		}
		if found, err = controlOnce(ctx, l, c, wire, jobs, seconds, v); err != nil {
			return found, 0, err
		}
		search.Tell(found.inTime)
	}
	return found, search.Found(), l.Stop(ctx, c)
}

// overdue is how long after the end of their span results may be on record: the work of
// one second may take a second.
const overdue = time.Second

// controlOnce has so many jobs run each second for some seconds, and looks at what became
// of that.
func controlOnce(ctx context.Context, l *Lab, c *Cluster, wire *wireFleet, jobs, seconds int, v *verdict) (t controlTrial, err error) {
	wire.take()
	if t.schedule, err = c.plan(ctx, l.name, jobs, seconds, 0, func(string) ([]string, error) { return []string{"/bin/true"}, nil }); err != nil {
		return t, err
	}
	if !until(ctx, t.start.Add(-100*time.Millisecond)) {
		return t, ctx.Err()
	}
	before, err := c.effort(ctx)
	if err != nil {
		return t, err
	}
	acked := wire.Counts().Acked + int64(t.occurrences())
	t.inTime = wire.finish(ctx, acked, t.end().Add(patience)) && time.Now().Before(t.end().Add(overdue))
	after, err := c.effort(ctx)
	if err != nil {
		return t, err
	}
	t.effort = after.since(before)
	t.Tally = measure.Count(t.due(), wire.take())
	ledger, err := c.readLedger(ctx, t.schedule)
	if err != nil {
		return t, err
	}
	v.add(t.Tally, ledger)
	l.Say("%d jobs for %d s on %d primaries: in time %v, launched p50 %v, p99 %v after their instant, %.0f us of the primaries each", jobs, seconds, len(c.Clients), t.inTime,
		measure.Quantile(t.Lateness, 0.5).Round(time.Millisecond), measure.Quantile(t.Lateness, 0.99).Round(time.Millisecond), t.each(t.all()))
	return t, errors.Join(c.crashed(), c.succeeded(ctx, t.schedule), c.settle(ctx))
}

// sampled is how many jobs are asked for all their runs.
const sampled = 200

// succeeded asks the API for the runs of some jobs: all of them have to have succeeded.
func (c *Cluster) succeeded(ctx context.Context, s schedule) error {
	return c.Each(ctx, min(s.jobs, sampled), func(ctx context.Context, client *Client, i int) error {
		name := jobName(s.prefix, i)
		ctx = metadata.AppendToOutgoingContext(ctx, "schedd-consistency", "linearizable") // another primary may be behind
		list, err := client.Runs.ListRuns(ctx, &schedv1.ListRunsRequest{
			PageSize: int32(s.seconds) + 1, Filter: fmt.Sprintf("namespace=%s,job=%s,phase=PHASE_SUCCEEDED", Namespace, name),
		})
		if err != nil {
			return fmt.Errorf("ask for the runs of %s: %w", name, err)
		}
		if n := len(list.GetRuns()); n != s.seconds {
			return fmt.Errorf("%d runs of %s have succeeded, by the word of %s, and there should be %d", n, name, client.Address, s.seconds)
		}
		return nil
	})
}

// settle waits until the primaries are at rest: what one load left to do, such as writing
// the history, would be in the way of the next.
func (c *Cluster) settle(ctx context.Context) error {
	const look, idle = 500 * time.Millisecond, 25 * time.Millisecond // and of a processor in that time
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	last, err := c.effort(ctx)
	for err == nil && rest(ctx, look) {
		var now effort
		now, err = c.effort(ctx)
		if now.all()-last.all() <= idle*time.Duration(len(c.Clients)) {
			return err
		}
		last = now
	}
	return errors.Join(err, context.Cause(ctx))
}

// effort is what was spent up to now, on a cluster of our own and by this process.
func (c *Cluster) effort(ctx context.Context) (e effort, err error) {
	for _, p := range c.Local.Primaries() {
		u, err := UsageOf(p.PID())
		if err != nil {
			return e, err
		}
		e.primaries, e.peak = append(e.primaries, u.Processor), max(e.peak, u.Peak)
	}
	own, err := UsageOf(os.Getpid())
	if err != nil {
		return e, err
	}
	status, err := c.Client().Cluster.GetStatus(ctx, &schedv1.GetStatusRequest{})
	if err != nil {
		return e, fmt.Errorf("ask for the state of the cluster: %w", err)
	}
	e.workers, e.entries = own.Processor, status.GetStatus().GetAppliedIndex()
	return e, nil
}
