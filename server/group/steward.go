package group

import (
	"context"
	"maps"
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
// once they have caught up, unless they are standbys; standby tells who shall never
// vote. It returns when ctx is done.
func (m *Member) Steward(ctx context.Context, standby func(id string) bool) {
	var all map[string]abreast
	for m.pause(ctx, askEvery) {
		now := time.Now()
		servers := m.Store.Status().Servers
		all = ready(all, servers, m.Heard(), m.lastTaken(), standby, m.Store.AppliedIndex(), now)
		for _, v := range servers {
			p, ok := all[v.ID]
			if !ok || now.Sub(p.since) < steadyFor {
				continue
			}
			v.Voter = true
			if err := m.Store.AddServer(ctx, v); err != nil {
				if ctx.Err() == nil {
					m.Log.Warn("a primary that has caught up can't be let vote; trying again", "primary", v.ID, "err", err)
				}
				continue
			}
			delete(all, v.ID) // it may lose the vote before the next look, and counts anew then
			m.Log.Info("a primary has caught up and votes now", "primary", v.ID)
		}
	}
}

// lastTaken returns when who had no data was last taken in, by id.
func (m *Member) lastTaken() map[string]time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.taken)
}

// abreast is a primary that may vote when it stays as it is.
type abreast struct {
	since    time.Time // when it was first seen so
	address  string
	instance string // of its process
}

// ready returns which primaries do not vote, and may, and are caught up: those of
// before since when they were seen so without a break, as the same process at the same
// address, and without having been taken in anew. It is pure.
func ready(before map[string]abreast, servers []raftstore.Server, heard map[string]peer.Primary, taken map[string]time.Time,
	standby func(string) bool, applied uint64, now time.Time,
) map[string]abreast {
	next := map[string]abreast{}
	for _, v := range servers {
		p, ok := heard[v.ID]
		if v.Voter || standby(v.ID) || !ok || now.Sub(p.LastContact) > fresh || p.AppliedIndex+caughtUpWithin < applied {
			continue
		}
		is := abreast{now, v.Address, p.Instance}
		if was, ok := before[v.ID]; ok && was.address == is.address && was.instance == is.instance && taken[v.ID].Before(was.since) {
			is.since = was.since
		}
		next[v.ID] = is
	}
	return next
}
