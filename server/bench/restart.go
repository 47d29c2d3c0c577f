package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/schedd/schedd/server/bench/measure"
	"github.com/schedd/schedd/server/bench/report"
)

var restart = Scenario{
	Name: "restart",
	What: "from SIGKILL of the only primary, which is started again at once, to the next process of a job that is due each second",
	Run:  runRestart,
}

func runRestart(ctx context.Context, l *Lab, r *report.Result) error {
	c, err := l.Start(ctx, Setup{Primaries: 1, Workers: 1, Slots: slots})
	if err != nil {
		return err
	}
	b, err := startBeats(ctx, l, c)
	if err != nil {
		return err
	}
	defined, kills := 0, Pick(l, 5, 1)
	for _, jobs := range Pick(l, []int{10_000, 100_000}, []int{200, 1_000}) {
		if err := defineIdle(ctx, l, c, defined, jobs); err != nil {
			return err
		}
		defined = jobs
		var all silences
		var busy []time.Duration
		for range kills {
			s, err := b.kill(ctx, func() error { return c.Local.Primaries()[0].Kill(ctx, 0) })
			if err != nil {
				return err
			}
			used, err := c.processor()
			if err != nil {
				return err
			}
			busy = append(busy, used)
			l.Say("%v after it was killed with %s jobs; %v for any job", s.full.Round(resolution), count(jobs), s.any.Round(resolution))
			all.add(s)
			if err := c.refresh(ctx); err != nil {
				return err
			}
		}
		r.Add(fmt.Sprintf("next fire, %s jobs", count(jobs)), all.full(0.5), "s")
		r.Add(fmt.Sprintf("next fire, %s jobs, worst", count(jobs)), all.full(1), "s")
		r.Add(fmt.Sprintf("next fire of any job, %s jobs", count(jobs)), all.any(0.5), "s")
		r.Add(fmt.Sprintf("processor of the new primary until then, %s jobs", count(jobs)), measure.Quantile(busy, 0.5).Seconds(), "s")
	}
	r.Note(fmt.Sprintf("Kills at random moments: %d of each; medians. Counted is the first start of a process for an occurrence that came due after the kill: "+
		"of a job due at each full second, and of any of ten, each due at another tenth of a second.", kills))
	r.Note("The worker's agent is restarted between two kills: it would take some within a minute for a primary that can't be used, and wait longer each time.")
	return b.judge(ctx, r)
}

// refresh restarts the agents in order, so that each kill meets workers that were never
// disappointed, and returns when all can be used.
func (c *Cluster) refresh(ctx context.Context) error {
	for _, w := range c.Local.Workers() {
		if err := w.Restart(ctx); err != nil {
			return err
		}
	}
	// The primaries still know the sessions of before as open for a moment.
	if !rest(ctx, time.Second) {
		return context.Cause(ctx)
	}
	return c.ready(ctx, len(c.Local.Workers()))
}
