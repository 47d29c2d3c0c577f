package state

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"time"
)

// Knows tells whether a worker is on record as c has it: then c changes nothing.
func (s *State) Knows(c PutWorker) bool {
	w := s.workers[c.ID]
	return w != nil && w.Offline.IsZero() && bytes.Equal(w.PublicKey, c.PublicKey) && reflect.DeepEqual(w.Says, c.Says)
}

func (s *State) putWorker(c PutWorker) (*Worker, error) {
	old := s.workers[c.ID]
	if s.Knows(c) {
		return old, nil
	}
	w := &Worker{ID: c.ID, First: s.now}
	if old != nil {
		*w = *old
	}
	w.PublicKey, w.Says, w.Offline = c.PublicKey, c.Says, time.Time{}
	return s.storeWorker(w), nil
}

func (s *State) setEnforcement(c SetEnforcement) (*Worker, error) {
	w, err := s.findWorker("set the enforcement of", c.ID)
	if err != nil || w.Enforcement == c.Enforcement {
		return w, err
	}
	w.Enforcement = c.Enforcement
	return s.storeWorker(w), nil
}

func (s *State) storeWorker(w *Worker) *Worker {
	s.workers[w.ID] = w
	s.changedWorker(w.ID)
	return w
}

// findWorker returns a copy of the worker to be changed.
func (s *State) findWorker(what string, id WorkerID) (*Worker, error) {
	old := s.workers[id]
	if old == nil {
		return nil, fmt.Errorf("%s worker %s: %w", what, id, ErrNotFound)
	}
	w := *old
	return &w, nil
}

func (s *State) setOffline(c SetOffline) (*Worker, error) {
	w, err := s.findWorker("set offline", c.ID)
	if err != nil || !w.Offline.IsZero() {
		return w, err
	}
	w.Offline = s.now
	return s.storeWorker(w), nil
}

func (s *State) updateWorker(c UpdateWorker) (*Worker, error) {
	w, err := s.findWorker("update", c.ID)
	if err != nil {
		return nil, err
	}
	w.ExtraLabels = maps.Clone(w.ExtraLabels)
	if w.ExtraLabels == nil && len(c.SetLabels) > 0 {
		w.ExtraLabels = map[string]string{}
	}
	maps.Copy(w.ExtraLabels, c.SetLabels)
	for _, k := range c.RemoveLabels {
		delete(w.ExtraLabels, k)
	}
	if len(w.ExtraLabels) == 0 {
		w.ExtraLabels = nil
	}
	if c.Slots != nil {
		w.ExtraSlots = *c.Slots
	}
	return s.storeWorker(w), nil
}

func (s *State) drainWorker(c DrainWorker) (*Worker, error) {
	w, err := s.findWorker("drain", c.ID)
	if err != nil {
		return nil, err
	}
	if c.Undo {
		w.Drain = nil
	} else {
		w.Drain = &Drain{Note: c.Note, Since: s.now}
	}
	return s.storeWorker(w), nil
}

func (s *State) removeWorker(c RemoveWorker) (*Worker, error) {
	w, err := s.findWorker("remove", c.ID)
	if err != nil {
		return nil, err
	}
	if n := len(s.load[c.ID]); n > 0 {
		return w, fmt.Errorf("remove worker %s: it has %d active runs: %w", c.ID, n, ErrActive)
	}
	delete(s.workers, c.ID)
	s.changedWorker(c.ID)
	return w, nil
}
