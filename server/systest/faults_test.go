package systest

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// ailment is what one primary has, for a while.
type ailment struct {
	until time.Time
	again func() // parts it from others once more, when one of those was cured; nil: nothing to do
}

// shortAil and longAil bound how long an ailment lasts. The long ones outlast sessions, a
// start_within of half a minute, and a lost_after of three.
const (
	shortAil = time.Minute
	longAil  = 8 * time.Minute
)

// slowFsync is the most that an fsync of a slow disk takes.
const slowFsync = 2 * time.Second

// minority is how many primaries may ail while the others go on.
func (c *groupChaos) minority() int { return (len(c.group) - 1) / 2 }

// decides tells whether enough primaries are well to decide anything.
func (c *groupChaos) decides() bool { return len(c.ails) <= c.minority() }

// well returns the primaries that have nothing.
func (c *groupChaos) well() (all []*member) {
	for _, m := range c.group {
		if _, ails := c.ails[m]; !ails {
			all = append(all, m)
		}
	}
	return all
}

// nextToAil returns which primary may be the next to have something; nil: none. Beyond a
// minority that is so now and then only: then nobody decides until one of them is cured.
func (c *groupChaos) nextToAil() *member {
	well := c.well()
	if len(well) == 0 || len(c.ails) >= c.minority() && c.dice.IntN(3) > 0 {
		return nil
	}
	return one(c.dice, well...)
}

// hurt has a primary have something from now on, for a while.
func (c *groupChaos) hurt(m *member, what func(), again func()) {
	lasts := one(c.dice, upTo(c.dice, shortAil), upTo(c.dice, shortAil), shortAil+upTo(c.dice, longAil-shortAil))
	if len(c.ails) > 0 {
		c.with["another one ails"]++
	}
	if lasts > 3*time.Minute {
		c.with["for more than three minutes"]++
	}
	if c.ails[m] = (ailment{time.Now().Add(lasts), again}); !c.decides() {
		c.with["nobody decides"]++
	}
	c.net.troubles.begins("ailing", m.host, "")
	what()
}

// cure ends what a primary has. What others have goes on.
func (c *groupChaos) cure(m *member) {
	c.Helper()
	delete(c.ails, m)
	c.net.troubles.ends("ailing", m.host, "")
	m.isolate(false)
	c.net.free(func(w way) bool { return w.from == m.host || w.to == m.host })
	m.link.mend()
	m.resume()
	m.clock.right()
	m.disk.Fail(nil)
	m.files.free()
	m.breakLogs(false)
	if m.server == nil {
		m.start()
	}
	c.ailAgain()
}

// ailAgain parts those from others anew who are parted, where that may have been mended, or
// the others were not there yet.
func (c *groupChaos) ailAgain() {
	for _, o := range c.group {
		if a, ails := c.ails[o]; ails && a.again != nil {
			a.again()
		}
	}
}

// toPrimary is what one primary may have.
func (c *groupChaos) toPrimary(m *member) map[string]func() {
	o := c.another(m)
	others := func(do func(o *member)) func() {
		return func() {
			for _, o := range c.group {
				if o != m {
					do(o)
				}
			}
		}
	}
	has := func(what func()) func() { return func() { c.hurt(m, what, nil) } }
	parted := func(what func()) func() { return func() { c.hurt(m, what, what) } }
	return map[string]func(){
		"a primary is killed":  has(m.kill),
		"a primary is stopped": has(m.leave),
		"a primary loses its power": has(func() {
			c.busy(m)
			m.unplug(c.dice)
		}),
		"a primary is killed amid writes":  has(func() { c.tornLogs(m) }),
		"the leader is killed":             func() { c.killLeader(m) },
		"a primary is cut off":             parted(func() { m.isolate(true) }),
		"two primaries are parted":         parted(func() { c.net.part(m.id, o.id, true) }),
		"a primary's connections freeze":   has(m.link.freeze),
		"a primary is heard by nobody":     parted(others(func(o *member) { c.net.mute(way{m.id, o.id}) })),
		"a primary hears nobody":           parted(others(func(o *member) { c.net.mute(way{o.id, m.id}) })),
		"a primary's disk is slow":         has(func() { c.hinder(m) }),
		"a primary's disk is full":         has(func() { m.disk.Fail(syscall.ENOSPC) }),
		"a primary's disk keeps no output": has(func() { m.breakLogs(true) }),
		"a primary is suspended":           has(m.suspend),
		"a primary's clock is set":         has(func() { m.clock.step(c.anyStep()) }),
		"two primaries don't hear each other": parted(func() {
			c.net.mute(way{m.id, o.id})
			c.net.mute(way{o.id, m.id})
		}),
	}
}

