package lead

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/peer"
)

// A worker that comes back as it was costs no entry; one that has another name does.
func TestComingBackCostsNoEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Hour)
		defer p.close()
		p.hand.keeps = &agentv1.Enforcement{Memory: agentv1.Means_MEANS_CGROUP_V2, Note: "all of it"}
		p.hand.connect()
		time.Sleep(5 * time.Second)
		before := p.store.Stats()
		p.hand.disconnect()
		time.Sleep(5 * time.Second)
		p.hand.connect()
		time.Sleep(5 * time.Second)
		if n := p.store.Stats().Entries - before.Entries; n != 0 {
			t.Errorf("%d entries for a worker that is back, want none", n)
		}
		p.inbox.Attach(peer.Session{Worker: p.hand.id, Epoch: p.hand.epoch + 1, Gateway: "p", Hello: &agentv1.Hello{Name: "renamed", Slots: 100, Leases: true, Enforcement: p.hand.keeps}})
		time.Sleep(5 * time.Second)
		p.store.View(func(s *state.State) {
			if w := s.Worker("w-1"); w.Says.Name != "renamed" {
				t.Errorf("it is on record as %+v, want its new name", w.Says)
			}
		})
	})
}

// A worker is given up by what was agreed only after it came back. That it is there is
// soon on record.
func TestGivenUpWhileItIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Hour)
		defer p.close()
		p.hand.connect()
		time.Sleep(5 * time.Second)
		p.propose(state.SetOffline{ID: "w-1"})
		time.Sleep(time.Second)
		p.store.View(func(s *state.State) {
			if w := s.Worker("w-1"); !w.Offline.IsZero() {
				t.Errorf("it is offline since %v", w.Offline)
			}
		})
	})
}

// A worker is removed in the moment in which it comes back: whoever asked for it had seen no
// session. It would be there without being on record, and be given nothing. Its session ends,
// and in the next one it is new.
func TestRemovedWhileItIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Hour)
		defer p.close()
		p.hand.connect()
		time.Sleep(5 * time.Second)
		p.propose(state.RemoveWorker{ID: "w-1"})
		time.Sleep(time.Second)
		var cuts []string
		p.hand.set(func() { cuts = p.hand.cuts })
		if len(cuts) != 1 || !strings.Contains(cuts[0], "removed") {
			t.Fatalf("its session is to end because of %q, want once since it was removed", cuts)
		}
		p.hand.disconnect()
		time.Sleep(time.Second)
		p.hand.connect()
		time.Sleep(5 * time.Second)
		p.store.View(func(s *state.State) {
			if w := s.Worker("w-1"); w == nil || !w.Offline.IsZero() {
				t.Errorf("on record is %+v", w)
			}
		})
		if p.hand.set(func() { cuts = p.hand.cuts }); len(cuts) != 1 {
			t.Errorf("the next session is to end as well: %q", cuts)
		}
	})
}

// A worker is taken for another while the leader writes, and is then what it was before.
// That is what is on record in the end.
func TestEnrolledTwiceInOneStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Hour)
		defer p.close()
		p.hand.connect()
		time.Sleep(5 * time.Second)
		p.disk.BeforeWrite(func() { time.Sleep(time.Second) })
		for i, name := range []string{"one", "another", "one"} {
			p.inbox.Attach(peer.Session{Worker: p.hand.id, Epoch: p.hand.epoch + 1 + uint64(i), Gateway: "p", Hello: &agentv1.Hello{Name: name, Slots: 100, Leases: true}})
			if i == 0 {
				time.Sleep(time.Second / 2) // the leader is at it
			}
		}
		time.Sleep(30 * time.Second)
		p.store.View(func(s *state.State) {
			if w := s.Worker("w-1"); w.Says.Name != "one" {
				t.Errorf("it is on record as %q, and said last that it is %q", w.Says.Name, "one")
			}
		})
	})
}
