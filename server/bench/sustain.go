package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/schedd/schedd/server/bench/measure"
	"github.com/schedd/schedd/server/bench/report"
)

var sustain = Scenario{
	Name:     "sustain",
	What:     "most jobs that can be due each second, each starting a process on one worker: none missed, none twice, 99 of 100 less than 0.5 s late",
	Anywhere: true,
	Run:      runSustain,
}

// mostLate is how late 99 of 100 processes may begin.
const mostLate = 500 * time.Millisecond

// slots is how many runs the worker takes at once: more than the machine can do, so that
// it is never idle for want of one.
const slots = 64

// firstGuess is with which share of the bare rate the search begins.
const firstGuess = 0.3

// trial is one schedule that was carried out.
type trial struct {
	schedule
	measure.Tally
	ledger
	before, after costs
}

// inTime tells whether the load was carried.
func (t trial) inTime() bool {
	return t.Missed == 0 && t.Twice == 0 && measure.Quantile(t.Lateness, 0.99) < mostLate
}

func runSustain(ctx context.Context, l *Lab, r *report.Result) error {
	bare, err := l.ForkExec(ctx)
	if err != nil {
		return err
	}
	c, err := l.Start(ctx, Setup{Primaries: 1, Workers: 1, Slots: slots})
	if err != nil {
		return err
	}
	var v verdict
	var found trial // in the end the one that was carried at full length
	search := measure.NewSearch(int(firstGuess*bare), Pick(l, 12, 3), Pick(l, 5, 2))
	for n, full, ok := search.Next(); ok; n, full, ok = search.Next() {
		seconds := Pick(l, 10, 3)
		if full {
			seconds = Pick(l, 60, 5)
		}
		t, err := sustainOnce(ctx, l, c, n, seconds)
		if err != nil {
			return err
		}
		v.add(t.Tally, t.ledger)
		search.Tell(t.inTime())
		l.Say("%d jobs for %d s: %d missed, %d twice, late p50 %v, p99 %v", n, seconds, t.Missed, t.Twice,
			measure.Quantile(t.Lateness, 0.5).Round(time.Millisecond), measure.Quantile(t.Lateness, 0.99).Round(time.Millisecond))
		found = t
	}
	v.report(r)
	if search.Found() == 0 {
		r.Note(fmt.Sprintf("No load was carried in time over its whole length; the figures below are those of %d jobs.", found.jobs))
	}
	r.Beside("jobs each second", float64(search.Found()), "/s", "bare fork and exec", bare)
	r.Add("lateness p50", measure.Milliseconds(measure.Quantile(found.Lateness, 0.5)), "ms")
	r.Add("lateness p99", measure.Milliseconds(measure.Quantile(found.Lateness, 0.99)), "ms")
	r.Add("lateness, latest", measure.Milliseconds(measure.Quantile(found.Lateness, 1)), "ms")
	c.reportCosts(r, found.before, found.after, found.Started)
	r.Note("Lateness is told up to 10 ms too long: a process reads " + uptime + ", which shows hundredths of a second.")
	return nil
}

// sustainOnce has n jobs due each second, for some seconds.
func sustainOnce(ctx context.Context, l *Lab, c *Cluster, n, seconds int) (t trial, err error) {
	s, e, err := l.plan(ctx, c, n, seconds)
	if err != nil {
		return t, err
	}
	t.schedule = s
	defer func() { err = errors.Join(err, c.Remove(ctx, jobNames(t.prefix, n))) }()
	if t.before, err = c.costs(); err != nil {
		return t, err
	}
	if t.Tally, err = c.carry(ctx, t.schedule, e); err != nil {
		return t, err
	}
	if t.after, err = c.costs(); err != nil {
		return t, err
	}
	if t.ledger, err = c.readLedger(ctx, t.schedule); err != nil {
		return t, err
	}
	return t, errors.Join(c.crashed(), os.Remove(e.name))
}
