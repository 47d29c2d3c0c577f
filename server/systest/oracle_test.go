package systest

import (
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // zones are not the host's business

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// The oracle says when triggers are due, by looking at each second or minute
// there is and asking what the clock on the wall shows. It is slow, knows only
// what the stories use, and shares nothing with what it is held against.

// instants returns the nominal instants of a trigger in (after, until].
func instants(t *schedv1.Trigger, after, until time.Time) []time.Time {
	var all []time.Time
	switch {
	case t.GetDisabled():
	case t.GetAt() != nil:
		all = []time.Time{t.GetAt().GetTime().AsTime()}
	case t.GetEvery() != nil:
		step, phase := t.GetEvery().GetInterval().AsDuration(), t.GetEvery().GetPhase().AsDuration()
		k := (after.UnixNano() - int64(phase)) / int64(step)
		for at := time.Unix(0, k*int64(step)+int64(phase)); !at.After(until); at = at.Add(step) {
			all = append(all, at.UTC())
		}
	case t.GetCron() != nil:
		all = cronInstants(t.GetCron(), after, until)
	}
	return slices.DeleteFunc(all, func(at time.Time) bool {
		return !at.After(after) || at.After(until) ||
			t.GetStartTime() != nil && at.Before(t.GetStartTime().AsTime()) ||
			t.GetEndTime() != nil && !at.Before(t.GetEndTime().AsTime())
	})
}

// field is one field of a cron expression.
type field struct {
	allowed [60]bool
	star    bool // it begins with "*"
	elastic bool // it has a wildcard or a step
}

func parseField(text string, from, to int) field {
	f := field{star: strings.HasPrefix(text, "*")}
	for item := range strings.SplitSeq(text, ",") {
		span, step, stepped := strings.Cut(item, "/")
		f.elastic = f.elastic || stepped || span == "*"
		first, last := from, to
		if span != "*" {
			low, high, ranged := strings.Cut(span, "-")
			first, _ = strconv.Atoi(low)
			last = first
			if ranged {
				last, _ = strconv.Atoi(high)
			} else if stepped {
				last = to
			}
		}
		by := 1
		if stepped {
			by, _ = strconv.Atoi(step)
		}
		for v := first; v <= last; v += by {
			f.allowed[v] = true
		}
	}
	return f
}

// calendar is a cron expression of five or six fields.
type calendar struct {
	second, minute, hour, day, month, weekday field
}

func parseCalendar(expression string) calendar {
	f := strings.Fields(expression)
	if len(f) == 5 {
		f = append([]string{"0"}, f...)
	}
	return calendar{
		parseField(f[0], 0, 59), parseField(f[1], 0, 59), parseField(f[2], 0, 23),
		parseField(f[3], 1, 31), parseField(f[4], 1, 12), parseField(f[5], 0, 6),
	}
}

func (c *calendar) elastic() bool { return c.second.elastic || c.minute.elastic || c.hour.elastic }

// shows reports whether a clock that shows t, whatever its zone, matches but for
// the second.
func (c *calendar) shows(t time.Time) bool {
	if !c.minute.allowed[t.Minute()] || !c.hour.allowed[t.Hour()] || !c.month.allowed[int(t.Month())] {
		return false
	}
	day, weekday := c.day.allowed[t.Day()], c.weekday.allowed[int(t.Weekday())]
	if c.day.star || c.weekday.star {
		return day && weekday
	}
	return day || weekday
}

// wall returns what the clock in a zone shows, as if it were UTC.
func wall(t time.Time, in *time.Location) time.Time {
	_, offset := t.In(in).Zone()
	return t.UTC().Add(time.Duration(offset) * time.Second)
}

func cronInstants(c *schedv1.Cron, after, until time.Time) []time.Time {
	in, err := time.LoadLocation(c.GetTimeZone())
	if err != nil {
		panic(err)
	}
	cal := parseCalendar(c.GetExpression())
	var all []time.Time
	for m := after.UTC().Truncate(time.Minute); !m.After(until); m = m.Add(time.Minute) {
		shown, before := wall(m, in), wall(m.Add(-time.Minute), in)
		if !cal.elastic() && c.GetDstGap() != schedv1.DstGap_DST_GAP_SKIP {
			for lost := before.Add(time.Minute); lost.Before(shown); lost = lost.Add(time.Minute) {
				if cal.shows(lost) && (len(all) == 0 || !all[len(all)-1].Equal(m)) {
					all = append(all, m)
				}
			}
		}
		if !cal.shows(shown) || !cal.elastic() && idle(c.GetDstOverlap(), m, in) {
			continue
		}
		for s := range 60 {
			at := m.Add(time.Duration(s) * time.Second)
			if cal.second.allowed[s] && (len(all) == 0 || at.After(all[len(all)-1])) {
				all = append(all, at)
			}
		}
	}
	return all
}

// idle reports whether m is the pass of a repeated local time that does not
// count.
func idle(o schedv1.DstOverlap, m time.Time, in *time.Location) bool {
	again := func(by time.Duration) bool {
		for d := time.Minute; d <= 3*time.Hour; d += time.Minute {
			other := m.Add(d)
			if by < 0 {
				other = m.Add(-d)
			}
			if wall(other, in).Equal(wall(m, in)) {
				return true
			}
		}
		return false
	}
	switch o {
	case schedv1.DstOverlap_DST_OVERLAP_BOTH:
		return false
	case schedv1.DstOverlap_DST_OVERLAP_SECOND:
		return again(1)
	default:
		return again(-1)
	}
}
