package systest

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
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
	did    map[string]int     // how often each thing happened
	cloned map[string]*worker // copies that run, by the worker
	final  map[string]string  // how runs ended
	people *witnesses
	young  map[string]int // goroutines, when nothing had happened yet
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
	c := &groupChaos{chaos: chaos{world: w, dice: dice}, did: map[string]int{}, final: map[string]string{}}
	for c.n < jobs {
		c.n++
		c.define(c.anyJob(fmt.Sprint("c-", c.n)))
	}
	c.wait(time.Minute)
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
		if name := fmt.Sprint("c-", 1+n); c.dice.IntN(4) > 0 {
			must[*schedv1.PauseJobResponse](c.world)(c.primary.jobs.PauseJob(c.Context(), &schedv1.PauseJobRequest{Name: name, Note: "for the night"}))
			paused = append(paused, name)
		}
	}
	time.Sleep(d)
	c.finality()
	for _, name := range paused {
		must[*schedv1.ResumeJobResponse](c.world)(c.primary.jobs.ResumeJob(c.Context(), &schedv1.ResumeJobRequest{Name: name}))
	}
	c.people.rest(false)
}

// burst lets something happen each minute, on average, for so long. What hurts is
// mended bit by bit, so that much is broken at the same time.
func (c *groupChaos) burst(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(upTo(c.dice, time.Minute))
		c.next()
		time.Sleep(upTo(c.dice, time.Minute))
		c.repair()
		c.finality()
	}
}

// heal mends all, and holds what is against what should be.
func (c *groupChaos) heal() {
	c.Helper()
	c.unclone()
	c.mend()
	c.checkHealed()
}

// judge mends everything, and holds the promises against what happened.
func (c *groupChaos) judge() {
	c.Helper()
	c.heal()
	c.calm()
	c.endless()
	c.settle(3 * time.Hour)
	c.finality()
	c.checkEverywhere()
	c.checkGoroutines(c.young)
	c.Logf("%v; runs: %v; attempts that needed leases: %v", c.did, count(c.runs("")), c.leaseEnds())
}

