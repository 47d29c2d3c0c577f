package replica

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/schedd/schedd/server/runlog"
)

// A holder that was cut off has what it has missed soon after, though nobody
// remembers to push it: its gateway was started again meanwhile.
func TestCutOff(t *testing.T) {
	story(t, 3, func(t *testing.T, w *world) {
		k := key(1)
		w.wall("a", "c", true)
		w.wall("b", "c", true)
		w.write("a", k, 0, 1000)
		w.end(k, 1000)
		w.kill("a")
		w.start("a")
		time.Sleep(2 * sweepEvery)
		w.holds("c", k, 0)
		w.wall("a", "c", false)
		w.wall("b", "c", false)
		w.soon("c has all", restMax+probeWithin+2*sweepSoon, func() bool { return w.nodes["c"].length(k) == 1000 })
	})
}

// What a holder has missed it pulls soon after the attempt has ended, without
// waiting for the next time that all logs are compared.
func TestSealedSooner(t *testing.T) {
	story(t, 3, func(t *testing.T, w *world) {
		k := key(1)
		w.write("a", k, 0, 1000)
		synctest.Wait()
		time.Sleep(time.Minute)
		for _, id := range w.members { // nobody knows what others have
			n := w.nodes[id]
			n.mu.Lock()
			clear(n.entries)
			n.mu.Unlock()
		}
		if err := w.nodes["c"].Remove(k); err != nil {
			t.Fatal(err)
		}
		w.end(k, 1000)
		w.soon("c has all", 2*compareAfter, func() bool { return w.nodes["c"].length(k) == 1000 })
	})
}

// A seal may come before the last bytes, and some of the holders have them later
// than others.
func TestRestAfterTheSeal(t *testing.T) {
	story(t, 3, func(t *testing.T, w *world) {
		k := key(1)
		w.write("a", k, 0, 500)
		w.end(k, 1000)
		time.Sleep(time.Minute)
		w.write("b", k, 500, 1000)
		synctest.Wait()
		for _, id := range w.members {
			w.holds(id, k, 1000)
			if i, _ := w.nodes[id].disk.Stat(k); !i.Complete || i.Durable != 1000 {
				t.Errorf("%s: %+v", id, i)
			}
		}
		time.Sleep(3 * compareAfter)
		for _, id := range w.members {
			if i, _ := w.nodes[id].Stat(k); i.Durable != 1000 {
				t.Errorf("%s says that %d of 1000 bytes are durable", id, i.Durable)
			}
		}
	})
}

// A primary that is replaced by one with an empty disk has all its copies back
// after a while, of logs that have ended, of those that never will, and of those
// that go on; and then either of the others may go.
func TestReplacedByAnEmptyOne(t *testing.T) {
	for _, size := range []int{3, 5} {
		story(t, size, func(t *testing.T, w *world) {
			const logs = 60
			var ks []runlog.Key
			for i := range logs {
				k := key(i)
				ks = append(ks, k)
				w.write(w.members[i%size], k, 0, int64(10_000+i))
				if i%3 == 0 {
					w.end(k, int64(10_000+i))
				}
			}
			time.Sleep(time.Minute)
			lost := w.members[1]
			w.replace(lost)
			w.soon("the copies are back", sweepEvery+time.Minute, func() bool {
				for i, k := range ks {
					if slices.Contains(Holders(k, w.members), lost) && w.nodes[lost].length(k) != int64(10_000+i) {
						return false
					}
				}
				return true
			})
			for _, id := range w.members {
				if id != lost {
					w.kill(id)
				}
			}
			for i, k := range ks {
				if slices.Contains(Holders(k, w.members), lost) {
					w.holds(lost, k, int64(10_000+i))
				}
			}
		})
	}
}

// Who lacks a log pulls it, so a primary that is back after a long time is not
// sent by two what it fetches itself.
func TestRepairedOnce(t *testing.T) {
	story(t, 3, func(t *testing.T, w *world) {
		w.kill("c")
		const logs = 100
		for i := range logs {
			w.write("a", key(i), 0, 1000)
			w.end(key(i), 1000)
		}
		time.Sleep(2 * keepDone) // a remembers none of them
		if n := w.nodes["a"].kept(); n != logs {
			t.Errorf("%d things are kept of %d logs that are durable", n, logs)
		}
		before := w.count("Append")
		w.start("c")
		time.Sleep(time.Minute)
		for i := range logs {
			w.holds("c", key(i), 1000)
			if n, ok := w.nodes["c"].disk.Finished(key(i)); !ok || n != 1000 {
				t.Errorf("%v is not finished: %d, %v", key(i), n, ok)
			}
		}
		if n := w.count("Read"); n != logs {
			t.Errorf("%d reads for %d logs", n, logs)
		}
		if n := w.count("Append") - before; n != 0 {
			t.Errorf("%d pushes beside them", n)
		}
	})
}

// A primary that is back with an empty disk has soon what goes on, before all is
// compared.
func TestEmptyAgainWhileLogsGoOn(t *testing.T) {
	story(t, 3, func(t *testing.T, w *world) {
		const logs = 50
		for i := range logs {
			w.write("a", key(i), 0, 1000)
		}
		synctest.Wait()
		w.kill("c")
		w.write("a", key(0), 1000, 2000)
		synctest.Wait() // a finds out that c is away
		w.replace("c")
		w.hang("Read", true) // it can't pull
		w.soon("c has all", 2*time.Second, func() bool { return w.nodes["c"].length(key(0)) == 2000 && w.nodes["c"].length(key(logs-1)) == 1000 })
		w.hang("Read", false)
	})
}

