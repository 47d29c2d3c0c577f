package lead

import (
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

// A load balancer that restarts ends the sessions of all workers behind it in one moment. Of
// ten thousand ends the leader hears one after the other, for a second or more. What it gave
// away meanwhile would go to one of those that it has not yet heard of, most likely, and then
// wait for that very worker to come back: nobody else can know that it never began there.
//
// So from when sessions of a gateway end by the dozen, the workers that still have one there
// are in doubt, and are given nothing until the wave is over: that one of them was heard of
// says nothing, since it may be cut in the next moment. Those that are back with a new session
// go on. So do those of another gateway: when a primary stops, it is its own workers that leave.
const (
	// waveMany ends in a moment are a wave. As many run off each second: sessions that end
	// now and then never add up to one.
	waveMany = 32
	// waveGap without an end is the end of a wave. A primary that is busy with what ends, and
	// with who comes back, may be held up for that long between two of them.
	waveGap = 500 * time.Millisecond
	// waveMost is how long workers are in doubt, however long a wave lasts.
	waveMost = 5 * time.Second
)

// wave recognises that the sessions of a gateway end by the dozen. The zero value has
// seen no end.
type wave struct {
	level   float64   // of ends: each adds one
	last    time.Time // when the last one was heard
	first   time.Time // since when there is a wave; zero: there is none
	trusted bool      // it has lasted for so long that nobody is in doubt any more
}

// ended takes note that a session has ended, and reports whether that makes a wave.
func (w *wave) ended(now time.Time) (begins bool) {
	w.level = max(0, w.level-waveMany*now.Sub(w.last).Seconds())
	if w.trusted && w.level < waveMany/2 { // they end now and then; the next wave is another one
		w.first, w.trusted = time.Time{}, false
	}
	w.level, w.last = min(w.level+1, waveMany), now
	if w.level < waveMany || !w.first.IsZero() {
		return false
	}
	w.first = now
	return true
}

// next is when there is something to be done about the wave; zero: there is none.
func (w *wave) next() time.Time {
	calm, most := w.last.Add(waveGap), w.first.Add(waveMost)
	switch {
	case w.first.IsZero():
		return time.Time{}
	case !w.trusted && most.Before(calm):
		return most
	}
	return calm
}

// sessionEnded takes note that a session has ended at a gateway: those that are left there
// may have ended, too.
func (t *term) sessionEnded(gateway string, now time.Time) {
	w := t.waves[gateway]
	if w == nil {
		w = &wave{}
		t.waves[gateway] = w
	}
	if !w.ended(now) {
		return
	}
	for id, sess := range t.sessions {
		if sess.Gateway == gateway {
			sess.doubted = true
			t.queue.SetLive(id, false)
		}
	}
}

// takes says whether a worker can be given runs, as far as it is up to the worker.
func (t *term) takes(id state.WorkerID, sess *session, can bool) {
	sess.takes = can
	t.queue.SetLive(id, can && !sess.doubted)
}

// subside ends the doubts that have lasted for long enough.
func (t *term) subside(now time.Time) {
	for gateway, w := range t.waves {
		if at := w.next(); at.IsZero() || now.Before(at) {
			continue
		}
		for id, sess := range t.sessions {
			if sess.Gateway == gateway && sess.doubted {
				sess.doubted = false
				t.takes(id, sess, sess.takes)
			}
		}
		if w.trusted = true; !now.Before(w.last.Add(waveGap)) {
			delete(t.waves, gateway)
		}
	}
}

// subsides is when the next doubts end; zero: there are none.
func (t *term) subsides() (next time.Time) {
	for _, w := range t.waves {
		if at := w.next(); next.IsZero() || !at.IsZero() && at.Before(next) {
			next = at
		}
	}
	return next
}
