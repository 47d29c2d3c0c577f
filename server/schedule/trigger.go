package schedule

import (
	"slices"
	"sort"
	"time"
)

// A Trigger is a compiled Spec. It is immutable, safe for concurrent use, and
// small: some 130 bytes, and its zone is shared. [Compile] makes one.
type Trigger struct {
	rule       rule
	start, end time.Time // start <= t < end
	jitter     time.Duration
	hash       hash
	exclude    *exclusions // nil for none
}

// Next returns the first nominal instant strictly after a time, in UTC; zero when
// there is none. Cron names whole seconds. To begin with the first instant of
// all, pass the zero time.
//
// It takes about a microsecond at most triggers. Where the next instant is
// centuries away, or there is none, it looks through one cycle of the calendar,
// 400 years, in a few milliseconds at most.
func (t *Trigger) Next(after time.Time) time.Time {
	for from := t.begin(after); from.Before(t.end); {
		e := t.rule.next(place{at: from}, false)
		if e.none() || !e.at.Before(t.end) {
			break
		}
		_, until := t.excluded(e.at)
		if until.IsZero() {
			return e.at
		}
		from = until
	}
	return time.Time{}
}

// begin returns the first time after another at which t may fire.
func (t *Trigger) begin(after time.Time) time.Time {
	if after.Before(t.start) {
		return t.start
	}
	return after.UTC().Add(1)
}

// Due returns when the run of a nominal instant is due: the instant plus a share
// of the jitter that depends on the seed and the instant alone, in whole
// milliseconds. The share is of the time to the next nominal instant when that
// is shorter than the jitter, so a later instant is never due before an
// earlier one, nor with it.
func (t *Trigger) Due(nominal time.Time) time.Time {
	nominal = nominal.UTC()
	if t.jitter == 0 {
		return nominal
	}
	room := t.jitter
	if next := t.Next(nominal); !next.IsZero() {
		room = min(room, next.Sub(nominal))
	}
	h := t.hash.number(uint64(nominal.Unix())).number(uint64(nominal.Nanosecond()))
	share := time.Duration(h.below(uint64(room)))
	return nominal.Add(share.Truncate(time.Millisecond))
}

// exclusions are what must not fire.
type exclusions struct {
	dates   []int64   // days since 1970-01-01, sorted
	periods []stretch // sorted, and apart
}

type stretch struct{ from, to time.Time } // from <= t < to

// excluded says whether an instant is excluded, for people, and until when no
// other is worth looking at; zero when it is not.
func (t *Trigger) excluded(at time.Time) (why string, until time.Time) {
	x := t.exclude
	if x == nil {
		return "", time.Time{}
	}
	i := sort.Search(len(x.periods), func(i int) bool { return x.periods[i].to.After(at) })
	if i < len(x.periods) && !at.Before(x.periods[i].from) {
		p := x.periods[i]
		return "excluded: " + p.from.Format(time.RFC3339) + " to " + p.to.Format(time.RFC3339), p.to
	}
	s := t.rule.zone().at(at.Unix())
	civil := at.Unix() + int64(s.off)
	date := floorDiv(civil, day)
	if _, found := slices.BinarySearch(x.dates, date); !found {
		return "", time.Time{}
	}
	tomorrow := min((date+1)*day-int64(s.off), s.end)
	return "excluded: " + civilTime(civil).Format(time.DateOnly), time.Unix(tomorrow, 0).UTC()
}
