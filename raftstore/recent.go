package raftstore

import (
	"fmt"

	"github.com/hashicorp/raft"
)

// recentLogs is a log whose latest entries are in memory, for followers that lag a little.
// They are copies: what Raft stores is part of what it will answer, and whoever keeps the
// entry keeps all that applying it has returned, which may be a thousand runs.
type recentLogs struct{ raft.LogStore }

// newRecentLogs keeps so many entries of a log in memory.
func newRecentLogs(n int, logs raft.LogStore) (recentLogs, error) {
	cache, err := raft.NewLogCache(n, logs)
	if err != nil {
		return recentLogs{}, fmt.Errorf("making a cache: %w", err)
	}
	return recentLogs{cache}, nil
}

// StoreLog implements [raft.LogStore].
func (s recentLogs) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements [raft.LogStore].
func (s recentLogs) StoreLogs(logs []*raft.Log) error {
	copies := make([]*raft.Log, len(logs))
	for i, l := range logs {
		c := *l
		copies[i] = &c
	}
	return s.LogStore.StoreLogs(copies)
}
