package plan

import (
	"fmt"
	"slices"
	"time"

	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/schedule"
)

// Verdict is the ledger of one trigger, under one definition, held against the
// schedule.
type Verdict struct {
	Trigger      string
	Since        time.Time // compared from here
	DecidedUntil time.Time // to here at most
	Nominal      int64     // occurrences that the schedule has there
	Ran          int64
	Skipped      int64
	Missed       int64
	Differences  []Difference
	Spans        []state.Span
}

// Difference is one disagreement between schedule and ledger.
type Difference struct {
	From    time.Time
	To      time.Time
	Nominal int64
	Decided int64
	Problem string
}

// Verify computes the nominal occurrences of a job anew and compares them with
// what was decided, from the spans of the ledger that touch [from, to]; a zero
// from or to is no bound. The error is [state.ErrNotFound].
//
// A span agrees when it has as many instants as the schedule and the same
// digest of them. What lies between two spans, and between the last span and
// the high-water mark, must have none.
func Verify(s *state.State, k state.JobKey, from, to time.Time) ([]Verdict, error) {
	j := s.Job(k)
	if j == nil {
		return nil, fmt.Errorf("job %v: %w", k, state.ErrNotFound)
	}
	tracks := slices.Clone(s.PastTracks(j.UID))
	for i := range j.Definition.Triggers {
		tracks = append(tracks, s.Track(j.UID, j.Definition.Triggers[i].ID))
	}
	var vs []Verdict
	for _, t := range tracks {
		if !to.IsZero() && t.Since.After(to) || !from.IsZero() && end(t).Before(from) {
			continue
		}
		vs = append(vs, verify(k, t, from, to))
	}
	return vs, nil
}

// end is up to where a track has been decided.
func end(t *state.Track) time.Time {
	if !t.Ended.IsZero() {
		return t.Ended
	}
	return t.DecidedUntil
}

func verify(k state.JobKey, t *state.Track, from, to time.Time) Verdict {
	v := Verdict{Trigger: t.Trigger.ID, Since: t.Since, DecidedUntil: end(t)}
	var c *schedule.Trigger
	if !t.Trigger.Disabled {
		var err error
		if c, err = Compile(k, t.Trigger); err != nil {
			v.Differences = append(v.Differences, Difference{From: t.Since, To: v.DecidedUntil, Problem: "the schedule can't be computed: " + err.Error()})
			return v
		}
	}
	at := t.Since // all up to here has been compared
	for _, span := range t.Spans() {
		if !from.IsZero() && span.Last.Before(from) {
			at, v.Since = span.Last, span.Last
			continue
		}
		if !to.IsZero() && span.First.After(to) {
			v.DecidedUntil = later(at, to)
			break
		}
		v.span(c, at, span)
		at = span.Last
	}
	if hole := walk(c, at, v.DecidedUntil); hole.count > 0 {
		v.Nominal += hole.count
		v.differ(Difference{From: hole.first, To: hole.last, Nominal: hole.count, Problem: "occurrences that were never decided, though all up to " + v.DecidedUntil.Format(time.RFC3339Nano) + " is said to be"})
	}
	return v
}

// span compares one span, and the gap before it.
func (v *Verdict) span(c *schedule.Trigger, after time.Time, span state.Span) {
	v.Spans = append(v.Spans, span)
	switch span.Decision {
	case state.DecidedRun:
		v.Ran += span.Count
	case state.DecidedSkipped:
		v.Skipped += span.Count
	case state.DecidedMissed:
		v.Missed += span.Count
	}
	want := walk(c, after, span.Last)
	v.Nominal += want.count
	if want.count != span.Count || want.digest != span.Digest || !want.first.Equal(span.First) || !want.last.Equal(span.Last) {
		v.differ(Difference{From: after, To: span.Last, Nominal: want.count, Decided: span.Count, Problem: "what was decided is not what the schedule names"})
	}
}

func (v *Verdict) differ(d Difference) { v.Differences = append(v.Differences, d) }

// stretch is the occurrences between two instants.
type stretch struct {
	first, last time.Time
	count       int64
	digest      uint64
}

// walk computes the occurrences in (after, until].
func walk(c *schedule.Trigger, after, until time.Time) (w stretch) {
	if c == nil {
		return w
	}
	for t := c.Next(after); !t.IsZero() && !t.After(until); t = c.Next(t) {
		if w.count == 0 {
			w.first = t
		}
		w.last = t
		w.count++
		w.digest += state.Mix(t)
	}
	return w
}
