package server

import (
	"context"
	"sync"
	"time"
)

const (
	// maxLeap is how far a wall clock may be set forward and be believed at once by who
	// deletes what is old: things go that much too early then, at most.
	maxLeap = 24 * time.Hour
	// doubtFor is how long a clock that was set farther has to go as time does until it is
	// believed. Somebody sees to a clock that is days ahead within that, and nothing that
	// is too old does harm by staying for longer.
	doubtFor = 24 * time.Hour
	// readEvery is how often the clock is looked at, at least.
	readEvery = 10 * time.Second
)

// doubt tells the time to those who delete what is old, which can't be taken back: a wall
// clock that shows 100 days later for a minute must not cost 100 days of the past. What it
// was set forward is taken off as long as that is in doubt. A clock that was wrong when
// this primary was started it can't tell from one that is right.
type doubt struct {
	clock func() time.Time // the wall clock

	mu   sync.Mutex // guards what follows
	last reading
	by   time.Duration // how far the clock was set forward lately; back, if negative
	at   time.Time     // when it was set last, by the time that elapses
}

// reading is a moment by both clocks.
type reading struct {
	elapsed time.Time // has a monotonic reading
	shown   time.Time // has none: by the wall clock
}

// newDoubt begins to look at a wall clock.
func newDoubt(clock func() time.Time) *doubt {
	return &doubt{clock: clock, last: reading{time.Now(), clock().Round(0)}}
}

// run looks at the clock until ctx is done, so that one that is set and set right again
// later is seen to be.
func (d *doubt) run(ctx context.Context) {
	look := time.NewTicker(readEvery)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
			d.now()
		}
	}
}

// now returns the latest time that is not in doubt.
func (d *doubt) now() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sure(reading{time.Now(), d.clock().Round(0)})
}

// sure takes note of a reading, and returns what of it is not in doubt.
func (d *doubt) sure(r reading) time.Time {
	jump := r.shown.Sub(d.last.shown) - r.elapsed.Sub(d.last.elapsed)
	d.last = r
	switch {
	case jump.Abs() > time.Second: // less is how a clock is slewed, or was read
		d.by += jump
		d.at = r.elapsed
	case r.elapsed.Sub(d.at) >= doubtFor:
		d.by = 0
	}
	if d.by > maxLeap {
		return r.shown.Add(-d.by)
	}
	return r.shown
}
