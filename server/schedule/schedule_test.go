package schedule_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/schedd/schedd/server/schedule"
)

func at(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return t
}

// take returns the first n instants after a time.
func take(t *schedule.Trigger, after time.Time, n int) []string {
	var list []string
	for range n {
		after = t.Next(after)
		if after.IsZero() {
			return append(list, "none")
		}
		list = append(list, after.Format("2006-01-02T15:04:05Z"))
	}
	return list
}

// What the documentation of the package says about clocks that change.
func TestClocksThatChange(t *testing.T) {
	const berlin = "Europe/Berlin"
	run, skip := schedule.GapRunAfter, schedule.GapSkip
	one, two, both := schedule.OverlapFirst, schedule.OverlapSecond, schedule.OverlapBoth
	cases := []struct {
		story   string
		expr    string
		zone    string
		gap     schedule.Gap
		overlap schedule.Overlap
		after   string
		want    string
	}{
		{"in spring 02:30 runs right after the gap", "30 2 * * *", berlin, run, one, "2026-03-28T02:00:00Z", "2026-03-29T01:00:00Z 2026-03-30T00:30:00Z"},
		{"or not at all", "30 2 * * *", berlin, skip, one, "2026-03-28T02:00:00Z", "2026-03-30T00:30:00Z"},
		{"three lost times are one run", "0,20,40 2 * * *", berlin, run, one, "2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z 2026-03-30T00:00:00Z"},
		{"and 03:00 right after the gap is the same run", "0 2,3 * * *", berlin, run, one, "2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z 2026-03-30T00:00:00Z"},
		{"with skip 03:00 still runs", "0 2,3 * * *", berlin, skip, one, "2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z 2026-03-30T00:00:00Z"},
		{"each quarter of an hour is elapsed time", "*/15 * * * *", berlin, run, one, "2026-03-29T00:40:00Z", "2026-03-29T00:45:00Z 2026-03-29T01:00:00Z 2026-03-29T01:15:00Z"},
		{"each quarter past two is lost with the hour", "*/15 2 * * *", berlin, run, one, "2026-03-28T02:00:00Z", "2026-03-30T00:00:00Z"},
		{"in autumn 02:30 runs the first time", "30 2 * * *", berlin, run, one, "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z 2026-10-26T01:30:00Z"},
		{"or the second", "30 2 * * *", berlin, run, two, "2026-10-24T12:00:00Z", "2026-10-25T01:30:00Z 2026-10-26T01:30:00Z"},
		{"or both", "30 2 * * *", berlin, run, both, "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z 2026-10-25T01:30:00Z 2026-10-26T01:30:00Z"},
		{"hourly runs in both", "@hourly", berlin, run, one, "2026-10-24T23:59:59Z", "2026-10-25T00:00:00Z 2026-10-25T01:00:00Z 2026-10-25T02:00:00Z"},
		{"all hours by a range are fixed times", "0 0-23 * * *", berlin, run, one, "2026-10-24T23:59:59Z", "2026-10-25T00:00:00Z 2026-10-25T02:00:00Z"},
		{"asked in the second pass, the first is over", "30 2 * * *", berlin, run, one, "2026-10-25T01:10:00Z", "2026-10-26T01:30:00Z"},
		{"Samoa had no 30 December 2011", "0 12 * * *", "Pacific/Apia", run, one, "2011-12-29T00:00:00Z", "2011-12-29T22:00:00Z 2011-12-30T10:00:00Z 2011-12-30T22:00:00Z"},
		{"and skips it", "0 12 * * *", "Pacific/Apia", skip, one, "2011-12-29T00:00:00Z", "2011-12-29T22:00:00Z 2011-12-30T22:00:00Z"},
		{"clocks in Cairo jump over midnight", "0 0 * * *", "Africa/Cairo", run, one, "2026-04-22T23:00:00Z", "2026-04-23T22:00:00Z 2026-04-24T21:00:00Z"},
		{"in Lord Howe by half an hour", "15 2 * * *", "Australia/Lord_Howe", run, one, "2026-10-03T00:00:00Z", "2026-10-03T15:30:00Z 2026-10-04T15:15:00Z"},
		{"Kathmandu is 45 minutes off", "0 9 * * *", "Asia/Kathmandu", run, one, "2026-01-01T00:00:00Z", "2026-01-01T03:15:00Z"},
		{"Ramadan ends in Casablanca", "30 2 * * *", "Africa/Casablanca", run, one, "2026-03-21T12:00:00Z", "2026-03-22T02:00:00Z 2026-03-23T01:30:00Z"},
		{"today's law holds in the year 2400", "30 2 * * *", berlin, run, one, "2400-03-25T02:00:00Z", "2400-03-26T01:00:00Z 2400-03-27T00:30:00Z"},
		{"and 40 years without a Sunday 29 February are not too long", "0 12 29 2 */7", berlin, run, one, "2184-03-01T00:00:00Z", "2224-02-29T11:00:00Z"},
		{"a wildcard second is elastic", "*/30 30 2 * * *", berlin, run, one, "2026-03-28T02:00:00Z", "2026-03-30T00:30:00Z 2026-03-30T00:30:30Z"},
	}
	for _, c := range cases {
		t.Run(c.story, func(t *testing.T) {
			want := strings.Fields(c.want)
			got := take(cronTrigger(t, c.expr, c.zone, c.gap, c.overlap), at(c.after), len(want))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%q in %s (-want +got):\n%s", c.expr, c.zone, diff)
			}
		})
	}
}

