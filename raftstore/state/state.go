// Package state is the replicated state machine: what every primary agrees on,
// and the rules by which it changes.
//
// It is pure. It reads no clock, draws no random number, opens no file and
// starts no goroutine, so that the same log always builds the same state. A
// value that may differ between two primaries (the time, a new id) is chosen
// once by the leader and arrives inside a [Command]. Commands carry facts, not
// questions: no policy is evaluated here, so that a new version of the planner
// never changes how an old log replays.
//
// Jobs, runs, workers and tracks are replaced, never changed in place: whoever
// was handed one may keep it.
package state

import (
	"fmt"
	"time"
)

// State is the replicated record. The zero value is not ready; use [New]. It
// does no locking: its owner does.
type State struct {
	index     uint64
	now       time.Time // the latest Now applied; never goes back
	serial    uint64    // the last serial number given out
	clusterID string
	jumps     []Jump // of now, the oldest first

	jobs    map[JobKey]*Job
	tracks  map[TrackKey]*Track // in force, one for each trigger of each job
	past    map[uint64][]*Track // ended, by job uid, oldest first
	runs    map[RunID]*Run
	workers map[WorkerID]*Worker

	standbys map[string]struct{} // node ids of primaries that shall never vote
	directs  map[string]struct{} // addresses of workers that primaries dial

	// Derived from the above, but for Activity's sequence.
	uids   map[uint64]struct{}             // of the jobs
	active map[uint64]*activity            // of each job that has or had runs
	going  int                             // how many runs have not ended, of all jobs
	load   map[WorkerID]map[RunID]struct{} // live attempts of each worker
	born   []birth                         // by serial; those of pruned runs stay until they are many
	pruned int                             // how many of born are pruned
	most   int                             // how many runs there were at once since they were moved together

	changes []Change
	ended   []*Run // versions of runs that have ended, in their order
}

// birth is when a run was made. It has the run as it is now, since to look for each
// of many in the table would take most of the time of who goes through all.
type birth struct {
	serial uint64
	run    *Run // nil: it is gone
}

// activity is which runs of a job have not ended.
type activity struct {
	seq  uint64 // changes whenever runs does
	runs map[RunID]struct{}
	live int // how many of them a worker has
}

// Change names something that an entry has changed. One of its fields is set.
type Change struct {
	Job    JobKey
	Run    RunID
	Worker WorkerID
	Group  bool // which primaries shall never vote, or which workers are dialled
}

// New returns an empty state.
func New() *State {
	return &State{
		jobs:    map[JobKey]*Job{},
		tracks:  map[TrackKey]*Track{},
		past:    map[uint64][]*Track{},
		runs:    map[RunID]*Run{},
		workers: map[WorkerID]*Worker{},

		standbys: map[string]struct{}{},
		directs:  map[string]struct{}{},

		uids:   map[uint64]struct{}{},
		active: map[uint64]*activity{},
		load:   map[WorkerID]map[RunID]struct{}{},
	}
}

// Apply changes the state as log entry index asks, and returns the answer to
// each of its commands. It is the only way in.
func (s *State) Apply(index uint64, e Entry) []Result {
	s.index = index
	if e.Now.After(s.now) {
		s.now = e.Now // a new leader's clock may run behind the old one's
	}
	results := make([]Result, len(e.Commands))
	for i, c := range e.Commands {
		results[i] = s.apply(c)
	}
	return results
}

// TakeChanges returns what was changed since it was last called.
func (s *State) TakeChanges() []Change {
	c := s.changes
	s.changes = nil
	return c
}

// TakeEnded returns the runs that have ended since it was last called, as they were
// right after, the earliest first. One that was changed after its end, by a result
// that came late, is there again.
func (s *State) TakeEnded() []*Run {
	e := s.ended
	s.ended = nil
	return e
}

func (s *State) apply(c Command) Result {
	if err := check(c); err != nil {
		return Result{Err: err}
	}
	switch c := c.(type) {
	case InitCluster:
		if s.clusterID == "" {
			s.clusterID = c.ClusterID
		}
		return Result{}
	case PutJob:
		return ofJob(s.putJob(c))
	case DeleteJob:
		return ofJob(s.deleteJob(c))
	case PauseJob:
		return ofJob(s.pauseJob(c))
	case ResumeJob:
		return ofJob(s.resumeJob(c))
	case Quarantine:
		return ofJob(s.quarantine(c))
	case Decide:
		return Result{Err: s.decide(c)}
	case Request:
		return ofRun(s.request(c))
	case Assign:
		return ofRun(s.assign(c))
	case Start:
		return ofRun(s.start(c))
	case Finish:
		return ofRun(s.finish(c))
	case Cancel:
		return ofRun(s.cancel(c))
	case GiveUp:
		return ofRun(s.giveUp(c))
	case Prune:
		return Result{Err: s.prune(c)}
	case SetStandby:
		return Result{Err: s.setStandby(c)}
	case SetDirect:
		return Result{Err: s.setDirect(c)}
	case ClockJumped:
		return Result{Err: s.clockJumped(Jump(c))}
	default:
		return ofWorker(s.applyWorker(c))
	}
}

func (s *State) applyWorker(c Command) (*Worker, error) {
	switch c := c.(type) {
	case PutWorker:
		return s.putWorker(c)
	case SetEnforcement:
		return s.setEnforcement(c)
	case SetOffline:
		return s.setOffline(c)
	case UpdateWorker:
		return s.updateWorker(c)
	case DrainWorker:
		return s.drainWorker(c)
	case RemoveWorker:
		return s.removeWorker(c)
	}
	panic(fmt.Sprintf("state: command %T at index %d", c, s.index))
}

func ofJob(j *Job, err error) Result       { return Result{Job: j, Err: err} }
func ofRun(r *Run, err error) Result       { return Result{Run: r, Err: err} }
func ofWorker(w *Worker, err error) Result { return Result{Worker: w, Err: err} }

// nextSerial gives out a number greater than all before, close to the log index
// where it can be: the index itself, unless one entry needs several.
func (s *State) nextSerial() uint64 {
	s.serial = max(s.serial+1, s.index)
	return s.serial
}

func (s *State) changedJob(k JobKey)      { s.changes = append(s.changes, Change{Job: k}) }
func (s *State) changedRun(id RunID)      { s.changes = append(s.changes, Change{Run: id}) }
func (s *State) changedWorker(w WorkerID) { s.changes = append(s.changes, Change{Worker: w}) }
