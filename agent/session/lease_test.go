package session

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
)

// tenant needs leases for some attempts.
type tenant struct {
	wants []uint64
	born  time.Time
	got   []grant
}

type grant struct {
	fences []uint64
	asked  time.Duration
}

func (w *tenant) Wanted() ([]uint64, time.Duration) { return w.wants, time.Since(w.born) }

func (w *tenant) Granted(fences []uint64, asked time.Duration) {
	w.got = append(w.got, grant{fences, asked})
}

// rented tells a story of a pinger in a bubble.
func rented(t *testing.T, wants []uint64, tell func(p *pinger, w *tenant)) {
	synctest.Test(t, func(t *testing.T) {
		w := &tenant{wants: wants, born: time.Now()}
		p := newPinger(wire.PingInterval, w, newPulse(clock, clock()))
		defer p.timer.Stop()
		tell(p, w)
	})
}

// A lease counts from when the ping was sent that it answers, however long the answer
// took; and each answer counts once, and only for a ping that has asked.
func TestLeaseCountsFromThePing(t *testing.T) {
	rented(t, []uint64{7, 9}, func(p *pinger, w *tenant) {
		time.Sleep(time.Second)
		first := p.ping().GetPing()
		time.Sleep(10 * time.Second)
		second := p.ping().GetPing()
		if !slices.Equal(first.GetFences(), []uint64{7, 9}) || second.GetSeq() == first.GetSeq() {
			t.Errorf("asked with %v and %v", first, second)
		}
		w.wants = nil
		third := p.ping().GetPing()
		if len(third.GetFences()) > 0 {
			t.Errorf("it asks for what it does not need: %v", third)
		}
		time.Sleep(30 * time.Second)
		for _, seq := range []uint64{second.GetSeq(), first.GetSeq(), first.GetSeq(), third.GetSeq(), 99} {
			p.answered(&agentv1.Lease{Seq: seq, Fences: []uint64{7}})
		}
		want := []grant{{[]uint64{7}, 11 * time.Second}, {[]uint64{7}, time.Second}}
		if !slices.EqualFunc(w.got, want, func(a, b grant) bool { return slices.Equal(a.fences, b.fences) && a.asked == b.asked }) {
			t.Errorf("granted %v, want %v", w.got, want)
		}
	})
}

// Whoever needs a lease now does not wait for the next ping; many share one, and who
// needs none makes no difference.
func TestAskSoon(t *testing.T) {
	rented(t, nil, func(p *pinger, w *tenant) {
		p.ping()
		next := p.next
		p.hurry()
		if p.next != next {
			t.Errorf("a ping is due in %v, and nobody needs it", time.Until(p.next))
		}
		w.wants = []uint64{1}
		time.Sleep(50 * time.Millisecond)
		p.hurry()
		p.hurry()
		if d := time.Until(p.next); d != askLeast-50*time.Millisecond {
			t.Errorf("the next ping is due in %v", d)
		}
		<-p.timer.C
		p.ping()
		time.Sleep(5 * time.Second)
		p.hurry()
		<-p.timer.C
		if since := time.Since(p.last); since != 5*time.Second {
			t.Errorf("it was due %v after the last one", since)
		}
	})
}

// What is not answered is not remembered for ever.
func TestUnansweredPings(t *testing.T) {
	rented(t, []uint64{1}, func(p *pinger, w *tenant) {
		for range 10 * maxAsked {
			p.ping()
		}
		if len(p.asked) != maxAsked {
			t.Errorf("%d pings are remembered, want %d", len(p.asked), maxAsked)
		}
	})
}

// A worker pings when the gateway would like it, if it said so last, and within the spread;
// else when it chose to by itself. A first lease waits for none of that.
func TestPingWhenItIsLiked(t *testing.T) {
	rented(t, nil, func(p *pinger, w *tenant) {
		like := func(seq uint64, next time.Duration) time.Duration {
			p.ponged(&agentv1.Pong{Seq: seq, NextPing: durationpb.New(next)})
			return time.Until(p.next)
		}
		own := func() time.Duration {
			p.ping()
			return time.Until(p.next)
		}
		for _, liked := range []time.Duration{8 * time.Second, 11125 * time.Millisecond, 12 * time.Second} {
			own()
			if got := like(p.seq, liked); got != liked {
				t.Errorf("the next ping is due in %v, and is liked in %v", got, liked)
			}
			<-p.timer.C
			if since := time.Since(p.last); since != liked {
				t.Errorf("it came %v after the last, and was liked after %v", since, liked)
			}
		}
		for _, liked := range []time.Duration{0, -time.Hour, time.Millisecond, 7999 * time.Millisecond, 12001 * time.Millisecond, time.Hour} {
			if want, got := own(), like(p.seq, liked); got != want {
				t.Errorf("liked in %v: it is due in %v, want %v", liked, got, want)
			}
		}
		if want, got := own(), like(p.seq-1, 11*time.Second); got != want {
			t.Errorf("what was said of the ping before counts: it is due in %v, want %v", got, want)
		}
		w.wants = []uint64{1}
		own()
		p.hurry()
		if got := like(p.seq, 11*time.Second); got != askLeast {
			t.Errorf("a worker that needs a lease asks in %v, want %v", got, askLeast)
		}
		own()
		if got := like(p.seq, 11*time.Second); got != 11*time.Second {
			t.Errorf("after that the next ping is due in %v", got)
		}
	})
}
