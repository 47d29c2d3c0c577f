package runner

import (
	"errors"
	"fmt"
	"strings"

	"github.com/schedd/schedd/agent/runner/cgroup"
)

// Limits are what all processes of an attempt may use together. Zero is no limit.
type Limits = cgroup.Limits

// ErrUnenforced is returned by Start for an attempt with a limit that this runner can't
// hold it to. It is not started without.
var ErrUnenforced = errors.New("a limit can't be kept here")

// Means is by what a runner does something.
type Means int

// The means, from the least to the best.
const (
	// MeansUnknown is what a runner of another version does not say.
	MeansUnknown Means = iota
	// MeansNone: not at all.
	MeansNone
	// MeansProc: as the parent of the processes, and by /proc where there is one.
	MeansProc
	// MeansCgroupV2: by a control group for each attempt.
	MeansCgroupV2
)

// Enforcement is what a runner found out about its host when it began.
type Enforcement struct {
	// Memory, CPU and PIDs are by what these limits are kept.
	Memory, CPU, PIDs Means
	// Usage is by what attempts are measured: each process that was waited for, or
	// all of them together.
	Usage Means
	// Tree is by what the processes of an attempt are found, to end them.
	Tree Means
	// Note says why not all is by control groups, and whether jobs could evade them;
	// empty when there is no such thing to say.
	Note string
}

// Check returns why an attempt can't be held to its limits; it wraps ErrUnenforced.
func (e Enforcement) Check(l Limits) error {
	var missing []string
	for _, x := range []struct {
		what  string
		asked int64
		by    Means
	}{{"memory", l.Memory, e.Memory}, {"cpus", l.CPUMillis, e.CPU}, {"pids", l.PIDs, e.PIDs}} {
		if x.asked > 0 && x.by != MeansCgroupV2 {
			missing = append(missing, x.what)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	note := e.Note
	if note == "" {
		note = "the runner has no control groups"
	}
	return fmt.Errorf("%w: %s (%s)", ErrUnenforced, strings.Join(missing, ", "), note)
}
