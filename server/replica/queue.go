package replica

import "github.com/schedd/schedd/server/runlog"

// turn is where a log stands in a queue.
type turn int

const (
	waiting turn = iota + 1
	busy         // taken, and not done
	again        // likewise, and added meanwhile
)

// queue is the logs that are to be pushed to a primary, each once, in the order
// in which they came. A log is worked on by one at a time.
type queue struct {
	order []runlog.Key // those that wait
	state map[runlog.Key]turn
}

func (q *queue) add(k runlog.Key) {
	switch q.state[k] {
	case waiting, again:
	case busy:
		q.state[k] = again
	default:
		q.state[k] = waiting
		q.order = append(q.order, k)
	}
}

// take returns whose turn it is. It is followed by done.
func (q *queue) take() (k runlog.Key, ok bool) {
	if len(q.order) == 0 {
		return k, false
	}
	k = q.order[0]
	q.order = q.order[1:]
	q.state[k] = busy
	return k, true
}

// done ends what take began, and returns whether the log was added meanwhile.
func (q *queue) done(k runlog.Key) (added bool) {
	added = q.state[k] == again
	delete(q.state, k)
	return added
}

// clear takes out all that wait.
func (q *queue) clear() {
	for _, k := range q.order {
		delete(q.state, k)
	}
	q.order = nil
}
