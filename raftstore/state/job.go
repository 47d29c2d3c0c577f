package state

import (
	"maps"
	"reflect"
	"slices"
	"time"
)

// JobKey names a job.
type JobKey struct {
	Namespace string
	Name      string
}

// String returns "namespace/name".
func (k JobKey) String() string { return k.Namespace + "/" + k.Name }

// MarshalText returns what String does, for logs.
func (k JobKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Compare orders keys by namespace and name.
func (k JobKey) Compare(l JobKey) int {
	switch {
	case k == l:
		return 0
	case k.Namespace < l.Namespace, k.Namespace == l.Namespace && k.Name < l.Name:
		return -1
	}
	return 1
}

// Job is a job as it is now.
type Job struct {
	Key        JobKey
	UID        uint64 // never used again, nor in another cluster: run ids are made of it
	Version    uint64 // of the definition, from 1
	Created    time.Time
	Updated    time.Time
	Definition *Definition
	Pause      *Pause // nil when it isn't paused
	Quarantine string // why it can't be scheduled; "" when it can
}

// Pause tells that a job's triggers are held.
type Pause struct {
	Note  string
	Since time.Time
	Until time.Time // zero: until it is resumed
}

// Definition is what a user defines. Every field has its default filled in, so
// that a later change of defaults changes no stored job. Triggers and the policy may
// be shared with jobs that have equal ones, as most do.
type Definition struct {
	Description string
	Labels      Pairs
	Triggers    []*Trigger
	Task        Task
	Target      Target
	Policy      *Policy // never nil
}

// Trigger returns the trigger of that id, or nil.
func (d *Definition) Trigger(id string) *Trigger {
	for _, t := range d.Triggers {
		if t.ID == id {
			return t
		}
	}
	return nil
}

// Pairs are labels, or variables, in the order of their keys. A map of as little as one
// takes 300 bytes, and there may be a million jobs.
type Pairs []Pair

// Pair is one of them.
type Pair struct{ Key, Value string }

// PairsOf returns what a map holds; nil when that is nothing.
func PairsOf(m map[string]string) Pairs {
	if len(m) == 0 {
		return nil
	}
	p := make(Pairs, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		p = append(p, Pair{k, m[k]})
	}
	return p
}

// Map returns them as a map; nil when there are none.
func (p Pairs) Map() map[string]string {
	if len(p) == 0 {
		return nil
	}
	m := make(map[string]string, len(p))
	for _, kv := range p {
		m[kv.Key] = kv.Value
	}
	return m
}

// Trigger is one reason to run. Exactly one of Cron, Every and At is set.
type Trigger struct {
	ID       string
	Cron     *Cron
	Every    *Every
	At       time.Time
	Jitter   time.Duration
	Start    time.Time
	End      time.Time
	Exclude  []Exclusion
	Disabled bool
}

// Equal reports whether both name the same instants under the same id.
func (t *Trigger) Equal(u *Trigger) bool { return reflect.DeepEqual(t, u) }

// Cron names instants by a calendar.
type Cron struct {
	Expression string
	TimeZone   string // IANA name; "" is UTC
	Gap        Gap
	Overlap    DSTOverlap
}

// Gap says what becomes of a local time that the clocks jump over.
type Gap int

// The gap policies.
const (
	GapRunAfter Gap = iota
	GapSkip
)

// DSTOverlap says which of two equal local times counts.
type DSTOverlap int

// The DST overlap policies.
const (
	DSTOverlapFirst DSTOverlap = iota
	DSTOverlapSecond
	DSTOverlapBoth
)

// Every names instants by an interval anchored at the Unix epoch.
type Every struct {
	Interval time.Duration
	Phase    time.Duration
}

// Exclusion takes a civil day, or else the period From ≤ t < To, out of a
// trigger.
type Exclusion struct {
	Date string
	From time.Time
	To   time.Time
}

// Task is what a run does: Argv, or else Script.
type Task struct {
	Argv        []string
	Script      string
	Interpreter []string
	Env         Pairs
	WorkingDir  string
	User        string
	Stdin       string
	Limits      Limits
}

// Limits are what all processes of an attempt may use together. Zero is no limit.
type Limits struct {
	Memory    int64 // bytes
	CPUMillis int64 // thousandths of a processor
	PIDs      int64 // processes and threads
}

// Target says which workers may run a job.
type Target struct {
	Selector string // Kubernetes label selector; "" is all
	Strategy Strategy
}

// Strategy picks a worker among those that match and have a free slot.
type Strategy int

// The strategies.
const (
	LeastLoaded Strategy = iota
	RoundRobin
	Random
	Spread
	PreferFirst
)

// Policy says what happens when runs overlap, are late, fail or are lost.
type Policy struct {
	Overlap       Overlap
	MaxConcurrent int
	CatchUp       CatchUp
	CatchUpWindow time.Duration
	Timeout       time.Duration // 0: none
	TotalTimeout  time.Duration // 0: none
	KillGrace     time.Duration
	QueueTimeout  time.Duration
	StartWithin   time.Duration
	Retry         Retry
	OnLost        OnLost
	LostAfter     time.Duration
	KillAfter     time.Duration // without a lease; 0: attempts need none
	LogLimit      int64         // bytes
}

// Overlap says what becomes of a run that would come beside active ones.
type Overlap int

// The overlap policies.
const (
	OverlapSkip Overlap = iota
	OverlapAllow
	OverlapQueue
	OverlapReplace
)

// CatchUp says which late occurrences still run.
type CatchUp int

// The catch-up policies.
const (
	CatchUpLatest CatchUp = iota
	CatchUpAll
	CatchUpNone
)

// Retry says how failed attempts are tried again.
type Retry struct {
	MaxAttempts  int // counts the first one too
	InitialDelay time.Duration
	Multiplier   float64
	MaxDelay     time.Duration
	ExitCodes    []int // worth another try; empty: all but 0
}

// OnLost says what becomes of a run whose worker is gone.
type OnLost int

// The answers to a lost worker.
const (
	OnLostFail OnLost = iota
	OnLostRetry
	OnLostWait
)