// another returns a primary beside m.
func (c *groupChaos) another(m *member) *member {
	for i, o := range c.group {
		if o == m {
			return c.group[(i+1)%len(c.group)]
		}
	}
	return m
}

// killLeader kills the leader, if one is known that has nothing yet, and m if not.
func (c *groupChaos) killLeader(m *member) {
	if l := c.leader(); l != nil {
		if _, ails := c.ails[l]; !ails {
			m = l
		}
	}
	c.hurt(m, m.kill, nil)
}

// toGroup is what can happen to a group that is whole.
func (c *groupChaos) toGroup() map[string]func() {
	m := one(c.dice, c.group...)
	return map[string]func(){
		"a primary is replaced by an empty one": func() {
			c.awaitCopies()
			c.replace(m)
		},
		"the power of all primaries fails": c.blackout,
		"a primary's history is damaged":   func() { c.spoil(m) },
	}
}

// hinder has each write of a primary's disk take most of a second, until it is cured, and
// each fsync as long again.
func (c *groupChaos) hinder(m *member) {
	c.net.troubles.begins("slow", m.host, "")
	slow := c.slowly(700 * time.Millisecond)
	m.disk.BeforeWrite(slow)
	m.disk.BeforeSync(slow)
	m.files.slow(c.slowly(slowFsync))
}

// busy has the disks of primaries be slow for some seconds, so that much is being written
// and little is there for good.
func (c *groupChaos) busy(these ...*member) {
	for _, m := range these {
		c.hinder(m)
	}
	time.Sleep(upTo(c.dice, 20*time.Second))
}

// slowly returns what takes up to so long each time. Anybody may call it.
func (c *groupChaos) slowly(most time.Duration) func() {
	dice := rand.New(rand.NewPCG(c.dice.Uint64(), 0)) // who uses it next is not up to the seed
	var mu sync.Mutex
	return func() {
		mu.Lock()
		d := upTo(dice, most)
		mu.Unlock()
		time.Sleep(d)
	}
}

// blackout takes the power of all primaries at once. It is back after a while, and they
// are, one after the other. In half of all cases the hosts of the workers are on the same
// line.
func (c *groupChaos) blackout() {
	c.busy(c.group...)
	for _, m := range c.group {
		m.unplug(c.dice)
	}
	if c.dice.IntN(2) == 0 {
		c.with["the workers are on the same line"]++
		for _, k := range c.workers {
			k.powerOff(c.dice)
		}
	}
	back := time.Now().Add(upTo(c.dice, 5*time.Minute))
	for _, m := range c.group {
		c.ails[m] = ailment{until: back.Add(upTo(c.dice, 30*time.Second))}
	}
}

// spoil has a primary start on a history that is torn, or none at all, and waits until it
// has what the others have.
func (c *groupChaos) spoil(m *member) {
	c.Helper()
	m.kill()
	name := filepath.Join(m.dir, "history", "history.db")
	is, err := os.Stat(name)
	if err != nil {
		c.Fatalf("looking for the history of %s: %v", m.id, err)
	}
	if c.dice.IntN(2) == 0 {
		c.with["a history is torn"]++
		err = os.Truncate(name, c.dice.Int64N(is.Size()))
	} else {
		err = os.WriteFile(name, bytes.Repeat([]byte("no database "), int(is.Size())/12), 0o600)
	}
	if err != nil {
		c.Fatalf("damaging the history of %s: %v", m.id, err)
	}
	m.start()
	c.await("all runs in the history of "+m.id, 5*time.Minute, func() bool {
		defer c.ask(m)()
		_, incomplete, err := c.list("")
		return err == nil && incomplete == ""
	})
}