// What another primary is believed to have is found out anew when there is
// doubt: here an answer came late.
func TestLateAnswer(t *testing.T) {
	story(t, 3, func(t *testing.T, w *world) {
		k := key(1)
		w.write("a", k, 0, 1000)
		synctest.Wait()
		a := w.nodes["a"]
		e := a.use(k)
		a.learn(e, a.now(), "c", have{known: 10, durable: 10})
		a.leave(e)
		time.Sleep(3 * tidyEvery)
		a.mu.Lock()
		got := e.at["c"]
		a.mu.Unlock()
		if got.known != 1000 || got.durable != 1000 {
			t.Errorf("c is believed to have %+v", got)
		}
		time.Sleep(2 * keepIdle)
		if n := a.kept(); n != 0 {
			t.Errorf("%d things are kept of a log that nothing comes for", n)
		}
	})
}

// The state may say that a log is shorter than what primaries have of it: a
// worker lost power. It stays as it is, and nobody tries to mend it.
func TestLongerThanItsEnd(t *testing.T) {
	story(t, 3, func(t *testing.T, w *world) {
		k := key(1)
		w.kill("c")
		w.write("a", k, 0, 1000)
		w.start("c")
		c := w.nodes["c"]
		if err := c.Seal(k, 600); err != nil {
			t.Fatal(err)
		}
		w.end(k, 600)
		w.soon("c has what counts", time.Minute, func() bool { return c.length(k) == 600 })
		time.Sleep(time.Minute)
		before := w.count("Append") + w.count("Read")
		time.Sleep(time.Minute)
		if n := w.count("Append") + w.count("Read") - before; n > 0 {
			t.Errorf("%d calls in a minute about a log that is as it will be", n)
		}
		w.write("b", k, 0, 600)
		if known, err := c.ask(k); known != 600 || err != nil {
			t.Errorf("c knows %d, %v", known, err)
		}
	})
}

// What is removed is forgotten, and nobody brings it back who removes it later.
func TestRemove(t *testing.T) {
	story(t, 3, func(t *testing.T, w *world) {
		ended, lost := key(1), key(2)
		w.write("a", ended, 0, 1000)
		w.end(ended, 1000)
		w.write("b", lost, 0, 1000)
		time.Sleep(time.Minute)
		w.forget()
		for _, id := range w.members {
			if err := w.nodes[id].Remove(ended, lost); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * sweepEvery)
		}
		for _, id := range w.members {
			n := w.nodes[id]
			if a, b := n.length(ended), n.length(lost); a+b != 0 || n.kept() != 0 {
				t.Errorf("%s has %d and %d bytes of them, and keeps %d things in memory", id, a, b, n.kept())
			}
		}
	})
}

func TestCompare(t *testing.T) {
	done := have{known: 100, durable: 100, length: 100, sealed: true}
	part := have{known: 60, durable: 60}
	end := want{key(1), 100}
	for name, c := range map[string]struct {
		want want
		has  map[string]have
		todo todo
	}{
		"all have it":                  {end, map[string]have{"a": done, "b": done, "c": done}, todo{safe: true}},
		"one does not answer":          {end, map[string]have{"a": done, "b": done}, todo{safe: true}},
		"two do not answer":            {end, map[string]have{"a": done}, todo{}},
		"another lacks it":             {end, map[string]have{"a": done, "b": done, "c": {}}, todo{safe: true, push: []string{"c"}}},
		"two lack it":                  {end, map[string]have{"a": done, "b": part, "c": {}}, todo{push: []string{"b", "c"}}},
		"it is lacking":                {end, map[string]have{"a": part, "b": done, "c": done}, todo{safe: true, pull: true}},
		"another one may push":         {end, map[string]have{"b": done, "c": {}, "a": done}, todo{safe: true, push: []string{"c"}}},
		"nobody has all":               {end, map[string]have{"a": part, "b": part, "c": part}, todo{}},
		"nobody has anything":          {end, map[string]have{"a": {}, "b": {}, "c": {}}, todo{}},
		"not synced there":             {end, map[string]have{"a": done, "b": {known: 100}, "c": done}, todo{safe: true, push: []string{"b"}}},
		"no end, alike":                {want{key(1), -1}, map[string]have{"a": part, "b": part, "c": part}, todo{}},
		"no end, others have more":     {want{key(1), -1}, map[string]have{"a": part, "b": {known: 61}, "c": part}, todo{pull: true}},
		"no end, others have less":     {want{key(1), -1}, map[string]have{"a": part, "b": {known: 59}, "c": part}, todo{push: []string{"b"}}},
		"longer elsewhere than sealed": {end, map[string]have{"a": done, "b": {known: 120, durable: 120}, "c": done}, todo{safe: true}},
		"one that keeps none has more": {want{key(1), -1}, map[string]have{"a": part, "d": {known: 70}}, todo{pull: true}},
	} {
		t.Run(name, func(t *testing.T) {
			got := compare(c.want, []string{"a", "b", "c"}, "a", c.has)
			if got.safe != c.todo.safe || got.pull != c.todo.pull || !slices.Equal(got.push, c.todo.push) {
				t.Errorf("%+v, want %+v", got, c.todo)
			}
		})
	}
	t.Run("the first pushes", func(t *testing.T) {
		has := map[string]have{"a": done, "b": done, "c": {}}
		if got := compare(end, []string{"a", "b", "c"}, "b", has); len(got.push) != 0 {
			t.Errorf("%+v", got)
		}
	})
}
