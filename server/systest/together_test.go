package systest

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// long makes the random story of a group longer: go test -run TestGroupChaos
// -long 48h -more 10 -timeout 0 ./server/systest.
var long = flag.Duration("long", 0, "let a group live for so long in its random story")

var overlapAllowed = policy(&schedv1.Policy{Overlap: schedv1.Overlap_OVERLAP_ALLOW})

// Three primaries, workers that came in through any of them, and people who ask
// any of them.
func TestGroup(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		for i := range 6 {
			w.startWorker(fmt.Sprint("shop-", i), nil, 4)
		}
		w.awaitOnline()
		w.does("j", talker(20*time.Second, time.Second))
		w.define(job("j", every(5*time.Second), overlapAllowed))
		w.wait(2 * time.Minute)
		gateways := map[string]bool{}
		for _, k := range must[*schedv1.ListWorkersResponse](w)(w.primary.workers.ListWorkers(w.Context(), &schedv1.ListWorkersRequest{})).GetWorkers() {
			gateways[k.GetGateway()] = true
		}
		if len(gateways) < 2 {
			w.Errorf("all workers came in through %v", gateways)
		}
		w.settle(time.Hour)
		w.checkEverywhere()
		w.all(w.runsOf("j"), phaseSucceeded)
		for _, p := range must[*schedv1.GetStatusResponse](w)(w.primary.clusters.GetStatus(w.Context(), &schedv1.GetStatusRequest{})).GetStatus().GetPrimaries() {
			if !p.GetVoter() || p.GetVersion() == "" || p.GetAppliedIndex() == 0 || p.GetRole() == schedv1.PrimaryRole_PRIMARY_ROLE_UNSPECIFIED {
				w.Errorf("of a primary the status says only %v", p)
			}
		}
	})
}

// The leader is killed. The next one fires within three seconds, and no stream of
// a gateway that lives is cut.
func TestLeaderKilled(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		for i := range 6 {
			w.startWorker(fmt.Sprint("shop-", i), nil, 10)
		}
		w.awaitOnline()
		w.does("each-second", talker(100*time.Millisecond, 0))
		w.does("long", talker(3*time.Minute, time.Second))
		w.define(job("each-second", every(time.Second), overlapAllowed))
		w.define(job("long", every(20*time.Second), overlapAllowed))
		w.wait(time.Minute)
		for range 3 {
			before := map[string]*schedv1.Worker{}
			for _, k := range w.workers {
				before[k.name] = w.known(k.name)
			}
			m := w.awaitLeader()
			m.kill()
			w.wait(15 * time.Second)
			for _, k := range w.workers {
				is, was := w.known(k.name), before[k.name]
				if was.GetGateway() != m.id && is.GetSessionEpoch() != was.GetSessionEpoch() {
					w.Errorf("the session of %s at %s was cut when %s was killed", k.name, was.GetGateway(), m.id)
				}
				if is.GetPhase() != schedv1.WorkerPhase_WORKER_PHASE_ONLINE {
					w.Errorf("%s is %v 15 s after %s was killed", k.name, is.GetPhase(), m.id)
				}
			}
			m.start()
			w.wait(30 * time.Second)
		}
		w.settle(time.Hour)
		w.checkEverywhere()
		for _, name := range []string{"each-second", "long"} {
			runs := w.runsOf(name)
			w.all(runs, phaseSucceeded)
			for _, r := range runs {
				if late := r.GetAttempts()[0].GetStartedTime().AsTime().Sub(r.GetNominalTime().AsTime()); late > 4*time.Second {
					w.Errorf("%s at %v started %v late", name, r.GetNominalTime().AsTime(), late)
				}
			}
		}
	})
}

// One primary after the other is stopped and started, under load. Nobody notices.
func TestRollingRestart(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		for i := range 8 {
			w.startWorker(fmt.Sprint("shop-", i), nil, 10)
		}
		w.awaitOnline()
		w.does("each-second", talker(100*time.Millisecond, 0))
		w.does("flood", flood(2*time.Minute, 2<<20, 200))
		w.define(job("each-second", every(time.Second), overlapAllowed))
		w.define(job("flood", every(30*time.Second), overlapAllowed))
		w.wait(time.Minute)
		for _, m := range w.group {
			m.leave()
			w.wait(2 * time.Second)
			m.start()
			w.wait(30 * time.Second)
		}
		w.wait(time.Minute)
		w.settle(time.Hour)
		w.checkEverywhere()
		w.all(w.runsOf("flood"), phaseSucceeded)
		runs := w.runsOf("each-second")
		w.all(runs, phaseSucceeded)
		for _, r := range runs {
			if late := r.GetAttempts()[0].GetStartedTime().AsTime().Sub(r.GetNominalTime().AsTime()); late > 2*time.Second {
				w.Errorf("at %v it started %v late", r.GetNominalTime().AsTime(), late)
			}
		}
	})
}

