package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/server/bench/measure"
	"github.com/schedd/schedd/server/bench/report"
)

// beats are ten jobs that are due once a second, each at another tenth of it, so that
// one sees when nothing is started any more. Their processes write down when they began.
type beats struct {
	cluster *Cluster
	effects *effects
	start   time.Time
}

// beatJobs is how many jobs there are, and fullBeat the first of them, which is due at
// full seconds.
const (
	beatJobs   = 10
	beatPrefix = "beat-"
	fullBeat   = beatPrefix + "0"
)

// beatLead is how long before the first and the last instant the jobs are defined.
const beatLead = 5 * time.Second

// beatPhase is how long after each full second a job is due.
func beatPhase(i int) time.Duration { return time.Duration(i) * time.Second / beatJobs }

// startBeats defines the jobs, and returns when all of them were seen.
func startBeats(ctx context.Context, l *Lab, c *Cluster) (*beats, error) {
	e, err := l.newEffects("beats")
	if err != nil {
		return nil, err
	}
	b := &beats{cluster: c, effects: e, start: time.Now().Add(beatLead).Truncate(time.Second)}
	if err := b.put(ctx, time.Time{}, b.start); err != nil {
		return nil, err
	}
	return b, b.await(ctx, "all ten jobs were started", func(starts []measure.Start) bool {
		seen := map[string]bool{}
		for _, s := range starts {
			seen[s.Job] = true
		}
		return len(seen) == beatJobs
	})
}

// jobs are due from a second on, and up to another one if that is given.
func (b *beats) jobs(end time.Time) []*schedv1.Job {
	var all []*schedv1.Job
	for i := range beatJobs {
		t := &schedv1.Trigger{Id: "beat", StartTime: timestamppb.New(b.start)}
		if i == 0 {
			t.When = &schedv1.Trigger_Cron{Cron: &schedv1.Cron{Expression: "* * * * * *"}}
		} else {
			t.When = &schedv1.Trigger_Every{Every: &schedv1.Every{Interval: durationpb.New(time.Second), Phase: durationpb.New(beatPhase(i))}}
		}
		if !end.IsZero() {
			t.EndTime = timestamppb.New(end)
		}
		all = append(all, Job(jobName(beatPrefix, i), b.effects.argv(), t))
	}
	return all
}

// put defines the jobs, before an instant.
func (b *beats) put(ctx context.Context, end, before time.Time) error {
	if err := b.cluster.Put(ctx, b.jobs(end)); err != nil {
		return err
	}
	if time.Now().After(before) {
		return errTooLate
	}
	return nil
}

// await reads what is written down until that is enough.
func (b *beats) await(ctx context.Context, what string, enough func([]measure.Start) bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		starts, err := b.effects.starts()
		if err != nil {
			return err
		}
		if enough(starts) {
			return nil
		}
		if !rest(ctx, lookAgain) {
			return fmt.Errorf("wait until %s: %w", what, context.Cause(ctx))
		}
	}
}

// silence is how long after a kill the first process began for an occurrence that came
// due after it: of the job that is due at full seconds, and of any.
type silence struct{ full, any time.Duration }

// silenceAfter returns the silence after a kill, and whether it is over.
func silenceAfter(kill time.Time, starts []measure.Start) (s silence, over bool) {
	due := map[string]time.Duration{}
	for i := range beatJobs {
		due[jobName(beatPrefix, i)] = beatPhase(i)
	}
	shorter := func(to *time.Duration, gap time.Duration) {
		if *to == 0 || gap < *to {
			*to = gap
		}
	}
	for _, b := range starts {
		if time.Unix(b.Nominal, int64(due[b.Job])).Before(kill) {
			continue
		}
		shorter(&s.any, b.At.Sub(kill))
		if b.Job == fullBeat {
			shorter(&s.full, b.At.Sub(kill))
		}
	}
	return s, s.full > 0
}

// kill kills at a random moment, and returns the silence after it.
func (b *beats) kill(ctx context.Context, kill func() error) (s silence, err error) {
	if !rest(ctx, rand.N(time.Second)) {
		return s, context.Cause(ctx)
	}
	at := time.Now()
	if err := kill(); err != nil {
		return s, err
	}
	err = b.await(ctx, "something is started after a kill", func(starts []measure.Start) (over bool) {
		s, over = silenceAfter(at, starts)
		return over
	})
	return s, err
}

// silences are those after several kills.
type silences struct{ fulls, anys []time.Duration }

func (a *silences) add(s silence) { a.fulls, a.anys = append(a.fulls, s.full), append(a.anys, s.any) }

func (a *silences) full(q float64) float64 { return measure.Quantile(a.fulls, q).Seconds() }
func (a *silences) any(q float64) float64  { return measure.Quantile(a.anys, q).Seconds() }

// judge has the jobs end, and adds what was missed and what was started twice: by what
// the processes wrote down, and by the ledgers.
func (b *beats) judge(ctx context.Context, r *report.Result) error {
	end := time.Now().Add(beatLead).Truncate(time.Second)
	if err := b.put(ctx, end, end); err != nil {
		return err
	}
	s := schedule{prefix: beatPrefix, jobs: beatJobs, start: b.start, seconds: int(end.Sub(b.start) / time.Second)}
	t, err := b.cluster.carry(ctx, s, b.effects)
	if err != nil {
		return err
	}
	proof, err := b.cluster.readLedger(ctx, s)
	if err != nil {
		return err
	}
	var v verdict
	v.add(t, proof)
	v.report(r)
	r.Note(fmt.Sprintf("%s occurrences were due, and processes of %s of them wrote down that they began.", count(t.Due), count(t.Started)))
	return nil
}
