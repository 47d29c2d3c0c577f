// Package schedule says when a trigger is due. It knows calendars, zones and
// what clocks do twice a year, and nothing else: no job, no run, and above all
// not what time it is now. Everything in it is a pure function of its
// arguments, so that each primary, and each leader after it, computes the same
// instants from the same definition.
//
// A trigger names nominal instants. Three kinds of rule do: cron (the local
// times of a zone that match an expression), every (a fixed distance, counted
// from the Unix epoch) and at (once). A window, exclusions and a deterministic
// jitter apply to all three.
//
// # What cron means when clocks change
//
// An expression is elastic when an item in its second, minute or hour field is
// a wildcard or has a step: "*", "?", "*/10", "8-18/2", "5/15", "H/15". All
// others are fixed: numbers, lists and ranges, and H alone ("30 2", "0 0-23",
// "0,30 1-4", "H H").
//
// An elastic expression follows elapsed time. It fires at each instant whose
// local time matches: in both passes of a repeated hour, and not for local
// times that the clocks jump over.
//
// A fixed expression names events of a day. A local time that the clocks jump
// over runs once, at the first instant after the jump ([GapSkip]: not at all);
// several lost in one jump are one run, also together with a match at that very
// instant. A local time that occurs twice runs the first time ([OverlapSecond],
// [OverlapBoth] choose otherwise). These are the rules of Vixie cron, applied to
// every change of a zone's offset, whatever its cause and size.
//
// # Which days match
//
// When both day-of-month and day-of-week are restricted, a day that matches
// either will do; otherwise it has to match both. As in Vixie cron, a field is
// unrestricted when it starts with "*" (or "?"), even with a step: "0 0 */2 * 1"
// means the Mondays on odd days. The parser that reads the fields would drop
// that mark for "*/2" and so mean "odd days, and Mondays"; it would set it for
// "1,*". Vixie's reading wins here. Sunday is 0 or 7.
package schedule

import (
	"errors"
	"fmt"
	"time"
)

// Spec is a trigger as a user wrote it. Exactly one of Cron, Every and At is set.
type Spec struct {
	Cron  *CronSpec
	Every *EverySpec
	At    time.Time // fires once; zero means not set

	// Start and End bound the nominal instants: Start <= t < End. Zero is open.
	Start, End time.Time

	// Jitter delays each run by a deterministic share of it: at least 0, at
	// most [MaxJitter]. See [Trigger.Due].
	Jitter time.Duration

	// Exclude lists what must not fire although the rule says so, at most
	// [MaxExclusions].
	Exclude []Exclusion

	// Seed spreads H fields and jitter. It should name the trigger in the whole
	// system ("default/nightly-report/nightly") and never change: another seed
	// means other instants.
	Seed string
}

// CronSpec fires at the local times that match an expression.
type CronSpec struct {
	// Expression has five fields (minute, hour, day of month, month, day of
	// week), six with seconds first, or is one of @hourly, @daily, @midnight,
	// @weekly, @monthly, @yearly and @annually. H, H(1-30) and H/15 stand for
	// values derived from the seed. At most [MaxExpression] bytes.
	Expression string

	// TimeZone is a name of the tz database, "Europe/Berlin". Empty is UTC.
	TimeZone string

	Gap     Gap
	Overlap Overlap
}

// EverySpec fires at the Unix epoch + Phase + k*Interval for every whole k. So
// the phase survives restarts, and a changed interval has a phase at once.
type EverySpec struct {
	Interval time.Duration // from [MinInterval] to [MaxInterval]
	Phase    time.Duration // 0 <= Phase < Interval
}

// Exclusion is either a whole civil date in the trigger's zone (UTC for every and
// at), or a period. It looks at the nominal instant, not at the jittered one:
// a local time lost on the 30th that runs right after the gap, on the 31st, is a
// run of the 31st.
type Exclusion struct {
	Date     string    // "2026-12-25"; empty when From and To are set
	From, To time.Time // From <= t < To
}

// Gap says what happens to a fixed local time that the clocks jump over.
type Gap uint8

// What to do with a local time that does not exist.
const (
	GapRunAfter Gap = iota // run once, at the first instant after the jump
	GapSkip                // do not run
)

// Overlap says at which of two equal local times a fixed one runs.
type Overlap uint8

// Which pass of a repeated local time runs.
const (
	OverlapFirst Overlap = iota
	OverlapSecond
	OverlapBoth
)

// Limits of a definition. Instants lie in the years 1970 to 9999.
const (
	MinInterval   = time.Second
	MaxInterval   = 10 * 366 * 24 * time.Hour
	MaxJitter     = 24 * time.Hour
	MaxExpression = 256 // bytes
	MaxExclusions = 100
)

// FieldError says what is wrong with one field of a Spec. [Compile] reports all
// of them at once, joined; [FieldErrors] takes them apart.
type FieldError struct {
	// Field names the field as the API does, relative to the trigger:
	// "cron.expression", "exclude[2].date". Empty for the trigger as a whole.
	Field   string
	Problem string // what is wrong and, where it helps, what to write instead
}

func (e *FieldError) Error() string {
	if e.Field == "" {
		return e.Problem
	}
	return e.Field + ": " + e.Problem
}

// FieldErrors returns the field errors in what [Compile] returned.
func FieldErrors(err error) []*FieldError {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*FieldError
		for _, e := range many.Unwrap() {
			all = append(all, FieldErrors(e)...)
		}
		return all
	}
	if one, ok := errors.AsType[*FieldError](err); ok {
		return []*FieldError{one}
	}
	return nil
}

// faults collects what is wrong with a Spec.
type faults []error

func (f *faults) add(field, format string, args ...any) {
	*f = append(*f, &FieldError{Field: field, Problem: fmt.Sprintf(format, args...)})
}
