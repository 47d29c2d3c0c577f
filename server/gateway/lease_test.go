package gateway_test

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
)

func lease(seq uint64) *agentv1.GatewayMessage {
	return &agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Lease{Lease: &agentv1.Lease{Seq: seq, Fences: []uint64{7}}}}
}

// A ping that asks for leases is answered with a pong, which is none, and handed to the
// leader. One that asks for none is not worth a word to it.
func TestPingForLeases(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		w := p.connect(t, 1, epoch(1))
		w.say(&agentv1.Ping{Seq: 1})
		w.say(&agentv1.Ping{Seq: 2, Fences: []uint64{7, 8}})
		for seq := range uint64(2) {
			if got := w.expect("Pong").GetPong().GetSeq(); got != seq+1 {
				t.Errorf("the pong answers %d, want %d", got, seq+1)
			}
		}
		told := strings.ReplaceAll(strings.Join(p.leader.told(), ", "), w.id, "w")
		if told != "attach w 0x1, report w 0x1" {
			t.Errorf("the leader was told %q", told)
		}
		if got := p.leader.reports[0].GetPing(); got.GetSeq() != 2 || !slices.Equal(got.GetFences(), []uint64{7, 8}) {
			t.Errorf("the leader was asked with %v", got)
		}
		if !p.Send(w.id, 1, lease(2)) || p.Send(w.id, 2, lease(3)) {
			t.Error("a lease is given to a session that there is not, or is not to one that there is")
		}
		if got := w.expect("Lease").GetLease(); got.GetSeq() != 2 {
			t.Errorf("the worker is given %v", got)
		}
	})
}

// On a line that takes nothing a lease waits before all that is not as urgent.
func TestLeaseOvertakes(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		w := p.connect(t, 1, epoch(1))
		waiting := p.clog(t, w)
		p.Send(w.id, 1, lease(1))
		for before := 0; ; before++ {
			m, err := w.hear()
			if err != nil {
				t.Fatal(err)
			}
			if m.GetLease() != nil {
				if before > 30-waiting {
					t.Errorf("%d launches came before it, and only %d were on their way", before, 30-waiting)
				}
				return
			}
		}
	})
}

// A ping that asks for more than a worker can have is none of ours.
func TestPingForTooMuch(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		w := p.connect(t, 1, epoch(1))
		w.say(&agentv1.Ping{Seq: 1, Fences: make([]uint64, wire.MaxLeases)})
		w.expect("Pong")
		w.say(&agentv1.Ping{Seq: 2, Fences: make([]uint64, wire.MaxLeases+1)})
		if last, code := w.expectEnd(); code != codes.InvalidArgument {
			t.Errorf("got %v, then %v", last, code)
		}
	})
}
