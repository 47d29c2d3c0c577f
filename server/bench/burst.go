package bench

import (
	"context"
	"fmt"

	"github.com/schedd/schedd/server/bench/measure"
	"github.com/schedd/schedd/server/bench/report"
)

var burst = Scenario{
	Name:     "burst",
	What:     "10,000 jobs that are due in the same second, each a process on one worker",
	Anywhere: true,
	Run:      runBurst,
}

func runBurst(ctx context.Context, l *Lab, r *report.Result) error {
	n := Pick(l, 10_000, 300)
	var c *Cluster
	var t trial
	bare, err := l.ForkExecAround(ctx, func(before float64) (err error) {
		if err := l.bareStarts(ctx, r, before); err != nil {
			return err
		}
		if c, err = l.Start(ctx, Setup{Primaries: 1, Workers: 1, Slots: slots}); err != nil {
			return err
		}
		l.Say("defining %d jobs", n)
		t, err = tryOnce(ctx, l, c, n, 1, 0)
		return err
	})
	if err != nil {
		return err
	}
	var v verdict
	v.add(t.Tally, t.ledger)
	v.report(r)
	r.Beside("last start after", t.Last.Sub(t.start).Seconds(), "s", "as many by bare fork and exec", float64(n)/bare)
	r.Add("start p50", measure.Quantile(t.Lateness, 0.5).Seconds(), "s")
	if c.Local != nil {
		r.Add("peak memory (primary)", Megabytes(t.after.primary.Peak), "MB")
		r.Add("memory before (primary)", Megabytes(t.before.primary.Resident), "MB")
		r.Add("peak memory (agent)", Megabytes(t.after.agent.Peak), "MB")
		r.Add("peak memory (runner)", Megabytes(t.after.runner.Peak), "MB")
	}
	c.reportCosts(r, t.before, t.after, t.Started)
	if l.Quick {
		r.Note(fmt.Sprintf("With %d jobs.", n))
	}
	return nil
}
