package raftstore

import (
	"sync"
	"time"
)

// DiskErr tells why this primary could not write to its log the last time that it
// tried: as a rule a full disk, or one that does not answer. It is nil again once it
// could, which is tried for as long as there is anything to write: a leader that can't
// steps down and is elected anew, and what a follower lacks is sent to it again. Until
// then this primary acknowledges nothing.
func (s *Store) DiskErr() error { return s.disk.health.get() }

// health is how the last write went, and the one that is under way.
type health struct {
	mu    sync.Mutex // guards what follows
	err   error
	since time.Time // when what is under way began; zero: nothing is
}

func (h *health) get() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.since.IsZero() && time.Since(h.since) > hungAfter {
		return errHung
	}
	return h.err
}

// note returns err, and remembers it until the next one.
func (h *health) note(err error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
	return err
}

// begin takes note of a write that nobody gives up, until end is called.
func (h *health) begin() (end func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.since = time.Now()
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.since = time.Time{}
	}
}
