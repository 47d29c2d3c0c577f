package agent

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/schedd/schedd/agent/runner"
)

// The most that a job may ask for. The leader keeps to it; who has taken a primary over need
// not, and sums of times that are longer would begin anew with the least that there is.
const (
	longest    = 10 * 366 * 24 * time.Hour
	longestLog = 16 << 30 // bytes
)

// within returns a time that a leader asks for, if it is one that a job may have, and else
// the longest that there is. What is less than nothing stays so: as a time by which to start
// it is over, and otherwise it is none.
func within(asked *durationpb.Duration) time.Duration { return min(asked.AsDuration(), longest) }

// graceOf returns the grace that a leader asks for, as the runner gives it.
func graceOf(asked *durationpb.Duration) time.Duration { return runner.ClampGrace(asked.AsDuration()) }