// toWorkers is what can happen to workers, and to what is on its way.
func (c *groupChaos) toWorkers() map[string]func() {
	d := c.dice
	k := one(d, c.workers...)
	alive := func(do func()) func() {
		return func() {
			if k.life != nil {
				do()
			}
		}
	}
	return map[string]func(){
		"a worker crashes":              alive(k.crash),
		"a worker crashes amid writes":  func() { c.tornJournal(k) },
		"a worker stops":                alive(k.end),
		"a worker is upgraded":          alive(func() { c.upgradeWorker(k) }),
		"a worker's runner is upgraded": alive(func() { c.upgradeRunner(k) }),
		"a worker's runner dies":        k.host.Die, // with an agent or without
		"a worker's host reboots": func() {
			k.files.slow(c.slowly(slowFsync))
			time.Sleep(upTo(d, 20*time.Second))
			k.powerOff(d)
		},
		"a worker's disk is slow":       func() { k.files.slow(c.slowly(slowFsync)) },
		"a worker's disk hangs":         k.files.hang,
		"a worker's disk is full":       alive(k.files.fill), // without room no agent starts
		"a worker can start nothing":    func() { k.host.SetUnable(syscall.ENOSPC) },
		"a worker is cut off":           k.link.cut,
		"a worker's connection freezes": k.link.freeze,
		"a worker hears nothing":        func() { c.muteAll(c.toHost(k.name)) },
		"a worker is heard by nobody":   func() { c.muteAll(c.fromHost(k.name)) },
		"connections break": func() {
			c.own.reset()
			k.link.reset()
		},
		// Its agent's timers go on, as no bubble can halt some alone: what is late for that is
		// so by the clock that counts a suspend.
		"a worker is suspended": func() {
			k.suspend()
			k.host.Suspend(upTo(d, 2*time.Minute))
		},
		"a worker's clock is set": func() {
			k.clock.step(c.anyStep())
		},
		"a worker is cloned": func() { c.copyOf(k) },
	}
}

// toJobs is what people do.
func (c *groupChaos) toJobs() map[string]func() {
	return map[string]func(){
		"a job is changed":   c.change,
		"a job is paused":    c.pauseSome,
		"a job is resumed":   c.resumeSome,
		"a job is deleted":   c.deleteSome,
		"a job is put again": c.putAgain,
		"a run is cancelled": func() {
			if active, _, err := c.list("active=true"); err == nil && len(active) > 0 {
				_, _ = c.cancelRun(one(c.dice, active...).GetId()) // it may have ended
			}
		},
		"somebody runs a job": func() {
			_, _ = c.runJob(&schedv1.RunJobRequest{Name: c.someJob()}) // overlap may forbid it
		},
		"somebody runs an ended run again": func() {
			if ended := slices.Sorted(maps.Keys(c.final)); len(ended) > 0 {
				_, _ = c.retryRun(one(c.dice, ended...), "") // overlap may forbid it
			}
		},
		"the leadership is handed over": func() {
			_, _ = c.primary.clusters.TransferLeadership(c.Context(), &schedv1.TransferLeadershipRequest{Id: one(c.dice, c.group...).id}) // it may be behind
		},
	}
}

// upgradeWorker has another agent in the place of one, while what that has started goes
// on.
func (c *groupChaos) upgradeWorker(k *worker) {
	k.end()
	time.Sleep(upTo(c.dice, 5*time.Second))
	k.start()
}

// upgradeRunner has another runner in the place of one, which ends what that runs.
func (c *groupChaos) upgradeRunner(k *worker) {
	k.shutDown()
	time.Sleep(upTo(c.dice, 5*time.Second))
	k.start()
}

