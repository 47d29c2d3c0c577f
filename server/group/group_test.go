package group

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/peer"
)

// world is primaries that may become a group.
type world struct {
	*testing.T
	net   *raftstore.Network
	mu    sync.Mutex
	ports map[string]*bufconn.Listener // by address
	nodes map[string]*node
}

// node is one primary, as far as the group goes.
type node struct {
	w       *world
	id      string
	memory  *raftstore.Memory
	address string
	log     *journal

	store  *raftstore.Store // nil: it is down
	member *Member
	server *grpc.Server
	conns  []*grpc.ClientConn
	stop   context.CancelFunc
	tasks  sync.WaitGroup
}

// journal is what a primary tells its operator.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func story(t *testing.T, tell func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, net: raftstore.NewNetwork(), ports: map[string]*bufconn.Listener{}, nodes: map[string]*node{}}
		defer func() {
			for _, n := range w.nodes {
				if n.store != nil {
					n.down()
				}
			}
		}()
		tell(w)
	})
}

// start starts a primary, whose first address is its id.
func (w *world) start(id string, expect int, join ...string) *node {
	w.Helper()
	n := w.nodes[id]
	if n == nil {
		n = &node{w: w, id: id, memory: raftstore.NewMemory(), address: id, log: &journal{}}
		w.nodes[id] = n
	}
	n.up(expect, join...)
	return n
}

func (n *node) up(expect int, join ...string) {
	n.w.Helper()
	log := slog.New(slog.NewTextHandler(n.log, nil))
	var err error
	n.store, err = raftstore.Open(raftstore.Config{
		NodeID: n.id, Memory: n.memory, Transport: n.w.net.TransportAt(n.address, n.address), Join: expect > 1 || len(join) > 0, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		n.w.Fatal(err)
	}
	n.member = NewMember(Config{
		Self: raftstore.Server{ID: n.id, Address: n.address}, Expect: expect, Others: join, Store: n.store, Conn: n.dial, Heard: n.w.heard, Redirect: func(map[string]string) {}, Version: "v", Log: log,
	})
	port := bufconn.Listen(1 << 16)
	n.w.mu.Lock()
	n.w.ports[n.address] = port
	n.w.mu.Unlock()
	n.server = grpc.NewServer()
	peerv1.RegisterGroupServiceServer(n.server, n.member)
	ctx, stop := context.WithCancel(n.w.Context())
	n.stop = stop
	n.tasks.Go(func() { _ = n.server.Serve(port) })
	n.tasks.Go(func() { n.member.Run(ctx) })
	n.tasks.Go(func() {
		_ = n.store.Lead(ctx, func(ctx context.Context) error {
			n.member.Steward(ctx, func(id string) (is bool) {
				n.store.View(func(s *state.State) { is = s.Standby(id) })
				return is
			})
			return nil
		})
	})
}

// heard is what a leader hears of the primaries that are up.
func (w *world) heard() map[string]peer.Primary {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := map[string]peer.Primary{}
	for _, n := range w.nodes {
		if n.store != nil && n.store.Formed() {
			all[n.id] = peer.Primary{Instance: n.member.Instance(), LastContact: time.Now(), AppliedIndex: n.store.AppliedIndex()}
		}
	}
	return all
}

func (n *node) dial(address string) (grpc.ClientConnInterface, error) {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			n.w.mu.Lock()
			port := n.w.ports[address]
			n.w.mu.Unlock()
			if port == nil {
				return nil, errors.New("connection refused")
			}
			return port.DialContext(ctx)
		}))
	if err == nil {
		n.w.mu.Lock()
		n.conns = append(n.conns, conn)
		n.w.mu.Unlock()
	}
	return conn, err
}

func (n *node) down() {
	n.w.Helper()
	n.stop()
	n.server.Stop()
	n.tasks.Wait()
	n.w.mu.Lock()
	store, conns := n.store, n.conns
	n.store, n.conns = nil, nil
	delete(n.w.ports, n.address)
	n.w.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
	if err := store.Close(); err != nil {
		n.w.Error(err)
	}
}

func (w *world) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// group returns the group as n sees it: "a b -c" for voters a and b and c without
// a vote.
func (n *node) group() string {
	var list []string
	for _, v := range n.store.Status().Servers {
		mark := ""
		if !v.Voter {
			mark = "-"
		}
		list = append(list, mark+v.ID)
	}
	slices.SortFunc(list, func(a, b string) int { return strings.Compare(strings.TrimPrefix(a, "-"), strings.TrimPrefix(b, "-")) })
	return strings.Join(list, " ")
}

