package peer

import "sync"

// maxQueued is how many messages may wait for one link. Beyond, the link is cut
// and made anew, which tells less than the queue would hold: only what is so
// now.
const maxQueued = 1 << 16

// queue holds messages for one end of a link, in their order. Its methods may be
// called from any goroutine, and none blocks.
type queue[T any] struct {
	wake chan struct{} // holds a token when there may be something to take

	mu       sync.Mutex
	waiting  []T
	overflow bool
}

func newQueue[T any]() *queue[T] { return &queue[T]{wake: make(chan struct{}, 1)} }

// put adds a message, unless too many wait already: then nothing is taken any
// more.
func (q *queue[T]) put(m T) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.overflow = q.overflow || len(q.waiting) >= maxQueued; q.overflow {
		signal(q.wake)
		return false
	}
	q.waiting = append(q.waiting, m)
	signal(q.wake)
	return true
}

// take removes and returns all that waits; ok is false after an overflow.
func (q *queue[T]) take() (all []T, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	all, q.waiting = q.waiting, nil
	return all, !q.overflow
}

// signal puts the token in c, unless it is there.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
