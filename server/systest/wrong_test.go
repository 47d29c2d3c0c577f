package systest

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// What is on record bears times of the state's clock, which is that of whoever leads, and
// never goes back. So only a clock that was wrong while its primary led matters, and for how
// long, and by how much, follows from how wrong it was:
//
//   - One that was ahead leaves the state's clock where it was until time has come there. What
//     is put on record meanwhile has happened up to that much earlier than is told.
//   - One that was behind has the state's clock stand, or go on behind. What is put on record
//     then has happened up to that much later than is told, and no later than until it was
//     right, or another one led.
//   - How long something has lasted a leader tells by the time that elapses. It may be wrong by
//     what its own clock, or that of one before it, was set meanwhile: not by one that was wrong
//     before that began.
//   - What comes due is decided by the leader's clock alone, up to that much too early or too
//     late.

// wrong is a time in which a clock was ahead by so much, or behind if that is negative.
type wrong struct {
	span
	by time.Duration
}

// wrongs are those in which a primary led whose clock was wrong.
type wrongs []wrong

// earliest returns when what bears an instant of the state's clock may have happened, at the
// earliest.
func (all wrongs) earliest(shown time.Time) time.Time {
	first := shown
	for _, x := range all {
		if at := shown.Add(-x.by); x.by > 0 && x.touches(at, at) && at.Before(first) {
			first = at
		}
	}
	return first
}

// latest returns when it may have happened, at the latest.
func (all wrongs) latest(shown time.Time) time.Time {
	last := shown
	for _, x := range all {
		if x.by > 0 || !(span{x.from.Add(x.by), x.to}).touches(shown, shown) {
			continue
		}
		at := shown.Add(-x.by)
		if at.After(x.to) {
			at = x.to
		}
		if at.After(last) {
			last = at
		}
	}
	return last
}

// mismeasured returns by how much leaders may have been wrong about the time that has elapsed
// between two instants of the right time.
func (all wrongs) mismeasured(from, to time.Time) (by time.Duration) {
	for _, x := range all {
		if x.touches(from, to) {
			by += x.by.Abs()
		}
	}
	return by
}

// mistimed returns by how much what came due between two instants may have been decided too
// early or too late.
func (all wrongs) mistimed(from, to time.Time) (by time.Duration) {
	for _, x := range all {
		if (span{x.from.Add(min(x.by, 0)), x.to.Add(max(x.by, 0))}).touches(from, to) {
			by += x.by.Abs()
		}
	}
	return by
}

// touches tells whether a time that is over has an instant of those between two, these included.
func (s span) touches(from, to time.Time) bool { return !s.from.After(to) && !s.to.Before(from) }

// stepTakes is how long a leader may go by what its clock has shown: some steps wait for an
// answer, and that for slow disks.
const stepTakes = 10 * time.Second

// terms is when which primary led, and what clock each has.
type terms struct {
	mu     sync.Mutex // guards what follows
	led    map[string][]span
	clocks map[string][]*wallClock // one whose id was another's before is not that one
}

// goesBy takes note of what clock a primary has, in all its lives.
func (t *terms) goesBy(id string, c *wallClock) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !slices.Contains(t.clocks[id], c) {
		t.clocks[id] = append(t.clocks[id], c)
	}
}

// told takes note of who leads, by the word of one primary. One that has led counts as if it
// does until it knows who does instead: what it has put in its log may yet be agreed.
func (t *terms) told(id, leader string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := t.led[id]
	led := len(all) > 0 && all[len(all)-1].to.IsZero()
	switch {
	case leader == id && !led:
		t.led[id] = append(all, span{from: time.Now()})
	case leader != id && led:
		all[len(all)-1].to = time.Now()
	}
}

// wrongs returns when a primary led whose clock was wrong.
func (t *terms) wrongs() (all wrongs) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, clocks := range t.clocks {
		for _, c := range clocks {
			for _, x := range c.wasWrong() {
				for _, term := range t.led[id] {
					if o := x.during(term); !o.to.Before(o.from) {
						o.to = o.to.Add(stepTakes)
						all = append(all, o)
					}
				}
			}
		}
	}
	return all
}

// during returns the part of it that lies in a time. It ends before it begins if there is none.
func (x wrong) during(s span) wrong {
	x.to, s.to = orNow(x.to), orNow(s.to)
	if s.from.After(x.from) {
		x.from = s.from
	}
	if s.to.Before(x.to) {
		x.to = s.to
	}
	return x
}

// listener is the log of a story, which takes note of who is said to lead.
type listener struct {
	slog.Handler
	terms *terms
	id    string // of the primary whose log it is
}

// Handle implements slog.Handler.
func (l listener) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "new leader" {
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "leader" {
				l.terms.told(l.id, a.Value.String())
			}
			return true
		})
	}
	return l.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (l listener) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		if a.Key == "on" {
			l.id, _, _ = strings.Cut(a.Value.String(), ".") // what follows is which of its lives it is
		}
	}
	l.Handler = l.Handler.WithAttrs(attrs)
	return l
}

// WithGroup implements slog.Handler.
func (l listener) WithGroup(name string) slog.Handler {
	l.Handler = l.Handler.WithGroup(name)
	return l
}

