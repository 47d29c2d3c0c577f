package raftstore

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/schedd/schedd/raftstore/state"
)

// One of three forms the group, and the others, who wait, learn of it.
func TestFormByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newWaiting(t, three...)
		news := map[string]<-chan struct{}{}
		for id, s := range c.stores {
			var cancel func()
			news[id], cancel = s.WatchLeader()
			defer cancel()
		}
		time.Sleep(time.Minute)
		begin := time.Now()
		for id, s := range c.stores {
			if leader, address := s.Leader(); s.Formed() || s.Leads() || leader != "" || address != "" {
				t.Errorf("%s: formed %v, leads %v, leader %q at %q, and nobody has formed a group", id, s.Formed(), s.Leads(), leader, address)
			}
			if _, err := s.Propose(t.Context(), putWorker(1)); !errors.Is(err, ErrNotLeader) {
				t.Errorf("%s: err = %v, want ErrNotLeader", id, err)
			}
			if _, err := s.ReadIndex(t.Context()); !errors.Is(err, ErrNotLeader) {
				t.Errorf("%s: err = %v, want ErrNotLeader", id, err)
			}
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("they were told after %v, want at once", took)
		}
		for _, n := range news {
			drain(n)
		}

		if err := c.stores["a"].Form(t.Context(), []Server{{"c", "c", true}, {"b", "b", true}, {"a", "a", true}}); err != nil {
			t.Fatal(err)
		}
		l := c.leader()
		propose(t, l, putWorker(1))
		c.agree()
		for id, s := range c.stores {
			if leader, address := s.Leader(); !s.Formed() || leader != l.id || address != l.id || s.Leads() != (s == l) {
				t.Errorf("%s: formed %v, leads %v, leader %q at %q, want %s", id, s.Formed(), s.Leads(), leader, address, l.id)
			}
			if diff := cmp.Diff(c.net.Group(three...), s.Status().Servers); diff != "" {
				t.Errorf("%s: the group is another one, or in no order:\n%s", id, diff)
			}
			if err := s.Form(t.Context(), c.net.Group(id)); !errors.Is(err, ErrFormed) {
				t.Errorf("%s: err = %v, want ErrFormed", id, err)
			}
			select {
			case <-news[id]:
			default:
				t.Errorf("%s gave no news", id)
			}
		}
	})
}

func drain(c <-chan struct{}) {
	select {
	case <-c:
	default:
	}
}

// Whoever forms a group is in it, with a vote, and changes nothing if it is not.
func TestFormRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newWaiting(t, "a")
		a := c.stores["a"]
		for _, tt := range []struct {
			name  string
			group []Server
			want  string
		}{
			{"nobody", nil, "has to be one of them, with a vote"},
			{"others", c.net.Group("b", "c"), "has to be one of them, with a vote"},
			{"without a vote", []Server{{"a", "a", false}, {"b", "b", true}}, "has to be one of them, with a vote"},
			{"one twice", c.net.Group("a", "b", "b"), "duplicate"},
		} {
			if err := a.Form(t.Context(), tt.group); err == nil || !strings.Contains(err.Error(), tt.want) || a.Formed() {
				t.Errorf("%s: err = %v, want one that says %q; formed %v", tt.name, err, tt.want, a.Formed())
			}
		}
		if err := a.Form(t.Context(), c.net.Group("a")); err != nil {
			t.Error(err)
		}
	})
}

// A group grows by one that first listens and then votes; one that has lost its
// disk comes back under its old name; one that is no longer needed goes.
func TestGroupChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l := newFormed(t, three...)
		for i := range 50 {
			propose(t, l, putWorker(i))
		}
		do := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		d := c.fresh("d")
		do(l.AddServer(t.Context(), Server{"d", "d", false}))
		do(d.WaitApplied(t.Context(), l.AppliedIndex()))
		if n := numWorkers(d); n != 50 {
			t.Errorf("the fourth has %d workers, want 50", n)
		}
		do(l.AddServer(t.Context(), Server{"d", "d", true}))
		index := l.Status().CommitIndex
		do(l.AddServer(t.Context(), Server{"d", "d", true})) // it is so already
		if l.Status().Servers[3] != (Server{"d", "d", true}) || l.Status().CommitIndex != index+1 {
			t.Errorf("servers = %+v", l.Status().Servers)
		}

		lost := c.other(l)
		c.kill(lost.id)
		do(l.RemoveServer(t.Context(), lost.id))
		propose(t, l, putWorker(50))
		c.net.Heal()
		back := c.fresh(lost.id)
		time.Sleep(10 * time.Second)
		if back.Formed() {
			t.Error("one that was removed was told of the group")
		}
		do(l.AddServer(t.Context(), Server{lost.id, lost.id, false}))
		do(back.WaitApplied(t.Context(), l.AppliedIndex()))
		do(l.AddServer(t.Context(), Server{lost.id, lost.id, true}))

		do(l.AddServer(t.Context(), Server{"d", "d", false})) // only listens again
		if v := find(l.Status().Servers, "d"); v == nil || v.Voter {
			t.Errorf("the fourth is %+v, want without a vote", v)
		}
		do(l.RemoveServer(t.Context(), "d"))
		propose(t, l, putWorker(51))
		do(d.Close())
		delete(c.stores, "d")
		c.agree()
		if n := numWorkers(back); n != 52 || len(back.Status().Servers) != 3 {
			t.Errorf("who came back has %d workers and knows %+v", n, back.Status().Servers)
		}
	})
}

