package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/server/bench/fleet"
	"github.com/schedd/schedd/server/bench/measure"
	"github.com/schedd/schedd/server/bench/report"
)

var history = Scenario{
	Name: "history",
	What: "what a million finished runs cost one primary, and how long it takes to list some of them",
	Run:  runHistory,
}

// past is runs that have ended, and what makes them: jobs that are due each second, for a
// round at a time, as many of them as the primary can carry.
type past struct {
	cluster *Cluster
	fleet   *fleet.Fleet
	jobs    int           // that are defined
	load    int           // of which so many are due in the next round
	lead    time.Duration // before which they are defined
	first   time.Time     // instant of the first round
	last    time.Time     // end of the last one
	pause   time.Duration // before memory is looked at
	settle  time.Duration // and after a load once more: what ended lately is in memory for a minute
}

// The workers of the past. One job of each odd finds none that it may run on: its first
// run waits, and the others are skipped.
const (
	pastWorkers = 100
	pastPrefix  = "report-of-department-"
	odd         = 200
)

func runHistory(ctx context.Context, l *Lab, r *report.Result) (err error) {
	c, err := l.Start(ctx, Setup{Primaries: 1})
	if err != nil {
		return err
	}
	p := &past{cluster: c, jobs: Pick(l, 5_000, 100), load: Pick(l, 500, 50), lead: headStart, pause: Pick(l, 30*time.Second, time.Second), settle: Pick(l, time.Minute, time.Second)}
	p.fleet, err = fleet.Start(ctx, fleet.Config{Servers: c.Local.Servers(), Workers: pastWorkers, Slots: fleetSlots, Name: "worker"})
	if err != nil {
		return err
	}
	defer p.fleet.Stop()
	l.Say("defining %s jobs", count(p.jobs))
	if err := p.put(ctx, p.jobs, time.Now().AddDate(1, 0, 0), time.Time{}); err != nil { // not yet
		return err
	}
	before, err := p.startAgain(ctx)
	if err != nil {
		return err
	}
	if err := p.make(ctx, l, r); err != nil {
		return err
	}
	if !rest(ctx, p.pause) {
		return context.Cause(ctx)
	}
	early, err := UsageOf(c.Local.Primaries()[0].PID())
	if err != nil {
		return err
	}
	if !rest(ctx, p.settle) {
		return context.Cause(ctx)
	}
	running, err := UsageOf(c.Local.Primaries()[0].PID())
	if err != nil {
		return err
	}
	after, err := p.startAgain(ctx)
	if err != nil {
		return err
	}
	r.Add("memory for it, running", Megabytes(running.Resident-before.Resident), "MB")
	r.Add("memory for it, started again", Megabytes(after.Resident-before.Resident), "MB")
	r.Add("memory for it, a minute before, with the runs of the last minute", Megabytes(early.Resident-before.Resident), "MB")
	r.Add("pages of files in that, running", Megabytes(running.Files-before.Files), "MB")
	r.Add("pages of files in that, started again", Megabytes(after.Files-before.Files), "MB")
	r.Add("primary without", Megabytes(before.Resident), "MB")
	r.Add("primary, running", Megabytes(running.Resident), "MB")
	r.Add("primary, running, at most", Megabytes(running.Peak), "MB")
	r.Add("primary, started again", Megabytes(after.Resident), "MB")
	r.Note("All memory of the process. Without: started again with the jobs and no run. Running: a minute and a half after the last run, " +
		"since each is in memory for a minute; a minute sooner, all that had ended in the last minute still are. In it are the latest runs, which are in memory too, of all jobs 20,000 at most.")
	return p.list(ctx, l, r)
}

// put defines the first n jobs, due each second of a span that may have no end.
func (p *past) put(ctx context.Context, n int, start, end time.Time) error {
	var all []*schedv1.Job
	for i := range n {
		t := &schedv1.Trigger{Id: "often", StartTime: timestamppb.New(start), When: &schedv1.Trigger_Cron{Cron: &schedv1.Cron{Expression: "* * * * * *"}}}
		if !end.IsZero() {
			t.EndTime = timestamppb.New(end)
		}
		j := Job(jobName(pastPrefix, i), []string{"/bin/true"}, t)
		if i%odd == 0 {
			j.Target, j.Policy = &schedv1.Target{Selector: "nowhere=yes"}, nil // the default skips
		}
		all = append(all, j)
	}
	return p.cluster.Put(ctx, all)
}

// startAgain starts the primary again, and returns what it uses after a while.
func (p *past) startAgain(ctx context.Context) (Usage, error) {
	primary := p.cluster.Local.Primaries()[0]
	if err := primary.Kill(ctx, 0); err != nil {
		return Usage{}, err
	}
	if err := p.cluster.ready(ctx, pastWorkers); err != nil {
		return Usage{}, err
	}
	if !rest(ctx, p.pause) {
		return Usage{}, context.Cause(ctx)
	}
	return UsageOf(primary.PID())
}

// mostMaking is how long runs are made at most.
const mostMaking = 30 * time.Minute

