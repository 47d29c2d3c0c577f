package faultnet

import (
	"context"
	"sync"
	"time"
)

const (
	// chunk is how many bytes go through a bottleneck at once, as a few packets
	// do.
	chunk = 4 << 10
	// queue is how many bytes wait before a bottleneck. With the receive buffers
	// of [readBuffer] it makes the 64 KiB or so that a router has.
	queue = 48 << 10
)

// Direction is one way through a [Proxy]. The zero value lets bytes pass at
// once.
type Direction struct {
	// Delay is how much later each byte comes out.
	Delay time.Duration
	// Rate is how many bytes a second come out, of all connections together. 0
	// sets no limit.
	Rate int
	// Blackhole lets all bytes vanish, and what tells of a connection's end with
	// them. A connection that has lost something carries nothing more, whatever
	// comes after: TCP never leaves a hole.
	Blackhole bool
}

// lane is a direction at work: a bottleneck that connections share, and behind
// it a wire that takes some time.
type lane struct {
	// turn is held by who offers bytes until they are taken: who came first goes
	// first, or a flood would never let anybody in between.
	turn chan struct{}

	mu      sync.Mutex
	is      Direction
	free    time.Time     // when the bottleneck has let out all that it took
	changed chan struct{} // closed when is changes
}

func newLane() *lane { return &lane{turn: make(chan struct{}, 1), changed: make(chan struct{})} }

// admit waits until n bytes are taken, and returns when they come out at the
// other end; or that they vanish.
func (l *lane) admit(ctx context.Context, n int) (due time.Time, vanish bool, err error) {
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return time.Time{}, false, ctx.Err()
	}
	defer func() { <-l.turn }()
	for {
		v := l.offer(time.Now(), n)
		if v.full <= 0 {
			return v.due, v.vanish, nil
		}
		if err := pause(ctx, v.full, v.again); err != nil {
			return time.Time{}, false, err
		}
	}
}

// black reports whether all vanishes at present.
func (l *lane) black() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.is.Blackhole
}

// set changes what the lane is like from now on. What is on its way stays so.
func (l *lane) set(d Direction) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.is, l.free = d, time.Time{}
	close(l.changed)
	l.changed = make(chan struct{})
}

// verdict says what becomes of bytes that have come to a lane.
type verdict struct {
	vanish bool
	full   time.Duration   // if not 0, there is no room: ask again after this,
	again  <-chan struct{} // or when this is closed
	due    time.Time       // else they come out then
}

// offer says what becomes of n bytes that come at now.
func (l *lane) offer(now time.Time, n int) verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.is.Blackhole {
		return verdict{vanish: true}
	}
	out, full := l.is.through(l.free, now, n)
	if full > 0 {
		return verdict{full: full, again: l.changed}
	}
	l.free = out
	return verdict{due: out.Add(l.is.Delay)}
}

// through returns when n bytes that come at now are through a bottleneck that is
// busy until free; or, when they find the queue full, after what time there is
// room.
func (d Direction) through(free, now time.Time, n int) (out time.Time, full time.Duration) {
	if free.Before(now) {
		free = now
	}
	if d.Rate <= 0 {
		return free, 0
	}
	if most := d.takes(queue); free.Sub(now) > most {
		return time.Time{}, free.Sub(now) - most
	}
	return free.Add(d.takes(n)), 0
}

// takes is how long n bytes take through the bottleneck.
func (d Direction) takes(n int) time.Duration {
	return time.Duration(float64(n) / float64(d.Rate) * float64(time.Second))
}

// pause waits for d, or until again is closed, or fails with ctx.
func pause(ctx context.Context, d time.Duration, again <-chan struct{}) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-again:
	case <-timer.C:
	}
	return nil
}
