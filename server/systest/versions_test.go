package systest

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/schedd/schedd/agent/runner"
	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// olderLevel is up to which an older version of a primary can apply commands of the log.
// Above that are jobs with a kill_after, what workers can hold runs to, and jumps of clocks.
// The older version of a runner keeps no leases, and does not say what it can hold runs to.
const olderLevel = 1

// level is up to which the primary can apply commands; 0: all that there are.
func (m *member) level() uint32 {
	if m.older {
		return olderLevel
	}
	return 0
}

// Uptime implements runner.Runner.
func (l *life) Uptime() (time.Duration, bool) {
	now, ok := l.Fake.Uptime()
	return now, ok && !l.older
}

// Enforcement implements runner.Runner.
func (l *life) Enforcement() (is runner.Enforcement, changed <-chan struct{}) {
	if l.older {
		return is, nil
	}
	return l.Fake.Enforcement()
}

// tooOld tells whether the runner of a worker is too old for runs with that policy.
func (w *world) tooOld(name string, p *schedv1.Policy) bool {
	return p.GetKillAfter() != nil && slices.ContainsFunc(w.workers, func(k *worker) bool { return k.name == name && k.older })
}

// mayBeOlder tells whether a leader may take a primary for older: one is, or was a minute ago,
// or has been upgraded while there was trouble among them, which is not over.
func (w *world) mayBeOlder() bool {
	since := time.Since(w.renewed)
	return slices.ContainsFunc(w.group, func(m *member) bool { return m.older }) ||
		since <= time.Minute || w.net.troubles.longest(w.renewed, time.Now(), w.ofPrimaries) == since
}

// begin puts one of the first jobs. While all primaries are older, one that needs leases is
// refused: it is put when they have been upgraded.
func (c *groupChaos) begin(j *schedv1.Job) {
	c.Helper()
	if !c.older || !c.needsLeases[j.GetName()] {
		c.define(j)
		return
	}
	_, err := c.putJob(j)
	c.refused(err, codes.FailedPrecondition)
}

// upgrade upgrades primaries that are well, all of them or some, one after the other. When
// one is not ready in time, as the leader may be one that it does not reach, the others are
// left as they are.
func (c *groupChaos) upgrade() {
	c.Helper()
	if len(c.ails) > 0 {
		c.with["others are upgraded while one ails"]++
	}
	these := c.well()
	c.dice.Shuffle(len(these), func(i, j int) { these[i], these[j] = these[j], these[i] })
	if c.dice.IntN(2) == 0 {
		these = these[:1+c.dice.IntN(len(these))]
	}
	for _, m := range these {
		if !c.upgradePrimary(m) {
			c.with["an upgrade is left off"]++
			return
		}
	}
	if slices.ContainsFunc(c.group, func(m *member) bool { return m.older }) {
		c.with["some primaries are older than others"]++
	}
}

// upgradePrimary restarts one as this version, and reports whether it is ready in time.
func (c *groupChaos) upgradePrimary(m *member) bool {
	c.Helper()
	m.leave()
	defer func() { c.renewed = time.Now() }()
	m.older = false
	time.Sleep(upTo(c.dice, 5*time.Second))
	m.start()
	for end := time.Now().Add(readyWait); !m.ready(); time.Sleep(time.Second) {
		if time.Now().After(end) {
			return false
		}
	}
	time.Sleep(upTo(c.dice, 20*time.Second))
	return true
}

// renew brings the upgrade of a group that is whole to its end. Then it takes what it has
// refused while some were older.
func (c *groupChaos) renew() {
	c.Helper()
	for _, m := range c.group {
		if m.older && !c.upgradePrimary(m) {
			c.Fatalf("%s was upgraded, and is not ready after %v", m.id, readyWait)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.needsLeases)) {
		if c.asked.jobs[name] == nil {
			c.await("a group that is new, and takes "+name, time.Minute, func() bool {
				_, err := c.putJob(c.anyJob(name))
				return err == nil
			})
		}
	}
}

// checkKeeps: what workers can hold runs to is on record, whatever the primaries were when
// they came.
func (c *groupChaos) checkKeeps() {
	c.Helper()
	for _, k := range c.workers {
		is := c.known(k.name)
		if keeps := is.GetEnforcement().GetMemory() != schedv1.Means_MEANS_UNSPECIFIED; keeps == k.older {
			c.Errorf("that %s can hold runs to something is on record: %v, and that is not so", k.name, keeps)
		}
	}
}

// Primaries are upgraded one after the other, and then the runner of a worker. Before the last
// of them knows what a kill_after is, a job with one is refused, whoever leads; before the
// runner does, its run waits.
func TestGroupIsUpgraded(t *testing.T) {
	story(t, func(w *world) {
		w.older = true
		w.startGroup(3)
		k := w.startWorker("shop-1", nil, 4)
		w.awaitOnline()
		c := &groupChaos{chaos: chaos{world: w, dice: rand.New(rand.NewPCG(1, 2))}}
		j := w.leased(job("j", policy(leases())))
		for _, m := range w.group {
			_, err := w.putJob(j)
			if said := w.refused(err, codes.FailedPrecondition); !strings.Contains(said, "upgrade it first") {
				w.Errorf("it is refused with %q", said)
			}
			if !c.upgradePrimary(m) {
				w.Errorf("%s was upgraded, and is not ready", m.id)
			}
			if !w.mayBeOlder() {
				w.Errorf("when %s has just been upgraded it is told that it can't be older", m.id)
			}
		}
		w.define(j)
		id := w.run("j").GetId()
		w.wait(2 * time.Minute)
		if r := w.get(id); r.GetPhase() != phasePending {
			w.Errorf("it is %v, and its worker keeps no leases", r.GetPhase())
		}
		if w.mayBeOlder() {
			w.Error("minutes after the last upgrade it is told that a primary may be older")
		}
		c.checkKeeps()
		c.upgradeRunner(k)
		w.awaitPhase(id, time.Minute, phaseSucceeded)
		w.wait(2 * time.Minute)
		c.checkKeeps()
		w.settle(time.Hour)
		w.checkEverywhere()
	})
}
