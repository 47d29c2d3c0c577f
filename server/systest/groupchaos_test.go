package systest

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Anything happens to three primaries and 50 workers. In the end the ledger is
// complete, nothing was started twice, every log is what was printed, nobody was
// told what is not so, and what had ended stayed as it was.
func TestGroupChaos(t *testing.T) {
	life := 30 * time.Minute
	if testing.Short() {
		life = 15 * time.Minute
	}
	life = cmp.Or(*long, life)
	seeds(t, 1, func(w *world, dice *rand.Rand) {
		c := newGroupChaos(w, dice, 3, 45, 5, 12)
		c.live(life, 0)
		c.judge()
	})
}

// A burst of faults in a long life lasts that long.
const (
	burstLeast = 3 * time.Minute
	burstMost  = 12 * time.Minute
)

// groupChaos is a group in which anything may happen next.
type groupChaos struct {
	chaos
	did    map[string]int // how often each thing happened
	with   map[string]int // and how often so that it was worse
	ails   map[*member]ailment
	unsure map[string]doubt   // jobs that were changed, or not: nobody knows
	cloned map[string]*worker // copies that run, by the worker
	people *witnesses
	young  map[string]int // goroutines, when nothing had happened yet
	born   int            // how many primaries there were then
	joined int            // how many have joined since
	copies bool           // some logs may have one copy only: no primary may lose its disk
}

// newGroupChaos starts a group, and workers of both kinds, with jobs for them.
func newGroupChaos(w *world, dice *rand.Rand, primaries, workers, direct, jobs int) *groupChaos {
	w.startGroup(primaries)
	for i := range workers {
		w.startWorker(fmt.Sprint("w-", i), map[string]string{"zone": one(dice, "eu", "us")}, 4)
	}
	for i := range direct {
		w.startDirectWorker(fmt.Sprint("vault-", i), map[string]string{"zone": one(dice, "eu", "us")}, 4)
	}
	w.awaitOnline()
	c := &groupChaos{chaos: chaos{world: w, dice: dice}, did: map[string]int{}, with: map[string]int{}, ails: map[*member]ailment{}, born: primaries, unsure: map[string]doubt{}}
	for c.n < jobs {
		c.n++
		c.begin(c.anyJob(fmt.Sprint("c-", c.n)))
	}
	c.checkHealed() // there is nothing to heal, and each primary is asked for the first time
	c.young = c.goroutines()
	return c
}

// live lets things happen for so long: now and then much at a time, and between that
// nothing but ordinary life, for up to quiet.
func (c *groupChaos) live(life, quiet time.Duration) {
	c.people = c.watchWrites(c.dice, 4)
	for end := time.Now().Add(life); time.Now().Before(end); {
		bad := burstLeast + upTo(c.dice, burstMost-burstLeast)
		if quiet == 0 {
			bad = life
		}
		c.burst(min(bad, time.Until(end)))
		if quiet > 0 {
			c.heal()
			c.shrink() // else it would cost half as much again for the rest of the world's life
			if c.older && c.dice.IntN(2) == 0 {
				c.renew()
			}
			c.night(upTo(c.dice, quiet))
		}
	}
	c.people.check()
}

// night is ordinary life for so long, in which people do little, and most jobs are
// paused.
func (c *groupChaos) night(d time.Duration) {
	c.Helper()
	c.people.rest(true)
	var paused []string
	for n := range c.n {
		if name := fmt.Sprint("c-", 1+n); c.dice.IntN(4) > 0 && c.asked.jobs[name] != nil {
			c.pause(name, "for the night", nil)
			paused = append(paused, name)
		}
	}
	time.Sleep(d)
	c.finality()
	for _, name := range paused {
		c.resume(name)
	}
	c.people.rest(false)
}

// burst lets something happen each minute, on average, for so long, and now and then two
// things at once. What hurts is mended bit by bit, so that much is broken at the same time.
func (c *groupChaos) burst(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(upTo(c.dice, time.Minute))
		for range one(c.dice, 1, 1, 2) {
			c.next()
		}
		c.weather(upTo(c.dice, time.Minute))
		c.repair()
		if c.decides() {
			c.finality()
		}
	}
}

