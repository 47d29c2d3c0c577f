package session

import "sync"

// Key names an attempt.
type Key struct {
	Run     string
	Attempt uint32 // from 1
}

// Outbox is what one session still has to say about its worker's attempts. It
// keeps names, not messages: what is said is what holds when it is said, and an
// attempt that changes often waits in it once. So it is bounded by the number
// of attempts. Its methods return at once and may be called by anybody.
type Outbox struct {
	wake  chan struct{} // holds one: there may be something to report
	grown chan struct{} // holds one: a log may have grown

	mu        sync.Mutex // guards all below
	inventory bool
	ask       bool
	reports   keyQueue
	logs      keyQueue
}

func newOutbox() *Outbox {
	return &Outbox{wake: make(chan struct{}, 1), grown: make(chan struct{}, 1)}
}

// Report puts an attempt on the list of those to tell the gateway about.
func (o *Outbox) Report(k Key) {
	o.mu.Lock()
	o.reports.add(k)
	o.mu.Unlock()
	nudge(o.wake)
}

// LogGrew puts an attempt on the list of those whose log has something to ship,
// or to be asked about.
func (o *Outbox) LogGrew(k Key) {
	o.mu.Lock()
	o.logs.add(k)
	o.mu.Unlock()
	nudge(o.grown)
}

// AskLeases has the session ask the leader for the leases that are needed, and not
// wait until it would have asked.
func (o *Outbox) AskLeases() {
	o.mu.Lock()
	o.ask = true
	o.mu.Unlock()
	nudge(o.wake)
}

// takeAsk reports whether leases are to be asked for soon, and forgets it.
func (o *Outbox) takeAsk() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	ask := o.ask
	o.ask = false
	return ask
}

// AskInventory makes the session tell all that the worker knows. Whoever asks may be
// a new leader, who is asked for leases, too.
func (o *Outbox) AskInventory() {
	o.mu.Lock()
	o.inventory, o.ask = true, true
	o.mu.Unlock()
	nudge(o.wake)
}

// takeInventory reports whether an inventory is due, and takes it off the list.
func (o *Outbox) takeInventory() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	due := o.inventory
	o.inventory = false
	return due
}

func (o *Outbox) nextReport() (Key, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.reports.next()
}

func (o *Outbox) nextLog() (Key, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.logs.next()
}

// keyQueue is a queue in which each key waits once.
type keyQueue struct {
	order   []Key
	waiting map[Key]bool
}

func (q *keyQueue) add(k Key) {
	if q.waiting[k] {
		return
	}
	if q.waiting == nil {
		q.waiting = make(map[Key]bool)
	}
	q.waiting[k] = true
	q.order = append(q.order, k)
}

func (q *keyQueue) next() (Key, bool) {
	if len(q.order) == 0 {
		return Key{}, false
	}
	k := q.order[0]
	q.order = q.order[1:]
	delete(q.waiting, k)
	return k, true
}

// nudge leaves word in a channel that holds one, unless there is some already.
func nudge(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
