package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/server/bench/fleet"
	"github.com/schedd/schedd/server/bench/measure"
	"github.com/schedd/schedd/server/bench/report"
)

// growing is a primary with more and more jobs, which two scenarios look at: to define a
// million jobs takes minutes, so they are defined once for both. Whichever is run first
// measures what both were asked for.
type growing struct {
	done    bool
	err     error
	sizes   []size
	verdict verdict // on all runs of the load
}

// size is what was seen at one number of jobs.
type size struct {
	stage
	atRest    Usage
	resting   time.Duration // of the processors, during
	restedFor time.Duration // that
	cost      time.Duration // of the processors, for each run
	runs      int
	lateness  []time.Duration
}

func (g *growing) scenarios() []Scenario {
	return []Scenario{{
		Name: memoryName,
		What: "memory of one primary with more and more enabled jobs, none of which is due",
		Run: func(ctx context.Context, l *Lab, r *report.Result) error {
			err := g.measure(ctx, l)
			g.tellMemory(r)
			return err
		},
	}, {
		Name: growthName,
		What: "what a run costs one primary that has more and more jobs, at the same number of runs per second",
		Run: func(ctx context.Context, l *Lab, r *report.Result) error {
			err := g.measure(ctx, l)
			g.tellGrowth(r)
			return err
		},
	}}
}

const (
	memoryName = "memory"
	growthName = "growth"
)

// asked tells whether a scenario is one of those that are run.
func (l *Lab) asked(name string) bool {
	return slices.ContainsFunc(l.config.Scenarios, func(s Scenario) bool { return s.Name == name })
}

// measure measures at all sizes, once. What could not be measured for the one scenario
// could not be for the other.
func (g *growing) measure(ctx context.Context, l *Lab) error {
	if g.done {
		return g.err
	}
	g.done = true
	for _, stages := range stages(l.Quick, l.asked(memoryName), l.asked(growthName)) {
		if g.err = g.grow(ctx, l, stages); g.err != nil {
			break
		}
	}
	return g.err
}

// stage is a number of jobs, and what is looked at then.
type stage struct {
	jobs           int
	memory, growth bool
}

// stages returns what is to be looked at, on one primary after the other. What runs there
// were leaves memory behind, so that of few jobs is looked at where there were none.
func stages(quick, memory, growth bool) [][]stage {
	few, many := []int{1_000, 10_000}, []int{100_000, 1_000_000}
	if quick {
		few, many = []int{200}, []int{1_000}
	}
	var small, large []stage
	for _, jobs := range few {
		if growth {
			small = append(small, stage{jobs: jobs, growth: true})
		}
	}
	if memory {
		large = append(large, stage{jobs: few[len(few)-1], memory: true})
	}
	for _, jobs := range many {
		large = append(large, stage{jobs: jobs, memory: memory, growth: growth})
	}
	return [][]stage{small, large}
}

// grow looks at one primary.
func (g *growing) grow(ctx context.Context, l *Lab, stages []stage) error {
	if len(stages) == 0 {
		return nil
	}
	c, err := l.Start(ctx, Setup{Primaries: 1})
	if err != nil {
		return err
	}
	load := &steady{cluster: c, lab: l, verdict: &g.verdict}
	defer load.stop()
	defined := 0
	for _, stage := range stages {
		if err := defineIdle(ctx, l, c, defined, stage.jobs); err != nil {
			return err
		}
		defined = stage.jobs
		s := size{stage: stage}
		if err := s.rest(ctx, l, c); err != nil {
			return err
		}
		if stage.growth {
			if err := load.run(ctx, &s); err != nil {
				return err
			}
		}
		g.sizes = append(g.sizes, s)
	}
	return l.Stop(ctx, c)
}

// Raft takes a snapshot after so many entries, when it looks whether there are as many:
// each two to four minutes.
const (
	snapshotAfter  = 16_384
	snapshotWithin = 5 * time.Minute
)

// calm is how long nothing happens before memory is looked at. With a run of the load it
// ends before Raft looks again.
const calm = 45 * time.Second