// A leader that takes itself out steps down, and is alone.
func TestLeaderRemovesItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l := newFormed(t, three...)
		ended := make(chan error, 1)
		go func() {
			ended <- l.Lead(t.Context(), func(ctx context.Context) error {
				<-ctx.Done()
				ended <- nil
				return nil
			})
		}()
		synctest.Wait()
		if err := l.RemoveServer(t.Context(), l.id); err != nil {
			t.Fatal(err)
		}
		<-ended
		time.Sleep(10 * time.Second)
		delete(c.stores, l.id)
		next := c.leader()
		propose(t, next, putWorker(1))
		if l.Leads() || !l.Formed() || len(next.Status().Servers) != 2 {
			t.Errorf("who was removed leads: %v; the group is %+v", l.Leads(), next.Status().Servers)
		}
		if _, err := l.Propose(t.Context(), putWorker(2)); !errors.Is(err, ErrNotLeader) {
			t.Errorf("err = %v, want ErrNotLeader", err)
		}
	})
}

func TestGroupRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l := newFormed(t, three...)
		f := c.other(l)
		for name, err := range map[string]error{
			"add":      f.AddServer(t.Context(), Server{"d", "d", false}),
			"re-add":   f.AddServer(t.Context(), Server{"a", "a", true}),
			"remove":   f.RemoveServer(t.Context(), "nobody"),
			"transfer": f.TransferTo(t.Context(), "nobody"),
			"read":     func() error { _, err := f.ReadIndex(t.Context()); return err }(),
			"restore":  f.RestoreSnapshot(t.Context(), strings.NewReader("")),
		} {
			if !errors.Is(err, ErrNotLeader) {
				t.Errorf("%s on a follower: err = %v, want ErrNotLeader", name, err)
			}
		}
		if err := l.RemoveServer(t.Context(), "nobody"); !errors.Is(err, ErrUnknownServer) {
			t.Errorf("err = %v, want ErrUnknownServer", err)
		}
		if err := l.TransferTo(t.Context(), "nobody"); !errors.Is(err, ErrUnknownServer) {
			t.Errorf("err = %v, want ErrUnknownServer", err)
		}
		for _, tt := range []struct {
			v    Server
			want string
		}{
			{Server{}, "needs an id and an address"},
			{Server{ID: "d"}, "needs an id and an address"},
			{Server{"d", f.id, false}, "is that of primary"},
		} {
			if err := l.AddServer(t.Context(), tt.v); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("add %+v: err = %v, want one that says %q", tt.v, err, tt.want)
			}
		}
		for _, s := range c.stores {
			if s == l {
				continue
			}
			if err := l.AddServer(t.Context(), Server{s.id, s.id, false}); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.AddServer(t.Context(), Server{l.id, l.id, false}); !errors.Is(err, errLastVote) {
			t.Errorf("err = %v, want the last vote kept", err)
		}
		if err := l.RemoveServer(t.Context(), l.id); !errors.Is(err, errLastVote) {
			t.Errorf("err = %v, want the last vote kept", err)
		}
		if err := l.TransferTo(t.Context(), f.id); err == nil || !strings.Contains(err.Error(), "has no vote") {
			t.Errorf("err = %v, want that it has no vote", err)
		}
		propose(t, l, putWorker(1))
	})
}

// That a primary is in the group no more is said when it is agreed, and not by a leader that
// was cut off in the moment in which it was to remove it.
func TestRemovalIsNotAgreed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l := newFormed(t, three...)
		f := c.other(l)
		c.net.Isolate(l.id)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := l.RemoveServer(ctx, f.id); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("err = %v, and nobody hears it", err)
		}
		if err := l.RemoveServer(t.Context(), f.id); err == nil || errors.Is(err, ErrUnknownServer) {
			t.Errorf("err = %v: nobody has agreed to that", err)
		}
		time.Sleep(10 * time.Second)
		c.net.Heal()
		l = c.leader()
		propose(t, l, putWorker(1))
		c.agree()
		if n := len(l.Status().Servers); n != 3 {
			t.Errorf("the group has %d primaries, want 3", n)
		}
		if err := l.RemoveServer(t.Context(), "nobody"); !errors.Is(err, ErrUnknownServer) {
			t.Errorf("err = %v, want that there is no such primary", err)
		}
	})
}

