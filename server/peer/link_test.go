package peer

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

// The leader learns of the sessions of all gateways, its own included, hears
// what their workers say, and reaches each worker where it is.
func TestLink(t *testing.T) {
	story(t, func(w *world) {
		a, b := w.nodes["a"], w.nodes["b"]
		here, there := session("w1", 1, "a"), session("w2", 5, "b")
		a.up.Attach(here)
		b.up.Attach(there)
		b.up.Report("w2", 5, result("said while nobody leads"))
		w.lead("a")
		wait(time.Second)
		has := a.ear.has()
		for _, want := range []Session{here, there} {
			is := has[want.Worker]
			if !proto.Equal(is.Hello, want.Hello) {
				t.Errorf("the hello of %s is %v", want.Worker, is.Hello)
			}
			is.Hello, want.Hello = nil, nil
			if !reflect.DeepEqual(is, want) {
				t.Errorf("the leader has the session %+v, want %+v", is, want)
			}
		}
		b.hand.look(func(h *hand) {
			if !slices.Equal(h.asked, []string{"w2"}) {
				t.Errorf("the workers %v were asked for their inventory, want w2: what it said before was dropped", h.asked)
			}
		})

		b.up.Report("w2", 5, result("done"))
		b.up.Report("w2", 4, result("from a session that is over"))
		at := time.Now().UTC()
		b.up.Seen("w2", 5, at)
		if !a.hub.Send("w2", 5, kill("please")) || a.hub.Send("w2", 4, kill("late")) || a.hub.Send("w3", 1, kill("nobody")) {
			t.Error("a message is on its way to a session that there is not, or is not to one that there is")
		}
		wait(seenEvery)
		if !slices.Equal(a.ear.reports, []string{"w2 done"}) || !a.ear.seen["w2"].Equal(at) {
			t.Errorf("the leader heard %q, and of w2 at %v", a.ear.reports, a.ear.seen["w2"])
		}
		b.hand.look(func(h *hand) {
			if !slices.Equal(h.delivered, []string{"w2 please"}) {
				t.Errorf("the gateway was given %q", h.delivered)
			}
		})
		b.up.Detach("w2", 5)
		a.hub.Cut("w1", "removed", true)
		wait(time.Second)
		if _, still := a.ear.has()["w2"]; still || len(a.hub.Sessions()) != 1 {
			t.Error("the leader has a session that has ended")
		}
		for _, n := range w.nodes {
			n.hand.look(func(h *hand) {
				if !slices.Equal(h.cut, []string{"w1"}) {
					t.Errorf("%s was told to cut %q", n.id, h.cut)
				}
			})
		}
	}, "a", "b")
}

// A primary that has just joined knows all when it was as far as the leader.
func TestCaughtUp(t *testing.T) {
	story(t, func(w *world) {
		b := w.nodes["b"]
		up := func() bool {
			select {
			case <-b.up.CaughtUp():
				return true
			default:
				return false
			}
		}
		w.applied.Store(99)
		w.lead("a")
		wait(time.Minute)
		if up() {
			t.Error("it says that it knows all, and lacks an entry")
		}
		w.applied.Store(100)
		wait(beatEvery)
		if !up() {
			t.Error("it has all that the leader has, and does not say so")
		}
		w.applied.Store(0)
		w.lead("")
		wait(time.Minute)
		if !up() {
			t.Error("it knew all once")
		}
	}, "a", "b")
}

// Another primary leads: it learns all anew, and the one before forgets.
func TestLeaderChange(t *testing.T) {
	story(t, func(w *world) {
		for i, g := range []string{"a", "b", "c"} {
			w.nodes[g].up.Attach(session(fmt.Sprint("w", i), 3, g))
		}
		for _, leader := range []string{"a", "b", "c", "a"} {
			w.lead(leader)
			wait(time.Second)
			for id, n := range w.nodes {
				want := 0
				if id == leader {
					want = 3
				}
				if n := len(n.ear.has()); n != want {
					t.Errorf("while %s leads, %s has %d sessions, want %d", leader, id, n, want)
				}
				if linked, _ := n.up.Linked(); !linked {
					t.Errorf("%s has no link while %s leads", id, leader)
				}
			}
			for id, p := range w.nodes[leader].hub.Primaries() {
				if p.Version != "v-"+id || time.Since(p.LastContact) > beatEvery+time.Second {
					t.Errorf("the leader %s heard of %s: %+v", leader, id, p)
				}
			}
		}
		w.lead("")
		wait(10 * time.Second)
		for id, n := range w.nodes {
			if linked, since := n.up.Linked(); linked || since < 9*time.Second || len(n.ear.has()) != 0 {
				t.Errorf("%s has a link (%v for %v), or %d sessions, while nobody leads", id, linked, since, len(n.ear.has()))
			}
		}
	}, "a", "b", "c")
}

