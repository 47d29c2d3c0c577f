package systest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/server/plan"
)

// chaos is a world in which anything may happen next.
type chaos struct {
	*world
	dice *rand.Rand
	n    int // jobs named so far
}

// one returns one of several things.
func one[T any](dice *rand.Rand, of ...T) T { return of[dice.IntN(len(of))] }

// anyProcess takes up to two minutes, and may print, fail, or not end at all.
func anyProcess(dice *rand.Rand) script {
	d := one(dice, 0, upTo(dice, time.Second), upTo(dice, 2*time.Minute))
	says := talker(d, one(dice, 0, time.Second, 7*time.Second))
	code, deaf := one(dice, 0, 0, 0, 1, 75), dice.IntN(5) == 0
	if dice.IntN(12) == 0 {
		d = -1
	}
	return func(s runner.Spec) fakerunner.Behaviour {
		b := says(s)
		b.Duration, b.ExitCode, b.IgnoreTerm = d, code, deaf
		return b
	}
}

// anyJob has some triggers, a target and a policy.
func (c *chaos) anyJob(name string) *schedv1.Job {
	d := c.dice
	j := job(name, selector(one(d, "", "", "zone=eu", "zone!=eu")), policy(&schedv1.Policy{
		Overlap:       one(d, schedv1.Overlap_OVERLAP_ALLOW, schedv1.Overlap_OVERLAP_SKIP, schedv1.Overlap_OVERLAP_QUEUE, schedv1.Overlap_OVERLAP_REPLACE),
		MaxConcurrent: uint32(1 + d.IntN(3)),
		CatchUp:       schedv1.CatchUp(d.IntN(4)),
		CatchUpWindow: seconds(float64(d.IntN(3600))),
		Timeout:       one(d, nil, seconds(100)),
		KillGrace:     seconds(float64(d.IntN(20))),
		QueueTimeout:  one(d, nil, seconds(120)),
		StartWithin:   one(d, nil, seconds(30)),
		OnLost:        one(d, schedv1.OnLost_ON_LOST_FAIL, schedv1.OnLost_ON_LOST_RETRY, schedv1.OnLost_ON_LOST_WAIT),
		LostAfter:     one(d, nil, seconds(60)),
		TotalTimeout:  one(d, nil, nil, seconds(float64(60+d.IntN(240)))),
		Retry: one(d, nil, &schedv1.Retry{
			MaxAttempts: uint32(2 + d.IntN(3)), InitialDelay: seconds(float64(1 + d.IntN(20))),
			Multiplier: one(d, 0, 1, 1.5), MaxDelay: one(d, nil, seconds(30)), ExitCodes: one(d, nil, nil, []int32{75}),
		}),
	}))
	c.anyTriggers(j)
	c.does(name, anyProcess(d))
	if c.n%3 == 0 || c.needsLeases[name] {
		c.leased(name, j)
	}
	return j
}

// leased has attempts of a job need leases, and be made again when they are lost. It
// rolls no dice, so that all else is as it would be without.
func (c *chaos) leased(name string, j *schedv1.Job) {
	p, n := j.GetPolicy(), len(name)+len(c.put[name])
	p.KillAfter = []*durationpb.Duration{seconds(30), seconds(60), seconds(120)}[n%3]
	p.LostAfter, p.OnLost = nil, onLostRetry
	if n%2 == 0 {
		p.LostAfter = durationpb.New(max(time.Minute, plan.LeastLostAfter(p.GetKillAfter().AsDuration(), p.GetKillGrace().AsDuration())))
	}
	c.world.leased(j)
}

// leaseEnds counts how attempts ended that needed leases.
func (c *chaos) leaseEnds() map[string]int {
	c.Helper()
	n := map[string]int{}
	for _, r := range c.runs("") {
		if !c.needsLeases[r.GetJob()] {
			continue
		}
		for _, a := range r.GetAttempts() {
			n[strings.TrimPrefix(a.GetOutcome().String(), "OUTCOME_")]++
			if a.GetLateResult() != 0 {
				n["late "+strings.TrimPrefix(a.GetLateResult().String(), "OUTCOME_")]++
			}
		}
	}
	return n
}

// redefine changes a job, if all primaries are known to be able to have it: a leader
// that has not heard of one of them yet, or has heard that it is older, refuses what the first
// version did not know. Whoever calls may know of more that is no fault.
func (c *chaos) redefine(j *schedv1.Job, mayBe func(error) bool) {
	c.Helper()
	switch _, err := c.putJob(j); {
	case err == nil:
	case mayBe(err):
	case c.needsLeases[j.GetName()] && strings.Contains(err.Error(), "has not told its level"):
	case c.needsLeases[j.GetName()] && c.mayBeOlder() && strings.Contains(err.Error(), "upgrade it first"):
	default:
		c.Fatalf("the API refused: %v", err)
	}
}

