package state

import (
	"cmp"
	"slices"
	"time"
)

// Snapshot is the whole state at one index, as lists. It shares the immutable
// values with the state that it was taken of, so taking it copies only pointers.
type Snapshot struct {
	Index     uint64
	Now       time.Time
	Serial    uint64
	ClusterID string
	Jobs      []*Job
	Tracks    []KeyedTrack // in force
	Past      []KeyedTrack // ended, oldest first within a job
	Runs      []*Run       // oldest first
	Workers   []*Worker
	Activity  []Activity
	Standbys  []string // in order
	Directs   []string // in order
	Jumps     []Jump   // of the clock, the oldest first
}

// KeyedTrack is a track and the trigger that it is of.
type KeyedTrack struct {
	Key   TrackKey
	Track *Track
}

// Activity is the number that [State.Activity] returns for a job.
type Activity struct {
	UID uint64
	Seq uint64
}

// Snapshot returns the state as it is. Its lists are in no particular order
// where none is named; see [Snapshot.Sort].
func (s *State) Snapshot() *Snapshot {
	n := &Snapshot{
		Index: s.index, Now: s.now, Serial: s.serial, ClusterID: s.clusterID,
		Standbys: s.Standbys(), Directs: s.Directs(), Jumps: s.Jumps(),
	}
	n.Jobs = make([]*Job, 0, len(s.jobs))
	for _, j := range s.jobs {
		n.Jobs = append(n.Jobs, j)
	}
	n.Tracks = make([]KeyedTrack, 0, len(s.tracks))
	for k, t := range s.tracks {
		n.Tracks = append(n.Tracks, KeyedTrack{k, t})
	}
	for uid, p := range s.past {
		for _, t := range p {
			n.Past = append(n.Past, KeyedTrack{TrackKey{uid, t.Trigger.ID}, t})
		}
	}
	n.Runs = make([]*Run, 0, len(s.runs))
	for r := range s.RunsByBirth() {
		n.Runs = append(n.Runs, r)
	}
	for _, w := range s.workers {
		n.Workers = append(n.Workers, w)
	}
	for uid, a := range s.active {
		n.Activity = append(n.Activity, Activity{uid, a.seq})
	}
	return n
}

// Sort puts all lists in an order that depends on their content only, so that
// equal states encode to equal bytes.
func (n *Snapshot) Sort() {
	byKey := func(a, b KeyedTrack) int {
		return cmp.Or(cmp.Compare(a.Key.UID, b.Key.UID), cmp.Compare(a.Key.Trigger, b.Key.Trigger))
	}
	slices.SortFunc(n.Jobs, func(a, b *Job) int { return a.Key.Compare(b.Key) })
	slices.SortFunc(n.Tracks, byKey)
	slices.SortStableFunc(n.Past, func(a, b KeyedTrack) int { return cmp.Compare(a.Key.UID, b.Key.UID) })
	slices.SortFunc(n.Workers, func(a, b *Worker) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(n.Activity, func(a, b Activity) int { return cmp.Compare(a.UID, b.UID) })
}

// Replace returns the state that n is of, to take the place of s by log entry index,
// which was proposed at now. Time does not go back, and what is given out next is
// greater than all that either gave out.
func (n *Snapshot) Replace(s *State, index uint64, now time.Time) *State {
	r := n.Restore()
	r.index, r.serial = index, max(n.Serial, s.serial)
	for _, t := range []time.Time{s.now, now} {
		if t.After(r.now) {
			r.now = t
		}
	}
	for _, j := range s.jumps {
		_ = r.clockJumped(j) // those that n knows, or that go before what it knows, it has
	}
	return r
}

// Restore returns the state that the snapshot is of. A track in force takes its
// trigger from its job, and an active run without a definition its job's, so
// that a snapshot need not hold them twice.
func (n *Snapshot) Restore() *State {
	s := New()
	s.index, s.now, s.serial, s.clusterID = n.Index, n.Now, n.Serial, n.ClusterID
	s.jumps = slices.Clone(n.Jumps)
	jobs := make(map[uint64]*Job, len(n.Jobs))
	for _, j := range n.Jobs {
		s.jobs[j.Key] = j
		s.uids[j.UID] = struct{}{}
		jobs[j.UID] = j
	}
	for _, k := range n.Tracks {
		t := *k.Track
		t.Trigger = jobs[k.Key.UID].Definition.Trigger(k.Key.Trigger)
		s.tracks[k.Key] = &t
	}
	for _, k := range n.Past {
		s.past[k.Key.UID] = append(s.past[k.Key.UID], k.Track)
	}
	for _, w := range n.Workers {
		s.workers[w.ID] = w
	}
	for _, r := range n.Runs {
		if !r.Phase.Final() && r.Definition == nil {
			c := *r
			c.Definition = jobs[r.UID].Definition
			r = &c
		}
		s.store(nil, r)
	}
	for _, id := range n.Standbys {
		s.standbys[id] = struct{}{}
	}
	for _, address := range n.Directs {
		s.directs[address] = struct{}{}
	}
	for _, a := range n.Activity {
		if s.active[a.UID] == nil {
			s.active[a.UID] = &activity{runs: map[RunID]struct{}{}}
		}
		s.active[a.UID].seq = a.Seq
	}
	s.changes, s.ended = nil, nil
	return s
}
