package group

import (
	"context"
	"time"

	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/server/peer"
)

const (
	// caughtUpWithin is how many entries a primary may be behind to count as
	// caught up, and steadyFor how long it has to be that.
	caughtUpWithin = 250
	steadyFor      = 10 * time.Second
	// fresh is how old what was heard of a primary may be.
	fresh = 3 * time.Second
)

// Steward looks after the group while this primary leads: it lets primaries vote
// once they have caught up, unless they are standbys. heard is what was heard of
// the primaries, and standby tells who shall never vote. It returns when ctx is
// done.
func (m *Member) Steward(ctx context.Context, heard func() map[string]peer.Primary, standby func(id string) bool) {
	since := map[string]time.Time{} // since when a primary that may vote is caught up
	for m.pause(ctx, askEvery) {
		now := time.Now()
		since = ready(since, m.Store.Status().Servers, heard(), standby, m.Store.AppliedIndex(), now)
		for _, v := range m.Store.Status().Servers {
			at, ok := since[v.ID]
			if !ok || now.Sub(at) < steadyFor {
				continue
			}
			v.Voter = true
			if err := m.Store.AddServer(ctx, v); err != nil {
				if ctx.Err() == nil {
					m.Log.Warn("a primary that has caught up can't be let vote; trying again", "primary", v.ID, "err", err)
				}
				continue
			}
			m.Log.Info("a primary has caught up and votes now", "primary", v.ID)
		}
	}
}

// ready returns since when each primary that does not vote, and may, has been
// caught up without a break. It is pure.
func ready(since map[string]time.Time, servers []raftstore.Server, heard map[string]peer.Primary, standby func(string) bool, applied uint64, now time.Time) map[string]time.Time {
	next := map[string]time.Time{}
	for _, v := range servers {
		p, ok := heard[v.ID]
		if v.Voter || standby(v.ID) || !ok || now.Sub(p.LastContact) > fresh || p.AppliedIndex+caughtUpWithin < applied {
			continue
		}
		next[v.ID] = now
		if at, was := since[v.ID]; was {
			next[v.ID] = at
		}
	}
	return next
}
