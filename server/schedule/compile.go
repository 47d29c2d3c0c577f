package schedule

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Compile checks a Spec and prepares it. The error joins one [FieldError] for
// each wrong field. A trigger that can never fire is an error too.
func Compile(s Spec) (*Trigger, error) {
	var f faults
	t := &Trigger{
		rule:   compileRule(&s, &f),
		start:  firstInstant,
		end:    lastInstant.Add(1),
		jitter: s.Jitter,
		hash:   newHash(s.Seed),
	}
	if s.Jitter < 0 || s.Jitter > MaxJitter {
		f.add("jitter", "%v is not from 0 to %v", s.Jitter, MaxJitter)
	}
	compileWindow(&s, t, &f)
	t.exclude = compileExclusions(s.Exclude, &f)
	if len(f) == 0 {
		checkFires(&s, t, &f)
	}
	if len(f) > 0 {
		return nil, errors.Join(f...)
	}
	return t, nil
}

func compileRule(s *Spec, f *faults) rule {
	set := 0
	for _, is := range []bool{s.Cron != nil, s.Every != nil, !s.At.IsZero()} {
		if is {
			set++
		}
	}
	switch {
	case set == 0:
		f.add("", "has none of cron, every and at; exactly one says when it fires")
	case set > 1:
		f.add("", "has more than one of cron, every and at; make a trigger for each")
	case s.Cron != nil:
		return compileCron(s.Cron, s.Seed, f)
	case s.Every != nil:
		return compileEvery(s.Every, f)
	default:
		checkInstant("at", s.At, f)
		return atRule{s.At.UTC()}
	}
	return nil
}

func compileCron(c *CronSpec, seed string, f *faults) rule {
	r := &cronRule{gap: c.Gap, overlap: c.Overlap}
	var err error
	if r.in, err = zoneNamed(c.TimeZone); err != nil {
		f.add("cron.time_zone", "%v", err)
	}
	if r.table, r.elastic, err = parseExpression(c.Expression, seed); err != nil {
		f.add("cron.expression", "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	} else if _, ok := r.table.next(0); !ok {
		f.add("cron.expression", "never fires: no month has such a day")
	}
	if c.Gap > GapSkip {
		f.add("cron.dst_gap", "%d is not a known choice", c.Gap)
	}
	if c.Overlap > OverlapBoth {
		f.add("cron.dst_overlap", "%d is not a known choice", c.Overlap)
	}
	return r
}

func compileEvery(e *EverySpec, f *faults) rule {
	if e.Interval < MinInterval || e.Interval > MaxInterval {
		f.add("every.interval", "%v is not from %v to %v", e.Interval, MinInterval, MaxInterval)
	}
	if e.Phase < 0 || e.Phase >= max(e.Interval, 1) {
		f.add("every.phase", "%v is not at least 0 and less than the interval", e.Phase)
	}
	return everyRule{e.Interval, e.Phase}
}

func checkInstant(field string, t time.Time, f *faults) {
	if t.Before(firstInstant) || t.After(lastInstant) {
		f.add(field, "is not within the years 1970 to 9999")
	}
}

func compileWindow(s *Spec, t *Trigger, f *faults) {
	if !s.Start.IsZero() {
		checkInstant("start_time", s.Start, f)
		t.start = s.Start.UTC()
	}
	if !s.End.IsZero() {
		checkInstant("end_time", s.End, f)
		t.end = s.End.UTC()
	}
	if !s.End.IsZero() && !t.start.Before(t.end) {
		f.add("end_time", "never fires: is not after start_time")
	}
}

func compileExclusions(list []Exclusion, f *faults) *exclusions {
	if len(list) == 0 {
		return nil
	}
	if len(list) > MaxExclusions {
		f.add("exclude", "has %d entries; at most %d are possible", len(list), MaxExclusions)
		return nil
	}
	x := &exclusions{}
	for i, e := range list {
		field := fmt.Sprintf("exclude[%d]", i)
		switch period := !e.From.IsZero() || !e.To.IsZero(); {
		case period && e.Date != "":
			f.add(field, "has both a date and a period; make two entries")
		case !period:
			d, err := time.Parse(time.DateOnly, e.Date)
			if err != nil || d.Before(firstInstant) {
				f.add(field+".date", `%.32q is not a date such as "2026-12-25", from 1970 on`, e.Date)
			}
			x.dates = append(x.dates, floorDiv(d.Unix(), day))
		default:
			checkInstant(field+".from", e.From, f)
			checkInstant(field+".to", e.To, f)
			if !e.From.Before(e.To) {
				f.add(field+".to", "is not after from")
			}
			x.periods = append(x.periods, stretch{e.From.UTC(), e.To.UTC()})
		}
	}
	slices.Sort(x.dates)
	x.periods = union(x.periods)
	return x
}

// union sorts periods and joins those that touch.
func union(periods []stretch) []stretch {
	slices.SortFunc(periods, func(a, b stretch) int { return a.from.Compare(b.from) })
	joined := periods[:0]
	for _, p := range periods {
		if n := len(joined); n > 0 && !p.from.After(joined[n-1].to) {
			if p.to.After(joined[n-1].to) {
				joined[n-1].to = p.to
			}
			continue
		}
		joined = append(joined, p)
	}
	return slices.Clip(joined)
}

// checkFires refuses a trigger without a single instant, and says which field
// takes the last one away.
func checkFires(s *Spec, t *Trigger, f *faults) {
	if !t.Next(time.Time{}).IsZero() {
		return
	}
	wide := *t
	wide.start, wide.end = firstInstant, lastInstant.Add(1)
	bare := wide
	bare.exclude = nil
	field := "cron.expression"
	if s.Every != nil {
		field = "every.interval"
	} else if s.Cron == nil {
		field = "at"
	}
	windowed := *t
	windowed.exclude = nil
	switch {
	case bare.Next(time.Time{}).IsZero():
		f.add(field, "never fires: clocks jump over the local time whenever it would come")
	case !windowed.Next(time.Time{}).IsZero():
		f.add("exclude", "never fires: every instant is excluded")
	case s.Cron == nil && s.Every == nil:
		f.add("at", "never fires: is not within start_time and end_time")
	default:
		field = "end_time"
		if s.End.IsZero() {
			field = "start_time"
		}
		f.add(field, "never fires: no instant lies within start_time and end_time")
	}
}