// wrongBy has a check look as if the clock of the only primary had been wrong by so much, ever
// since there is one.
func (w *world) wrongBy(by time.Duration, look func()) func() {
	return func() {
		w.clock.was = []wrong{{span{w.born, time.Now()}, by}}
		look()
		w.clock.was = nil
	}
}

// What a clock that was wrong leaves in doubt is as much as it was wrong by, for as long as
// that is felt, and no more.
func TestWrongs(t *testing.T) {
	noon := time.Date(2000, 7, 14, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) time.Time { return noon.Add(d) }
	const second, minute, hour = time.Second, time.Minute, time.Hour
	ahead, behind := wrongs{{span{at(0), at(minute)}, hour}}, wrongs{{span{at(0), at(minute)}, -hour}}
	little, slow := wrongs{{span{at(0), at(hour)}, second}}, wrongs{{span{at(0), at(hour)}, -second}}
	for name, test := range map[string]struct {
		all              wrongs
		shown            time.Duration // by the state's clock
		earliest, latest time.Duration
		measured         time.Duration // how wrong the minute from then on may be taken
		timed            time.Duration // and what comes due in it
	}{
		"no clock is wrong":                      {nil, minute, minute, minute, 0, 0},
		"long before one is ahead":               {ahead, -2 * minute, -2 * minute, -2 * minute, 0, 0},
		"just before":                            {ahead, -second, -second, -second, hour, hour},
		"what it shows":                          {ahead, hour + second, second, hour + second, 0, hour},
		"what it can't show":                     {ahead, 30 * minute, 30 * minute, 30 * minute, 0, hour},
		"after what it shows":                    {ahead, hour + 2*minute, hour + 2*minute, hour + 2*minute, 0, 0},
		"long before one is behind":              {behind, -hour - 2*minute, -hour - 2*minute, -hour - 2*minute, 0, 0},
		"where the state's clock may stand":      {behind, -30 * minute, -30 * minute, minute, 0, hour},
		"where it may go on":                     {behind, second - hour, second - hour, second, 0, hour},
		"while one is behind":                    {behind, 30 * second, 30 * second, minute, hour, hour},
		"after that":                             {behind, minute + second, minute + second, minute + second, 0, 0},
		"one is ahead by a second, for an hour":  {little, 30 * minute, 30*minute - second, 30 * minute, second, second},
		"and after that":                         {little, hour + 2*second, hour + 2*second, hour + 2*second, 0, 0},
		"one is behind by a second, for an hour": {slow, 30 * minute, 30 * minute, 30*minute + second, second, second},
		"two are wrong":                          {slices.Concat(little, slow), 30 * minute, 30*minute - second, 30*minute + second, 2 * second, 2 * second},
	} {
		shown, until := at(test.shown), at(test.shown+minute)
		if is := test.all.earliest(shown).Sub(noon); is != test.earliest {
			t.Errorf("%s: it happened at %v at the earliest, want %v", name, is, test.earliest)
		}
		if is := test.all.latest(shown).Sub(noon); is != test.latest {
			t.Errorf("%s: it happened at %v at the latest, want %v", name, is, test.latest)
		}
		if is := test.all.mismeasured(shown, until); is != test.measured {
			t.Errorf("%s: a minute may be taken wrong by %v, want %v", name, is, test.measured)
		}
		if is := test.all.mistimed(shown, until); is != test.timed {
			t.Errorf("%s: what comes due in a minute may be decided wrong by %v, want %v", name, is, test.timed)
		}
	}
}

// Of a follower whose clock is wrong nothing is felt. One that leads counts for as long as it
// does: an hour ahead until it has handed over, a second ahead until it is right.
func TestOnlyTheLeadersClockCounts(t *testing.T) {
	for name, test := range map[string]struct {
		who   func(w *world) *member
		by    time.Duration
		lasts time.Duration // at most; 0: it does not count
	}{
		"a follower":                   {(*world).follower, time.Hour, 0},
		"the leader, by an hour":       {(*world).awaitLeader, time.Hour, 30 * time.Second},
		"the leader, back by an hour":  {(*world).awaitLeader, -time.Hour, 30 * time.Second},
		"the leader, by a second":      {(*world).awaitLeader, time.Second, 5 * time.Minute},
		"the leader, back by a second": {(*world).awaitLeader, -time.Second, 5 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(w *world) {
				w.startGroup(3)
				w.define(job("nowhere", overlapAllowed, selector("zone=mars"), policy(&schedv1.Policy{QueueTimeout: seconds(2 * 3600)})))
				w.wait(time.Minute)
				w.run("nowhere")
				m, began := test.who(w), time.Now()
				m.clock.step(test.by)
				w.wait(time.Second)
				w.run("nowhere")
				w.wait(5*time.Minute - time.Second)
				m.clock.right()
				w.wait(time.Minute)
				w.run("nowhere")
				all := w.terms.wrongs()
				switch {
				case test.lasts == 0 && len(all) > 0:
					w.Errorf("its clock counts: %v", all)
				case test.lasts > 0 && (len(all) != 1 || all[0].by != test.by || !all[0].from.Equal(began) || all[0].to.Sub(began) > test.lasts+stepTakes):
					w.Errorf("of its clock counts %v from %v on", all, began)
				}
				w.checkAsked(w.runs(""))
			})
		})
	}
}
