package raftstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/schedd/schedd/raftstore/state"
)

// cluster is primaries on a network and disks that can fail.
type cluster struct {
	t      *testing.T
	net    *Network
	disks  map[string]*Memory
	stores map[string]*Store
	wait   bool // they wait until somebody tells them of a group
}

var three = []string{"a", "b", "c"}

// newCluster returns three primaries that form a group.
func newCluster(t *testing.T) *cluster { return startCluster(t, false, three...) }

// newWaiting returns primaries that wait.
func newWaiting(t *testing.T, ids ...string) *cluster { return startCluster(t, true, ids...) }

// newFormed returns a group of primaries that have waited, and its leader.
func newFormed(t *testing.T, ids ...string) (*cluster, *Store) {
	t.Helper()
	c := newWaiting(t, ids...)
	if err := c.stores[ids[0]].Form(t.Context(), c.net.Group(ids...)); err != nil {
		t.Fatal(err)
	}
	return c, c.leader()
}

func startCluster(t *testing.T, wait bool, ids ...string) *cluster {
	c := &cluster{t: t, net: NewNetwork(), disks: map[string]*Memory{}, stores: map[string]*Store{}, wait: wait}
	for _, id := range ids {
		c.fresh(id)
	}
	return c
}

// fresh starts a primary with an empty disk.
func (c *cluster) fresh(id string) *Store {
	c.disks[id] = NewMemory()
	return c.start(id)
}

func (c *cluster) start(id string) *Store { return c.startAt(id, id) }

// allNew says of all primaries of a test that they are of this version.
func allNew() map[string]uint32 {
	return map[string]uint32{"a": Level, "b": Level, "c": Level, "d": Level, "e": Level, "f": Level}
}

func (c *cluster) startAt(id, address string) *Store { return c.startAs(id, address, Level) }

// startAs starts one that knows commands up to a level.
func (c *cluster) startAs(id, address string, level uint32) *Store {
	conf := Config{
		NodeID: id, Memory: c.disks[id], Transport: c.net.TransportAt(id, address),
		SnapshotThreshold: 20, SnapshotInterval: 5 * time.Second, TrailingLogs: 5, Level: level, Levels: allNew,
	}
	if conf.Join = c.wait; !c.wait {
		conf.Bootstrap = c.net.Group(three...)
	}
	c.stores[id] = open(c.t, conf)
	return c.stores[id]
}

// kill ends a primary as SIGKILL does.
func (c *cluster) kill(id string) {
	c.net.Isolate(id)
	c.disks[id].Pull()
	if err := c.stores[id].Close(); err != nil {
		c.t.Errorf("close %s: %v", id, err)
	}
}

func (c *cluster) restart(id string) {
	c.net.Heal()
	c.start(id)
}

func (c *cluster) leader() *Store {
	c.t.Helper()
	return awaitLeader(c.t, slices.Collect(maps.Values(c.stores))...)
}

// other returns one of the primaries that is none of these.
func (c *cluster) other(not ...*Store) *Store {
	for _, id := range slices.Sorted(maps.Keys(c.stores)) {
		if !slices.Contains(not, c.stores[id]) {
			return c.stores[id]
		}
	}
	c.t.Fatal("there is no other")
	return nil
}

// agree waits until all have applied the same, and compares.
func (c *cluster) agree() {
	c.t.Helper()
	c.net.Heal()
	c.leader()
	for range 600 {
		time.Sleep(100 * time.Millisecond)
		seen := map[uint64]bool{}
		for _, s := range c.stores {
			s.View(func(st *state.State) { seen[st.Index()] = true })
		}
		if len(seen) == 1 {
			break
		}
	}
	hashes := map[[32]byte]bool{}
	for _, s := range c.stores {
		s.View(func(st *state.State) { hashes[hashOf(c.t, st)] = true })
	}
	if len(hashes) != 1 {
		c.t.Errorf("the primaries have %d different states", len(hashes))
	}
}

func TestThreePrimariesAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		l := c.leader()
		for i := range 100 {
			propose(t, l, putWorker(i))
		}
		st := l.Status()
		if st.Role != "leader" || st.LeaderID != st.ID || len(st.Servers) != 3 || !st.Servers[0].Voter || !st.LastContact.IsZero() {
			t.Errorf("status of the leader = %+v", st)
		}
		for id, s := range c.stores {
			if s == l {
				continue
			}
			if _, err := s.Propose(t.Context(), putWorker(1)); !errors.Is(err, ErrNotLeader) {
				t.Errorf("a follower: err = %v, want ErrNotLeader", err)
			}
			if f := s.Status(); f.Role != "follower" || f.LeaderID != st.ID || f.ID != id || f.Term != st.Term || f.LastContact.IsZero() {
				t.Errorf("status of a follower = %+v", f)
			}
		}
		c.agree()
		if n := numWorkers(c.stores["c"]); n != 100 {
			t.Errorf("%d workers, want 100", n)
		}
	})
}

// A leader that is cut off can't tell what became of what it has in flight.
func TestLeaderCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		old := c.leader()
		c.net.Isolate(old.id)
		if _, err := old.Propose(t.Context(), putWorker(1)); !errors.Is(err, ErrUnknown) {
			t.Errorf("err = %v, want ErrUnknown", err)
		}
		if _, err := old.Propose(t.Context(), putWorker(1)); !errors.Is(err, ErrNotLeader) {
			t.Errorf("err = %v, want ErrNotLeader", err)
		}
		time.Sleep(10 * time.Second)
		propose(t, c.leader(), putWorker(2))
		c.agree()
		old.View(func(st *state.State) {
			if st.Worker("w000001") != nil || st.Worker("w000002") == nil {
				t.Errorf("workers = %+v, want what the majority has", st.Workers())
			}
		})
	})
}

// Whatever fails, and whoever leads: what was told to be agreed is there, what
// was told not to be proposed is not, and each gets its own answer.
func TestNothingAgreedIsLost(t *testing.T) {
	seeds := 6
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			events := rapid.SliceOfN(rapid.IntRange(0, 4), 12, 12).Example(seed)
			synctest.Test(t, func(t *testing.T) { live(t, events) })
		})
	}
}

