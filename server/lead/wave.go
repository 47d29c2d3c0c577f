package lead

import "time"

// A load balancer that restarts, or a primary that stops, ends the sessions of all workers
// behind it in one moment. Of ten thousand ends the leader hears one after the other, for
// a second or so. What it gave away meanwhile would go to one of those that it has not yet
// heard of, most likely, and then wait for that very worker to come back: nobody else can
// know that it never began there. So nothing is given away until the wave is over.
const (
	// waveMany ends, each less than waveGap after the one before, are a wave. It is over
	// when nothing was heard of another end for waveGap.
	waveMany = 32
	waveGap  = 100 * time.Millisecond
	// waveMost is how long a wave keeps runs waiting, however long it lasts.
	waveMost = 2 * time.Second
)

// wave recognises that sessions end by the dozen. The zero value has seen no end.
type wave struct {
	first, last time.Time // of the ends that came one after the other
	ends        int
}

// ended takes note that a session has ended.
func (w *wave) ended(now time.Time) {
	if now.Sub(w.last) >= waveGap {
		*w = wave{first: now}
	}
	w.last = now
	w.ends++
}

// over returns when runs may be given away again; zero if there was no wave.
func (w *wave) over() time.Time {
	if w.ends < waveMany {
		return time.Time{}
	}
	if most := w.first.Add(waveMost); most.Before(w.last.Add(waveGap)) {
		return most
	}
	return w.last.Add(waveGap)
}