// A leader learns what each primary can apply, and remembers it of one that is gone
// for a while, in its next term too. One that does not say is of the first version.
func TestLevels(t *testing.T) {
	story(t, func(w *world) {
		a, b, c := w.nodes["a"], w.nodes["b"], w.nodes["c"]
		a.up.Level, b.up.Level = 2, 2
		w.lead("a")
		wait(time.Second)
		all := map[string]uint32{"a": 2, "b": 2, "c": 1}
		if got := a.hub.Levels(); !maps.Equal(got, all) {
			t.Errorf("the leader knows of the levels %v, want %v", got, all)
		}
		if got := b.hub.Levels(); len(got) != 0 {
			t.Errorf("one that never led knows of the levels %v", got)
		}
		c.up.Level = 2 // it is upgraded while another one leads
		w.lead("b")
		wait(time.Second)
		if got := a.hub.Levels(); !maps.Equal(got, all) {
			t.Errorf("who led before remembers %v, want %v", got, all)
		}
		w.lead("a")
		wait(time.Second)
		if got := a.hub.Levels()["c"]; got != 2 {
			t.Errorf("the leader knows of level %d of one that was upgraded, want 2", got)
		}
	}, "a", "b", "c")
}

// A worker comes back through another gateway before the first one has noticed.
// The newest session counts, and the other gateway is told to end its own. An
// agent with a copied key comes second, and is told so.
func TestNewestSessionCounts(t *testing.T) {
	story(t, func(w *world) {
		a, b := w.nodes["a"], w.nodes["b"]
		w.lead("a")
		wait(time.Second)
		b.up.Attach(session("w", 7, "b"))
		wait(time.Second)
		a.up.Attach(session("w", 8, "a"))
		wait(time.Second)
		if is := a.ear.has()["w"]; is.Epoch != 8 || is.Gateway != "a" {
			t.Errorf("the session is %+v", is)
		}
		b.up.Detach("w", 7)
		wait(time.Second)
		if is := a.ear.has()["w"]; is.Epoch != 8 {
			t.Error("the end of the old session took the new one with it")
		}
		clone := session("w", 6, "b")
		clone.Hello.Instance = "second"
		b.up.Attach(clone)
		wait(time.Second)
		b.hand.look(func(h *hand) {
			if !slices.Equal(h.superseded, []string{"w"}) || !slices.Equal(h.duplicates, []string{"w"}) {
				t.Errorf("b was told of the superseded %q and the duplicates %q", h.superseded, h.duplicates)
			}
		})

		// An old session that is told again is not a clone: its stream may be dead.
		w.lead("")
		wait(time.Second)
		w.lead("a")
		wait(time.Second)
		b.hand.look(func(h *hand) {
			if len(h.duplicates) != 1 || len(h.superseded)+len(h.duplicates) < 3 {
				t.Errorf("b was told of the superseded %q and the duplicates %q", h.superseded, h.duplicates)
			}
		})
		if is := a.ear.has()["w"]; is.Epoch != 8 {
			t.Errorf("the session is %+v", is)
		}
	}, "a", "b")
}

// The connection to the leader dies without a word. Both ends notice within
// seconds, and all is told again.
func TestDeadLink(t *testing.T) {
	story(t, func(w *world) {
		a, b := w.nodes["a"], w.nodes["b"]
		b.up.Attach(session("w", 1, "b"))
		w.lead("a")
		wait(2 * time.Second)
		a.conns.freeze()
		wait(linkDeadAfter + beatEvery)
		if n := len(a.ear.has()); n != 0 {
			if linked, since := b.up.Linked(); !linked || since > 2*time.Second {
				t.Error("the dead link was not noticed")
			}
		}
		wait(2 * time.Second)
		if len(a.ear.has()) != 1 {
			t.Error("the session was not told again")
		}
		a.conns.cut()
		wait(time.Second)
		if len(a.ear.has()) != 1 {
			t.Error("the session was not told again after a cut")
		}
		b.hand.look(func(h *hand) {
			if len(h.asked) < 3 {
				t.Errorf("the worker was asked for its inventory %d times, want once for each link", len(h.asked))
			}
		})
	}, "a", "b")
}