// said holds how often the primary has told the operator something.
func (n *node) said(t *testing.T, what string, want int) {
	t.Helper()
	if is := strings.Count(n.log.String(), what); is != want {
		t.Errorf("%s has said %q %d times, want %d:\n%s", n.id, what, is, want, n.log)
	}
}

func (w *world) all(want string) {
	w.Helper()
	leaders := map[string]bool{}
	for id, n := range w.nodes {
		if n.store == nil {
			continue
		}
		if is := n.group(); is != want {
			w.Errorf("%s sees the group %q, want %q; its log:\n%s", id, is, want, n.log)
		}
		leader, _ := n.store.Leader()
		leaders[leader] = true
	}
	if len(leaders) != 1 || leaders[""] {
		w.Errorf("the leaders are %v", leaders)
	}
}

// Three primaries with the same list form one group, whenever each of them
// starts.
func TestForm(t *testing.T) {
	story(t, func(w *world) {
		list := []string{"a", "b", "c"}
		w.start("c", 3, list...)
		w.wait(time.Minute)
		w.start("b", 3, list...)
		w.wait(time.Minute)
		if w.nodes["c"].store.Formed() || w.nodes["b"].store.Formed() {
			w.Fatal("a group was formed by two of three")
		}
		if log := w.nodes["c"].log.String(); !strings.Contains(log, "not in a group yet") || strings.Count(log, "\n") > 15 {
			w.Errorf("the operator is told:\n%s", log)
		}
		w.start("a", 3, list...)
		w.wait(20 * time.Second)
		w.all("a b c")

		// They are what they are when they start again, whatever they are told.
		for _, id := range list {
			w.nodes[id].down()
			w.nodes[id].up(3, list...)
			w.wait(10 * time.Second)
		}
		w.all("a b c")
	})
}

// A primary joins a group, catches up and votes. Another one never does.
func TestJoin(t *testing.T) {
	story(t, func(w *world) {
		a := w.start("a", 1)
		w.wait(5 * time.Second)
		if _, err := a.store.Propose(w.Context(), state.SetStandby{ID: "c", Standby: true}); err != nil {
			w.Fatal(err)
		}
		b := w.start("b", 1, "a")
		w.wait(5 * time.Second)
		w.all("a -b")
		a.said(t, "taking a primary into the group", 1)
		b.said(t, `msg="in the group"`, 1)
		w.wait(10 * time.Second)
		w.all("a b")
		w.start("c", 1, "b", "a") // through one that may not lead
		w.wait(time.Minute)
		w.all("a b -c")
		if _, err := a.store.Propose(w.Context(), state.SetStandby{ID: "c"}); err != nil {
			w.Fatal(err)
		}
		w.wait(time.Minute)
		w.all("a b c")
	})
}

// Whoever waits for a group says what for.
func TestWrongLists(t *testing.T) {
	for name, test := range map[string]struct {
		start func(w *world)
		want  string
	}{
		"another number": {func(w *world) {
			w.start("a", 2, "b")
			w.start("b", 3, "a", "c")
		}, "b at b has --bootstrap-expect 3, and this primary 2: give all the same"},
		"nobody there":   {func(w *world) { w.start("a", 2, "b") }, "connection refused"},
		"nobody to join": {func(w *world) { w.start("a", 1, "b"); w.start("b", 1, "a") }, "start one of them with --bootstrap-expect"},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(w *world) {
				test.start(w)
				w.wait(30 * time.Second)
				if a := w.nodes["a"]; a.store.Formed() || !strings.Contains(a.log.String(), test.want) {
					w.Errorf("formed: %v; it says:\n%s", a.store.Formed(), a.log)
				}
			})
		})
	}
}

// One names another that does not name it. Those that name each other form a
// group, and the third one joins it: there are never two.
func TestOneSidedList(t *testing.T) {
	story(t, func(w *world) {
		w.start("a", 2, "b")
		w.wait(10 * time.Second)
		w.start("b", 2, "c")
		w.wait(10 * time.Second)
		if log := w.nodes["a"].log.String(); w.nodes["a"].store.Formed() || !strings.Contains(log, "b has not found a through its own --join yet: name a there") {
			w.Errorf("a says:\n%s", log)
		}
		w.start("c", 2, "b")
		w.wait(time.Minute)
		w.all("a b c")
	})
}

