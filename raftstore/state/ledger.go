package state

import (
	"slices"
	"time"
)

// Decision is what became of an occurrence.
type Decision int

// The decisions.
const (
	DecidedRun Decision = iota + 1
	DecidedSkipped
	DecidedMissed
)

// TrackKey names a trigger of a job, over all its definitions.
type TrackKey struct {
	UID     uint64
	Trigger string
}

// Track is the ledger of one trigger under one definition: what was decided of
// the occurrences after Since, up to DecidedUntil.
//
// The ledger is run-length encoded. A healthy trigger's is one span that grows,
// so that years of it fit in memory; and since a span carries a digest of its
// instants, comparing it with the schedule proves each of them, not just their
// number.
type Track struct {
	Trigger      *Trigger // the definition; never changes in place
	Version      uint64   // of the job, when this definition came
	Since        time.Time
	DecidedUntil time.Time // the high-water mark
	Ended        time.Time // DecidedUntil when the definition was replaced; zero while it is in force
	Closed       []Span    // shared between versions of a Track: only appended to
	Open         Span      // the span that may still grow; Count 0: none yet
}

// MaxSpan bounds the occurrences in one span, and with it what has to be
// computed anew to verify a part of one.
const MaxSpan = 4096

// MaxSpans bounds how many spans a track keeps, since a trigger that is decided
// otherwise each time has one for each occurrence. The oldest are forgotten, half
// of them at once.
const MaxSpans = 4096

// Span is a stretch of consecutive occurrences that were decided alike.
type Span struct {
	First    time.Time
	Last     time.Time
	Count    int64
	Digest   uint64 // sum of the [Mix] of each instant
	Decision Decision
	Reason   string
	Version  uint64 // of the job that decided
}

// Mix returns a number for an instant, such that sums of them tell sets of
// instants apart: the finalizer of SplitMix64 (Steele, Lea, Flood 2014).
func Mix(t time.Time) uint64 {
	z := uint64(t.UnixNano()) + 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Spans returns all spans, oldest first.
func (t *Track) Spans() []Span {
	if t.Open.Count == 0 {
		return t.Closed
	}
	return append(slices.Clip(t.Closed), t.Open)
}

// record adds a span at the end.
func (t *Track) record(s Span) {
	o := &t.Open
	if o.Count > 0 && o.Decision == s.Decision && o.Reason == s.Reason && o.Version == s.Version && o.Count+s.Count <= MaxSpan {
		o.Last, o.Count, o.Digest = s.Last, o.Count+s.Count, o.Digest+s.Digest
		return
	}
	if o.Count > 0 {
		if n := MaxSpans / 2; len(t.Closed) >= MaxSpans {
			t.Since, t.Closed = t.Closed[n-1].Last, append([]Span(nil), t.Closed[n:]...)
		}
		t.Closed = append(t.Closed, *o)
	}
	t.Open = s
}

// trim forgets the spans that end before horizon.
func (t *Track) trim(horizon time.Time) *Track {
	n := 0
	for n < len(t.Closed) && t.Closed[n].Last.Before(horizon) {
		n++
	}
	if n == 0 {
		return t
	}
	u := *t
	u.Since = t.Closed[n-1].Last
	u.Closed = append([]Span(nil), t.Closed[n:]...)
	return &u
}
