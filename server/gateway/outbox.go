package gateway

import (
	"sync"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/server/runlog"
)

// priority says what a message overtakes. Acknowledgements of output come last
// and have a queue of their own, see [outbox.ack].
type priority int

const (
	urgent priority = iota // ping, pong, kill, lease, drain
	normal                 // launch, result ack, inventory request
	priorities
)

const (
	maxWaiting = 4096    // messages of one priority
	maxAcks    = 1 << 14 // attempts with an acknowledgement waiting
)

// outbox holds what is to be sent to one worker. Within a priority the order is
// kept. There is somebody who sends only while there is something to send. All methods
// may be called from any goroutine, and none blocks.
type outbox struct {
	flushed chan struct{} // closed when it is closed and nobody sends any more

	mu      sync.Mutex
	start   func() // begins to send: next is called until it returns nil; nil: not yet
	sending bool   // somebody does
	closed  bool
	last    *agentv1.GatewayMessage // the last word; may be nil
	waiting [priorities][]*agentv1.GatewayMessage
	order   []runlog.Key // of acks, the longest waiting first
	acks    map[runlog.Key]*agentv1.LogAck
}

func newOutbox() *outbox {
	return &outbox{flushed: make(chan struct{}), acks: make(map[runlog.Key]*agentv1.LogAck)}
}

// open has what waits be sent, and what will.
func (o *outbox) open(start func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.start = start
	o.wakeLocked()
}

// close drops what waits, and has only the last word sent, which may be nil. Nobody
// begins to send after it has returned.
func (o *outbox) close(last *agentv1.GatewayMessage) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed, o.last = true, last
	o.waiting, o.order, o.acks = [priorities][]*agentv1.GatewayMessage{}, nil, nil
	o.wakeLocked()
}

// wakeLocked has somebody send, or has told that nobody will any more.
func (o *outbox) wakeLocked() {
	switch {
	case o.sending || o.start == nil:
	case o.last != nil || !o.closed && !o.emptyLocked():
		o.sending = true
		o.start()
	case o.closed:
		o.leaveLocked()
	}
}

func (o *outbox) emptyLocked() bool {
	for _, q := range o.waiting {
		if len(q) > 0 {
			return false
		}
	}
	return len(o.order) == 0
}

// put adds a message, unless too many wait already. One that is closed drops it.
func (o *outbox) put(p priority, m *agentv1.GatewayMessage) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return true
	}
	if len(o.waiting[p]) >= maxWaiting {
		return false
	}
	o.waiting[p] = append(o.waiting[p], m)
	o.wakeLocked()
	return true
}

// ack adds the acknowledgement of an attempt's output, in the place of one that
// was not yet sent: only the latest is of use.
func (o *outbox) ack(k runlog.Key, a *agentv1.LogAck) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return true
	}
	if _, there := o.acks[k]; !there {
		if len(o.order) >= maxAcks {
			return false
		}
		o.order = append(o.order, k)
	}
	o.acks[k] = a
	o.wakeLocked()
	return true
}

// next removes and returns what is to be sent next; with nil, whoever sends is through.
func (o *outbox) next() *agentv1.GatewayMessage {
	o.mu.Lock()
	defer o.mu.Unlock()
	for p := range o.waiting {
		if m, ok := pop(&o.waiting[p]); ok {
			return m
		}
	}
	if k, ok := pop(&o.order); ok {
		a := o.acks[k]
		delete(o.acks, k)
		return &agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_LogAck{LogAck: a}}
	}
	if m := o.last; m != nil {
		o.last = nil
		return m
	}
	o.leaveLocked()
	return nil
}

// abandon is called by whoever sends, and can't any more. It was closed before.
func (o *outbox) abandon() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = nil
	o.leaveLocked()
}

// leaveLocked notes that nobody sends.
func (o *outbox) leaveLocked() {
	o.sending = false
	if o.closed && o.start != nil {
		o.start = nil
		close(o.flushed)
	}
}

// pop removes and returns the first of q. The array is let go with its last
// element, so that a burst is not remembered in memory for the rest of a session.
func pop[T any](q *[]T) (first T, ok bool) {
	if len(*q) == 0 {
		return first, false
	}
	var zero T
	first, (*q)[0] = (*q)[0], zero
	if *q = (*q)[1:]; len(*q) == 0 {
		*q = nil
	}
	return first, true
}

// signal puts the token in c, unless it is there.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