// heal mends all, and holds what is against what should be.
func (c *groupChaos) heal() {
	c.Helper()
	c.unclone()
	c.mend()
	clear(c.ails)
	if !c.trustsLogs() {
		c.checkAgreed()
		c.awaitLogs()
	}
	c.checkHealed()
	c.learn()
	if c.copies {
		c.awaitCopies()
	}
}

// judge mends everything, and holds the promises against what happened.
func (c *groupChaos) judge() {
	c.Helper()
	c.heal()
	c.shrink()
	c.renew()
	c.calm()
	c.endless()
	c.settle(3 * time.Hour)
	c.checkKeeps()
	c.askAgain()
	c.finality()
	c.checkEverywhere()
	c.checkGoroutines(c.young)
	late, lost := c.net.holdUps()
	c.Logf("measured: faults: %v; of them so that %v; %d pieces came late, %d were lost with their connection; %d entries and %d bytes went with the power",
		c.did, c.with, late, lost, c.lostEntries, c.lostBytes)
	c.Logf("runs: %v; attempts that needed leases: %v", count(c.runs("")), c.leaseEnds())
}

// next lets something happen.
func (c *groupChaos) next() {
	things := c.toWorkers()
	if c.decides() {
		maps.Copy(things, c.toJobs())
	}
	if len(c.ails) == 0 {
		maps.Copy(things, c.toGroup())
	}
	if c.decides() {
		maps.Copy(things, c.toMembers())
	}
	if m := c.nextToAil(); m != nil {
		maps.Copy(things, c.toPrimary(m))
	}
	what := one(c.dice, slices.Sorted(maps.Keys(things))...)
	c.did[what]++
	c.log.Info("chaos", "what", what)
	things[what]()
}

// faults counts what happened.
func (c *groupChaos) faults() (n int) {
	for _, times := range c.did {
		n += times
	}
	return n
}

// anyStep is by how much a clock is set: by a moment, by more than primaries bear of
// each other, or by an hour.
func (c *groupChaos) anyStep() time.Duration {
	return one(c.dice, -time.Hour, -2500*time.Millisecond, -time.Second, time.Second, 2500*time.Millisecond, time.Hour)
}

// finality looks at what has ended, if anybody answers while primaries ail. One that was
// just cured may not have come to what the others have, and says to ask another.
func (c *groupChaos) finality() {
	c.Helper()
	runs, incomplete, err := c.list("")
	for _, m := range c.well() {
		if status.Code(err) != codes.Unavailable {
			break
		}
		back := c.ask(m)
		runs, incomplete, err = c.list("")
		back()
	}
	switch {
	case err == nil:
		c.checkFinality(runs, incomplete == "")
	case len(c.ails) == 0:
		c.Fatalf("the API refused: %v", err)
	}
}

// copyOf starts a copy of a worker beside it.
func (c *groupChaos) copyOf(k *worker) {
	if k.life == nil || len(c.cloned) > 0 || k.config.DirectListen != "" {
		return
	}
	k.end()
	if len(k.host.Running()) > 0 || len(k.spooled()) > 0 {
		k.start() // twins that both know of an attempt tell different ends of it, and neither lies
		return
	}
	clone := k.clone(fmt.Sprint(k.name, "-copy-", c.did["a worker is cloned"]))
	c.cloned = map[string]*worker{k.name: clone}
	k.start()
	clone.start()
}

// unclone ends the copy of a worker for good.
func (c *groupChaos) unclone() {
	for _, k := range c.cloned {
		if k.life != nil {
			k.end()
		}
		c.gone[k.name] = true
		c.workers = slices.DeleteFunc(c.workers, func(o *worker) bool { return o == k })
		c.Cleanup(k.host.Close)
	}
	c.cloned = nil
}

// repair mends what primaries have had for long enough, and some of the rest.
func (c *groupChaos) repair() {
	for _, m := range c.group {
		if a, ails := c.ails[m]; ails && !time.Now().Before(a.until) {
			c.cure(m)
		}
	}
	for _, k := range c.workers {
		if c.dice.IntN(2) == 0 {
			k.resume()
			c.net.free(func(w way) bool { return w.from == k.name || w.to == k.name })
			k.files.free()
			k.host.SetUnable(nil)
		}
	}
	if c.dice.IntN(4) == 0 {
		c.unclone()
	}
	c.chaos.repair(false)
}
