package schedule

import (
	"fmt"
	"time"
)

// An Explanation says what is at one nominal instant, and why, for people.
type Explanation struct {
	// Nominal is the instant, in UTC. Of a local time that does not exist it is
	// the instant at which the clocks jump over it.
	Nominal time.Time

	// Local is the time on the wall in the trigger's zone that the rule asks
	// for, "2026-03-29 02:30:00". Near a gap it may not be the one at Nominal.
	Local string

	Zone   string        // the abbreviation in force at Nominal: "CEST", "+0530"
	Offset time.Duration // of Zone, east of UTC
	Fires  bool

	// Note is one sentence: why it does not fire, or how clocks that change had
	// a hand in it. Empty for an ordinary instant.
	Note string

	Jitter time.Duration // what is added to Nominal; 0 when it does not fire
}

// Limits of a preview.
const (
	MaxPreview = 1000 // entries
	maxQuiet   = 3    // entries in a row that do not fire
)

// Explain says what t does at an instant. For one that it does not name, Fires is
// false and Note says so.
func (t *Trigger) Explain(nominal time.Time) Explanation {
	nominal = nominal.UTC()
	here := event{at: nominal, what: idle}
	for p := (place{at: nominal}); ; {
		e := t.ruleNext(p)
		if e.none() || !e.at.Equal(nominal) {
			break
		}
		if here = e; e.what != lost {
			break
		}
		p = e.after()
	}
	if here.what == idle && here.civil == 0 {
		x := t.describe(event{at: nominal, civil: nominal.Unix() + int64(t.rule.zone().at(nominal.Unix()).off)})
		x.Fires, x.Jitter, x.Note = false, 0, "not an instant of this trigger"
		return x
	}
	x := t.describe(here)
	if x.Fires && (nominal.Before(t.start) || !nominal.Before(t.end)) {
		x.Fires, x.Jitter, x.Note = false, 0, "outside start_time and end_time"
	}
	return x
}

// Preview explains what comes after a time: at most n entries, in order of time,
// and no more than [MaxPreview]. Between the instants that fire stand the local
// times that do not: those that clocks swallowed or repeated, and those that are
// excluded. Of a long row of them it tells the first few and when t fires next.
func (t *Trigger) Preview(after time.Time, n int) []Explanation {
	var list []Explanation
	quiet := 0
	for p := (place{at: t.begin(after)}); len(list) < min(n, MaxPreview); {
		e := t.ruleNext(p)
		if e.none() || !e.at.Before(t.end) {
			break
		}
		x := t.describe(e)
		if x.Fires {
			quiet = 0
		} else if quiet++; quiet > maxQuiet {
			next := t.Next(e.at.Add(-1))
			last := &list[len(list)-1]
			if next.IsZero() {
				last.Note += "; nothing after it fires"
				break
			}
			last.Note += "; and so on until " + next.Format(time.RFC3339)
			quiet, p = 0, place{at: next}
			continue
		}
		list, p = append(list, x), e.after()
	}
	return list
}

// ruleNext returns the rule's next event at or after a place, also those that do
// not fire.
func (t *Trigger) ruleNext(p place) event {
	if p.at.Before(firstInstant) {
		p.at = firstInstant
	}
	if p.at.After(lastInstant) {
		return event{}
	}
	e := t.rule.next(p, true)
	if _, isCron := t.rule.(*cronRule); !isCron {
		e.civil = e.at.Unix()
	}
	return e
}

// describe puts an event in words.
func (t *Trigger) describe(e event) Explanation {
	z := t.rule.zone()
	s := z.at(e.at.Unix())
	x := Explanation{
		Nominal: e.at,
		Local:   civilTime(e.civil).Format(time.DateTime),
		Zone:    s.abbr,
		Offset:  time.Duration(s.off) * time.Second,
		Fires:   e.fires(),
	}
	if r, ok := t.rule.(*cronRule); ok {
		x.Note = r.clocks(e, s)
	}
	if why, until := t.excluded(e.at); !until.IsZero() && e.fires() {
		x.Fires, x.Note = false, why
	}
	if x.Fires {
		x.Jitter = t.Due(e.at).Sub(e.at)
	}
	return x
}

// clocks says what a change of the zone's offset does to an event; empty when it
// does nothing.
func (r *cronRule) clocks(e event, s span) string {
	local := civilTime(e.civil).Format(time.TimeOnly)
	date := civilTime(e.civil).Format(time.DateOnly)
	if e.what == lost || e.what == madeUp {
		before := s.start + int64(r.in.at(s.start-1).off)
		s := fmt.Sprintf("%s%s does not exist on %s: clocks in %s go from %s to %s", local, r.others(e.civil, s), date, r.in.name,
			clock(before, s.start+int64(s.off)), clock(s.start+int64(s.off), before))
		switch {
		case e.what == madeUp:
			return s + "; runs once, right after that"
		case r.elastic:
			return s + "; a schedule with a wildcard or step follows elapsed time"
		default:
			return s + "; does not run (dst_gap is skip)"
		}
	}
	first, second := r.passes(e.civil, s)
	switch {
	case first && e.what == idle:
		return fmt.Sprintf("%s occurs twice on %s; does not run the first time (dst_overlap is second)", local, date)
	case second && e.what == idle:
		return fmt.Sprintf("%s occurs twice on %s; does not run the second time (dst_overlap is first)", local, date)
	case first:
		return fmt.Sprintf("%s occurs twice on %s; this is the first time", local, date)
	case second:
		return fmt.Sprintf("%s occurs twice on %s; this is the second time", local, date)
	}
	return ""
}

// others counts the matches that were lost together with the first one.
func (r *cronRule) others(first int64, s span) string {
	const many = 100
	n := 0
	for m := first; n <= many; n++ {
		next, ok := r.table.next(m + 1)
		if !ok || next >= s.start+int64(s.off) {
			break
		}
		m = next
	}
	switch {
	case n == 0:
		return ""
	case n > many:
		return fmt.Sprintf(" (and more than %d others)", many)
	default:
		return fmt.Sprintf(" (and %d more)", n)
	}
}

// clock formats a civil time, with its date when the other one has another.
func clock(civil, other int64) string {
	if floorDiv(civil, day) != floorDiv(other, day) {
		return civilTime(civil).Format("2006-01-02 15:04:05")
	}
	return civilTime(civil).Format(time.TimeOnly)
}

// civilTime returns a time that formats as the civil second.
func civilTime(civil int64) time.Time { return time.Unix(civil, 0).UTC() }
