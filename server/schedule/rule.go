package schedule

import (
	"math/bits"
	"time"
)

// A rule names instants, before windows, exclusions and jitter.
type rule interface {
	// next returns the first event at or after a place; none when there is no
	// further one. Only when asked for all does it also tell of local times
	// that clocks swallowed or repeated and that therefore do not fire.
	next(from place, all bool) event

	// zone returns the zone whose local time the rule speaks of.
	zone() *zone
}

// A place is where a search goes on.
type place struct {
	at     time.Time
	gapped bool // what a gap that ends here has swallowed was told already
}

// An event is one instant of a rule, or why there is none.
type event struct {
	at    time.Time // zero: there is none
	civil int64     // the local time that was asked for; at shows another in a gap
	what  what
}

type what uint8

const (
	fires  what = iota // an ordinary instant
	madeUp             // a local time that does not exist runs after the gap
	lost               // a local time that does not exist does not run
	idle               // the pass of a repeated local time that does not run
)

func (e event) none() bool  { return e.at.IsZero() }
func (e event) fires() bool { return e.what == fires || e.what == madeUp }

// after returns the place from which the search goes on behind e.
func (e event) after() place {
	if e.what == lost {
		return place{at: e.at, gapped: true} // an ordinary match may stand at the same instant
	}
	return place{at: e.at.Add(1)}
}

// firstInstant and lastInstant bound every instant.
var (
	firstInstant = time.Unix(0, 0).UTC()
	lastInstant  = time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC)
)

// everyRule fires at the epoch + phase + k*interval.
type everyRule struct{ interval, phase time.Duration }

func (everyRule) zone() *zone { return utc }

func (r everyRule) next(from place, _ bool) event {
	// Nanoseconds since the epoch do not fit 64 bits after the year 2262.
	hi, lo := bits.Mul64(uint64(from.at.Unix()), 1e9)
	lo, carry := bits.Add64(lo, uint64(from.at.Nanosecond()), 0)
	hi += carry
	lo, borrow := bits.Sub64(lo, uint64(r.phase), 0)
	if hi < borrow { // before the first instant of all
		return event{at: firstInstant.Add(r.phase)}
	}
	hi -= borrow
	_, past := bits.Div64(hi, lo, uint64(r.interval))
	if past == 0 {
		return event{at: from.at}
	}
	return event{at: from.at.Add(r.interval - time.Duration(past))}
}

// atRule fires once.
type atRule struct{ time time.Time }

func (atRule) zone() *zone { return utc }

func (r atRule) next(from place, _ bool) event {
	if from.at.After(r.time) {
		return event{}
	}
	return event{at: r.time}
}

// cronRule fires at the local times of a zone that match a table.
type cronRule struct {
	table
	elastic bool
	gap     Gap
	overlap Overlap
	in      *zone
}

func (r *cronRule) zone() *zone { return r.in }

// tablesEnd is after the last change of an offset that any zone's table holds.
// From then on zones repeat themselves with the calendar, so one cycle of it
// tells whether anything ever comes.
const tablesEnd = 4102444800 // 2100-01-01

// next walks the spans of the zone. In each it looks for a match of civil time,
// field by field, and it leaps over spans where there can be none.
func (r *cronRule) next(from place, all bool) event {
	t := from.at.Unix()
	if from.at.Nanosecond() > 0 {
		t++
	}
	limit := min(max(t, tablesEnd)+cycleSeconds+366*day, lastInstant.Unix())
	for t <= limit {
		s := r.in.at(t)
		if t == s.start && !from.gapped {
			if e := r.swallowed(s); !e.none() && (all || e.fires()) {
				return e
			}
		}
		from.gapped = false
		civil := t + int64(s.off)
		match, ok := r.table.next(civil)
		if !ok {
			return event{}
		}
		at := match - int64(s.off)
		if at >= s.end {
			t = r.leap(t, match, s)
			continue
		}
		e := event{at: time.Unix(at, 0).UTC(), civil: match}
		skipTo := r.idleUntil(match, s)
		if skipTo == 0 {
			return e
		}
		if all {
			e.what = idle
			return e
		}
		t = skipTo
	}
	return event{}
}

// leap returns where to go on when no local time of s from t on matches before
// match does. The clocks may be put back at the end of s and repeat what is
// behind t; but when that is further than reach away, nothing before match can
// match any more, in whatever span.
func (r *cronRule) leap(t, match int64, s span) int64 {
	if s.end == omega {
		return omega
	}
	if s.end-t > reach {
		return max(s.end, match-reach)
	}
	return s.end
}

// swallowed returns what happens at the start of s to the local times that the
// clocks jumped over there.
func (r *cronRule) swallowed(s span) event {
	if s.start == alpha {
		return event{}
	}
	before := r.in.at(s.start - 1)
	match, ok := r.table.next(s.start + int64(before.off))
	if !ok || match >= s.start+int64(s.off) {
		return event{}
	}
	e := event{at: time.Unix(s.start, 0).UTC(), civil: match, what: lost}
	if !r.elastic && r.gap == GapRunAfter {
		e.what = madeUp
	}
	return e
}

// idleUntil returns 0 when the match in s runs. Otherwise it is the pass of a
// repeated local time that does not run, and no other local time does before the
// instant returned.
func (r *cronRule) idleUntil(match int64, s span) int64 {
	if r.elastic || r.overlap == OverlapBoth {
		return 0
	}
	switch first, second := r.passes(match, s); {
	case second && r.overlap == OverlapFirst:
		return s.start + int64(r.in.at(s.start-1).off) - int64(s.off)
	case first && r.overlap == OverlapSecond:
		return s.end
	}
	return 0
}

// passes says whether a local time of s occurs again after s, and whether it
// occurred before s already.
func (r *cronRule) passes(civil int64, s span) (first, second bool) {
	at := civil - int64(s.off)
	if s.end != omega && s.end-at <= reach {
		first = civil >= s.end+int64(r.in.at(s.end).off)
	}
	if s.start != alpha && at-s.start <= reach {
		second = civil < s.start+int64(r.in.at(s.start-1).off)
	}
	return first, second
}
