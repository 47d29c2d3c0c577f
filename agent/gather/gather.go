// Package gather is when to wait for company. What is done for each event alone, a sync
// of the disk or a message to another process, costs nearly the same for several: what
// nobody waits for at that moment waits a little for others, while there are many.
//
// It only decides. It has no clock and does not wait: whoever asks does.
package gather

import "time"

const (
	// Longest is how long the first of several waits for the others.
	Longest = 5 * time.Millisecond
	// Enough are so many that they wait for no more.
	Enough = 4
)

// Rhythm is how fast events have come lately. The zero value has seen none. It is for
// one caller at a time.
type Rhythm struct {
	last [Enough]time.Time // in a ring
	next int
}

// Busy takes note of an event at now, and reports whether so many came shortly before
// that another one is to be expected within [Longest]. The first ones after a pause have
// no company to wait for.
func (r *Rhythm) Busy(now time.Time) bool {
	before := r.last[r.next]
	r.last[r.next] = now
	r.next = (r.next + 1) % Enough
	return !before.IsZero() && now.Sub(before) <= Enough*Longest
}