// make has runs be made until there are a million, or there was time enough for that.
func (p *past) make(ctx context.Context, l *Lab, r *report.Result) error {
	wanted, begin := int64(Pick(l, 1_000_000, 400)), time.Now()
	l.Say("making %s runs", count(int(wanted)))
	for p.fleet.Counts().Acked < wanted && time.Since(begin) < mostMaking {
		if err := p.round(ctx, Pick(l, 20, 2)); err != nil {
			return err
		}
		l.Say("%s runs were made; %s each second are to be made next", count(int(p.fleet.Counts().Acked)), count(p.load))
	}
	l.Say("reading the ledgers")
	var ran, skipped, missed atomic.Int64
	err := p.cluster.Each(ctx, p.jobs, func(ctx context.Context, client *Client, i int) error {
		v, err := client.Jobs.VerifyLedger(ctx, &schedv1.VerifyLedgerRequest{Namespace: Namespace, Name: jobName(pastPrefix, i)})
		if err != nil {
			return fmt.Errorf("verify the ledger of %s: %w", jobName(pastPrefix, i), err)
		}
		for _, t := range v.GetTriggers() {
			ran.Add(t.GetRan())
			skipped.Add(t.GetSkipped())
			missed.Add(t.GetMissed() + int64(len(t.GetDifferences())))
		}
		return nil
	})
	if err != nil {
		return err
	}
	r.Add("runs made", float64(ran.Load()), "")
	r.Add("skipped", float64(skipped.Load()), "")
	r.Add("missed", float64(missed.Load()), "")
	r.Note("Jobs that are due each second, as many as the primary can carry; one of 200 finds no worker, and is skipped. " +
		"Workers are the bench's own, and end each run at once.")
	return nil
}

// round has the jobs be due for some seconds, and waits until all of their runs have
// ended.
func (p *past) round(ctx context.Context, seconds int) error {
	begin := time.Now()
	start := begin.Add(p.lead).Truncate(time.Second)
	p.last = start.Add(time.Duration(seconds) * time.Second)
	if p.first.IsZero() {
		p.first = start
	}
	err := p.put(ctx, p.load, start, p.last)
	p.lead = max(headStart, 2*time.Since(begin))
	if err != nil && time.Now().Before(p.last) {
		return err // and not since there was nothing left to define
	}
	if !until(ctx, p.last) {
		return context.Cause(ctx)
	}
	if err := p.drain(ctx); err != nil {
		return err
	}
	p.load = nextLoad(p.load, p.jobs, time.Since(p.last)-drained)
	return nil
}

// A round that was carried ends so long after its last second at most, and the next one
// has more; one that ends much later was too much.
const (
	carriedWithin = 3 * time.Second
	tooMuchAfter  = 15 * time.Second
)

// nextLoad is how many jobs are due in a round after one that ended late by so much.
func nextLoad(load, most int, late time.Duration) int {
	switch {
	case late <= carriedWithin:
		return min(load*3/2, most)
	case late > tooMuchAfter:
		return max(load/2, 1)
	}
	return load
}

// drained is how long nothing has to end until all has.
const drained = 3 * time.Second

// drain waits until no run ends any more.
func (p *past) drain(ctx context.Context) error {
	for last := int64(-1); last != p.fleet.Counts().Acked; {
		last = p.fleet.Counts().Acked
		if !rest(ctx, drained) {
			return context.Cause(ctx)
		}
	}
	return nil
}

// list lists runs, in four ways, one call after the other.
func (p *past) list(ctx context.Context, l *Lab, r *report.Result) error {
	calls := Pick(l, 500, 20)
	for _, way := range []struct {
		name string
		ask  func() *schedv1.ListRunsRequest
	}{
		{"job", func() *schedv1.ListRunsRequest {
			return &schedv1.ListRunsRequest{Filter: "job=" + jobName(pastPrefix, rand.IntN(p.load))}
		}},
		{"phase", func() *schedv1.ListRunsRequest {
			return &schedv1.ListRunsRequest{Filter: "phase=" + []string{"PHASE_SUCCEEDED", "PHASE_SKIPPED"}[rand.IntN(2)]}
		}},
		{"worker", func() *schedv1.ListRunsRequest {
			return &schedv1.ListRunsRequest{Filter: fmt.Sprint("worker=worker-", rand.IntN(pastWorkers))}
		}},
		{"time", func() *schedv1.ListRunsRequest {
			after := p.first.Add(rand.N(p.last.Sub(p.first)))
			return &schedv1.ListRunsRequest{CreatedAfter: timestamppb.New(after), CreatedBefore: timestamppb.New(after.Add(time.Minute))}
		}},
	} {
		var took []time.Duration
		found := 0
		for range calls {
			start := time.Now()
			resp, err := p.cluster.Client().Runs.ListRuns(ctx, way.ask())
			if err != nil {
				return fmt.Errorf("list runs by %s: %w", way.name, err)
			}
			took, found = append(took, time.Since(start)), found+len(resp.GetRuns())
		}
		r.Add("list by "+way.name+" p50", measure.Milliseconds(measure.Quantile(took, 0.5)), "ms")
		r.Add("list by "+way.name+" p99", measure.Milliseconds(measure.Quantile(took, 0.99)), "ms")
		if found == 0 {
			r.Note("No run was found by " + way.name + ".")
		}
	}
	r.Note(fmt.Sprintf("%d calls each, one after the other: the newest 100 runs of a job, of a phase, of a worker, and of a minute, each time another one.", calls))
	return nil
}
