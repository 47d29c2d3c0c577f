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
// kept. All methods may be called from any goroutine, and none blocks.
type outbox struct {
	wake chan struct{} // holds a token when there may be something to send

	mu      sync.Mutex
	waiting [priorities][]*agentv1.GatewayMessage
	order   []runlog.Key // of acks, the longest waiting first
	acks    map[runlog.Key]*agentv1.LogAck
}

func newOutbox() *outbox {
	return &outbox{wake: make(chan struct{}, 1), acks: make(map[runlog.Key]*agentv1.LogAck)}
}

// put adds a message, unless too many wait already.
func (o *outbox) put(p priority, m *agentv1.GatewayMessage) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.waiting[p]) >= maxWaiting {
		return false
	}
	o.waiting[p] = append(o.waiting[p], m)
	signal(o.wake)
	return true
}

// ack adds the acknowledgement of an attempt's output, in the place of one that
// was not yet sent: only the latest is of use.
func (o *outbox) ack(k runlog.Key, a *agentv1.LogAck) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, there := o.acks[k]; !there {
		if len(o.order) >= maxAcks {
			return false
		}
		o.order = append(o.order, k)
	}
	o.acks[k] = a
	signal(o.wake)
	return true
}

// next removes and returns what is to be sent next, or nil.
func (o *outbox) next() *agentv1.GatewayMessage {
	o.mu.Lock()
	defer o.mu.Unlock()
	for p := range o.waiting {
		if m, ok := pop(&o.waiting[p]); ok {
			return m
		}
	}
	k, ok := pop(&o.order)
	if !ok {
		return nil
	}
	a := o.acks[k]
	delete(o.acks, k)
	return &agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_LogAck{LogAck: a}}
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