// A primary with a vote has lost its disk. It does not remember how it voted, so it
// has no vote until it has caught up; and a primary that was removed does not
// come back with what it had, but with empty data it does.
func TestComesBackEmpty(t *testing.T) {
	story(t, func(w *world) {
		list := []string{"a", "b", "c"}
		for _, id := range list {
			w.start(id, 3, list...)
		}
		w.wait(20 * time.Second)
		n := w.nodes["b"]
		if n.store.Leads() {
			n = w.nodes["c"]
		}
		n.down()
		n.memory = raftstore.NewMemory()
		w.wait(5 * time.Second)
		n.up(3, list...)
		w.wait(4 * time.Second)
		for _, v := range n.store.Status().Servers {
			if v.Voter != (v.ID != n.id) {
				w.Errorf("%s began without data, and the group is %q", n.id, n.group())
			}
		}
		w.wait(30 * time.Second)
		w.all("a b c")

		for _, m := range w.nodes {
			if m.store.Leads() {
				if err := m.store.RemoveServer(w.Context(), n.id); err != nil {
					w.Fatal(err)
				}
			}
		}
		w.wait(time.Minute)
		n.down()
		n.up(3, list...)
		w.wait(time.Minute)
		for _, m := range w.nodes {
			if m != n && strings.Contains(m.group(), n.id) {
				w.Errorf("%s was removed, and came back: %q", n.id, m.group())
			}
		}
		n.down()
		n.memory = raftstore.NewMemory()
		n.up(3, list...)
		w.wait(time.Minute)
		w.all("a b c")
	})
}

// Two primaries have the same name. The second one says so, and no group is formed.
func TestNamesakes(t *testing.T) {
	story(t, func(w *world) {
		a := w.start("a", 2, "x")
		other := &node{w: w, id: "a", memory: raftstore.NewMemory(), address: "x", log: &journal{}}
		w.nodes["x"] = other
		w.net = raftstore.NewNetwork()
		other.up(2, "a")
		w.wait(30 * time.Second)
		if a.store.Formed() || other.store.Formed() || !strings.Contains(a.log.String(), "two primaries are called a") {
			w.Errorf("formed: %v, %v; a says:\n%s", a.store.Formed(), other.store.Formed(), a.log)
		}
	})
}

// namesake starts a primary with empty data under an id that another one has, at an
// address of its own.
func (w *world) namesake(id, address string, join ...string) *node {
	w.Helper()
	n := &node{w: w, id: id, memory: raftstore.NewMemory(), address: address, log: &journal{}}
	w.nodes[address] = n
	n.up(1, join...)
	return n
}

// three starts three primaries that form a group, and returns the one that leads, or
// one of the others.
func (w *world) three(lead bool) *node {
	w.Helper()
	list := []string{"a", "b", "c"}
	for _, id := range list {
		w.start(id, 3, list...)
	}
	w.wait(20 * time.Second)
	w.all("a b c")
	for _, id := range list {
		if w.nodes[id].store.Leads() == lead {
			return w.nodes[id]
		}
	}
	w.Fatalf("there is none of which it is %v that it leads", lead)
	return nil
}

// Somebody starts a new primary under the name of one that lives, with the
// configuration of that one, say. The group stays as it is, nobody loses the
// leadership, and both say what is wrong. The new one does not wait for the other one
// to be away either.
func TestNamesakeOfOneThatLives(t *testing.T) {
	for name, lead := range map[string]bool{"of a follower": false, "of the leader": true} {
		t.Run(name, func(t *testing.T) {
			story(t, func(w *world) {
				n := w.three(lead)
				before := n.store.Status()
				second := w.namesake(n.id, "x", "a", "b", "c")
				w.wait(time.Minute)
				after := n.store.Status()
				if after.Term != before.Term || after.LeaderID != before.LeaderID || !slices.Equal(after.Servers, before.Servers) {
					w.Errorf("the group was %+v, and is %+v", before, after)
				}
				if second.store.Formed() || strings.Count(second.log.String(), "level=ERROR") != 1 || !strings.Contains(second.log.String(), "give each a --node-id of its own") {
					w.Errorf("in a group: %v; the second %s says:\n%s", second.store.Formed(), n.id, second.log)
				}
				if log := n.log.String(); strings.Count(log, "level=WARN") != 1 || !strings.Contains(log, "another primary has the name of this one") {
					w.Errorf("the first %s says:\n%s", n.id, log)
				}
				n.down()
				w.wait(time.Minute)
				if second.store.Formed() {
					w.Errorf("it took the place of %s while that was away", n.id)
				}
				n.up(3, "a", "b", "c")
				w.wait(30 * time.Second)
				second.down()
				w.all("a b c")
			})
		})
	}
}