// A gateway is parted from the other primaries. Its workers come back through
// those, and what ran on them meanwhile is as if nothing had happened.
func TestGatewayCutOff(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		for i := range 6 {
			w.startWorker(fmt.Sprint("shop-", i), nil, 4)
		}
		w.awaitOnline()
		w.does("j", talker(5*time.Minute, time.Second))
		w.define(job("j", every(time.Minute), overlapAllowed))
		w.wait(3 * time.Minute)
		leader := w.awaitLeader()
		m := w.group[0]
		if m == leader {
			m = w.group[1]
		}
		m.isolate(true)
		any := w.primary
		w.primary = leader.own // a load balancer that asks /readyz would see to that
		w.wait(3 * time.Minute)
		for _, k := range w.workers {
			if is := w.known(k.name); is.GetGateway() == m.id || is.GetPhase() != schedv1.WorkerPhase_WORKER_PHASE_ONLINE {
				w.Errorf("%s is %v at %q", k.name, is.GetPhase(), is.GetGateway())
			}
		}
		w.primary = any
		m.isolate(false)
		w.wait(time.Minute)
		w.settle(time.Hour)
		w.checkEverywhere()
		w.all(w.runsOf("j"), phaseSucceeded)
	})
}

// A primary has lost its disk, run logs and all, and comes back empty. It gets
// everything from the others, and serves it when they are gone.
func TestEmptyPrimary(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		w.startWorker("shop-1", nil, 10)
		w.awaitOnline()
		w.does("j", talker(10*time.Second, time.Second))
		w.define(job("j", every(5*time.Second), overlapAllowed))
		w.wait(2 * time.Minute)
		m := w.group[1]
		m.kill()
		m.wipe()
		w.wait(time.Minute)
		m.start()
		w.settle(time.Hour)
		w.wait(time.Minute)
		runs := w.runsOf("j")
		any := w.primary
		defer func() { w.primary = any }()
		w.primary = m.own
		for _, r := range runs {
			for _, a := range w.get(r.GetId()).GetAttempts() {
				w.checkLog("after the loss of a disk, run "+r.GetId(), r, a)
			}
		}
	})
}

// Primaries are killed, stopped and parted, workers crash, are cut off, come
// back twice: for hours. In the end the ledger is complete, nothing was started
// twice, and every log is what was printed.
func TestGroupChaos(t *testing.T) {
	n, life := 2, 30*time.Minute
	if testing.Short() {
		n, life = 1, 15*time.Minute
	}
	life = cmp.Or(*long, life)
	seeds(t, n, func(w *world, dice *rand.Rand) {
		w.startGroup(3)
		for i := range 50 {
			w.startWorker(fmt.Sprint("w-", i), map[string]string{"zone": one(dice, "eu", "us")}, 4)
		}
		w.awaitOnline()
		c := &chaos{world: w, dice: dice}
		for c.n < 12 {
			c.n++
			c.define(c.anyJob(fmt.Sprint("c-", c.n)))
		}
		kills := 0
		for end := time.Now().Add(life); time.Now().Before(end); {
			time.Sleep(upTo(dice, 2*time.Minute))
			kills += c.nextTogether()
			time.Sleep(upTo(dice, time.Minute))
			c.repairTogether()
		}
		w.calm()
		w.endless()
		w.settle(3 * time.Hour)
		w.checkEverywhere()
		w.Logf("%d deaths of primaries, runs: %v", kills, count(w.runs("")))
	})
}

// nextTogether lets something happen, to a minority of the primaries at most, and
// returns how many of them it ended.
func (c *chaos) nextTogether() int {
	d := c.dice
	m, k := one(d, c.group...), one(d, c.workers...)
	if len(c.alive()) < len(c.group) && d.IntN(3) == 0 {
		return 0
	}
	whole := len(c.alive()) == len(c.group)
	switch d.IntN(10) {
	case 0, 1:
		if whole {
			m.kill()
			return 1
		}
	case 2:
		if whole {
			m.leave()
			return 1
		}
	case 3:
		if whole {
			m.isolate(true)
		}
	case 4:
		if whole {
			m.link.freeze()
		}
	case 5:
		if k.life != nil {
			k.crash()
		}
	case 6:
		k.link.cut()
	case 7:
		k.link.freeze()
	case 8:
		c.own.reset()
		k.link.reset()
	case 9:
		if leader := c.leader(); leader != nil && whole {
			leader.kill()
			return 1
		}
	}
	return 0
}

func (c *chaos) repairTogether() {
	for _, m := range c.group {
		m.isolate(false)
		m.link.mend()
		if m.server == nil && c.dice.IntN(2) == 0 {
			m.start()
		}
	}
	c.repair(false)
}
