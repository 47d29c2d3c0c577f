package raftstore

import (
	"sync"

	"github.com/hashicorp/raft"
)

// DiskErr tells why this primary could not write to its log the last time that it
// tried: as a rule a full disk. It is nil again once it could, which is tried for as
// long as there is anything to write: a leader that can't steps down and is elected
// anew, and what a follower lacks is sent to it again. Until then this primary
// acknowledges nothing.
func (s *Store) DiskErr() error { return s.disk.health.get() }

// health is how the last write went.
type health struct {
	mu  sync.Mutex // guards what follows
	err error
}

func (h *health) get() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

// note returns err, and remembers it until the next one.
func (h *health) note(err error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
	return err
}

// watchedLogs is a log of which one knows how the last write went.
type watchedLogs struct {
	raft.LogStore
	health *health
}

// StoreLog implements [raft.LogStore].
func (w watchedLogs) StoreLog(l *raft.Log) error { return w.health.note(w.LogStore.StoreLog(l)) }

// StoreLogs implements [raft.LogStore].
func (w watchedLogs) StoreLogs(l []*raft.Log) error { return w.health.note(w.LogStore.StoreLogs(l)) }

// DeleteRange implements [raft.LogStore].
func (w watchedLogs) DeleteRange(from, to uint64) error {
	return w.health.note(w.LogStore.DeleteRange(from, to))
}
