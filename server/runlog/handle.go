package runlog

import (
	"fmt"
	"os"
)

// adoptLocked makes f the attempt's file, used by the caller, and returns files
// that are to be closed.
func (s *Store) adoptLocked(a *attempt, f *os.File) (*handle, []*os.File) {
	victims := s.retireLocked(a)
	a.file = &handle{file: f, users: 1}
	s.open++
	return a.file, append(victims, s.evictLocked()...)
}

// pin returns the attempt's open file, and keeps it open until unpin; nil if it
// is not open.
func (s *Store) pin(a *attempt) *handle {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := a.file
	if h == nil {
		return nil
	}
	h.users++
	if h.idle != nil {
		s.idle.Remove(h.idle)
		h.idle = nil
	}
	return h
}

// reach is pin for an attempt that exists, whose file is opened if it is not.
// The turn is held.
func (s *Store) reach(a *attempt) (*handle, error) {
	if h := s.pin(a); h != nil {
		return h, nil
	}
	f, err := os.OpenFile(a.path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open log %v again: %w", a.key, err)
	}
	s.mu.Lock()
	h, victims := s.adoptLocked(a, f)
	s.mu.Unlock()
	s.closeAll(victims)
	return h, nil
}

// take is reach for those who have not the turn.
func (s *Store) take(a *attempt) (*handle, error) {
	if h := s.pin(a); h != nil {
		return h, nil
	}
	a.turn <- struct{}{}
	defer func() { <-a.turn }()
	if a.gone {
		return nil, ErrRemoved
	}
	return s.reach(a)
}

func (s *Store) unpin(a *attempt, h *handle) {
	s.mu.Lock()
	var victims []*os.File
	h.users--
	switch {
	case h.users > 0:
	case h.retired:
		victims = append(victims, h.file)
	default:
		h.idle = s.idle.PushFront(a)
		victims = s.evictLocked()
	}
	s.mu.Unlock()
	s.closeAll(victims)
}

// evictLocked retires idle files while too many are open.
func (s *Store) evictLocked() (victims []*os.File) {
	for s.open > s.maxOpen && s.idle.Len() > 0 {
		a := s.idle.Back().Value.(*attempt)
		victims = append(victims, s.retireLocked(a)...)
		s.forgetLocked(a)
	}
	return victims
}

// retireLocked takes the attempt's file away, and returns it if nobody uses it.
func (s *Store) retireLocked(a *attempt) []*os.File {
	h := a.file
	if h == nil {
		return nil
	}
	a.file = nil
	s.open--
	if h.users > 0 {
		h.retired = true
		return nil
	}
	s.idle.Remove(h.idle)
	return []*os.File{h.file}
}

// closeAll closes files that nobody uses. Nothing depends on how that ends: what is
// acknowledged was fsync'ed before.
func (s *Store) closeAll(files []*os.File) {
	for _, f := range files {
		if err := f.Close(); err != nil {
			s.log.Warn("closing a file of run logs", "err", err)
		}
	}
}
