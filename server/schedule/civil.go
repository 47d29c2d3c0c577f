package schedule

import "math/bits"

// Civil time is counted like Unix time: seconds since 1970-01-01 00:00:00 on the
// clock on the wall. Add a zone's offset to an instant to get it.

const (
	minute = 60
	hour   = 3600
	day    = 86400

	// After this many years weekdays fall on the same dates again.
	cycleYears   = 400
	cycleSeconds = 146097 * day
)

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// dayNumber returns the days from 1970-01-01 to the date.
func dayNumber(year, month, d int) int64 {
	y := int64(year)
	if month <= 2 {
		y-- // years are counted from March, so that a leap day is the last one
	}
	era := floorDiv(y, 400)
	yoe := y - era*400
	doy := int64((153*((month+9)%12)+2)/5 + d - 1)
	return era*146097 + yoe*365 + yoe/4 - yoe/100 + doy - 719468
}

// dateOf is the inverse of dayNumber.
func dateOf(n int64) (year, month, d int) {
	n += 719468
	era := floorDiv(n, 146097)
	doe := n - era*146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	year, month = int(yoe+era*400), int(mp+3)
	if month > 12 {
		year, month = year+1, month-12
	}
	return year, month, int(doy-(153*mp+2)/5) + 1
}

// weekday returns 0 for a Sunday.
func weekday(n int64) int {
	return int(((n+4)%7 + 7) % 7)
}

func monthLength(year, month int) int {
	if month == 2 {
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 30 + (month+month>>3)&1
}

// A table is a cron expression as bit sets: bit n is set when value n matches.
type table struct {
	second, minute uint64
	hour, dom      uint32
	month          uint16
	dow            uint8
	anyDay         bool // both day fields are restricted: either will do
}

// next returns the first civil second at or after c that matches. It looks at a
// whole cycle of the calendar, so that ok=false means never.
func (t *table) next(c int64) (match int64, ok bool) {
	n := floorDiv(c, day)
	year, month, d := dateOf(n)
	if t.days(year, month, n-int64(d-1))>>d&1 != 0 {
		if s, ok := t.timeOfDay(int(c - n*day)); ok {
			return n*day + s, true
		}
	}
	n, ok = t.nextDay(year, month, d+1)
	if !ok {
		return 0, false
	}
	s, _ := t.timeOfDay(0)
	return n*day + s, true
}

// nextDay returns the first matching day at or after a date, whose day may be one
// past the month's end.
func (t *table) nextDay(year, month, d int) (int64, bool) {
	for last := year + cycleYears; year <= last; year, month = year+1, 1 {
		for ; month <= 12; month, d = month+1, 1 {
			m := bits.TrailingZeros16(t.month >> month << month)
			if m > 12 {
				break
			}
			if m != month {
				month, d = m, 1
			}
			first := dayNumber(year, month, 1)
			if rest := t.days(year, month, first) >> d << d; rest != 0 {
				return first + int64(bits.TrailingZeros32(rest)) - 1, true
			}
		}
		d = 1
	}
	return 0, false
}

// days returns the matching days of a month, bit 1 for the first, given the
// number of its first day.
func (t *table) days(year, month int, first int64) uint32 {
	if t.month>>month&1 == 0 {
		return 0
	}
	// The week repeated over a month, rotated to the weekday of the first.
	const weeks = 1 | 1<<7 | 1<<14 | 1<<21 | 1<<28 | 1<<35
	dow := uint32(uint64(t.dow) * weeks >> weekday(first) << 1)
	in := uint32(1)<<(monthLength(year, month)+1) - 2
	if t.anyDay {
		return (t.dom | dow) & in
	}
	return t.dom & dow & in
}

// timeOfDay returns the first matching second of a day at or after s.
func (t *table) timeOfDay(s int) (int64, bool) {
	h, m, sec := s/hour, s/minute%60, s%60
	if t.hour>>h&1 != 0 {
		if t.minute>>m&1 != 0 {
			if x := bits.TrailingZeros64(t.second >> sec << sec); x < 60 {
				return int64(h*hour + m*minute + x), true
			}
		}
		if x := bits.TrailingZeros64(t.minute >> (m + 1) << (m + 1)); x < 60 {
			return int64(h*hour + x*minute + bits.TrailingZeros64(t.second)), true
		}
	}
	if x := bits.TrailingZeros32(t.hour >> (h + 1) << (h + 1)); x < 24 {
		return int64(x*hour + bits.TrailingZeros64(t.minute)*minute + bits.TrailingZeros64(t.second)), true
	}
	return 0, false
}