// A leader that takes nothing for long costs a link, no memory without end.
func TestOverflow(t *testing.T) {
	story(t, func(w *world) {
		a, b := w.nodes["a"], w.nodes["b"]
		b.up.Attach(session("w", 1, "b"))
		w.lead("a")
		wait(time.Second)
		a.conns.freeze()
		m := result(strings.Repeat("x", 10))
		for range 2 * maxQueued {
			b.up.Report("w", 1, m)
		}
		wait(2 * linkDeadAfter)
		if len(a.ear.has()) != 1 {
			t.Error("the session was not told again")
		}
	}, "a", "b")
}

// Whatever happens to links, sessions and the leadership, in the end the leader
// has exactly the newest session of each worker that any gateway holds.
func TestLeaderKnowsWhatIs(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		ids := []string{"a", "b", "c"}
		story(t, func(w *world) {
			next := map[string]uint64{} // the last epoch of each worker
			held := map[string]map[string]uint64{"a": {}, "b": {}, "c": {}}
			for range rapid.IntRange(1, 40).Draw(rt, "steps") {
				g := rapid.SampledFrom(ids).Draw(rt, "gateway")
				worker := rapid.SampledFrom([]string{"w1", "w2", "w3", "w4"}).Draw(rt, "worker")
				switch rapid.IntRange(0, 7).Draw(rt, "what") {
				case 0, 1, 2:
					next[worker]++
					held[g][worker] = next[worker]
					w.nodes[g].up.Attach(session(worker, next[worker], g))
				case 3:
					if epoch, ok := held[g][worker]; ok {
						delete(held[g], worker)
						w.nodes[g].up.Detach(worker, epoch)
					}
				case 4:
					w.lead(rapid.SampledFrom([]string{"a", "b", "c", ""}).Draw(rt, "leader"))
				case 5:
					w.nodes[g].conns.cut()
				case 6:
					w.nodes[g].conns.freeze()
				case 7:
					wait(time.Duration(rapid.IntRange(0, 3000).Draw(rt, "ms")) * time.Millisecond)
				}
			}
			w.lead("b")
			wait(3 * linkDeadAfter)
			want := map[string]Session{}
			for g, sessions := range held {
				for worker, epoch := range sessions {
					if epoch > want[worker].Epoch {
						want[worker] = Session{Worker: worker, Epoch: epoch, Gateway: g}
					}
				}
			}
			has := w.nodes["b"].ear.has()
			for worker, s := range want {
				if is := has[worker]; is.Epoch != s.Epoch || is.Gateway != s.Gateway {
					rt.Errorf("the leader has %s in session %d at %q, want %d at %q", worker, is.Epoch, is.Gateway, s.Epoch, s.Gateway)
				}
				if !w.nodes["b"].hub.Send(worker, s.Epoch, kill("x")) {
					rt.Errorf("%s can't be reached", worker)
				}
			}
			if len(has) != len(want) {
				rt.Errorf("the leader has %d sessions, want %d", len(has), len(want))
			}
		}, ids...)
	})
}

// One gateway has far more sessions than the others and is asked to shed some,
// again only while that helps; workers in direct mode are dialled by one each.
func TestShares(t *testing.T) {
	story(t, func(w *world) {
		a, b := w.nodes["a"], w.nodes["b"]
		for i := range 100 {
			b.up.Attach(session(fmt.Sprint("w", i), 1, "b"))
		}
		w.lead("a")
		a.hub.Direct([]string{"10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1", "10.0.0.4:1"})
		wait(balanceEvery + time.Second)
		b.hand.look(func(h *hand) {
			if h.shed != 100/shedAtOnce {
				t.Errorf("b was asked to shed %d", h.shed)
			}
		})
		wait(balanceEvery + time.Second) // it has rested twice as long since
		b.hand.look(func(h *hand) {
			if h.shed != 100/shedAtOnce {
				t.Errorf("b was asked to shed %d, soon after it did not help", h.shed)
			}
		})
		var dialled []string
		for _, n := range w.nodes {
			n.hand.look(func(h *hand) { dialled = append(dialled, h.dials...) })
		}
		slices.Sort(dialled)
		if want := []string{"10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1", "10.0.0.4:1"}; !slices.Equal(dialled, want) {
			t.Errorf("%v are dialled", dialled)
		}
	}, "a", "b")
}