// rest waits until all is as it stays: the snapshot that follows so many new jobs is on
// disk, and the memory for that is free again.
func (s *size) rest(ctx context.Context, l *Lab, c *Cluster) error {
	l.Say("resting with %s jobs", count(s.jobs))
	begin := time.Now()
	before, err := c.processor()
	if err != nil {
		return err
	}
	if err := awaitCalm(ctx, Pick(l, calm, time.Second), c.snapshots); err != nil {
		return err
	}
	s.atRest, err = UsageOf(c.Local.Primaries()[0].PID())
	s.resting, s.restedFor = s.atRest.Processor-before, time.Since(begin)
	l.Say("%s jobs: %.0f MB", count(s.jobs), Megabytes(s.atRest.Resident))
	return err
}

// awaitCalm waits until no snapshot of Raft is due, and none was written for some time. look
// tells whether one is, and how many were. Calls that come together share an entry, so that
// a hundred thousand jobs may be too few of them for a snapshot.
func awaitCalm(ctx context.Context, calm time.Duration, look func(context.Context) (due bool, written float64, err error)) error {
	for end := time.Now().Add(snapshotWithin); ; {
		due, written, err := look(ctx)
		if err != nil {
			return err
		}
		pause := calm
		if due {
			pause = time.Second
		}
		if !rest(ctx, pause) {
			return context.Cause(ctx)
		}
		_, now, err := look(ctx)
		if err != nil || !due && now == written || time.Now().After(end) {
			return err
		}
	}
}

// snapshots tells whether the first primary is about to take one, and how many it has
// written.
func (c *Cluster) snapshots(ctx context.Context) (due bool, written float64, err error) {
	applied, err := c.scrape(ctx, "schedd_applied_index")
	if err != nil {
		return false, 0, err
	}
	covered, err := c.scrape(ctx, "schedd_snapshot_index")
	if err != nil {
		return false, 0, err
	}
	written, err = c.scrape(ctx, "schedd_snapshot_seconds_count")
	return applied-covered > snapshotAfter, written, err
}

// steady is a load that is always the same: a hundred jobs that are due each second, each
// at a time of its own, and end at once.
type steady struct {
	cluster *Cluster
	lab     *Lab
	verdict *verdict
	fleet   *fleet.Fleet // nil: not yet
	seconds int          // for which the jobs were due, in all

	mu     sync.Mutex // guards what follows
	starts []measure.Start
	late   []time.Duration
}

const (
	steadyPrefix  = "steady-"
	steadyJobs    = 100
	steadyWorkers = 10
	fleetSlots    = 256 // of each worker of a fleet: more than are ever in use
)

// start lets the workers come, unless they have.
func (s *steady) start(ctx context.Context) (err error) {
	if s.fleet != nil {
		return nil
	}
	s.fleet, err = fleet.Start(ctx, fleet.Config{
		Servers: s.cluster.Local.Servers(), Workers: steadyWorkers, Slots: fleetSlots, Name: "worker", Launched: s.launched,
	})
	if err != nil {
		return err
	}
	return s.fleet.AwaitOnline(ctx)
}

func (s *steady) stop() {
	if s.fleet != nil {
		s.fleet.Stop()
	}
}

// launched hears of each attempt.
func (s *steady) launched(l *agentv1.Launch, at time.Time) {
	nominal := l.GetScheduledAt().AsTime()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.starts = append(s.starts, measure.Start{Occurrence: measure.Occurrence{Job: l.GetJob(), Nominal: nominal.Unix()}, At: at})
	s.late = append(s.late, at.Sub(nominal))
}

// take returns what was launched since, and how late that was.
func (s *steady) take() ([]measure.Start, []time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	starts, late := s.starts, s.late
	s.starts, s.late = nil, nil
	return starts, late
}

