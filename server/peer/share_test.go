package peer

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A gateway sheds only what it has above the mean, and if sessions go where it
// is, sheds until no gateway has much more than its share.
func TestExcess(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		has := map[string]int{}
		total := 0
		for i := range rapid.IntRange(1, 7).Draw(t, "gateways") {
			n := rapid.IntRange(0, 3000).Draw(t, "sessions")
			has[fmt.Sprint("g", i)] = n
			total += n
		}
		mean := (total + len(has) - 1) / len(has)
		for range 1000 {
			shed := excess(has)
			if len(shed) == 0 {
				break
			}
			for g, n := range shed {
				if n < 1 || has[g]-n < mean {
					t.Fatalf("%s sheds %d of %d, where the mean is %d", g, n, has[g], mean)
				}
				least := slices.MinFunc(slices.Sorted(maps.Keys(has)), func(a, b string) int { return has[a] - has[b] })
				has[g] -= n
				has[least] += n
			}
		}
		for g, n := range has {
			if len(has) > 1 && n > mean+max(mean/unevenBy, unevenMin) {
				t.Errorf("%s is left with %d, where the mean is %d", g, n, mean)
			}
		}
	})
}

// Each address is with one gateway, and one that comes takes addresses for itself
// and moves no others.
func TestAssign(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		addresses := rapid.SliceOfDistinct(rapid.StringMatching(`10\.0\.[0-9]\.[0-9]:7`), rapid.ID[string]).Draw(t, "addresses")
		gateways := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-h]`), 1, 7, rapid.ID[string]).Draw(t, "gateways")
		where := map[string]string{}
		for g, list := range assign(addresses, gateways) {
			for _, a := range list {
				if where[a] != "" {
					t.Fatalf("%s is with %s and %s", a, where[a], g)
				}
				where[a] = g
			}
		}
		if len(where) != len(addresses) {
			t.Fatalf("%d addresses of %d are with somebody", len(where), len(addresses))
		}
		for g, list := range assign(addresses, append(gateways, "z")) {
			for _, a := range list {
				if g != "z" && where[a] != g {
					t.Errorf("%s moved from %s to %s when z came", a, where[a], g)
				}
			}
		}
	})
}

// It does not matter when the answer was given on its way.
func TestOffset(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sent := time.Unix(1e9, 0)
		ahead := time.Duration(rapid.Int64Range(-1e10, 1e10).Draw(t, "ahead"))
		there := time.Duration(rapid.Int64Range(0, 1e9).Draw(t, "there"))
		back := time.Duration(rapid.Int64Range(0, 1e9).Draw(t, "back"))
		offset, rtt := offsetOf(sent, sent.Add(there+ahead), sent.Add(there+back))
		if rtt != there+back || (offset-ahead).Abs() > rtt/2+1 {
			t.Errorf("the offset is %v with a round trip of %v, want %v", offset, rtt, ahead)
		}
	})
}

// A gateway whose disk fails is told whether that of another one works, and dials no
// workers as long as it does. Nor does it count for what is a fair share.
func TestFailingDisks(t *testing.T) {
	addresses := []string{"1:1", "2:1", "3:1", "4:1", "5:1", "6:1", "7:1", "8:1", "9:1"}
	story(t, func(w *world) {
		fail := func(ids ...string) {
			w.mu.Lock()
			for id, n := range w.nodes {
				n.is.Failing = slices.Contains(ids, id)
			}
			w.mu.Unlock()
			wait(3 * beatEvery)
		}
		// expect checks who is told that others keep output, and who dials workers.
		expect := func(when string, others, dials []string) {
			t.Helper()
			sum := 0
			for id, n := range w.nodes {
				if is := n.up.OthersKeep(); is != slices.Contains(others, id) {
					t.Errorf("%s: %s hears that others keep output: %v", when, id, is)
				}
				n.hand.look(func(h *hand) {
					sum += len(h.dials)
					if is := len(h.dials) > 0; is != slices.Contains(dials, id) {
						t.Errorf("%s: %s dials %v", when, id, h.dials)
					}
				})
			}
			if sum != len(addresses) {
				t.Errorf("%s: %d workers are dialled, want all of %d", when, sum, len(addresses))
			}
		}
		all := []string{"a", "b", "c"}
		a := w.nodes["a"].hub
		w.lead("a")
		a.Direct(addresses)
		wait(time.Minute)
		expect("at first", all, all)
		fail("b")
		expect("b fails", all, []string{"a", "c"})
		if has := a.held(); len(has) != 2 {
			t.Errorf("sessions are shared among %v", has)
		}
		fail("a", "b")
		expect("a and b fail", []string{"a", "b"}, []string{"c"})
		fail("a", "b", "c")
		expect("all fail", nil, all)
		w.lead("c")
		w.nodes["c"].hub.Direct(addresses)
		wait(time.Minute)
		w.nodes["a"].hub.Direct(nil)
		expect("all fail, and another leads", nil, all)
		fail()
		expect("in the end", all, all)
	}, "a", "b", "c")
}
