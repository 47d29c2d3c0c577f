package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/schedd/schedd/server/bench/measure"
	"github.com/schedd/schedd/server/bench/report"
)

var burst = Scenario{
	Name:     "burst",
	What:     "10,000 jobs that are due in the same second, each a process on one worker",
	Anywhere: true,
	Run:      runBurst,
}

func runBurst(ctx context.Context, l *Lab, r *report.Result) (err error) {
	n := Pick(l, 10_000, 300)
	bare, err := l.ForkExec(ctx)
	if err != nil {
		return err
	}
	if err := l.bareStarts(ctx, r, bare); err != nil {
		return err
	}
	c, err := l.Start(ctx, Setup{Primaries: 1, Workers: 1, Slots: slots})
	if err != nil {
		return err
	}
	l.Say("defining %d jobs", n)
	s, e, err := l.plan(ctx, c, n, 1, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Remove(ctx, jobNames(s.prefix, n))) }()
	before, err := c.costs()
	if err != nil {
		return err
	}
	l.Say("they are due at %s", s.start.Format(time.TimeOnly))
	t, err := c.carry(ctx, s, e)
	if err != nil {
		return err
	}
	after, err := c.costs()
	if err != nil {
		return err
	}
	proof, err := c.readLedger(ctx, s)
	if err != nil {
		return err
	}
	var v verdict
	v.add(t, proof)
	v.report(r)
	r.Beside("last start after", t.Last.Sub(s.start).Seconds(), "s", "as many by bare fork and exec", float64(n)/bare)
	r.Add("start p50", measure.Quantile(t.Lateness, 0.5).Seconds(), "s")
	if c.Local != nil {
		r.Add("peak memory (primary)", Megabytes(after.primary.Peak), "MB")
		r.Add("memory before (primary)", Megabytes(before.primary.Resident), "MB")
		r.Add("peak memory (agent)", Megabytes(after.agent.Peak), "MB")
		r.Add("peak memory (runner)", Megabytes(after.runner.Peak), "MB")
	}
	c.reportCosts(r, before, after, t.Started)
	if l.Quick {
		r.Note(fmt.Sprintf("With %d jobs.", n))
	}
	return c.crashed()
}
