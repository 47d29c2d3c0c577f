package raftstore

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// goal is how far a primary that was opened has to come to know again all that it
// knew before.
type goal struct {
	index   uint64 // of the last entry in its log that the state is to be given; 0: none
	term    uint64 // of the last entry in its log
	opening bool   // its snapshot is yet to be restored
	reached func() // called once, under the lock of fsm
}

// applied tells whether the state, with an entry at that index and of that term
// applied, knows all.
//
// The last entries of its log may not have been agreed, and another leader puts
// others in their place: then it never sees that index, but it does see an entry
// of a later term, before which all is settled.
func (g *goal) applied(index, term uint64) bool { return index >= g.index || term > g.term }

// restored tells whether the state knows all after a snapshot was restored: not by
// that which it had when it was opened, but by any that a leader sends, because
// the log here does not reach to where the leader's begins.
func (g *goal) restored() bool {
	was := g.opening
	g.opening = false
	return !was || g.index == 0
}

// findGoal looks in the log for how far the state has to come.
func findGoal(d *disk) (g goal, err error) {
	snapshots, err := d.snapshots.List()
	if err != nil {
		return g, fmt.Errorf("listing the snapshots: %w", err)
	}
	from := uint64(0)
	if len(snapshots) > 0 {
		from, g.term, g.opening = snapshots[0].Index, snapshots[0].Term, true
	}
	last, err := d.logs.LastIndex()
	if err != nil {
		return g, fmt.Errorf("finding the end of the log: %w", err)
	}
	for i := last; i > from; i-- {
		var l raft.Log
		if err := d.logs.GetLog(i, &l); errors.Is(err, raft.ErrLogNotFound) {
			break // Raft will say that it is damaged, or that the snapshot is enough
		} else if err != nil {
			return g, fmt.Errorf("reading entry %d of the log: %w", i, err)
		}
		g.term = max(g.term, l.Term)
		if l.Type == raft.LogCommand || l.Type == raft.LogConfiguration {
			g.index = i
			break
		}
	}
	return g, nil
}