// next lets something happen.
func (c *chaos) next() {
	d := c.dice
	k := one(d, c.workers...)
	jobs := c.jobs()
	switch d.IntN(15) {
	case 0, 1:
		c.restart(one(d, 0, upTo(d, time.Minute), upTo(d, 10*time.Minute)))
	case 2:
		if one(d, true, false) {
			c.primary.stop() // and killed while it stops
			time.Sleep(upTo(d, 50*time.Millisecond))
			c.killPrimary()
		} else {
			c.stopPrimary()
		}
		time.Sleep(upTo(d, time.Minute))
		c.startPrimary()
	case 3:
		if k.life != nil {
			k.crash()
		}
	case 4:
		if k.life != nil {
			k.end()
		}
	case 5:
		k.link.cut()
	case 6:
		k.link.freeze()
	case 7:
		k.link.reset()
	case 8:
		c.n++
		c.define(c.anyJob(fmt.Sprint("c-", c.n)))
	case 9:
		if len(jobs) > 3 {
			c.deleteJob(one(d, jobs...).GetName())
		}
	case 10:
		c.redefine(c.anyJob(one(d, jobs...).GetName()), func(error) bool { return false })
	case 11:
		name := one(d, jobs...).GetName()
		if one(d, true, false) {
			c.pause(name, "", one(d, nil, stamp(time.Now().Add(time.Second+upTo(d, 10*time.Minute)))))
		} else {
			c.resume(name)
		}
	case 12:
		if active := c.runs("active=true"); len(active) > 0 {
			_, _ = c.cancelRun(one(d, active...).GetId()) // it may have ended
		}
	case 14:
		k.host.Die() // with an agent or without
	case 13:
		_, _ = c.runJob(&schedv1.RunJobRequest{Name: one(d, jobs...).GetName()}) // overlap may forbid it
	}
}

// look checks what must hold at any moment: who waits knows why, and every ledger
// is in order.
func (c *chaos) look() {
	c.Helper()
	for _, r := range c.runs("phase=PHASE_PENDING") {
		if r.GetReason() == "" {
			c.Errorf("run %s of %s waits, and nobody knows why", r.GetId(), r.GetJob())
		}
	}
	for _, j := range c.jobs() {
		c.verdicts(j.GetName())
	}
}

// repair brings back some of what is gone.
func (c *chaos) repair(all bool) {
	for _, k := range c.workers {
		if !all && c.dice.IntN(3) > 0 {
			continue
		}
		k.link.mend()
		if k.life == nil {
			k.start()
		}
	}
}

// Anything happens at any time: to the primary, to workers, to links, to jobs.
// Whatever becomes of the runs, the promises hold.
func TestChaos(t *testing.T) {
	n := 8
	if testing.Short() {
		n = 3
	}
	seeds(t, n, func(w *world, dice *rand.Rand) {
		c := &chaos{world: w, dice: dice}
		w.startPrimary()
		w.startWorker("a", map[string]string{"zone": "eu"}, 6)
		w.startWorker("b", map[string]string{"zone": "us"}, 6)
		w.startWorker("c", nil, 3)
		w.awaitOnline()
		w.slow(dice)
		for c.n < 8 {
			c.n++
			c.define(c.anyJob(fmt.Sprint("c-", c.n)))
		}
		for end := time.Now().Add(time.Hour); time.Now().Before(end); {
			time.Sleep(upTo(dice, 90*time.Second))
			c.next()
			c.look()
			c.repair(false)
		}
		c.repair(true)
		w.swift()
		w.awaitOnline()
		w.endless()
		w.settle(3 * time.Hour)
		w.checkAll()
		w.Logf("%d lives of the primary, runs: %v; attempts that needed leases: %v", len(w.outages)+1, count(w.runs("")), c.leaseEnds())
	})
}

// endless cancels what would not end by itself.
func (w *world) endless() {
	w.Helper()
	for _, j := range w.jobs() {
		w.pause(j.GetName(), "", nil)
	}
	w.wait(10 * time.Minute)
	for range 12 {
		active := w.runs("active=true")
		if len(active) == 0 {
			break
		}
		for _, r := range active {
			_, _ = w.cancelRun(r.GetId()) // it may have ended
		}
		w.wait(5 * time.Minute)
	}
	// Nobody can cancel a run that was lost. Its process may come to its end, and
	// if it has none then somebody has to log in there.
	for _, k := range w.workers {
		for _, id := range k.host.Running() {
			k.host.End(id)
		}
	}
	w.wait(time.Minute)
}