// run has the jobs run for some time, and sees what that costs.
func (s *steady) run(ctx context.Context, z *size) error {
	if err := s.start(ctx); err != nil {
		return err
	}
	load := schedule{
		prefix: steadyPrefix, jobs: steadyJobs, seconds: Pick(s.lab, 60, 3), start: time.Now().Add(headStart).Truncate(time.Second),
	}
	if err := s.cluster.Put(ctx, steadyLoad(load.start, load.end())); err != nil {
		return err
	}
	if time.Now().After(load.start) {
		return errTooLate
	}
	s.take()
	done := s.fleet.Counts().Acked + int64(load.occurrences())
	before, err := s.cluster.processor()
	if err != nil {
		return err
	}
	if !until(ctx, load.end()) {
		return context.Cause(ctx)
	}
	patient, cancel := context.WithTimeout(ctx, quiet)
	defer cancel()
	// What has not come by then is missed, and told as that.
	_ = s.fleet.Await(patient, "all runs have ended", func(c fleet.Counts) bool { return c.Acked >= done })
	used, err := s.cluster.processor()
	if err != nil {
		return err
	}
	starts, late := s.take()
	if len(starts) == 0 {
		return errors.New("nothing was run")
	}
	z.runs, z.lateness, z.cost = len(starts), late, (used-before)/time.Duration(len(starts))
	s.lab.Say("%s jobs: %v for each of %s runs", count(z.jobs), z.cost, count(z.runs))
	return s.judge(ctx, load, starts)
}

// judge holds what was launched against what was due, and against the ledgers, which
// have the runs of before as well.
func (s *steady) judge(ctx context.Context, load schedule, starts []measure.Start) error {
	s.seconds += load.seconds
	proof, err := s.cluster.readLedger(ctx, schedule{prefix: load.prefix, jobs: load.jobs, seconds: s.seconds})
	if err != nil {
		return err
	}
	s.verdict.add(measure.Count(load.due(), starts), proof)
	return nil
}

// steadyLoad is the jobs, due from one second on and up to another one.
func steadyLoad(from, end time.Time) []*schedv1.Job {
	var all []*schedv1.Job
	for i := range steadyJobs {
		j := Job(jobName(steadyPrefix, i), []string{"/bin/true"}, &schedv1.Trigger{
			Id: "steady", StartTime: timestamppb.New(from), EndTime: timestamppb.New(end),
			When: &schedv1.Trigger_Every{Every: &schedv1.Every{
				Interval: durationpb.New(time.Second), Phase: durationpb.New(time.Duration(i) * time.Second / steadyJobs),
			}},
		})
		all = append(all, j)
	}
	return all
}

func (g *growing) tellMemory(r *report.Result) {
	for _, s := range g.sizes {
		if !s.memory {
			continue
		}
		name := fmt.Sprintf("primary, %s jobs", count(s.jobs))
		r.Add(name, Megabytes(s.atRest.Resident), "MB")
		r.Add(name+", pages of files in it", Megabytes(s.atRest.Files), "MB")
		r.Add(name+", at most", Megabytes(s.atRest.Peak), "MB")
	}
	r.Note("All memory of the process, a while after the last job was defined and the snapshot of that was written; at most, up to then. " +
		"Each job has a name, three labels, a cron expression with a time zone, and a program with four arguments. A million are looked at after the runs of growth, if that is measured too.")
}

func (g *growing) tellGrowth(r *report.Result) {
	var costs []time.Duration
	for _, s := range g.sizes {
		if s.runs == 0 {
			continue
		}
		costs = append(costs, s.cost)
		jobs := count(s.jobs) + " jobs"
		r.Add("cost per fire, "+jobs, float64(s.cost.Microseconds()), "µs")
		r.Add("lateness p99, "+jobs, measure.Milliseconds(measure.Quantile(s.lateness, 0.99)), "ms")
		r.Add("processor at rest, "+jobs, 100*s.resting.Seconds()/s.restedFor.Seconds(), "%")
	}
	if len(costs) > 1 {
		r.Add("cost per fire, dearest to cheapest", float64(slices.Max(costs))/float64(slices.Min(costs)), "")
	}
	if len(costs) > 0 {
		g.verdict.report(r)
	}
	r.Note(fmt.Sprintf("%d runs per second, each fired, assigned, started, finished and put on record. Cost is processor time of the primary, user and system, "+
		"between two snapshots of Raft. Workers are the bench's own, and end each run at once; lateness is that of their being told to start.", steadyJobs))
	r.Note("At rest is the time after the jobs were defined, with the snapshot that follows.")
}
