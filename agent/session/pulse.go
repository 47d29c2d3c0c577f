package session

import (
	"sync"
	"time"
)

// pulse knows since when the gateway has been heard for sure. All that it says after the
// answer to a ping it said after it had that ping: what is read now was sent later than
// that ping, however long it has lain in a buffer since.
type pulse struct {
	clock func() time.Duration // goes on while the host is suspended

	mu    sync.Mutex               // guards all below
	sent  map[uint64]time.Duration // when those pings were about to be sent that are not answered
	since time.Duration            // when the latest was that is
}

// newPulse is for a session that was begun at that time: its welcome is an answer, too.
func newPulse(clock func() time.Duration, begun time.Duration) *pulse {
	return &pulse{clock: clock, sent: map[uint64]time.Duration{}, since: begun}
}

func (p *pulse) sending(seq uint64) {
	now := p.clock()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent[seq] = now
	delete(p.sent, seq-maxAsked)
}

func (p *pulse) answered(seq uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if sent, ok := p.sent[seq]; ok {
		p.since = max(p.since, sent)
		delete(p.sent, seq)
	}
}

// age returns how long ago what is read now may have been sent.
func (p *pulse) age() time.Duration {
	now := p.clock()
	p.mu.Lock()
	defer p.mu.Unlock()
	return now - p.since
}
