package raftstore

import (
	"sync"

	"github.com/hashicorp/raft"
)

// WatchLeader gives news of who leads and who is in the group: news receives after
// each change of either that Raft tells this primary of, and once however many
// there were since it was last received from. Look at [Store.Leader], [Store.Leads]
// and [Store.Status] then, and at first. cancel ends it; news is never closed.
func (s *Store) WatchLeader() (news <-chan struct{}, cancel func()) { return s.watchers.add() }

// watchers are told that they should look again.
type watchers struct {
	mu   sync.Mutex // guards what follows
	list map[chan struct{}]struct{}
}

func newWatchers() *watchers { return &watchers{list: map[chan struct{}]struct{}{}} }

func (w *watchers) add() (news <-chan struct{}, cancel func()) {
	c := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list[c] = struct{}{}
	return c, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.list, c)
	}
}

// wake never blocks.
func (w *watchers) wake() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.list {
		select {
		case c <- struct{}{}:
		default: // it has been told already
		}
	}
}

// watchLeader wakes who watches, and tells the operator who leads: one line for
// each change.
func (s *Store) watchLeader() {
	news := make(chan raft.Observation, 16)
	o := raft.NewObserver(news, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.PeerObservation, raft.RaftState:
			return true
		}
		return false
	})
	s.raft.RegisterObserver(o)
	defer s.raft.DeregisterObserver(o)
	for told := ""; ; {
		// The latest is what counts: the channel may have dropped some.
		if leader, _ := s.Leader(); leader != "" && leader != told {
			told = leader
			s.log.Info("new leader", "leader", leader, "term", s.raft.CurrentTerm())
		}
		s.watchers.wake()
		select {
		case <-s.stopping:
			return
		case <-news:
		}
	}
}
