package bench

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/server/bench/measure"
	"github.com/schedd/schedd/server/bench/report"
)

// schedule is jobs that are all due at the same instants: each second from start on, for
// some seconds.
type schedule struct {
	prefix  string
	jobs    int
	start   time.Time
	seconds int
	jitter  time.Duration
}

func (s schedule) end() time.Time { return s.start.Add(time.Duration(s.seconds) * time.Second) }

func (s schedule) occurrences() int { return s.jobs * s.seconds }

// due lists the occurrences at their nominal instants.
func (s schedule) due() []measure.Due {
	all := make([]measure.Due, 0, s.occurrences())
	for _, name := range jobNames(s.prefix, s.jobs) {
		for second := range s.seconds {
			at := s.start.Add(time.Duration(second) * time.Second)
			all = append(all, measure.Due{Occurrence: measure.Occurrence{Job: name, Nominal: at.Unix()}, At: at})
		}
	}
	return all
}

// due lists the occurrences of a schedule. By how much each is put off by its jitter is
// the cluster's own, and it tells.
func (c *Cluster) due(ctx context.Context, s schedule) ([]measure.Due, error) {
	all := s.due()
	if s.jitter == 0 {
		return all, nil
	}
	names := jobNames(s.prefix, s.jobs)
	err := c.Each(ctx, len(names), func(ctx context.Context, client *Client, i int) error {
		resp, err := client.Jobs.PreviewSchedule(ctx, &schedv1.PreviewScheduleRequest{
			Namespace: Namespace, Name: names[i], StartTime: timestamppb.New(s.start.Add(-time.Second)), Count: int32(s.seconds),
		})
		if err != nil {
			return fmt.Errorf("ask when %s is due: %w", names[i], err)
		}
		of := all[i*s.seconds : (i+1)*s.seconds]
		for n, o := range resp.GetOccurrences() {
			if n < len(of) && o.GetNominalTime().AsTime().Unix() == of[n].Nominal {
				of[n].At = o.GetDueTime().AsTime()
			}
		}
		return nil
	})
	return all, err
}

// definitions are the jobs.
func (s schedule) definitions(argv []string) []*schedv1.Job {
	jobs := make([]*schedv1.Job, s.jobs)
	for i, name := range jobNames(s.prefix, s.jobs) {
		jobs[i] = Job(name, argv, &schedv1.Trigger{
			When:      &schedv1.Trigger_Cron{Cron: &schedv1.Cron{Expression: "* * * * * *"}},
			StartTime: timestamppb.New(s.start), EndTime: timestamppb.New(s.end()), Jitter: durationpb.New(s.jitter),
		})
	}
	return jobs
}

// How long before they are due jobs are defined: a while for all, and for each of them; later
// twice as long for each as it took the last time.
const (
	headStart     = 3 * time.Second
	headStartEach = 2 * time.Millisecond
)

// errTooLate tells that jobs were due before all of them were defined.
var errTooLate = errors.New("defining the jobs took longer than was thought, again and again")

// plan makes a schedule of processes that write down that they began, and where.
func (l *Lab) plan(ctx context.Context, c *Cluster, jobs, seconds int, jitter time.Duration) (s schedule, e *effects, err error) {
	s, err = c.plan(ctx, l.name, jobs, seconds, jitter, func(prefix string) (argv []string, err error) {
		if e, err = l.newEffects(prefix + "effects"); err != nil {
			return nil, err
		}
		return e.argv(), nil
	})
	return s, e, err
}

// plan makes a schedule, and defines its jobs before it begins; argv tells what they run.
// When that takes longer than was thought, it begins anew, with other jobs and more time.
func (c *Cluster) plan(ctx context.Context, scenario string, jobs, seconds int, jitter time.Duration, argv func(prefix string) ([]string, error)) (s schedule, err error) {
	if c.each == 0 {
		c.each = headStartEach
	}
	lead := headStart + c.each*time.Duration(jobs)
	for range 3 {
		begin := time.Now()
		s = schedule{prefix: newPrefix(scenario), jobs: jobs, seconds: seconds, jitter: jitter, start: begin.Add(lead).Truncate(time.Second).UTC()}
		program, err := argv(s.prefix)
		if err != nil {
			return s, err
		}
		inTime, err := c.putBefore(ctx, s.start, s.definitions(program))
		if err == nil && inTime {
			c.each = 2 * time.Since(begin) / time.Duration(max(1, jobs))
			return s, nil
		}
		if err = errors.Join(err, c.removeNow(ctx, jobNames(s.prefix, jobs))); err != nil {
			return s, err
		}
		lead *= 4
	}
	return s, errTooLate
}

