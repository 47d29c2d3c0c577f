package session

import (
	"math/rand/v2"
	"sync"
	"time"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
)

// Leases are the leases on the worker's attempts, as a session needs them. All
// methods return at once, and may be called by several sessions at a time.
type Leases interface {
	// Wanted returns the fences of the attempts that need leases, at most
	// [wire.MaxLeases], and the time now on the clock that leases are counted by.
	Wanted() (fences []uint64, now time.Duration)
	// Granted tells that the leader has given leases, in answer to a ping that was
	// about to be sent at that time.
	Granted(fences []uint64, asked time.Duration)
}

const (
	// askLeast is how long after a ping the next one may follow that asks for
	// leases. All launches of that time share it.
	askLeast = 200 * time.Millisecond
	// maxAsked bounds the pings whose answers are waited for. A session that has
	// so many is about to be given up.
	maxAsked = 256
)

// pinger says when to ping, and remembers when pings asked for leases.
type pinger struct {
	interval time.Duration
	leases   Leases
	pulse    *pulse
	timer    *time.Timer

	mu         sync.Mutex // guards all below, and when the timer is set
	last, next time.Time
	hurried    bool                     // the next ping was brought forward
	seq        uint64                   // of the last ping
	asked      map[uint64]time.Duration // when those were about to be sent that asked and are not answered
}

func newPinger(interval time.Duration, l Leases, u *pulse) *pinger {
	p := &pinger{interval: interval, leases: l, pulse: u, asked: map[uint64]time.Duration{}}
	p.next = time.Now().Add(p.pause())
	p.timer = time.NewTimer(time.Until(p.next))
	return p
}

func (p *pinger) pause() time.Duration {
	return wire.Spread(p.interval, wire.PingSpread, rand.Float64())
}

// hurry has the next ping come soon, if there is an attempt that needs a lease.
func (p *pinger) hurry() {
	if fences, _ := p.leases.Wanted(); len(fences) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if soon := p.last.Add(askLeast); soon.Before(p.next) {
		p.hurried = true
		p.setLocked(soon)
	}
}

func (p *pinger) setLocked(next time.Time) {
	p.next = next
	p.timer.Reset(time.Until(next))
}

// ping returns the next ping. What a lease lets go on is counted from before it is
// sent: whatever keeps it on its way, or the answer, makes a lease shorter and never
// longer.
func (p *pinger) ping() *agentv1.AgentMessage {
	fences, now := p.leases.Wanted()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last, p.hurried = time.Now(), false
	p.setLocked(p.last.Add(p.pause()))
	p.seq++
	p.pulse.sending(p.seq)
	if len(fences) > 0 {
		p.asked[p.seq] = now
		delete(p.asked, p.seq-maxAsked)
	}
	return &agentv1.AgentMessage{Body: &agentv1.AgentMessage_Ping{Ping: &agentv1.Ping{Seq: p.seq, Fences: fences}}}
}

// ponged has the next ping come when the gateway would like it, within the interval and
// its spread: it would have all workers ping at the same few instants. Only the answer to
// the last ping counts, and none puts off a ping that asks for a first lease. However long
// it was on its way, the next ping comes no later than without it.
func (p *pinger) ponged(m *agentv1.Pong) {
	next := m.GetNextPing().AsDuration()
	p.mu.Lock()
	defer p.mu.Unlock()
	if m.GetSeq() != p.seq || p.hurried {
		return
	}
	latest := wire.Spread(p.interval, wire.PingSpread, 1)
	if next < wire.Spread(p.interval, wire.PingSpread, 0) || next > latest {
		return
	}
	at := time.Now().Add(next)
	if last := p.last.Add(latest); last.Before(at) {
		at = last
	}
	p.setLocked(at)
}

// answered takes the leader's answer to a ping. One to a ping that was not sent in this
// session, or that asked for nothing, or an answer that comes twice, says nothing.
func (p *pinger) answered(m *agentv1.Lease) {
	p.mu.Lock()
	asked, ok := p.asked[m.GetSeq()]
	delete(p.asked, m.GetSeq())
	p.mu.Unlock()
	if ok {
		p.leases.Granted(m.GetFences(), asked)
	}
}
