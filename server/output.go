package server

import (
	"context"
	"sync"
	"time"
)

const (
	// probeEvery is how often a disk that does not take the output of runs is tried.
	probeEvery = 5 * time.Second
	// keptAgain is for how long it has to take what is tried until it is trusted again:
	// one that is nearly full takes some now and then.
	keptAgain = time.Minute
)

// output is whether the disk takes the output of runs.
type output struct {
	mu     sync.Mutex // guards what follows
	err    error      // why it does not; nil: it does
	failed time.Time  // when it last did not
}

// trouble tells why the disk does not take the output of runs; nil when it does.
func (o *output) trouble() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// tried takes note of how it was to write something, and reports whether the disk has
// begun to fail by that, or to work again.
func (o *output) tried(err error, now time.Time) (turned bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	was := o.err != nil
	switch {
	case err != nil:
		o.err, o.failed = err, now
	case now.Sub(o.failed) >= keptAgain:
		o.err = nil
	}
	return was != (o.err != nil)
}

// keptElsewhere tells why the disk does not take the output of runs, if that of another
// primary does; nil otherwise. When all disks fail, as those of three primaries do that
// hold the same logs and fill together, nobody is better off elsewhere, and a group of
// which none is ready could not even be looked at, nor its runs cancelled.
func (s *Server) keptElsewhere() error {
	if !s.uplink.OthersKeep() {
		return nil
	}
	return s.output.trouble()
}

// watchOutput finds out whether the disk takes the output of runs. That a log can't be
// written says little: it may be the only one, and workers would move from one primary
// to the next because of it. So another one is tried then, and while the disk fails, to
// find out when it has room again, since by then nobody may write here any more.
func (s *Server) watchOutput(ctx context.Context) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	var seen uint64
	var tried time.Time
	for {
		n, _ := s.logs.Failures()
		if n != seen || s.output.trouble() != nil && time.Since(tried) >= probeEvery {
			err := s.logs.Probe(ctx)
			if ctx.Err() != nil {
				return
			}
			tried = time.Now()
			if s.output.tried(err, tried) {
				s.tellOutput(err)
			}
			seen, _ = s.logs.Failures() // those of the probe too
		}
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
	}
}

// tellOutput tells that the disk has begun to fail, or to work again.
func (s *Server) tellOutput(err error) {
	if err != nil {
		s.log.Error("the disk does not take the output of runs; workers go to other primaries as long as they can keep it", "err", err)
		return
	}
	s.log.Info("the disk takes the output of runs again")
}
