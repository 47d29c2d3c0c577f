// Package measure makes figures of what was seen: quantiles, what was missed or doubled,
// and the largest load that was carried. It is pure, and never looks at a clock or a
// cluster.
package measure

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Quantile returns the value that a share q of all are at most (0.5 is the median, 1
// the largest), by nearest rank; 0 of nothing. It leaves all as they are.
func Quantile[T cmp.Ordered](all []T, q float64) T {
	if len(all) == 0 {
		var none T
		return none
	}
	sorted := slices.Sorted(slices.Values(all))
	rank := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[min(max(rank, 0), len(sorted)-1)]
}

// Milliseconds is a duration as a figure.
func Milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Rate is how many there were per second.
func Rate(n int, span time.Duration) float64 {
	if span <= 0 {
		return 0
	}
	return float64(n) / span.Seconds()
}

// Occurrence is a job, by its name, at one nominal instant, in seconds since 1970.
type Occurrence struct {
	Job     string
	Nominal int64
}

// Due is one, and when it is to start: at its nominal instant, or later by its jitter.
type Due struct {
	Occurrence
	At time.Time
}

// Start is a process that was started for one, and when.
type Start struct {
	Occurrence
	At time.Time
}

// Tally is what became of the occurrences that were due.
type Tally struct {
	Due, Started int
	// Missed were due and never started; Twice is how many starts there were beyond
	// the first of each; Stray is how many nobody was to start.
	Missed, Twice, Stray int
	// Lateness is, of each that was started, how long after it was due.
	Lateness []time.Duration
	// Last is when the last one of them was started first.
	Last time.Time
}

// Count holds the starts that were seen against what was due, each once.
func Count(due []Due, starts []Start) Tally {
	first := make(map[Occurrence]time.Time, len(due))
	for _, d := range due {
		first[d.Occurrence] = time.Time{}
	}
	t := Tally{Due: len(due)}
	for _, s := range starts {
		at, known := first[s.Occurrence]
		switch {
		case !known:
			t.Stray++
			continue
		case !at.IsZero():
			t.Twice++
			if !s.At.Before(at) {
				continue
			}
		}
		first[s.Occurrence] = s.At
	}
	for _, d := range due {
		at := first[d.Occurrence]
		if at.IsZero() {
			t.Missed++
			continue
		}
		t.Started++
		t.Lateness = append(t.Lateness, at.Sub(d.At))
		if at.After(t.Last) {
			t.Last = at
		}
	}
	return t
}
