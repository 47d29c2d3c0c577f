package systest

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// The power of a worker's host fails before it is on its disk that an attempt was accepted.
// So that was not started, and is once the host is back.
func TestPowerFailsBeforeAnAttemptIsOnRecord(t *testing.T) {
	seeds(t, 4, func(w *world, dice *rand.Rand) {
		k := shop(w)
		w.does("j", talker(20*time.Second, time.Second))
		w.define(job("j"))
		k.files.slow(func() { time.Sleep(2 * time.Second) })
		r := w.run("j")
		w.wait(time.Second)
		k.powerOff(dice)
		if n := len(w.book.of(r.GetId() + "/1")); n != 0 {
			w.Errorf("it was started %d times, and is not on record yet", n)
		}
		k.start()
		w.ended(w.awaitPhase(r.GetId(), 10*time.Minute, phaseSucceeded), phaseSucceeded, succeeded)
		w.check()
	})
}

// The host of a worker reboots while something runs on it, with an agent or without. That
// has ended, and nobody saw how: on_lost decides what becomes of the run.
func TestHostReboots(t *testing.T) {
	for name, down := range map[string]func(*worker){"with an agent": func(*worker) {}, "without": (*worker).end} {
		for onLost, then := range map[schedv1.OnLost][]schedv1.Outcome{
			schedv1.OnLost_ON_LOST_FAIL: {interrupted}, onLostRetry: {interrupted, succeeded},
		} {
			t.Run(name+" "+onLost.String(), func(t *testing.T) {
				seeds(t, 3, func(w *world, dice *rand.Rand) {
					k := shop(w)
					w.does("j", talker(2*time.Minute, time.Second))
					w.define(job("j", policy(&schedv1.Policy{OnLost: onLost})))
					r := w.run("j")
					w.wait(time.Minute)
					down(k)
					w.wait(10 * time.Second)
					k.powerOff(dice)
					w.wait(20 * time.Second)
					k.start()
					w.wait(5 * time.Minute)
					r = w.get(r.GetId())
					w.ended(r, phaseAfter(then), then...)
					if why := r.GetAttempts()[0].GetReason(); !strings.Contains(why, "the host rebooted") {
						w.Errorf("it was interrupted because %q", why)
					}
					w.check()
				})
			})
		}
	}
}

// phaseAfter is the phase of a run whose attempts ended so.
func phaseAfter(outcomes []schedv1.Outcome) schedv1.Phase {
	if outcomes[len(outcomes)-1] == succeeded {
		return phaseSucceeded
	}
	return phaseLost
}

// The power of all primaries fails amid writes to disks that are slow, again and again. What
// somebody was told of is there, and so is all output that a worker was told to be safe.
func TestPowerOfAllPrimariesFails(t *testing.T) {
	n := 3
	if testing.Short() {
		n = 1
	}
	seeds(t, n, func(w *world, dice *rand.Rand) {
		newBadDiskWorld(w)
		c := &groupChaos{chaos: chaos{world: w, dice: dice}}
		people := w.watchWrites(dice, 4)
		proves := func() bool { return w.lostEntries > 0 && w.lostBytes > 0 }
		for round := 0; round < 10 || !proves() && round < 100; round++ {
			for _, m := range w.group {
				c.hinder(m)
			}
			w.wait(20*time.Second + upTo(dice, time.Minute))
			for _, m := range w.group {
				m.unplug(dice)
			}
			w.wait(upTo(dice, 20*time.Second))
			for _, m := range w.group {
				m.start()
			}
			w.awaitLeader()
		}
		people.check()
		if !proves() {
			w.Errorf("with the power %d entries went, and %d bytes of files: that proves nothing", w.lostEntries, w.lostBytes)
		}
		w.settle(time.Hour)
		w.checkEverywhere()
	})
}

// The power of all primaries and of a worker's host fails while something runs there. Its
// output that was said to be safe by then is there, whatever the worker's disk has kept.
func TestSafeOutputOutlivesThePower(t *testing.T) {
	n := 12
	if testing.Short() {
		n = 6
	}
	seeds(t, n, func(w *world, dice *rand.Rand) {
		w.startGroup(3)
		k := w.startWorker("shop-1", nil, 4)
		w.awaitOnline()
		w.does("j", talker(10*time.Minute, time.Second))
		w.define(job("j"))
		id := w.run("j").GetId() + "/1"
		for range 20 {
			w.wait(2 * time.Second)
			w.finality() // and what is safe
		}
		if w.safe[id] < 500 {
			w.Errorf("%d bytes of its output are safe: that proves nothing", w.safe[id])
		}
		for _, m := range w.group {
			m.unplug(dice)
		}
		k.powerOff(dice)
		for _, m := range w.group {
			m.start()
		}
		w.awaitLeader()
		k.start()
		w.awaitOnline()
		w.settle(time.Hour)
		w.checkEverywhere()
	})
}