// toHost is each way on which a host hears a primary, and fromHost each on which primaries
// hear it.
func (c *groupChaos) toHost(host string) (ways []way) {
	for _, m := range c.group {
		if m.host != host {
			ways = append(ways, way{m.host, host})
		}
	}
	return ways
}

func (c *groupChaos) fromHost(host string) (ways []way) {
	for _, w := range c.toHost(host) {
		ways = append(ways, way{w.to, w.from})
	}
	return ways
}

// anyWays are those of a worker, a primary or one of the people, in one direction.
func (c *groupChaos) anyWays(k *worker) []way {
	host := one(c.dice, k.name, k.name, one(c.dice, c.group...).host, fmt.Sprint("witness-", c.dice.IntN(4)))
	return one(c.dice, c.toHost, c.fromHost)(host)
}

func (c *groupChaos) muteAll(ways []way) {
	for _, w := range ways {
		c.net.mute(w)
	}
}

func (c *groupChaos) unmuteAll(ways []way) {
	for _, w := range ways {
		c.net.free(func(o way) bool { return o == w })
	}
}

// weather is what becomes of what is sent for so long: each second time some of it comes
// late, or arrives and its answer does not.
func (c *groupChaos) weather(d time.Duration) {
	end := time.Now().Add(d)
	ways := c.anyWays(one(c.dice, c.workers...))
	switch what := c.dice.IntN(4); what {
	case 0:
		c.did["what is sent comes late"]++
		c.delay(ways)
	case 1:
		c.did["answers are lost"]++
		c.loseAnswers(ways)
	}
	time.Sleep(time.Until(end))
}

// delay has all that is sent on some ways come late and in one go, a few times. No
// connection breaks: nobody gives one up that soon.
func (c *groupChaos) delay(ways []way) {
	for range 1 + c.dice.IntN(4) {
		c.muteAll(ways)
		time.Sleep(upTo(c.dice, 20*time.Second))
		c.unmuteAll(ways)
		time.Sleep(upTo(c.dice, 10*time.Second))
	}
}

// loseAnswers has nothing arrive on some ways, while all does the other way round, and
// breaks the connections then: what was done, and nobody was told of, is asked for once
// more.
func (c *groupChaos) loseAnswers(ways []way) {
	c.muteAll(ways)
	time.Sleep(upTo(c.dice, 20*time.Second))
	for _, w := range ways {
		c.net.reset(func(from, to string) bool { return pairOf(from, to) == pairOf(w.from, w.to) })
	}
	c.unmuteAll(ways)
}

// spoolCut is what a worker puts in the place of output that its disk has lost.
const spoolCut = "\n[schedd: the output was truncated or rewritten here"

// checkUnplugged: the log of an attempt whose host lost its power is what was printed, up
// to where it ends or says that the rest may not be; what was not on a disk by then may be
// zeros. Of what was said to be safe on the primaries nothing may.
func (w *world) checkUnplugged(who string, a *schedv1.Attempt, printed, whole []byte, safe int64) {
	w.Helper()
	head, _, cut := bytes.Cut(whole, []byte(spoolCut))
	for i, b := range whole[:min(int64(len(whole)), safe)] {
		if i >= len(printed) || b != printed[i] {
			w.Errorf("%s: %d bytes of the log of attempt %d were safe before the power failed, and from byte %d on they are not what was printed", who, safe, a.GetNumber(), i)
			return
		}
	}
	if len(head) > len(printed) {
		w.Errorf("%s: the log of attempt %d has %d bytes of %d that were printed before the power failed", who, a.GetNumber(), len(head), len(printed))
		return
	}
	for i, b := range head {
		if b != printed[i] && b != 0 {
			w.Errorf("%s: the log of attempt %d is not what was printed before the power failed, from byte %d on (cut: %v)", who, a.GetNumber(), i, cut)
			return
		}
	}
}