// Which days and times match, all in UTC.
func TestExpressions(t *testing.T) {
	cases := []struct{ story, expr, after, want string }{
		{"either day field will do", "0 0 13 * FRI", "2026-02-01T00:00:00Z", "2026-02-06T00:00:00Z 2026-02-13T00:00:00Z 2026-02-20T00:00:00Z"},
		{"a star with a step is no restriction", "0 0 */2 * 1", "2026-01-01T00:00:00Z", "2026-01-05T00:00:00Z 2026-01-19T00:00:00Z"},
		{"a list with a star in it is one", "0 0 1,* * 1", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"},
		{"Sunday is 7", "0 0 * * 7", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z 2026-01-11T00:00:00Z"},
		{"also at the end of a range", "0 0 * * 6-7", "2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z 2026-01-04T00:00:00Z 2026-01-10T00:00:00Z"},
		{"also after a name and with a step", "0 0 * * Fri-7/2", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z 2026-01-04T00:00:00Z 2026-01-09T00:00:00Z"},
		{"months have names", "0 0 1 jan,JUL *", "2026-01-01T00:00:00Z", "2026-07-01T00:00:00Z 2027-01-01T00:00:00Z"},
		{"six fields begin with seconds", "*/20 59 23 31 12 *", "2026-01-01T00:00:00Z", "2026-12-31T23:59:00Z 2026-12-31T23:59:20Z 2026-12-31T23:59:40Z 2027-12-31T23:59:00Z"},
		{"2100 has no 29 February", "0 0 29 2 *", "2096-03-01T00:00:00Z", "2104-02-29T00:00:00Z"},
		{"a Monday 29 February is 28 or 40 years away", "0 0 29 2 */7", "2072-03-01T00:00:00Z", "2088-02-29T00:00:00Z 2128-02-29T00:00:00Z"},
		{"the last instants of all", "0 0 31 12 *", "9998-06-01T00:00:00Z", "9998-12-31T00:00:00Z 9999-12-31T00:00:00Z none"},
		{"@weekly is Sunday", "@weekly", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"},
		{"@yearly", "@yearly", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"},
		{"@yearly, asked in June", "@yearly", "2026-06-15T12:00:00Z", "2027-01-01T00:00:00Z"},
		{"a question mark is a star", "0 0 ? * ?", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"},
		{"from a number in steps", "50/5 3 * * *", "2026-01-01T00:00:00Z", "2026-01-01T03:50:00Z 2026-01-01T03:55:00Z 2026-01-02T03:50:00Z"},
		{"fractions of a second are rounded up", "* * * * * *", "2026-01-01T00:00:00.5Z", "2026-01-01T00:00:01Z"},
		{"strictly after", "0 0 * * *", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"},
		{"nothing is before 1970", "0 0 * * *", "1950-01-01T00:00:00Z", "1970-01-01T00:00:00Z"},
	}
	for _, c := range cases {
		t.Run(c.story, func(t *testing.T) {
			want := strings.Fields(c.want)
			got := take(cronTrigger(t, c.expr, "", 0, 0), at(c.after), len(want))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%q (-want +got):\n%s", c.expr, diff)
			}
		})
	}
}

// H stands for a value that the seed decides, once and for all.
func TestH(t *testing.T) {
	compile := func(expr, seed string) *schedule.Trigger {
		c, err := schedule.Compile(schedule.Spec{Cron: &schedule.CronSpec{Expression: expr}, Seed: seed})
		if err != nil {
			t.Fatalf("%q: %v", expr, err)
		}
		return c
	}
	first := map[string]int{}
	for i := range 200 {
		seed := fmt.Sprintf("default/job-%d/nightly", i)
		first[compile("H H * * *", seed).Next(date(2026, 1, 1)).Format(time.TimeOnly)]++

		for _, n := range []struct {
			expr string
			ok   func(time.Time) bool
			step time.Duration
		}{
			{"H * * * *", func(time.Time) bool { return true }, time.Hour},
			{"H/15 * * * *", func(time.Time) bool { return true }, 15 * time.Minute},
			{"0 H(1-3) * * *", func(t time.Time) bool { return 1 <= t.Hour() && t.Hour() <= 3 }, 24 * time.Hour},
			{"H(10-29)/20 3 * * *", func(t time.Time) bool { return 10 <= t.Minute() && t.Minute() <= 29 }, 24 * time.Hour},
			{"0 0 * * H", func(time.Time) bool { return true }, 7 * 24 * time.Hour},
		} {
			c := compile(n.expr, seed)
			a := c.Next(date(2026, 3, 1))
			b := c.Next(a)
			if !n.ok(a) || b.Sub(a) != n.step {
				t.Errorf("%q with seed %s: fires at %v and %v", n.expr, seed, a, b)
			}
		}
		if c := compile("0 0 H * *", seed); c.Next(date(2026, 1, 31)).Month() != 2 {
			t.Errorf("0 0 H * * with seed %s leaves February out", seed)
		}
	}
	if len(first) < 150 {
		t.Errorf("200 jobs at H H run at %d times of day only", len(first))
	}
	// These may never change: users' jobs would move.
	got := take(compile("H H H H *", "default/nightly-report/nightly"), date(2026, 1, 1), 1)
	if want := []string{"2026-03-07T02:00:00Z"}; !slices.Equal(got, want) {
		t.Errorf("the hash changed: %v, was %v", got, want)
	}
}

func TestEvery(t *testing.T) {
	cases := []struct {
		story           string
		interval, phase time.Duration
		after, want     string
	}{
		{"counted from the epoch", 90 * time.Second, 0, "2026-01-01T00:00:00Z", "2026-01-01T00:01:30Z 2026-01-01T00:03:00Z"},
		{"with a phase", time.Hour, 5 * time.Minute, "2026-01-01T00:05:00Z", "2026-01-01T01:05:00Z 2026-01-01T02:05:00Z"},
		{"seven hours do not divide a day", 7 * time.Hour, 0, "1970-01-01T00:00:00Z", "1970-01-01T07:00:00Z 1970-01-01T14:00:00Z 1970-01-01T21:00:00Z 1970-01-02T04:00:00Z"},
		{"the first is the phase", 24 * time.Hour, 6 * time.Hour, "1960-01-01T00:00:00Z", "1970-01-01T06:00:00Z 1970-01-02T06:00:00Z"},
		{"nanoseconds overflow no year", time.Hour, 0, "9999-12-31T22:00:00Z", "9999-12-31T23:00:00Z none"},
		{"2^64 nanoseconds overflow nothing", time.Hour, 0, "2554-07-21T23:34:33.8Z", "2554-07-22T00:00:00Z"},
		{"also with a phase", time.Hour, 30 * time.Minute, "2554-07-21T23:34:33.8Z", "2554-07-22T00:30:00Z"},
		{"after 2262", time.Second, 0, "2300-01-01T00:00:00.1Z", "2300-01-01T00:00:01Z"},
	}
	for _, c := range cases {
		t.Run(c.story, func(t *testing.T) {
			every, err := schedule.Compile(schedule.Spec{Every: &schedule.EverySpec{Interval: c.interval, Phase: c.phase}})
			if err != nil {
				t.Fatal(err)
			}
			want := strings.Fields(c.want)
			if diff := cmp.Diff(want, take(every, at(c.after), len(want))); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// Windows and exclusions hold for all rules alike.
func TestWindowsAndExclusions(t *testing.T) {
	daily := &schedule.CronSpec{Expression: "0 9 * * *", TimeZone: "Asia/Tokyo"} // midnight UTC
	hourly := &schedule.EverySpec{Interval: time.Hour}
	cases := []struct {
		story string
		spec  schedule.Spec
		want  string
	}{
		{"start is in, end is out", schedule.Spec{Cron: daily, Start: at("2026-01-05T00:00:00Z"), End: at("2026-01-07T00:00:00Z")}, "2026-01-05T00:00:00Z 2026-01-06T00:00:00Z none"},
		{"a start between instants", schedule.Spec{Every: hourly, Start: at("2026-01-05T00:00:00.5Z")}, "2026-01-05T01:00:00Z"},
		{"at fires once", schedule.Spec{At: at("2026-12-24T18:00:00+01:00")}, "2026-12-24T17:00:00Z none"},
		{"a date is one of the zone", schedule.Spec{Cron: &schedule.CronSpec{Expression: "0 8,10 * * *", TimeZone: "Asia/Tokyo"}, Exclude: []schedule.Exclusion{{Date: "2026-01-02"}}}, "2026-01-01T01:00:00Z 2026-01-02T23:00:00Z"},
		{"a period ends before to", schedule.Spec{Every: hourly, Exclude: []schedule.Exclusion{{From: at("2026-01-01T01:00:00Z"), To: at("2026-01-01T03:00:00Z")}}}, "2026-01-01T03:00:00Z"},
		{"periods overlap, in any order", schedule.Spec{Every: hourly, Exclude: []schedule.Exclusion{
			{From: at("2026-01-01T02:00:00Z"), To: at("2026-01-01T04:30:00Z")},
			{From: at("2026-01-01T01:00:00Z"), To: at("2026-01-01T02:30:00Z")},
			{From: at("2026-01-01T03:00:00Z"), To: at("2026-01-01T03:30:00Z")},
		}}, "2026-01-01T05:00:00Z"},
		{"every second, but not for seven thousand years", schedule.Spec{Cron: &schedule.CronSpec{Expression: "* * * * * *"}, Exclude: []schedule.Exclusion{{From: at("1970-01-01T00:00:00Z"), To: at("9000-01-01T00:00:00Z")}}}, "9000-01-01T00:00:00Z"},
		{"every's dates are UTC", schedule.Spec{Every: hourly, Exclude: []schedule.Exclusion{{Date: "2026-01-01"}}}, "2026-01-02T00:00:00Z"},
		{"a run after the gap is of the day on which it runs", schedule.Spec{Cron: &schedule.CronSpec{Expression: "0 12 30 12 *", TimeZone: "Pacific/Apia"}, Start: at("2011-12-01T00:00:00Z"), Exclude: []schedule.Exclusion{{Date: "2011-12-31"}}}, "2012-12-29T22:00:00Z"},
	}
	for _, c := range cases {
		t.Run(c.story, func(t *testing.T) {
			trigger, err := schedule.Compile(c.spec)
			if err != nil {
				t.Fatal(err)
			}
			after := at("2026-01-01T00:30:00Z")
			if !c.spec.Start.IsZero() {
				after = time.Time{}
			}
			want := strings.Fields(c.want)
			if diff := cmp.Diff(want, take(trigger, after, len(want))); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
