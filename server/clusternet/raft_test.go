package clusternet_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
)

// member is a primary with a real Raft behind its port.
type member struct {
	*primary
	*raftstore.Store
	id string
}

// join has Raft, with a disk in memory, use the port of a primary until the test
// ends.
func join(t *testing.T, id string, p *primary) *member {
	t.Helper()
	s, err := raftstore.Open(raftstore.Config{
		NodeID: id, Memory: raftstore.NewMemory(), Streams: p.Streams(), Join: true, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	m := &member{p, s, id}
	t.Cleanup(m.stop(t))
	return m
}

func (m *member) stop(t *testing.T) func() {
	return func() {
		if err := m.Close(); err != nil {
			t.Errorf("close the store of %s: %v", m.id, err)
		}
	}
}

// form makes these a group.
func form(t *testing.T, members ...*member) {
	t.Helper()
	var group []raftstore.Server
	for _, m := range members {
		group = append(group, raftstore.Server{ID: m.id, Address: m.address, Voter: true})
	}
	if err := members[0].Form(t.Context(), group); err != nil {
		t.Fatal(err)
	}
}

// leader waits until one of them leads, and is let in.
func leader(t *testing.T, members ...*member) *member {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	found, ended := make(chan *member, len(members)), make(chan struct{})
	for _, m := range members {
		go func() {
			m.Lead(ctx, func(ctx context.Context) error {
				found <- m
				<-ctx.Done()
				return nil
			})
			ended <- struct{}{}
		}()
	}
	l := <-found
	cancel()
	for range members {
		<-ended
	}
	return l
}

// agree has the leader propose something, and waits until all have it.
func agree(t *testing.T, l *member, members ...*member) {
	t.Helper()
	if _, err := l.Propose(t.Context(), state.PutWorker{ID: "w-1", Says: state.WorkerInfo{Name: "w", Slots: 1}}); err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		if err := m.WaitApplied(t.Context(), l.AppliedIndex()); err != nil {
			t.Fatal(err)
		}
		m.View(func(s *state.State) {
			if len(s.Workers()) != 1 {
				t.Errorf("%s does not know what was agreed", m.id)
			}
		})
	}
}

// Three primaries form a group over real sockets, agree, hand the leadership over,
// and call each other by gRPC on the same ports meanwhile.
func TestRaftOverTCP(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			var group []*member
			for _, id := range []string{"a", "b", "c"} {
				p := listenTCP(t, id, mode.key)
				p.serve(t)
				group = append(group, join(t, id, p))
			}
			form(t, group...)
			l := leader(t, group...)
			agree(t, l, group...)
			for _, from := range group {
				for _, to := range group {
					if err := from.call(t, to.address); err != nil {
						t.Error(err)
					}
				}
			}
			if err := l.Transfer(t.Context()); err != nil {
				t.Fatal(err)
			}
			agree(t, leader(t, group...), group...)
			for _, m := range group {
				if got := m.log.String(); got != "" {
					t.Errorf("the log of %s has %s", m.id, got)
				}
			}
		})
	}
}

// One that has another key gets no say, and the others go on when one stops.
func TestRaftWithAStrangerAndALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := lan{}
		start := func(id string, key []byte) *member {
			p := n.open(t, id, key)
			p.serve(t)
			return join(t, id, p)
		}
		a, b, c := start("a", theKey), start("b", theKey), start("c", theKey)
		form(t, a, b, c)
		l := leader(t, a, b, c)
		agree(t, l, a, b, c)

		stranger := start("d", otherKey)
		if err := l.AddServer(t.Context(), raftstore.Server{ID: "d", Address: "d"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if i := stranger.AppliedIndex(); i != 0 {
			t.Errorf("the stranger has %d entries", i)
		}

		l.stop(t)()
		if err := l.Network.Close(); err != nil {
			t.Error(err)
		}
		var rest []*member
		for _, m := range []*member{a, b, c} {
			if m != l {
				rest = append(rest, m)
			}
		}
		agree(t, leader(t, rest...), rest...)
	})
}
