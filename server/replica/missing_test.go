package replica

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/schedd/schedd/server/runlog"
)

// finished writes logs of finished attempts, and waits until all have them.
func (w *world) finished(n int) (ks []runlog.Key) {
	w.Helper()
	for i := range n {
		k := key(i)
		w.write(w.members[i%len(w.members)], k, 0, 1000)
		w.end(k, 1000)
		ks = append(ks, k)
	}
	time.Sleep(3 * sweepEvery)
	return ks
}

// lacks counts the logs of which a primary should have a copy and has none.
func (w *world) lacks(id string, ks []runlog.Key) (n int) {
	for _, k := range ks {
		if slices.Contains(Holders(k, w.members), id) && w.nodes[id].length(k) < 1000 {
			n++
		}
	}
	return n
}

// An empty primary that is let vote pulls what it should keep at once, though it
// looked around when it began and had nothing to keep; and says for no moment that
// it lacks nothing before that is so.
func TestEmptyOneIsLetVote(t *testing.T) {
	for _, size := range []int{3, 5} {
		story(t, size, func(t *testing.T, w *world) {
			ks := w.finished(60)
			all := w.members
			w.regroup(all[1:]...)
			w.replace("a")
			time.Sleep(15 * time.Second)
			if n, among := w.nodes["a"].Missing(); n != 0 || slices.Contains(among, "a") {
				t.Errorf("one that does not vote lacks %d logs, shared among %v", n, among)
			}
			w.regroup(all...)
			w.soon("it has all, and says so", 2*sweepSoon, func() bool {
				n, among := w.nodes["a"].Missing()
				done := slices.Equal(among, all) && n == 0
				if lacks := w.lacks("a", ks); done && lacks > 0 {
					t.Errorf("it says that it lacks nothing, and lacks %d logs", lacks)
				}
				return done
			})
		})
	}
}

// A primary that can't get what it lacks says so, and has it soon when it can.
func TestMissingUntilItIsThere(t *testing.T) {
	story(t, 3, func(t *testing.T, w *world) {
		ks := w.finished(30)
		w.replace("a")
		w.hang("Read", true)
		w.hang("Append", true)
		time.Sleep(2 * sweepEvery)
		if n, among := w.nodes["a"].Missing(); n != len(ks) || len(among) != 3 {
			t.Errorf("it says that it lacks %d logs among %v, and lacks all of %d", n, among, len(ks))
		}
		w.hang("Read", false)
		w.hang("Append", false)
		w.soon("it has all", 3*sweepRest, func() bool { return w.lacks("a", ks) == 0 })
		w.soon("it says so", time.Second, func() bool {
			n, among := w.nodes["a"].Missing()
			return n == 0 && len(among) == 3
		})
	})
}

// What nobody has is not missing: its worker has it, or it is lost. Nor is what goes
// on, also while one of three is away.
func TestNothingIsMissing(t *testing.T) {
	story(t, 3, func(t *testing.T, w *world) {
		w.end(key(1), 1000)
		w.remember(key(2))
		w.write("a", key(3), 0, 500)
		w.write("b", key(4), 0, 1000)
		w.end(key(4), 1000)
		w.kill("c")
		time.Sleep(2 * sweepEvery)
		w.write("a", key(3), 500, 600)
		for _, id := range []string{"a", "b"} {
			if n, among := w.nodes[id].Missing(); n != 0 || len(among) != 3 {
				t.Errorf("%s says that it lacks %d logs among %v", id, n, among)
			}
		}
	})
}

