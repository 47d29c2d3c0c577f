package state

import (
	"errors"
	"time"
)

// Rejections. A command that breaks a rule changes nothing and returns one of
// these; it is an answer to its proposer, never a fault of the log.
var (
	// ErrNotFound is returned when the named job, run or worker does not exist.
	ErrNotFound = errors.New("not found")

	// ErrVersion is returned when a job is not at the version that the caller
	// expected.
	ErrVersion = errors.New("version conflict")

	// ErrStale is returned when what the leader assumed no longer holds: it has
	// to look again and decide anew.
	ErrStale = errors.New("stale decision")

	// ErrFence is returned when a report is about an attempt that is no longer
	// the run's.
	ErrFence = errors.New("stale fence")

	// ErrFinal is returned when a run has already ended.
	ErrFinal = errors.New("already ended")

	// ErrActive is returned when a run has not ended, or a worker is in use.
	ErrActive = errors.New("still active")

	// ErrLost is returned by who keeps what has left the state, for a run that is nowhere,
	// while records of some that ended are known to be lost: that it never was can't be
	// said. No primary knows more, now or later.
	ErrLost = errors.New("it may be one of the runs whose records are lost")

	// ErrFull is returned when a table has as many entries as it may have.
	ErrFull = errors.New("table full")
)

// Entry is one entry of the log: commands that became one by group commit,
// applied in their order, each accepted or rejected on its own.
type Entry struct {
	Now      time.Time // the leader's clock when it proposed
	Commands []Command
}

// Command asks the state for one change. The types that implement it are all
// that the log can hold.
type Command interface{ command() }

// Result is the answer to one command: what it made or changed, as it was right
// after, or the rule that it broke.
type Result struct {
	Job    *Job
	Run    *Run
	Worker *Worker
	Err    error
}