// putBefore defines jobs until an instant, and tells whether that was enough time.
func (c *Cluster) putBefore(ctx context.Context, until time.Time, jobs []*schedv1.Job) (inTime bool, err error) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	err = c.Put(ctx, jobs)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return false, nil
	}
	return err == nil, err
}

// carry waits for all processes of a schedule, and counts them.
func (c *Cluster) carry(ctx context.Context, s schedule, e *effects) (measure.Tally, error) {
	if !until(ctx, s.end()) {
		return measure.Tally{}, ctx.Err()
	}
	if err := e.await(ctx, s.occurrences()); err != nil {
		return measure.Tally{}, err
	}
	starts, err := e.starts()
	if err != nil {
		return measure.Tally{}, err
	}
	if len(starts) == 0 {
		return measure.Tally{}, errors.New("no process wrote down that it began: the workers have to be on this host, and their processes must be able to write there; see --effects")
	}
	due, err := c.due(ctx, s)
	if err != nil {
		return measure.Tally{}, err
	}
	return measure.Count(due, starts), nil
}

// ledger is what the ledgers of a schedule's jobs tell.
type ledger struct {
	ran                      int
	missed, twice, different int
}

// readLedger has the primary prove what it decided.
func (c *Cluster) readLedger(ctx context.Context, s schedule) (ledger, error) {
	names := jobNames(s.prefix, s.jobs)
	var ran, missed, twice, different atomic.Int64
	err := c.Each(ctx, len(names), func(ctx context.Context, client *Client, i int) error {
		proof, err := client.Jobs.VerifyLedger(ctx, &schedv1.VerifyLedgerRequest{Namespace: Namespace, Name: names[i]})
		if err != nil {
			return fmt.Errorf("verify the ledger of %s: %w", names[i], err)
		}
		each := int64(0)
		for _, v := range proof.GetTriggers() {
			each += v.GetRan()
			different.Add(int64(len(v.GetDifferences())))
		}
		ran.Add(each)
		missed.Add(max(0, int64(s.seconds)-each))
		twice.Add(max(0, each-int64(s.seconds)))
		return nil
	})
	return ledger{ran: int(ran.Load()), missed: int(missed.Load()), twice: int(twice.Load()), different: int(different.Load())}, err
}

// verdict is what was missed and what was run twice, by the word of the processes and by
// that of the ledgers, over all that a scenario tried.
type verdict struct{ missed, twice int }

// add takes what is worse: processes and ledgers see the same occurrences.
func (v *verdict) add(t measure.Tally, l ledger) {
	v.missed += max(t.Missed, l.missed)
	v.twice += max(t.Twice+t.Stray, l.twice, l.different)
}

func (v *verdict) report(r *report.Result) {
	r.Add("missed", float64(v.missed), "")
	r.Add("twice", float64(v.twice), "")
}

// costs are what all processes of a cluster of our own have used: the first primary, and
// the first worker with its agent and its runner.
type costs struct{ primary, agent, runner Usage }

func (c *Cluster) costs() (all costs, err error) {
	if c.Local == nil {
		return all, nil
	}
	var faults [3]error
	all.primary, faults[0] = UsageOf(c.Local.Primaries()[0].PID())
	all.agent, faults[1] = UsageOf(c.Local.Workers()[0].PID())
	pid, err := c.Local.Runners()[0].PID()
	if err != nil {
		return all, err
	}
	all.runner, faults[2] = UsageOf(pid)
	return all, errors.Join(faults[:]...)
}

// reportCosts tells the processor time of n runs.
func (c *Cluster) reportCosts(r *report.Result, before, after costs, n int) {
	if c.Local == nil || n == 0 {
		return
	}
	each := func(from, to Usage) float64 { return measure.Milliseconds(to.Processor-from.Processor) / float64(n) }
	r.Add("processor of the primary, each run", each(before.primary, after.primary), "ms")
	r.Add("processor of the agent, each run", each(before.agent, after.agent), "ms")
	r.Add("processor of the runner, each run", each(before.runner, after.runner), "ms")
	r.Add("processor of the process itself", measure.Milliseconds(after.runner.Children-before.runner.Children)/float64(n), "ms")
}
