package state

import (
	"maps"
	"time"
)

// WorkerID names a worker; it is made from the worker's key.
type WorkerID string

// Worker is a worker that has connected at least once.
type Worker struct {
	ID        WorkerID
	PublicKey []byte
	Says      WorkerInfo // what it says of itself
	First     time.Time  // when it first connected

	// Offline is since when it has been given up as gone; zero while it is
	// there, or may come back any moment.
	Offline time.Time

	Drain       *Drain
	ExtraLabels map[string]string // laid over its own
	ExtraSlots  int               // in place of its own; 0: its own
	Enforcement Enforcement       // what its runs can be held to, as it says
}

// Means is by what a worker does something.
type Means int

// The means.
const (
	MeansUnknown Means = iota // it does not say
	MeansNone
	MeansProc
	MeansCgroupV2
)

// Enforcement is by what a worker keeps each limit, measures, and finds the processes
// of an attempt.
type Enforcement struct {
	Memory Means
	CPU    Means
	PIDs   Means
	Usage  Means
	Tree   Means
	Note   string // why not all is by control groups
}

// Keeps reports whether a worker can hold an attempt to limits.
func (e *Enforcement) Keeps(l Limits) bool {
	return (l.Memory == 0 || e.Memory == MeansCgroupV2) &&
		(l.CPUMillis == 0 || e.CPU == MeansCgroupV2) &&
		(l.PIDs == 0 || e.PIDs == MeansCgroupV2)
}

// WorkerInfo is what a worker says of itself.
type WorkerInfo struct {
	Name              string
	Labels            map[string]string
	Slots             int
	AdvertiseHostname string
	AdvertiseIP       string
	Version           string
	OS                string
	Arch              string
}

// Drain tells that a worker takes no new runs.
type Drain struct {
	Note  string
	Since time.Time
}

// Labels returns the labels in force. The map must not be changed.
func (w *Worker) Labels() map[string]string {
	if len(w.ExtraLabels) == 0 {
		return w.Says.Labels
	}
	l := maps.Clone(w.ExtraLabels)
	for k, v := range w.Says.Labels {
		if _, ok := l[k]; !ok {
			l[k] = v
		}
	}
	return l
}

// Slots returns how many runs it takes at the same time.
func (w *Worker) Slots() int {
	if w.ExtraSlots > 0 {
		return w.ExtraSlots
	}
	return w.Says.Slots
}
