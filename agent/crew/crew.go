// Package crew is goroutines that are kept for what comes next. In a new one the stack grows
// again for each piece of work, and is copied each time, which for a short one costs as much
// as the work does.
package crew

import "sync"

// Crew does work at once, however much there is, and keeps some of those who did it.
type Crew struct {
	most int
	wg   sync.WaitGroup

	mu        sync.Mutex    // guards what follows
	kept      int           // at most that many
	idle      []chan func() // of those who wait for work; who has waited least is the last
	dismissed bool
}

// New returns a crew that keeps so many.
func New(most int) *Crew { return &Crew{most: most} }

// Go has f done at once, beside the caller. Of those who are there it is done by who has
// worked last: what it needs of memory is at hand, and that of others stays where it is.
func (c *Crew) Go(f func()) {
	if hand := c.call(); hand != nil {
		hand <- f
		return
	}
	c.wg.Go(func() {
		f()
		hand := make(chan func(), 1)
		for stays := c.keep(hand); stays; stays = c.rest(hand) {
			f, more := <-hand
			if !more {
				return
			}
			f()
		}
	})
}

// call returns who is to work next, if anybody is idle.
func (c *Crew) call() chan func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.idle) - 1
	if n < 0 {
		return nil
	}
	hand := c.idle[n]
	c.idle = c.idle[:n]
	return hand
}

// keep has one who has worked wait for more, and reports whether it is to.
func (c *Crew) keep(hand chan func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept == c.most {
		return false
	}
	c.kept++
	return c.restLocked(hand)
}

// rest is keep for one who is kept.
func (c *Crew) rest(hand chan func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.restLocked(hand)
}

func (c *Crew) restLocked(hand chan func()) bool {
	if !c.dismissed {
		c.idle = append(c.idle, hand)
	}
	return !c.dismissed
}

// Dismiss has nobody be kept any more. What is given to do is done all the same. It
// returns at once.
func (c *Crew) Dismiss() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dismissed = true
	for _, hand := range c.idle {
		close(hand)
	}
	c.idle = nil
}

// Rest is Dismiss, and returns when all is done. Nothing may be given to do any more.
func (c *Crew) Rest() {
	c.Dismiss()
	c.wg.Wait()
}
