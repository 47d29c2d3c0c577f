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
	What:     "the most jobs each second whose processes begin on one worker, 99 of 100 less than 0.5 s late, none missed, none twice",
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
	bare float64 // how many programs the machine started per second around it
	schedule
	measure.Tally
	ledger
	before, after costs
}

// inTime tells whether the load was carried.
func (t trial) inTime() bool {
	return t.Missed == 0 && t.Twice == 0 && measure.Quantile(t.Lateness, 0.99) < mostLate
}

// spreads are over how much of the second the jobs are due: all at once, or each by its
// own jitter. What is due at once can't all begin within half a second if it takes the
// machine longer to start it.
var spreads = []struct {
	suffix string
	jitter time.Duration
}{{"", 0}, {", spread", time.Second}}

func runSustain(ctx context.Context, l *Lab, r *report.Result) error {
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
	var v verdict
	for _, spread := range spreads {
		found, best, err := mostSustained(ctx, l, c, int(firstGuess*bare), spread.jitter, &v)
		if err != nil {
			return err
		}
		if best.bare == 0 { // none was worth a trial of the whole length
			best.bare = bare
		}
		r.Beside("jobs each second"+spread.suffix, float64(found), "/s", "bare fork and exec", best.bare)
		r.Add("lateness p50"+spread.suffix, measure.Milliseconds(measure.Quantile(best.Lateness, 0.5)), "ms")
		r.Add("lateness p99"+spread.suffix, measure.Milliseconds(measure.Quantile(best.Lateness, 0.99)), "ms")
		r.Add("lateness, most"+spread.suffix, measure.Milliseconds(measure.Quantile(best.Lateness, 1)), "ms")
		if found == 0 {
			r.Note(fmt.Sprintf("jobs each second%s: none were carried in time over the whole length; the other figures are those of %d.", spread.suffix, best.jobs))
		}
		if spread.jitter > 0 {
			c.reportCosts(r, best.before, best.after, best.Started)
		}
	}
	v.report(r)
	r.Note("Lateness is told up to 10 ms too long: a process reads " + uptime + ", which shows hundredths of a second.")
	r.Note("Spread: each job has a jitter of 1 s, and its lateness counts from when it is due by that. Else all are due at once, and half of the bare rate is the most that could begin within half a second.")
	return nil
}

// mostSustained looks for the largest number of jobs that are carried. It returns that, 0
// if none, and the last trial, which carried it.
func mostSustained(ctx context.Context, l *Lab, c *Cluster, guess int, jitter time.Duration, v *verdict) (found int, last trial, err error) {
	search := measure.NewSearch(guess, Pick(l, 12, 3), Pick(l, 5, 2))
	for n, full, ok := search.Next(); ok; n, full, ok = search.Next() {
		seconds := Pick(l, 10, 3)
		if full {
			seconds = Pick(l, 60, 5)
		}
		once := func(float64) (err error) { last, err = tryOnce(ctx, l, c, n, seconds, jitter); return err }
		if full {
			last.bare, err = l.ForkExecAround(ctx, once)
		} else {
			err = once(0)
		}
		if err != nil {
			return 0, last, err
		}
		v.add(last.Tally, last.ledger)
		search.Tell(last.inTime())
		l.Say("%d jobs for %d s, jitter %v: %d missed, %d twice, late p50 %v, p99 %v", n, seconds, jitter, last.Missed, last.Twice,
			measure.Quantile(last.Lateness, 0.5).Round(time.Millisecond), measure.Quantile(last.Lateness, 0.99).Round(time.Millisecond))
	}
	return search.Found(), last, nil
}

// tryOnce has n jobs due each second, for some seconds.
func tryOnce(ctx context.Context, l *Lab, c *Cluster, n, seconds int, jitter time.Duration) (t trial, err error) {
	s, e, err := l.plan(ctx, c, n, seconds, jitter)
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
