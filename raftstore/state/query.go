package state

import (
	"bytes"
	"cmp"
	"iter"
	"slices"
	"time"
)

// Index returns the index of the last entry applied.
func (s *State) Index() uint64 { return s.index }

// Now returns the latest time that an entry carried. It never goes back.
func (s *State) Now() time.Time { return s.now }

// ClusterID returns the cluster's id; "" before the first leader gave it one.
func (s *State) ClusterID() string { return s.clusterID }

// Job returns the job of that name, or nil.
func (s *State) Job(k JobKey) *Job { return s.jobs[k] }

// NumJobs returns how many jobs there are.
func (s *State) NumJobs() int { return len(s.jobs) }

// Jobs yields all jobs, in no order.
func (s *State) Jobs() iter.Seq[*Job] {
	return func(yield func(*Job) bool) {
		for _, j := range s.jobs {
			if !yield(j) {
				return
			}
		}
	}
}

// Track returns the ledger of a trigger in force, or nil.
func (s *State) Track(uid uint64, trigger string) *Track { return s.tracks[TrackKey{uid, trigger}] }

// PastTracks returns the ledgers of a job's triggers whose definition was
// replaced, oldest first.
func (s *State) PastTracks(uid uint64) []*Track { return s.past[uid] }

// Run returns the run of that id, or nil.
func (s *State) Run(id RunID) *Run { return s.runs[id] }

// NumRuns returns how many runs there are.
func (s *State) NumRuns() int { return len(s.runs) }

// Serial returns the greatest number that was given to a run, or to an attempt as its
// fence: they are one sequence.
func (s *State) Serial() uint64 { return s.serial }

// RunsByBirth yields all runs, the oldest first.
func (s *State) RunsByBirth() iter.Seq[*Run] {
	return func(yield func(*Run) bool) {
		for _, b := range s.born {
			if b.run != nil && !yield(b.run) {
				return
			}
		}
	}
}

// bornBefore returns how many births there are before that with a serial number, and
// whether there is one with it.
func (s *State) bornBefore(serial uint64) (n int, is bool) {
	return slices.BinarySearchFunc(s.born, serial, func(b birth, serial uint64) int { return cmp.Compare(b.serial, serial) })
}

// RunsBefore yields the runs that were born before the one with that serial,
// the newest first. 0 means all.
func (s *State) RunsBefore(serial uint64) iter.Seq[*Run] {
	return func(yield func(*Run) bool) {
		n := len(s.born)
		if serial != 0 {
			n, _ = s.bornBefore(serial)
		}
		for _, b := range slices.Backward(s.born[:n]) {
			if b.run != nil && !yield(b.run) {
				return
			}
		}
	}
}

// Activity returns a number that changes whenever a run of the job begins or
// ends. Who decides by a job's active runs names it as what was assumed.
func (s *State) Activity(uid uint64) uint64 {
	if a := s.active[uid]; a != nil {
		return a.seq
	}
	return 0
}

// NumActive returns how many runs of the job have not ended.
func (s *State) NumActive(uid uint64) int {
	if a := s.active[uid]; a != nil {
		return len(a.runs)
	}
	return 0
}

// NumAllActive returns how many runs of all jobs have not ended.
func (s *State) NumAllActive() int { return s.going }

// NumLive returns how many runs of the job a worker has.
func (s *State) NumLive(uid uint64) int {
	if a := s.active[uid]; a != nil {
		return a.live
	}
	return 0
}

// ActiveRuns returns the runs of the job that have not ended, oldest first.
func (s *State) ActiveRuns(uid uint64) []*Run {
	a := s.active[uid]
	if a == nil {
		return nil
	}
	return s.sorted(a.runs)
}

// Load returns how many attempts a worker has.
func (s *State) Load(w WorkerID) int { return len(s.load[w]) }

// RunsOn returns the runs whose live attempt a worker has, oldest first.
func (s *State) RunsOn(w WorkerID) []*Run { return s.sorted(s.load[w]) }

// Live yields every run whose live attempt a worker has, in no order.
func (s *State) Live() iter.Seq[*Run] {
	return func(yield func(*Run) bool) {
		for _, ids := range s.load {
			for id := range ids {
				if !yield(s.runs[id]) {
					return
				}
			}
		}
	}
}

func (s *State) sorted(ids map[RunID]struct{}) []*Run {
	runs := make([]*Run, 0, len(ids))
	for id := range ids {
		runs = append(runs, s.runs[id])
	}
	slices.SortFunc(runs, func(a, b *Run) int { return cmp.Compare(a.Serial, b.Serial) })
	return runs
}

// Worker returns the worker of that id, or nil.
func (s *State) Worker(id WorkerID) *Worker { return s.workers[id] }

// Workers returns all workers by id.
func (s *State) Workers() []*Worker {
	ws := make([]*Worker, 0, len(s.workers))
	for _, w := range s.workers {
		ws = append(ws, w)
	}
	slices.SortFunc(ws, func(a, b *Worker) int { return cmp.Compare(a.ID, b.ID) })
	return ws
}

// Compare orders run ids.
func (id RunID) Compare(o RunID) int { return bytes.Compare(id[:], o[:]) }