// Most primaries are gone for longer than a worker that is away may be, and come back. Who
// leads then has waited for nobody yet: the worker has all its time from there on.
func TestLostAfterWithoutALeader(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		k := w.startWorker("shop-1", nil, 4)
		w.awaitOnline()
		w.does("j", talker(10*time.Minute, time.Minute))
		w.define(job("j", policy(&schedv1.Policy{OnLost: onLostRetry, LostAfter: seconds(60)})))
		r := w.run("j")
		w.wait(time.Minute)
		for _, m := range w.group[:2] {
			m.kill()
		}
		k.link.cut()
		other := w.startWorker("shop-2", nil, 4)
		w.wait(5 * time.Minute)
		for _, m := range w.group[:2] {
			m.start()
		}
		w.awaitLeader()
		led := time.Now()
		w.wait(40 * time.Second)
		w.ended(w.get(r.GetId()), phaseRunning, 0)
		w.awaitPhase(r.GetId(), time.Hour, phaseSucceeded)
		r = w.get(r.GetId())
		w.ended(r, phaseSucceeded, lost, succeeded)
		if waited := r.GetAttempts()[1].GetAssignedTime().AsTime().Sub(led); waited < 50*time.Second || waited > 3*time.Minute {
			w.Errorf("its worker was waited for %v after there was a leader again, want a minute", waited)
		}
		if name := r.GetAttempts()[1].GetWorkerName(); name != other.name {
			w.Errorf("it was made again on %s", name)
		}
		k.link.mend()
		w.check()
	})
}

// What a worker tells is heard, and it is not told so; then its connection breaks, and it
// tells all that again, many times over. All is there once.
func TestAnswersAreLost(t *testing.T) {
	seeds(t, 4, func(w *world, dice *rand.Rand) {
		newBadDiskWorld(w)
		c := &groupChaos{chaos: chaos{world: w, dice: dice}}
		for range 30 {
			w.awaitOnline()
			c.loseAnswers(c.toHost(one(dice, w.workers...).name))
		}
		if _, lost := w.net.holdUps(); lost < 10 {
			w.Errorf("only %d answers were lost", lost)
		}
		w.settle(time.Hour)
		w.checkEverywhere()
		w.all(w.runsOf("j"), phaseSucceeded)
	})
}

// A log that is not what was printed is found, though the power failed.
func TestUnpluggedBites(t *testing.T) {
	for _, test := range []struct {
		log  string
		safe int64
		want string
	}{
		{"", 0, ""},
		{"one\ntwo", 0, ""},
		{"one" + spoolCut + " and so on]\nother", 0, ""},
		{"one" + spoolCut + " and so on]\nother", 3, ""},
		{"one" + spoolCut + " and so on]\nother", 5, "from byte 4 on they are not"},
		{"\x00\x00e\nt", 0, ""},
		{"\x00\x00e\nt", 1, "from byte 0 on they are not"},
		{"one\nt\x00o\nth", 5, ""},
		{"one\nt\x00o\nth", 6, "from byte 5 on they are not"},
		{"one\nsix", 0, "from byte 4 on"},
		{"two" + spoolCut, 0, "from byte 0 on"},
		{"one\ntwo\nthree!", 0, "has 14 bytes of 13"},
		{"one\ntwo\nthree!", 14, "from byte 13 on they are not"},
	} {
		w := &world{T: t, suspects: []string{}}
		w.checkUnplugged("run j", &schedv1.Attempt{Number: 1}, []byte("one\ntwo\nthree"), []byte(test.log), test.safe)
		if said := strings.Join(w.suspects, "\n"); said != "" && test.want == "" || !strings.Contains(said, test.want) {
			t.Errorf("of %q with %d bytes that were safe it says %q, want %q", test.log, test.safe, said, test.want)
		}
	}
}
