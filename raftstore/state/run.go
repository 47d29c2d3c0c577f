package state

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"time"
)

// RunID names a run. It is a function of what the run is about, so that
// proposing the same run twice names the same run.
type RunID [16]byte

var runIDText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// OccurrenceRunID names the run of an occurrence.
func OccurrenceRunID(uid uint64, trigger string, nominal time.Time) RunID {
	return hashID(uid, "occurrence", trigger, nominal.UnixNano())
}

// RequestRunID names the run that was asked for by hand, by the request's id.
func RequestRunID(uid uint64, request string) RunID {
	return hashID(uid, "request", request, 0)
}

func hashID(uid uint64, kind, name string, instant int64) RunID {
	h := sha256.New()
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uid)
	h.Write(b[:])
	h.Write([]byte(kind))
	h.Write([]byte{0})
	h.Write([]byte(name))
	h.Write([]byte{0})
	binary.BigEndian.PutUint64(b[:], uint64(instant))
	h.Write(b[:])
	return RunID(h.Sum(nil)[:16])
}

// String returns the id as people and the API see it: 26 characters of
// [a-z2-7].
func (id RunID) String() string { return runIDText.EncodeToString(id[:]) }

// MarshalText returns what String does, for logs.
func (id RunID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// ParseRunID reads what String wrote.
func ParseRunID(s string) (RunID, error) {
	b, err := runIDText.DecodeString(s)
	if err != nil || len(b) != len(RunID{}) {
		return RunID{}, fmt.Errorf("%q is not the id of a run: it has 26 characters of a-z and 2-7", s)
	}
	return RunID(b), nil
}

// Phase is where a run stands in its life:
//
//	Pending ──▶ Assigned ──▶ Running ──▶ Succeeded, Failed, TimedOut, Lost
//	   ▲ │          │           │   └──▶ Cancelled
//	   │ └──────────┴───────────┼──────▶ Cancelled, TimedOut, Failed, Lost
//	   └────────────────────────┘ another attempt
//
// and Skipped and Missed from birth. It never leaves a final phase.
type Phase int

// The phases.
const (
	Pending Phase = iota
	Assigned
	Running
	Succeeded
	Failed
	TimedOut
	Cancelled
	Lost
	Skipped
	Missed
)

// Final reports whether the phase is one that a run never leaves.
func (p Phase) Final() bool { return p >= Succeeded }

// String returns the phase as a word.
func (p Phase) String() string {
	return [...]string{"pending", "assigned", "running", "succeeded", "failed", "timed out", "cancelled", "lost", "skipped", "missed"}[p]
}

// MarshalText returns what String does, for logs.
func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// Run is one occurrence, or one request by hand, being carried out.
type Run struct {
	ID         RunID
	Job        JobKey
	UID        uint64 // of the job
	Version    uint64 // of the definition it runs with
	Trigger    string // "" when by hand
	Nominal    time.Time
	Phase      Phase
	Reason     string // of a final phase, or why it is pending again
	Created    time.Time
	Finished   time.Time // zero while active
	NotBefore  time.Time // a pending run waits at least until then
	Attempts   []Attempt // shared between versions of a Run: never changed in place
	Missed     int64     // how many occurrences before it this run stands for
	RetryOf    RunID     // zero when it repeats none
	CancelTime time.Time // when it was asked to end; zero when it was not
	CancelNote string

	// Definition is what it runs with; nil once it has ended.
	Definition *Definition
	// Serial orders runs by birth.
	Serial uint64
}

// Live returns the attempt that a worker has, or nil when none has.
func (r *Run) Live() *Attempt {
	if r.Phase != Assigned && r.Phase != Running {
		return nil
	}
	return &r.Attempts[len(r.Attempts)-1]
}

// Fenced returns the attempt with that fence, or nil.
func (r *Run) Fenced(fence uint64) *Attempt {
	for i := range r.Attempts {
		if r.Attempts[i].Fence == fence {
			return &r.Attempts[i]
		}
	}
	return nil
}

// Attempt is one try of a run on one worker.
type Attempt struct {
	Number     int // from 1
	Fence      uint64
	Worker     WorkerID
	WorkerName string
	Assigned   time.Time // by the leader's clock
	Started    time.Time // by the worker's clock
	Finished   time.Time // by the worker's clock
	Outcome    Outcome
	Late       Outcome // what the worker said after the attempt was lost
	ExitCode   int
	Signal     string
	Reason     string
	LogBytes   int64
	LogDropped int64
	CPUTime    time.Duration
	MaxRSS     int64
}

// Reported tells whether its worker has said how it ended, so that the length of
// its log is known.
func (a *Attempt) Reported() bool {
	return a.Outcome != Unfinished && a.Outcome != OutcomeLost || a.Late != Unfinished
}

// NeverBegan tells whether it is known that it had no process.
func (a *Attempt) NeverBegan() bool {
	return a.Outcome == OutcomeRefused || a.Outcome == OutcomeNotStarted
}

// Outcome is how an attempt ended.
type Outcome int

// The outcomes.
const (
	Unfinished Outcome = iota
	OutcomeSucceeded
	OutcomeFailed
	OutcomeNotStarted
	OutcomeTimedOut
	OutcomeCancelled
	OutcomeLost
	OutcomeInterrupted
	OutcomeRefused
	OutcomeLeaseExpired
)