// The commands.
type (
	// InitCluster gives the cluster its id. The first one counts.
	InitCluster struct{ ClusterID string }

	// PutJob creates a job or replaces its definition. All occurrences of the
	// triggers that change must have been decided up to Effective; else
	// [ErrStale].
	PutJob struct {
		Key        JobKey
		Definition *Definition
		Expected   *uint64   // version that it replaces, 0: none; nil: any
		Effective  time.Time // from when the definition counts
		UID        uint64    // of the job if it is new, drawn at random; 0: a serial
	}

	// DeleteJob removes a job, whose occurrences must have been decided up to
	// Effective; else [ErrStale].
	DeleteJob struct {
		Key       JobKey
		Expected  *uint64
		Effective time.Time
	}

	// PauseJob holds a job's triggers.
	PauseJob struct {
		Key       JobKey
		Note      string
		Until     time.Time
		Effective time.Time
	}

	// ResumeJob ends a pause. With Until it ends only the one that ends then;
	// else [ErrStale].
	ResumeJob struct {
		Key       JobKey
		Until     time.Time
		Effective time.Time
	}

	// Quarantine records why a job can't be scheduled, or, with "", that it can.
	Quarantine struct {
		Key     JobKey
		UID     uint64
		Version uint64
		Reason  string
	}

	// Decide records what becomes of the occurrences of one trigger in
	// (After, Until], as a compare-and-set on its high-water mark.
	Decide struct {
		Key       JobKey
		UID       uint64
		Version   uint64 // of the job, as assumed
		Activity  uint64 // of the job, as assumed; see [State.Activity]
		Trigger   string
		After     time.Time
		Until     time.Time
		Decisions []Decided // in the order of their instants
	}

	// Request creates a run that was asked for by hand. Doing it again returns
	// the run that is there.
	Request struct {
		Key      JobKey
		UID      uint64
		Version  uint64
		Activity uint64
		ID       RunID
		RetryOf  RunID
		Trigger  string
		Birth    Birth
	}

	// Assign gives a pending run to a worker.
	Assign struct {
		Run     RunID
		Attempt int // the number it will have, as assumed
		Worker  WorkerID
	}

	// Start records that an attempt's process runs.
	Start struct {
		Run   RunID
		Fence uint64
		Time  time.Time
	}

	// Finish records how an attempt ended, and what becomes of the run: a final
	// phase, or Pending for another attempt.
	Finish struct {
		Run       RunID
		Fence     uint64
		Attempt   Attempt // Outcome and all that the worker said; the rest is ignored
		Phase     Phase
		Reason    string
		NotBefore time.Time
	}

	// Cancel ends a pending run, and marks one that a worker has as to be ended.
	Cancel struct {
		Run  RunID
		Note string
	}

	// GiveUp ends a run that waited for too long.
	GiveUp struct {
		Run    RunID
		Phase  Phase
		Reason string
	}

	// PutWorker records a worker that has connected.
	PutWorker struct {
		ID        WorkerID
		PublicKey []byte
		Says      WorkerInfo
	}

	// SetEnforcement records what the runs of a worker can be held to.
	SetEnforcement struct {
		ID          WorkerID
		Enforcement Enforcement
	}

	// SetOffline records that a worker is gone.
	SetOffline struct{ ID WorkerID }

	// UpdateWorker changes what is laid over a worker's own words.
	UpdateWorker struct {
		ID           WorkerID
		SetLabels    map[string]string
		RemoveLabels []string
		Slots        *int
	}

	// DrainWorker sets or ends draining.
	DrainWorker struct {
		ID   WorkerID
		Undo bool
		Note string
	}

	// RemoveWorker forgets a worker that has no active runs.
	RemoveWorker struct{ ID WorkerID }

	// Prune forgets finished runs, and the ledger before a horizon.
	Prune struct {
		Runs         []RunID
		LedgerBefore time.Time // zero: leave the ledger alone
	}

	// ClockJumped says that the clock by which the state goes jumped forward: nobody has
	// lived through what lies between. Runs that were there before have waited for
	// that much less than their instants say; see [State.Jumped]. It is rejected with
	// [ErrStale] when it does not follow the jump before it.
	ClockJumped struct {
		Was time.Time // what the clock would have shown
		Is  time.Time // what it showed
	}

	// SetStandby says that a primary shall never vote, or that it may, whether or
	// not it is in the group at the moment. At most [MaxTable] are said so; beyond
	// that, [ErrFull].
	SetStandby struct {
		ID      string // its node id
		Standby bool
	}

	// SetDirect says that primaries dial a worker, or that they no longer do. There
	// are at most [MaxTable]; beyond that, [ErrFull].
	SetDirect struct {
		Address string // where it listens, as host:port
		Remove  bool
	}
)

// Decided is what becomes of one occurrence, or of several that are decided
// alike.
type Decided struct {
	Decision Decision
	First    time.Time
	Last     time.Time
	Count    int64
	Digest   uint64 // sum of the [Mix] of each instant
	Reason   string // why it was skipped or missed

	// Run is set when there is to be a run on record, named by Last.
	Run *Birth
}

// Birth is a run to be made.
type Birth struct {
	Phase     Phase // Pending, Skipped or Missed
	Nominal   time.Time
	NotBefore time.Time
	Reason    string
	Missed    int64

	// Replaces names the runs that are cancelled to make room for it, in the same
	// breath: neither happens without the other.
	Replaces []RunID
}

func (InitCluster) command()    {}
func (PutJob) command()         {}
func (DeleteJob) command()      {}
func (PauseJob) command()       {}
func (ResumeJob) command()      {}
func (Quarantine) command()     {}
func (Decide) command()         {}
func (Request) command()        {}
func (Assign) command()         {}
func (Start) command()          {}
func (Finish) command()         {}
func (Cancel) command()         {}
func (GiveUp) command()         {}
func (PutWorker) command()      {}
func (SetEnforcement) command() {}
func (SetOffline) command()     {}
func (UpdateWorker) command()   {}
func (DrainWorker) command()    {}
func (RemoveWorker) command()   {}
func (Prune) command()          {}
func (SetStandby) command()     {}
func (SetDirect) command()      {}
func (ClockJumped) command()    {}