// A primary tells why there is no group for it, or no leader, for as long as that is so.
func TestTrouble(t *testing.T) {
	story(t, func(w *world) {
		is := func(n *node, want string) {
			t.Helper()
			if err := n.member.Trouble(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				w.Errorf("%s is in trouble: %v, want %q", n.id, err, want)
			}
		}
		w.start("a", 3, "b", "c")
		w.wait(10 * time.Second)
		is(w.nodes["a"], "ask b who it is")
		w.nodes["a"].down()
		n := w.three(false)
		is(n, "")
		for _, m := range w.nodes {
			if m != n {
				m.down()
			}
		}
		w.wait(15 * time.Second)
		is(n, "connection refused")
		for _, m := range w.nodes {
			if m != n {
				m.up(3, "a", "b", "c")
			}
		}
		w.wait(15 * time.Second)
		is(n, "")
	})
}

// A primary loses its disk again and again: just when it has its vote back, and while it
// waits for that. Each time the ten seconds count anew.
func TestVoteAfterEachLoss(t *testing.T) {
	story(t, func(w *world) {
		n := w.three(false)
		leader := w.nodes[n.store.Status().LeaderID]
		votes := func() bool {
			return slices.ContainsFunc(leader.store.Status().Servers, func(v raftstore.Server) bool { return v.ID == n.id && v.Voter })
		}
		await := func(what bool) {
			for votes() != what {
				w.wait(10 * time.Millisecond)
			}
		}
		for _, loss := range []struct {
			after time.Duration
			again bool // the next loss comes before it votes
		}{{after: time.Minute}, {}, {}, {after: time.Minute, again: true}, {after: 6 * time.Second, again: true}, {after: 6 * time.Second}} {
			w.wait(loss.after)
			n.down()
			n.memory = raftstore.NewMemory()
			n.up(3, "a", "b", "c")
			began := time.Now()
			await(false)
			if loss.again {
				continue
			}
			await(true)
			if took := time.Since(began); took < steadyFor || took > steadyFor+5*time.Second {
				w.Errorf("it began without data, and had a vote %v later", took)
			}
		}
	})
}

// A primary has lost its host, and comes back empty elsewhere under its name: the
// one that had it does not answer.
func TestComesBackEmptyElsewhere(t *testing.T) {
	story(t, func(w *world) {
		n := w.three(false)
		n.down()
		w.wait(10 * time.Second)
		delete(w.nodes, n.id)
		n = w.namesake(n.id, "x", "a", "b", "c")
		w.wait(8 * time.Second)
		if !strings.Contains(n.group(), "-"+n.id) {
			w.Errorf("%s began without data, and the group is %q", n.id, n.group())
		}
		w.wait(30 * time.Second)
		w.all("a b c")
	})
}

// A follower, or the leader, comes back at another address. The group learns it
// from that one.
func TestAddressChange(t *testing.T) {
	for name, lead := range map[string]bool{"of a follower": false, "of the leader": true} {
		t.Run(name, func(t *testing.T) {
			story(t, func(w *world) {
				list := []string{"a", "b", "c"}
				for _, id := range list {
					w.start(id, 3, list...)
				}
				w.wait(20 * time.Second)
				w.all("a b c")
				var n *node
				for _, m := range w.nodes {
					if m.store.Leads() == lead {
						n = m
					}
				}
				n.down()
				w.wait(10 * time.Second)
				n.address = n.id + "-new"
				n.up(3, list...)
				w.wait(time.Minute)
				n.said(t, "the group has this primary's new address", 1)
				for _, m := range w.nodes {
					m.said(t, "taking a primary into the group", 0)
					want := raftstore.Server{ID: n.id, Address: n.address, Voter: true}
					if m.store.Leads() && !slices.Contains(m.store.Status().Servers, want) {
						w.Errorf("%s leads and sees %v, want %v", m.id, m.store.Status().Servers, want)
					}
				}
			})
		})
	}
}

// A primary without a link sends workers elsewhere when others know of a leader,
// or when it can't tell, and not when none has one.
func TestBetterElsewhere(t *testing.T) {
	story(t, func(w *world) {
		list := []string{"a", "b", "c"}
		for _, id := range list {
			w.start(id, 3, list...)
		}
		w.wait(20 * time.Second)
		var n, leader, other *node
		for _, m := range w.nodes {
			switch {
			case m.store.Leads():
				leader = m
			case n == nil:
				n = m
			default:
				other = m
			}
		}
		if !n.member.BetterElsewhere(w.Context()) {
			w.Error("the others have a leader")
		}
		w.net.Isolate(leader.id)
		w.net.Cut(n.id, other.id)
		w.wait(10 * time.Second)
		if n.member.BetterElsewhere(w.Context()) {
			w.Error("nobody has a leader, and two of three can tell")
		}
		leader.down()
		other.down()
		if !n.member.BetterElsewhere(w.Context()) {
			w.Error("the others can't be reached, and may have a leader")
		}
	})
}