// A primary that moves is found again once the leader knows its new address.
func TestAddressChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l := newFormed(t, three...)
		moved := c.other(l)
		id := moved.id
		c.kill(id)
		c.net.Heal()
		moved = c.startAt(id, "elsewhere")
		propose(t, l, putWorker(1))
		time.Sleep(10 * time.Second)
		if n := numWorkers(moved); n != 0 {
			t.Errorf("it has %d workers, and nobody knows where it is", n)
		}
		if err := l.AddServer(t.Context(), Server{id, "elsewhere", true}); err != nil {
			t.Fatal(err)
		}
		if err := moved.WaitApplied(t.Context(), l.AppliedIndex()); err != nil {
			t.Fatal(err)
		}
		if err := l.TransferTo(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if l = c.leader(); l != moved {
			t.Fatalf("%s leads, want the one that has moved", l.id)
		}
		propose(t, l, putWorker(2))
		c.agree()
		for _, s := range c.stores {
			if leader, address := s.Leader(); leader != id || address != "elsewhere" {
				t.Errorf("%s takes %s at %s for the leader", s.id, leader, address)
			}
		}
	})
}

// The leadership goes to whom it is meant for.
func TestTransferTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l := newFormed(t, three...)
		for range 3 {
			for _, id := range three {
				to := c.stores[id]
				news, cancel := to.WatchLeader()
				if err := l.TransferTo(t.Context(), id); err != nil {
					t.Fatal(err)
				}
				for !to.Leads() {
					<-news
				}
				cancel()
				if l = c.leader(); l != to {
					t.Fatalf("%s leads, want %s", l.id, id)
				}
				propose(t, l, putWorker(1))
			}
		}
		// One that is away can't take over, and the leader goes on.
		away := c.other(l)
		c.net.Isolate(away.id)
		if err := l.TransferTo(t.Context(), away.id); err == nil {
			t.Error("handed over to one that is away")
		}
		time.Sleep(time.Second)
		propose(t, l, putWorker(2))
	})
}

// Who watches is told of each change, and of several at once only once.
func TestWatchLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l := newFormed(t, three...)
		f := c.other(l)
		news, cancel := f.WatchLeader()
		time.Sleep(time.Minute)
		drain(news)
		time.Sleep(2 * time.Minute)
		select {
		case <-news:
			t.Error("news where nothing changed")
		default:
		}
		change := func(what string, err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
			select {
			case <-news:
			default:
				t.Errorf("no news: %s", what)
			}
		}
		c.fresh("d")
		change("another primary", l.AddServer(t.Context(), Server{"d", "d", false}))
		change("a vote", l.AddServer(t.Context(), Server{"d", "d", true}))
		change("one less", l.RemoveServer(t.Context(), "d"))
		change("another leader", l.TransferTo(t.Context(), c.other(l, f).id))
		c.net.Isolate(f.id)
		change("no leader", nil)
		if leader, _ := f.Leader(); leader != "" {
			t.Errorf("the leader of one that is cut off is %q", leader)
		}
		cancel()
		cancel() // twice does no harm
		drain(news)
		c.net.Heal()
		time.Sleep(10 * time.Second)
		select {
		case <-news:
			t.Error("news after cancel")
		default:
		}
	})
}

// A primary that was stopped and comes back to an idle group knows that it has
// caught up, though nothing new is proposed; also when the end of its log was
// never agreed and is replaced.
func TestCaughtUpWhenIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		lead := func(s *Store) {
			go func() { _ = s.Lead(ctx, func(ctx context.Context) error { <-ctx.Done(); return nil }) }()
		}
		for _, s := range c.stores {
			lead(s)
		}
		l := c.leader()
		for i := range 3 {
			propose(t, l, putWorker(i))
		}
		caughtUp := func(what string) {
			t.Helper()
			time.Sleep(10 * time.Second)
			for id, s := range c.stores {
				select {
				case <-s.CaughtUp():
				default:
					t.Errorf("%s: %s has not caught up", what, id)
				}
			}
		}
		caughtUp("from the beginning")

		f := c.other(l)
		c.kill(f.id)
		c.net.Heal()
		lead(c.start(f.id))
		caughtUp("back to the same leader")

		// A leader that is cut off writes what is never agreed, far beyond what the
		// next one begins its term with.
		c.net.Isolate(l.id)
		for i := range 8 {
			l.raft.Apply(encoded(t, state.Entry{Now: time.Now(), Commands: []state.Command{putWorker(100 + i)}}), 0)
		}
		time.Sleep(10 * time.Second)
		c.kill(l.id)
		c.net.Heal()
		lead(c.start(l.id))
		caughtUp("with a log that nobody agreed on")

		// One whose log is too short for the leader's gets a snapshot.
		l = c.leader()
		f = c.other(l)
		c.kill(f.id)
		for i := range 100 {
			propose(t, l, putWorker(i))
		}
		if err := l.Snapshot(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.net.Heal()
		lead(c.start(f.id))
		caughtUp("by a snapshot")
		c.agree()
		for _, s := range c.stores {
			s.View(func(st *state.State) {
				if st.Worker("w000100") != nil || len(st.Workers()) != 100 {
					t.Errorf("%s has %d workers", s.id, len(st.Workers()))
				}
			})
		}
	})
}
