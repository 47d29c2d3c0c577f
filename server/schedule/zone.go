package schedule

import (
	"math"
	"sort"
)

// A zone is the offsets from UTC that one place has had, has and by today's law
// will have. It is immutable and shared by all triggers that name it.
//
// The package keeps its own zones, since what is needed here is the exact
// stretches of constant offset, for centuries to come. time.Location has them,
// but its ZoneBounds ends a stretch too early on the last day of a leap year,
// and its lookups depend on the hour at which the zone was loaded.
type zone struct {
	name  string
	spans []span // what the tables say; the first starts at the beginning of time
	rule  *yearly
}

// A span is a longest known stretch of time with one offset and one name. Its end
// is the start of the next.
type span struct {
	start, end int64 // Unix seconds; start <= t < end
	off        int32 // seconds east of UTC
	abbr       string
}

const (
	alpha = math.MinInt64 // the beginning of time
	omega = math.MaxInt64 // its end

	// reach is more than the largest difference of two offsets in use. So a
	// local time happens, or is lost, within reach of where another offset
	// puts it.
	reach = 26 * hour

	// Two changes of a zone's offset since 1970 are at least this far apart.
	// What is said about gaps and overlaps looks at neighbouring spans only; a
	// test proves this for the zones compiled in.
	minSpan = 3 * day
)

// at returns the span that t is in.
func (z *zone) at(t int64) span {
	i := sort.Search(len(z.spans), func(i int) bool { return z.spans[i].end > t })
	if i < len(z.spans) {
		return z.spans[i]
	}
	return z.rule.at(t, z.spans[len(z.spans)-1].end)
}

// A yearly rule repeats for ever: daylight saving time as today's law has it.
type yearly struct {
	std, dst         span // off and abbr only
	dstBegin, dstEnd ruleDate
}

// A ruleDate is "the second Sunday of March, 02:00": week 5 is the last one.
type ruleDate struct {
	month, week, weekday int
	seconds              int64 // local time after midnight; may be negative or past the day
}

// at returns the span that t is in, given that the tables end at tables <= t.
func (y *yearly) at(t, tables int64) span {
	year, _, _ := dateOf(floorDiv(t, day))
	s := span{start: alpha, end: omega}
	take := func(change int64, to *span) {
		if change > t {
			s.end = min(s.end, change)
		} else if change > s.start {
			s.start, s.off, s.abbr = change, to.off, to.abbr
		}
	}
	for n := year - 1; n <= year+1; n++ {
		take(y.dstBegin.in(n)-int64(y.std.off), &y.dst)
		take(y.dstEnd.in(n)-int64(y.dst.off), &y.std)
	}
	s.start = max(s.start, tables)
	return s
}

// in returns the local time of the rule in a year, in seconds.
func (r ruleDate) in(year int) int64 {
	first := dayNumber(year, r.month, 1)
	d := first + int64((r.weekday-weekday(first)+7)%7) + int64(r.week-1)*7
	if d >= first+int64(monthLength(year, r.month)) {
		d -= 7
	}
	return d*day + r.seconds
}
