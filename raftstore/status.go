package raftstore

import (
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

// Status is how this primary sees the group.
type Status struct {
	ID       string
	Role     string // "leader", "follower", "candidate" or "shutdown"
	LeaderID string // "" when none is known
	Term     uint64

	// CommitIndex is the last entry that is known here to be agreed, and
	// AppliedIndex the last one that was given to the state. Some entries are
	// Raft's own, so neither says how many commands there were.
	CommitIndex  uint64
	AppliedIndex uint64

	// LastContact is when the leader was last heard of; zero when never, or when
	// this primary leads.
	LastContact time.Time

	Servers []Server // the group, in the order of ids
}

// Status returns how this primary sees the group.
func (s *Store) Status() Status {
	leader, _ := s.Leader()
	st := Status{
		ID:           s.id,
		Role:         strings.ToLower(s.raft.State().String()),
		LeaderID:     leader,
		Term:         s.raft.CurrentTerm(),
		CommitIndex:  s.raft.CommitIndex(),
		AppliedIndex: s.raft.AppliedIndex(),
		Servers:      s.servers(),
	}
	if s.raft.State() != raft.Leader {
		st.LastContact = s.raft.LastContact()
	}
	return st
}

// LogBytes returns how many bytes of entries the log of this primary has. The file may be
// larger: what was in it before makes room for what comes.
func (s *Store) LogBytes() int64 { return s.disk.size.held() }

// SnapshotIndex returns the last entry that the newest snapshot of this primary has seen; 0
// when there is none. A start restores that and applies what comes behind it.
func (s *Store) SnapshotIndex() uint64 {
	n, _ := strconv.ParseUint(s.raft.Stats()["last_snapshot_index"], 10, 64) // Raft has no other way to tell
	return n
}

// Stats counts what this primary has proposed since it was opened.
type Stats struct {
	Proposals uint64 // calls of Propose that were taken
	Entries   uint64 // that became of them, and were agreed
	Commands  uint64 // in those entries
	Bytes     uint64 // of those entries
	Failures  uint64 // entries of which that is not known
}

// Stats returns what this primary has proposed since it was opened.
func (s *Store) Stats() Stats {
	c := &s.stats
	return Stats{
		Proposals: c.proposals.Load(), Entries: c.entries.Load(), Commands: c.commands.Load(),
		Bytes: c.bytes.Load(), Failures: c.failures.Load(),
	}
}