// When what is remembered is another state altogether, it is not known what is
// missing until all was compared, which is soon.
func TestKnownChanged(t *testing.T) {
	story(t, 3, func(t *testing.T, w *world) {
		k := key(1)
		w.write("a", k, 0, 1000)
		w.end(k, 1000)
		w.forget()
		for _, id := range w.members {
			if err := w.nodes[id].Seal(k, 1000); err != nil {
				t.Fatal(err)
			}
		}
		w.replace("c")
		time.Sleep(time.Minute)
		c := w.nodes["c"]
		if n, among := c.Missing(); n != 0 || len(among) != 3 {
			t.Fatalf("with nothing remembered it lacks %d logs among %v", n, among)
		}
		w.mu.Lock()
		w.known[k] = 1000
		w.mu.Unlock()
		c.KnownChanged()
		if _, among := c.Missing(); among != nil {
			t.Error("it says what it lacks before it has looked")
		}
		synctest.Wait()
		w.soon("c has it", 2*sweepSoon, func() bool { return c.length(k) == 1000 })
	})
}

// A primary that is alone lacks nothing, and does not read all of its history to find
// that out, until others join.
func TestAloneLacksNothing(t *testing.T) {
	story(t, 1, func(t *testing.T, w *world) {
		w.write("a", key(1), 0, 1000)
		w.end(key(1), 1000)
		if n, among := w.nodes["a"].Missing(); n != 0 || len(among) != 1 {
			t.Errorf("%d logs among %v", n, among)
		}
		time.Sleep(2 * allEvery)
		w.mu.Lock()
		looked := w.nodes["a"].looked
		w.mu.Unlock()
		if looked != 0 {
			t.Errorf("it has looked at all that is remembered %d times", looked)
		}
		w.start("b")
		w.regroup("a", "b")
		w.soon("b has the log that it was to keep", time.Minute, func() bool { return w.nodes["b"].length(key(1)) == 1000 })
	})
}

func TestLacks(t *testing.T) {
	done := have{known: 100, durable: 100, length: 100, sealed: true}
	part := have{known: 60, durable: 60}
	end, open := want{key(1), 100}, want{key(1), -1}
	for name, c := range map[string]struct {
		want  want
		has   map[string]have
		lacks bool
	}{
		"all have it":                   {end, map[string]have{"a": done, "b": done, "c": done}, false},
		"it has it, and nobody answers": {end, map[string]have{"a": done}, false},
		"others have it":                {end, map[string]have{"a": {}, "b": done, "c": done}, true},
		"nobody has it":                 {end, map[string]have{"a": {}, "b": {}, "c": {}}, false},
		"nobody else answers":           {end, map[string]have{"a": part}, true},
		"one of two others answers":     {end, map[string]have{"a": part, "b": part}, false},
		"one that keeps none answers":   {end, map[string]have{"a": part, "d": part}, true},
		"it has it, not on disk":        {end, map[string]have{"a": {known: 100, length: 100, sealed: true}, "b": done, "c": done}, true},
		"it goes on":                    {open, map[string]have{"a": part, "b": part, "c": part}, false},
		"it goes on, others are ahead":  {open, map[string]have{"a": part, "b": {known: 61}, "c": part}, true},
		"it goes on, nobody answers":    {open, map[string]have{"a": part}, true},
		"longer here than it should be": {end, map[string]have{"a": {known: 120}, "b": done, "c": done}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := compare(c.want, []string{"a", "b", "c"}, "a", c.has); got.lacks != c.lacks {
				t.Errorf("%+v, want lacks %v", got, c.lacks)
			}
		})
	}
}

// A log that was pulled from a primary with less than another one has, which can't be
// read, is not all there is.
func TestPulledFromTheShorterOne(t *testing.T) {
	story(t, 3, func(t *testing.T, w *world) {
		k := key(1)
		w.write("b", k, 0, 1000)
		a := w.nodes["a"]
		if err := a.Remove(k); err != nil {
			t.Fatal(err)
		}
		e := a.use(k)
		defer a.leave(e)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := a.pull(ctx, e, map[string]have{"gone": {known: 1001}, "c": {known: 1000}}); err == nil {
			t.Error("it says that it has all that there is")
		}
		w.holds("a", k, 1000)
	})
}
