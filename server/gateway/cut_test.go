package gateway_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/schedd/schedd/server/gateway"
)

// cut ends a connection on the way.
func (p *primary) cut(t *testing.T, number int) {
	t.Helper()
	synctest.Wait()
	if err := p.accepted[number].Conn.Close(); err != nil {
		t.Fatal(err)
	}
}

// said returns what the leader was told of a worker.
func (p *primary) said(w *worker) string {
	return strings.ReplaceAll(strings.Join(p.leader.told(), ", "), w.id, "w")
}

// The leader hears of the end of a connection before gRPC has cleaned up after it, once, and
// of nothing that comes of it later. The worker may come back at once.
func TestEndIsToldAtOnce(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		cleanUp := make(chan struct{})
		p.hold = cleanUp
		defer func() {
			if cleanUp != nil {
				close(cleanUp)
			}
		}()
		w := p.connect(t, 1, epoch(1))
		p.hold = nil
		p.cut(t, 0)
		if got := p.said(w); got != "attach w 0x1, detach w 0x1" {
			t.Fatalf("the leader was told %q when the connection had ended", got)
		}
		if live := p.Sessions(); len(live) != 0 || p.Send(w.id, 1, kill("r")) {
			t.Errorf("sessions %v, want none", live)
		}
		p.connect(t, 1, epoch(2))
		close(cleanUp)
		cleanUp = nil
		if got := p.said(w); got != "attach w 0x1, detach w 0x1, attach w 0x2" {
			t.Errorf("the leader was told %q when all was cleaned up", got)
		}
		if s := p.Stats(); s.Superseded != 0 || s.Sessions != 1 {
			t.Errorf("%d sessions, and %d were superseded; want the new one", s.Sessions, s.Superseded)
		}
	})
}

// A connection that ends while its worker shakes hands has no session, and the leader hears of
// none.
func TestEndWhileHandsAreShaken(t *testing.T) {
	var asked, goOn, cleanUp chan struct{} // of the bubble
	story(t, func(t *testing.T, p *primary) {
		asked, goOn, cleanUp = make(chan struct{}, 2), make(chan struct{}), make(chan struct{})
		p.hold = cleanUp
		w := p.dial(t, 1)
		w.greet()
		<-asked
		p.cut(t, 0)
		synctest.Wait()
		close(goOn) // it would be welcome, but for that
		synctest.Wait()
		close(cleanUp)
		if told := p.leader.told(); len(told) != 0 {
			t.Errorf("the leader was told %q, want nothing", told)
		}
		if s := p.Stats(); s.Sessions != 0 || s.Handshakes != 0 {
			t.Errorf("%d sessions and %d handshakes, want none", s.Sessions, s.Handshakes)
		}
	}, func(c *gateway.Config) {
		c.Admit = func(string) error {
			asked <- struct{}{}
			<-goOn
			return nil
		}
	})
}

// A load balancer may carry many workers over one connection: with it, all of them have ended.
func TestEndOfAllThatAConnectionCarries(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		cleanUp := make(chan struct{})
		p.hold = cleanUp
		defer close(cleanUp)
		dial := p.carried(t)
		var want []string
		for number := range byte(5) {
			w := dial(number)
			w.greet()
			w.id = w.expect("Welcome").GetWelcome().GetWorkerId()
			want = append(want, "detach "+w.id+" 0x100000001")
		}
		p.cut(t, 0)
		told := p.leader.told()
		if got := told[len(told)-len(want):]; len(told) != 2*len(want) || !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
			t.Errorf("the leader was told %q, want of the end of all", told)
		}
	})
}
