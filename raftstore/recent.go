package raftstore

import (
	"sync"

	"github.com/hashicorp/raft"
)

// recentLogs is a log whose latest entries are in memory, for followers that lag a little.
// They are copies: what Raft stores is part of what it will answer, and whoever keeps the
// entry keeps all that applying it has returned, which may be a thousand runs.
type recentLogs struct {
	raft.LogStore
	most, mostBytes int

	mu    sync.RWMutex // guards what follows
	logs  []*raft.Log  // one index after the other
	bytes int          // of their data
}

// newRecentLogs keeps so many entries of a log in memory, and no more than so many bytes of
// them.
func newRecentLogs(most, mostBytes int, logs raft.LogStore) *recentLogs {
	return &recentLogs{LogStore: logs, most: most, mostBytes: mostBytes}
}

// GetLog implements [raft.LogStore].
func (s *recentLogs) GetLog(index uint64, l *raft.Log) error {
	if r := s.recent(index); r != nil {
		*l = *r
		return nil
	}
	return s.LogStore.GetLog(index, l)
}

// recent returns an entry if it is in memory.
func (s *recentLogs) recent(index uint64) *raft.Log {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(s.logs) == 0 || index < s.logs[0].Index || index-s.logs[0].Index >= uint64(len(s.logs)) {
		return nil
	}
	return s.logs[index-s.logs[0].Index]
}

// StoreLog implements [raft.LogStore].
func (s *recentLogs) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements [raft.LogStore].
func (s *recentLogs) StoreLogs(logs []*raft.Log) error {
	if err := s.LogStore.StoreLogs(logs); err != nil {
		s.forget() // some may be there, in the place of what was
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range logs {
		if n := len(s.logs); n > 0 && l.Index != s.logs[n-1].Index+1 {
			s.logs, s.bytes = nil, 0
		}
		c := *l
		s.logs = append(s.logs, &c)
		s.bytes += len(c.Data)
	}
	for len(s.logs) > s.most || s.bytes > s.mostBytes {
		s.bytes -= len(s.logs[0].Data)
		s.logs[0], s.logs = nil, s.logs[1:]
	}
	return nil
}

// DeleteRange implements [raft.LogStore].
func (s *recentLogs) DeleteRange(first, last uint64) error {
	s.forget() // first: nobody may read what is no more
	return s.LogStore.DeleteRange(first, last)
}

// forget keeps none in memory.
func (s *recentLogs) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logs, s.bytes = nil, 0
}