// next lets something happen. Of the primaries it is a minority that suffers at a
// time: more is another story, in which nobody decides.
func (c *groupChaos) next() {
	things := c.toWorkers()
	if len(c.alive()) == len(c.group) {
		maps.Copy(things, c.toPrimaries())
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

// toPrimaries is what can happen to a group that is whole.
func (c *groupChaos) toPrimaries() map[string]func() {
	d := c.dice
	i := d.IntN(len(c.group))
	m, o := c.group[i], c.group[(i+1)%len(c.group)]
	return map[string]func(){
		"a primary is killed":            m.kill,
		"a primary is stopped":           m.leave,
		"the leader is killed":           func() { c.awaitLeader().kill() },
		"a primary is cut off":           func() { m.isolate(true) },
		"two primaries are parted":       func() { c.net.part(m.id, o.id, true) },
		"a primary's connections freeze": m.link.freeze,
		"a primary is heard by nobody": func() {
			for _, o := range c.group {
				c.net.mute(way{m.id, o.id})
			}
		},
		"a primary hears nobody": func() {
			for _, o := range c.group {
				c.net.mute(way{o.id, m.id})
			}
		},
		"two primaries don't hear each other": func() {
			c.net.mute(way{m.id, o.id})
			c.net.mute(way{o.id, m.id})
		},
		"the leadership is handed over": func() {
			_, _ = c.primary.clusters.TransferLeadership(c.Context(), &schedv1.TransferLeadershipRequest{Id: m.id}) // it may be behind
		},
		"a primary is replaced by an empty one": func() { c.replace(m) },
		"a primary's disk is slow":              func() { c.hinder(m) },
		"a primary is suspended":                m.suspend,
		"a primary's clock is set":              func() { m.clock.step(c.anyStep()) },
		"a primary's disk is full":              func() { m.disk.Fail(syscall.ENOSPC) },
		"a primary is killed amid writes":       func() { c.tornLogs(m) },
		"the power fails":                       c.blackout,
		"all primaries are upgraded":            c.upgrade,
	}
}

// hinder has each write of a primary's disk take most of a second, until repair.
func (c *groupChaos) hinder(m *member) {
	dice := rand.New(rand.NewPCG(c.dice.Uint64(), 0)) // who uses it next is not up to the seed
	var mu sync.Mutex
	m.disk.BeforeWrite(func() {
		mu.Lock()
		d := upTo(dice, 700*time.Millisecond)
		mu.Unlock()
		time.Sleep(d)
	})
}

// blackout kills all primaries at once, and starts them after a while.
func (c *groupChaos) blackout() {
	for _, m := range c.group {
		m.kill()
	}
	time.Sleep(upTo(c.dice, 5*time.Minute))
	for _, m := range c.group {
		m.start()
		time.Sleep(upTo(c.dice, 5*time.Second))
	}
	c.awaitLeader()
}

// upgrade restarts one primary after the other.
func (c *groupChaos) upgrade() {
	for _, m := range c.group {
		m.leave()
		time.Sleep(upTo(c.dice, 5*time.Second))
		m.start()
		time.Sleep(10*time.Second + upTo(c.dice, 20*time.Second))
	}
}

// toWorkers is what can happen to workers, jobs and people.
func (c *groupChaos) toWorkers() map[string]func() {
	d := c.dice
	m, k := one(d, c.group...), one(d, c.workers...)
	return map[string]func(){
		"a worker crashes": func() {
			if k.life != nil {
				k.crash()
			}
		},
		"a worker crashes amid writes": func() { c.tornJournal(k) },
		"a worker stops": func() {
			if k.life != nil {
				k.end()
			}
		},
		"a worker is cut off":           k.link.cut,
		"a worker's connection freezes": k.link.freeze,
		"a worker hears nothing":        func() { c.net.mute(way{m.id, k.name}) },
		"a worker is heard by nobody":   func() { c.net.mute(way{k.name, m.id}) },
		"connections break": func() {
			c.own.reset()
			k.link.reset()
		},
		// Its timers go on, as no bubble can halt some alone: what is late for it is so by the
		// clock that counts a suspend.
		"a worker is suspended": func() {
			c.net.halt(k.name)
			k.host.Suspend(upTo(d, 2*time.Minute))
		},
		"a worker's clock is set": func() {
			c.offClock[k.name] = true
			k.clock.step(c.anyStep())
		},
		"a worker's runner dies": k.host.Die, // with an agent or without
		"a worker is cloned":     func() { c.copyOf(k) },
		"a job is changed":       c.change,
		"a run is cancelled": func() {
			if active := c.runs("active=true"); len(active) > 0 {
				_, _ = c.primary.runs.CancelRun(c.Context(), &schedv1.CancelRunRequest{Id: one(d, active...).GetId()}) // it may have ended
			}
		},
		"somebody runs a job": func() {
			_, _ = c.primary.jobs.RunJob(c.Context(), &schedv1.RunJobRequest{Name: c.someJob()}) // overlap may forbid it
		},
	}
}

// anyStep is by how much a clock is set: by a moment, by more than primaries bear of
// each other, or by an hour.
func (c *groupChaos) anyStep() time.Duration {
	return one(c.dice, -time.Hour, -2500*time.Millisecond, -time.Second, time.Second, 2500*time.Millisecond, time.Hour)
}

// change puts another definition in the place of one. When a leader's clock was set
// forward, that may be too late for an instant that it names.
func (c *groupChaos) change() {
	c.Helper()
	c.redefine(c.anyJob(c.someJob()), func(err error) bool {
		return status.Code(err) == codes.InvalidArgument && c.did["a primary's clock is set"] > 0
	})
}

// someJob names one of the jobs that have triggers.
func (c *groupChaos) someJob() string { return fmt.Sprint("c-", 1+c.dice.IntN(c.n)) }

// finality: how a run ended, and each of its attempts, does not change any more.
func (c *groupChaos) finality() {
	c.Helper()
	for _, r := range c.runs("") {
		if !final(r.GetPhase()) {
			continue
		}
		is := fmt.Sprintf("%v at %v", r.GetPhase(), r.GetFinishedTime().AsTime())
		for _, a := range r.GetAttempts() {
			is += fmt.Sprintf(", %d %v (%d)", a.GetFence(), a.GetOutcome(), a.GetExitCode())
		}
		if was, known := c.final[r.GetId()]; known && was != is {
			c.Errorf("run %s had ended as %s, and now as %s", r.GetId(), was, is)
		}
		c.final[r.GetId()] = is
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
	c.twinned[k.name] = true
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

// repair mends what hurts primaries, and some of the rest.
func (c *groupChaos) repair() {
	c.net.unmute()
	for i, m := range c.group {
		m.isolate(false)
		c.net.part(m.id, c.group[(i+1)%len(c.group)].id, false)
		m.link.mend()
		m.resume()
		m.clock.right()
		m.disk.BeforeWrite(nil)
		m.disk.Fail(nil)
		if m.server == nil && c.dice.IntN(2) == 0 {
			m.start()
		}
	}
	for _, k := range c.workers {
		if c.dice.IntN(2) == 0 {
			c.net.resume(k.name)
		}
	}
	if c.dice.IntN(4) == 0 {
		c.unclone()
	}
	c.chaos.repair(false)
}
