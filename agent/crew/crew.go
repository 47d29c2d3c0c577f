// Package crew is goroutines that are kept for what comes next. In a new one the stack grows
// again for each piece of work, and is copied each time, which for a short one costs as much
// as the work does.
package crew

import "sync"

// Crew does work at once, however much there is, and keeps some of those who did it.
type Crew struct {
	work      chan func()
	dismissed chan struct{}
	idle      chan struct{} // has one for each that is kept
	wg        sync.WaitGroup
}

// New returns a crew that keeps so many.
func New(most int) *Crew {
	return &Crew{work: make(chan func()), dismissed: make(chan struct{}), idle: make(chan struct{}, most)}
}

// Go has f done at once, beside the caller.
func (c *Crew) Go(f func()) {
	select {
	case c.work <- f:
		return
	default:
	}
	c.wg.Go(func() {
		f()
		select {
		case c.idle <- struct{}{}:
		default:
			return
		}
		for {
			select {
			case f := <-c.work:
				f()
			case <-c.dismissed:
				return
			}
		}
	})
}

// Dismiss has nobody be kept any more. What is given to do is done all the same. It is
// called once, and returns at once.
func (c *Crew) Dismiss() { close(c.dismissed) }

// Rest is Dismiss, and returns when all is done. Nothing may be given to do any more.
func (c *Crew) Rest() {
	c.Dismiss()
	c.wg.Wait()
}
