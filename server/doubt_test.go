package server

import (
	"testing"
	"testing/synctest"
	"time"
)

// What was set forward by days is not believed until the clock has gone right for a day,
// or was set right. Whatever else a clock does is believed.
func TestClockInDoubt(t *testing.T) {
	const hour, day = time.Hour, 24 * time.Hour
	begin := time.Now()
	type look struct{ elapsed, shown, sure time.Duration }
	for name, looks := range map[string][]look{
		"it goes as time does":     {{hour, hour, hour}, {100 * day, 100 * day, 100 * day}},
		"it is slewed":             {{hour, hour + time.Second, hour + time.Second}},
		"forward by an hour":       {{hour, 2 * hour, 2 * hour}},
		"back by a year":           {{hour, -365 * day, -365 * day}},
		"forward by 100 days":      {{hour, 100*day + hour, hour}, {2 * hour, 100*day + 2*hour, 2 * hour}},
		"and right again":          {{hour, 100*day + hour, hour}, {2 * hour, 2 * hour, 2 * hour}, {3 * hour, 3 * hour, 3 * hour}},
		"and it stays like that":   {{hour, 100*day + hour, hour}, {day, 101 * day, day}, {day + hour, 101*day + hour, 101*day + hour}},
		"a little more each time":  {{hour, 20 * hour, 20 * hour}, {2 * hour, 40 * hour, 2 * hour}},
		"set right after a year":   {{hour, -365 * day, -365 * day}, {2 * hour, 2 * hour, 2 * hour}},
		"set right after a minute": {{hour, 100*day + hour, hour}, {hour + time.Minute, hour + time.Minute, hour + time.Minute}, {2 * day, 2 * day, 2 * day}},
	} {
		d := &doubt{last: reading{begin, begin.Round(0)}}
		for i, l := range looks {
			is := d.sure(reading{begin.Add(l.elapsed), begin.Round(0).Add(l.shown)})
			if is := is.Sub(begin.Round(0)); is != l.sure {
				t.Errorf("%s: look %d at %v says %v, want %v", name, i+1, l.shown, is, l.sure)
			}
		}
	}
}

// A clock that is wrong by years when a primary starts is believed: nothing tells it from one
// that is right.
func TestClockWrongFromTheStart(t *testing.T) {
	const years = 10 * 365 * 24 * time.Hour
	for _, wrong := range []time.Duration{years, -years} {
		synctest.Test(t, func(t *testing.T) {
			d := newDoubt(func() time.Time { return time.Now().Add(wrong) })
			for range 3 {
				if is := d.now().Sub(time.Now().Round(0)); is != wrong {
					t.Errorf("a clock that is wrong by %v from the start is taken for one that is wrong by %v", wrong, is)
				}
				time.Sleep(time.Hour)
			}
		})
	}
}
