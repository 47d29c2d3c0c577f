package verdict

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Record is all that was seen.
type Record struct {
	Jobs []Job
	// Views is what each of the primaries that could be asked tells of the jobs.
	Views []View
	// Effects is what processes wrote down, and EffectsOf the workers, by id, whose
	// writing could be read.
	Effects   []Effect
	EffectsOf map[string]bool
	// Told tells that the jobs were told to write down what they do.
	Told bool
	// Unreadable is what stood among the effects and is none.
	Unreadable []string
	// Victims is how many processes there were to harm.
	Victims int
	// Faults that were injected, in any order.
	Faults []Fault
	// Crashes is what ended without being asked to, each in a sentence.
	Crashes []string
	// Closed tells that nothing else went wrong: that an attempt was interrupted
	// has to have its cause among the faults.
	Closed bool
	// LeaderKills is how often the leader has to have been killed, for the verdict
	// to mean something.
	LeaderKills int
	// Unseen is what could not be looked at, each in a sentence.
	Unseen []string
}

// Job is a job that was defined: due at each multiple of Interval since 1970
// from Start on and before End.
type Job struct {
	Name       string
	Interval   time.Duration // whole seconds
	Start, End time.Time
	Work       Work
}

// Due returns the instants at which the job is due, by looking at each second
// that there is.
func (j Job) Due() []time.Time {
	var due []time.Time
	for at := j.Start.Truncate(time.Second); at.Before(j.End); at = at.Add(time.Second) {
		if !at.Before(j.Start) && at.Unix()%int64(j.Interval/time.Second) == 0 {
			due = append(due, at.UTC())
		}
	}
	return due
}

// View is what one primary tells.
type View struct {
	Server string            // its address
	Ledger map[string]Ledger // by job
	Runs   []Run
}

// Ledger is what was decided about the occurrences of a job.
type Ledger struct {
	Problems []string // that the primary itself found
	Spans    []Span
}

// Span is consecutive occurrences that were decided alike.
type Span struct {
	First, Last time.Time
	Count       int64
	Decision    Decision
	Reason      string
}

// Decision is what became of an occurrence.
type Decision string

// All decisions.
const (
	Ran     Decision = "RUN"
	Skipped Decision = "SKIPPED"
	Missed  Decision = "MISSED"
)

// Run is a run of a job, as a primary tells of it.
type Run struct {
	ID, Job  string
	Nominal  time.Time
	Created  time.Time // when it was decided
	Phase    Phase
	Reason   string
	Attempts []Attempt
}

// Phase is where a run stands: its name in the API, without PHASE_.
type Phase string

// The phases that make a difference here.
const (
	PhasePending   Phase = "PENDING"
	PhaseAssigned  Phase = "ASSIGNED"
	PhaseRunning   Phase = "RUNNING"
	PhaseSucceeded Phase = "SUCCEEDED"
	PhaseFailed    Phase = "FAILED"
)

// Attempt is one try of a run.
type Attempt struct {
	Number             int
	Fence              uint64
	Worker, WorkerName string // its id, and its name
	Assigned           time.Time
	Started, Finished  time.Time // zero when unknown
	Outcome            Outcome
	ExitCode           int
	Reason             string
	Log                Log
}

// Outcome is how an attempt ended: its name in the API, without OUTCOME_.
type Outcome string

// All outcomes.
const (
	Unfinished  Outcome = "UNSPECIFIED"
	Succeeded   Outcome = "SUCCEEDED"
	Failed      Outcome = "FAILED"
	NotStarted  Outcome = "NOT_STARTED"
	TimedOut    Outcome = "TIMED_OUT"
	Cancelled   Outcome = "CANCELLED"
	Lost        Outcome = "LOST"
	Interrupted Outcome = "INTERRUPTED"
	Refused     Outcome = "REFUSED"
)

// Log is what became of reading the log of an attempt.
type Log struct {
	Read    bool
	Bytes   int
	Problem string // empty when it is what the process printed
}

// Stage is a point of an attempt at which its process writes down that it came
// there.
type Stage string

// All stages.
const (
	Begin Stage = "begin"
	End   Stage = "end"
)

// Effect is what a process wrote down.
type Effect struct {
	Worker  string // whose file it stood in
	Stage   Stage
	Run     string
	Attempt int
	Fence   uint64
	Nominal time.Time
	Job     string
	At      time.Time // by its clock, to the second
}

// ReadEffects reads what the processes of one worker wrote down, and returns what
// is no such thing apart.
func ReadEffects(worker, text string) (effects []Effect, unreadable []string) {
	for line := range strings.Lines(text) {
		e, err := readEffect(line)
		if err != nil {
			unreadable = append(unreadable, fmt.Sprintf("worker %s: %v", worker, err))
			continue
		}
		e.Worker = worker
		effects = append(effects, e)
	}
	return effects, unreadable
}

func readEffect(line string) (e Effect, err error) {
	f := strings.Split(strings.TrimSuffix(line, "\n"), " ")
	if len(f) != 7 || !strings.HasSuffix(line, "\n") {
		return e, fmt.Errorf("%q is no whole line of seven words", line)
	}
	e = Effect{Stage: Stage(f[0]), Run: f[1], Job: f[5]}
	if e.Stage != Begin && e.Stage != End {
		return e, fmt.Errorf("%q is neither a begin nor an end", line)
	}
	if e.Attempt, err = strconv.Atoi(f[2]); err != nil {
		return e, fmt.Errorf("%q: attempt: %w", line, err)
	}
	if e.Fence, err = strconv.ParseUint(f[3], 10, 64); err != nil {
		return e, fmt.Errorf("%q: fence: %w", line, err)
	}
	if e.Nominal, err = time.Parse(time.RFC3339Nano, f[4]); err != nil {
		return e, fmt.Errorf("%q: nominal time: %w", line, err)
	}
	if e.At, err = time.Parse(time.RFC3339, f[6]); err != nil {
		return e, fmt.Errorf("%q: time: %w", line, err)
	}
	return e, nil
}

// Role is what a process that was harmed is in the group.
type Role string

// All roles.
const (
	Leader   Role = "leader"
	Follower Role = "follower"
	Worker   Role = "worker" // the agent of a worker
	Runner   Role = "runner" // of a worker, which has the processes of its jobs
)

// Kind is what was done to it.
type Kind string

// All kinds of faults.
const (
	Kill Kind = "kill" // -9
	Halt Kind = "halt" // SIGSTOP, and SIGCONT when it is over
	Cut  Kind = "cut"  // its link to others
)

// Fault is something that was done to a process.
type Fault struct {
	Kind   Kind
	Role   Role
	Name   string // of the primary, or of the worker
	At     time.Time
	Until  time.Time // when it was over, as far as whoever did it knows
	Failed string    // why it was not done; empty when it was
}