// live has proposers propose while the events come, one every few seconds.
func live(t *testing.T, events []int) {
	c := newCluster(t)
	c.leader()
	var mu sync.Mutex // guards all of the following, and c.stores
	agreed, refused := map[int]bool{}, map[int]bool{}
	next := 0
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for p := range 3 {
		all.Go(func() {
			for ctx.Err() == nil {
				mu.Lock()
				n := next
				next++
				s := c.stores[three[(n+p)%3]]
				mu.Unlock()
				results, err := s.Propose(ctx, putWorker(n))
				mu.Lock()
				if err == nil && (len(results) != 1 || results[0].Worker.Says.Slots != n+1) {
					t.Errorf("proposal %d got the answer %+v", n, results)
				}
				agreed[n] = err == nil
				refused[n] = errors.Is(err, ErrNotLeader) || errors.Is(err, ErrStopped)
				mu.Unlock()
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
	for i, event := range events {
		id := three[(event+i)%3]
		if event < 3 {
			id = c.leader().id
		}
		switch event {
		case 0, 3:
			c.kill(id)
			time.Sleep(3 * time.Second)
			mu.Lock()
			c.restart(id)
			mu.Unlock()
		case 1, 4:
			c.net.Isolate(id)
		case 2:
			if err := c.leader().Transfer(t.Context()); err != nil {
				t.Logf("transfer: %v", err)
			}
		}
		time.Sleep(3 * time.Second)
		c.net.Heal()
		time.Sleep(3 * time.Second)
	}
	cancel()
	all.Wait()
	c.agree()
	kept := map[int]bool{}
	c.stores["a"].View(func(st *state.State) {
		for _, w := range st.Workers() {
			kept[w.Says.Slots-1] = true
		}
	})
	told := 0
	for n := range next {
		switch {
		case agreed[n] && !kept[n]:
			t.Errorf("proposal %d was agreed, and is lost", n)
		case refused[n] && kept[n]:
			t.Errorf("proposal %d was refused, and is there", n)
		}
		if agreed[n] {
			told++
		}
	}
	if told < 100 {
		t.Errorf("only %d of %d proposals were agreed", told, next)
	}
}

// A killed primary comes back with what it had, and nothing of what it wrote
// after that.
func TestKilledPrimaryComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory()
		s := alone(t, m)
		propose(t, s, putWorker(1))
		if _, err := Open(Config{NodeID: "a", Memory: m, Log: quiet()}); err == nil {
			t.Error("two stores on one disk")
		}
		m.Pull()
		if _, err := s.Propose(t.Context(), putWorker(2)); !errors.Is(err, ErrUnknown) {
			t.Errorf("err = %v, want ErrUnknown", err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if n := numWorkers(alone(t, m)); n != 1 {
			t.Errorf("%d workers, want 1", n)
		}
	})
}

// A primary is killed, or its power fails, while an entry is being synced, and nobody is
// told of it. SIGKILL takes nothing that was written; a loss of power does.
func TestEndAmidAnFsync(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(*Memory) (lost int)
		want int
	}{
		"killed": {func(m *Memory) int {
			m.Pull()
			return 0
		}, 2},
		"without power": {(*Memory).Lose, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := NewMemory()
				s := alone(t, m)
				propose(t, s, putWorker(1))
				m.BeforeSync(func() { time.Sleep(time.Second) })
				told := make(chan error, 1)
				go func() {
					_, err := s.Propose(t.Context(), putWorker(2))
					told <- err
				}()
				time.Sleep(time.Second / 2)
				if lost := test.end(m); lost != 2-test.want {
					t.Errorf("%d entries were lost, want %d", lost, 2-test.want)
				}
				if err := <-told; !errors.Is(err, ErrUnknown) {
					t.Errorf("err = %v, want ErrUnknown", err)
				}
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				m.BeforeSync(nil)
				if n := numWorkers(alone(t, m)); n != test.want {
					t.Errorf("%d workers, want %d", n, test.want)
				}
			})
		})
	}
}

// A primary that was away for longer than the log reaches back gets a snapshot,
// and tells its subscribers that everything may have changed.
func TestFollowerGetsSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		l := c.leader()
		var away *Store
		for _, s := range c.stores {
			if s != l {
				away = s
			}
		}
		c.net.Isolate(away.id)
		var everything, after int
		away.Subscribe(func(changes []state.Change) {
			if changes == nil {
				everything++
			} else if everything > 0 {
				after += len(changes)
			}
		})
		for i := range 100 {
			propose(t, l, putWorker(i))
		}
		if err := l.Snapshot(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.net.Heal()
		time.Sleep(10 * time.Second)
		propose(t, c.leader(), putWorker(100))
		c.agree()
		synctest.Wait()
		if everything != 1 || after == 0 || numWorkers(away) != 101 {
			t.Errorf("told %d times that everything changed, then of %d changes; has %d workers", everything, after, numWorkers(away))
		}
	})
}

// One that is added to a group gets all that the group has.
func TestJoin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewNetwork()
		a := open(t, Config{NodeID: "a", Memory: NewMemory(), Transport: n.Transport("a")})
		awaitLeader(t, a)
		propose(t, a, putWorker(1))
		b := open(t, Config{NodeID: "b", Memory: NewMemory(), Transport: n.Transport("b"), Join: true})
		time.Sleep(10 * time.Second)
		if st := b.Status(); st.Role != "follower" || st.LeaderID != "" || len(st.Servers) != 0 {
			t.Errorf("before it is added: %+v", st)
		}
		if err := a.AddServer(t.Context(), Server{ID: "b", Address: "b", Voter: true}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if n := numWorkers(b); n != 1 {
			t.Errorf("%d workers, want 1", n)
		}
		if err := a.Transfer(t.Context()); err != nil {
			t.Fatal(err)
		}
		propose(t, awaitLeader(t, b), putWorker(2))
		if err := a.Transfer(t.Context()); !errors.Is(err, ErrNotLeader) {
			t.Errorf("err = %v, want ErrNotLeader", err)
		}
	})
}
