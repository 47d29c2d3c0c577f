package peer

import (
	"sync"

	"google.golang.org/protobuf/proto"
)

const (
	// maxQueued is how many messages may wait for one link. Beyond, the link is cut
	// and made anew, which tells less than the queue would hold: only what is so
	// now.
	maxQueued = 1 << 16
	// maxQueuedBytes is how large they may be together, as they go over the wire.
	// One holds some hundred bytes as a rule, but a launch up to half a MiB, and a
	// primary must not run out of memory because another one reads slowly. While a
	// link is being written to, as much again may be on its way. Within a process there is
	// no wire, and nobody who reads slowly: nothing is measured there.
	maxQueuedBytes = 64 << 20
)

// queue holds messages for one end of a link, in their order. Its methods may be
// called from any goroutine, and none blocks.
type queue[T proto.Message] struct {
	wake   chan struct{} // holds a token when there may be something to take
	within bool          // of a link within a process

	mu       sync.Mutex
	waiting  []T
	bytes    int // of what waits
	overflow bool
}

func newQueue[T proto.Message](within bool) *queue[T] {
	return &queue[T]{wake: make(chan struct{}, 1), within: within}
}

// put adds a message, unless too much waits already: then nothing is taken any
// more.
func (q *queue[T]) put(m T) bool {
	size := 0
	if !q.within {
		size = proto.Size(m)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.overflow = q.overflow || len(q.waiting) >= maxQueued || q.bytes+size > maxQueuedBytes; q.overflow {
		signal(q.wake)
		return false
	}
	q.waiting = append(q.waiting, m)
	q.bytes += size
	signal(q.wake)
	return true
}

// take removes and returns all that waits; ok is false after an overflow.
func (q *queue[T]) take() (all []T, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	all, q.waiting, q.bytes = q.waiting, nil, 0
	return all, !q.overflow
}

// signal puts the token in c, unless it is there.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
