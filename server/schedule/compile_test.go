package schedule_test

import (
	"strings"
	"testing"
	"time"

	"github.com/schedd/schedd/server/schedule"
)

// What Compile refuses, with the field and a part of the reason.
func TestCompileRefuses(t *testing.T) {
	cron := func(expr string) schedule.Spec {
		return schedule.Spec{Cron: &schedule.CronSpec{Expression: expr}}
	}
	zone := func(name string) schedule.Spec {
		return schedule.Spec{Cron: &schedule.CronSpec{Expression: "@daily", TimeZone: name}}
	}
	every := func(interval, phase time.Duration) schedule.Spec {
		return schedule.Spec{Every: &schedule.EverySpec{Interval: interval, Phase: phase}}
	}
	with := func(s schedule.Spec, change func(*schedule.Spec)) schedule.Spec {
		change(&s)
		return s
	}
	exclude := func(list ...schedule.Exclusion) schedule.Spec {
		return with(cron("@daily"), func(s *schedule.Spec) { s.Exclude = list })
	}
	day := at("2026-05-01T00:00:00Z")
	cases := []struct {
		spec           schedule.Spec
		field, problem string
	}{
		{schedule.Spec{}, "", "none of cron, every and at"},
		{with(cron("@daily"), func(s *schedule.Spec) { s.At = day }), "", "more than one"},

		{cron(""), "cron.expression", "is empty"},
		{cron("  "), "cron.expression", "is empty"},
		{cron("* * * *"), "cron.expression", "has 4 fields"},
		{cron("* * * * * * *"), "cron.expression", "has 7 fields"},
		{cron("@every 5m"), "cron.expression", "use the every trigger"},
		{cron("@reboot"), "cron.expression", "@reboot is not a time"},
		{cron("@Daily"), "cron.expression", "use @hourly"},
		{cron("TZ=UTC * * * * *"), "cron.expression", "use time_zone"},
		{cron("CRON_TZ=UTC"), "cron.expression", "use time_zone"},
		{cron("60 * * * *"), "cron.expression", `minute "60"`},
		{cron("* 24 * * *"), "cron.expression", `hour "24"`},
		{cron("* * 0 * *"), "cron.expression", `day of month "0"`},
		{cron("* * * 13 *"), "cron.expression", `month "13"`},
		{cron("* * * * 8"), "cron.expression", `day of week "8"`},
		{cron("* * * * 8-7"), "cron.expression", `day of week "8-7"`},
		{cron("* * * * foo-7"), "cron.expression", "is not a day of the week"},
		{cron("5-1 * * * *"), "cron.expression", "minute"},
		{cron("1,,2 * * * *"), "cron.expression", "is not a value"},
		{cron("*-5 * * * *"), "cron.expression", "is not a value"},
		{cron("+5 * * * *"), "cron.expression", "is not a value"},
		{cron("1-2-3 * * * *"), "cron.expression", "is not a value"},
		{cron("*/0 * * * *"), "cron.expression", "step"},
		{cron("*/90 * * * *"), "cron.expression", "use the every trigger"},
		{cron("*/5/5 * * * *"), "cron.expression", "step"},
		{cron("0 0 L * *"), "cron.expression", "day of month"},
		{cron("0 0 * * 5#2"), "cron.expression", "day of week"},
		{cron("H(50-70) * * * *"), "cron.expression", "not a range within 0-59"},
		{cron("H() * * * *"), "cron.expression", "is not H"},
		{cron("H(1-2 * * * *"), "cron.expression", "is not H"},
		{cron("Hello * * * *"), "cron.expression", "is not H"},
		{cron("H(0-9)/11 * * * *"), "cron.expression", "step"},
		{cron("1 2 3 4 5 " + strings.Repeat(" ", 300)), "cron.expression", "longer than 256 bytes"},
		{cron("0 0 30 2 *"), "cron.expression", "never fires"},
		{cron("0 0 31 4,6,9,11 *"), "cron.expression", "never fires"},

		{zone("Local"), "cron.time_zone", "differ from host to host"},
		{zone("europe/berlin"), "cron.time_zone", `did you mean "Europe/Berlin"`},
		{zone("PST"), "cron.time_zone", "unknown"},
		{zone("+02:00"), "cron.time_zone", "unknown"},
		{zone("../etc/passwd"), "cron.time_zone", "unknown"},
		{zone("Europe"), "cron.time_zone", "unknown"},
		{zone("Factory"), "cron.time_zone", "unknown"},
		{zone(" UTC"), "cron.time_zone", "unknown"},
		{schedule.Spec{Cron: &schedule.CronSpec{Expression: "@daily", Gap: 9}}, "cron.dst_gap", "not a known"},
		{schedule.Spec{Cron: &schedule.CronSpec{Expression: "@daily", Overlap: 9}}, "cron.dst_overlap", "not a known"},

		{every(0, 0), "every.interval", "is not from 1s"},
		{every(999*time.Millisecond, 0), "every.interval", "is not from 1s"},
		{every(11*366*24*time.Hour, 0), "every.interval", "is not from 1s"},
		{every(time.Minute, time.Minute), "every.phase", "less than the interval"},
		{every(time.Minute, -1), "every.phase", "at least 0"},

		{with(cron("@daily"), func(s *schedule.Spec) { s.Jitter = -1 }), "jitter", "is not from 0"},
		{with(cron("@daily"), func(s *schedule.Spec) { s.Jitter = 25 * time.Hour }), "jitter", "is not from 0"},
		{with(cron("@daily"), func(s *schedule.Spec) { s.Start, s.End = day, day }), "end_time", "never fires"},
		{with(cron("@daily"), func(s *schedule.Spec) { s.Start, s.End = day.Add(1), day.Add(time.Hour) }), "end_time", "never fires"},
		{with(cron("0 0 1 1 *"), func(s *schedule.Spec) { s.Start = at("9999-02-01T00:00:00Z") }), "start_time", "never fires"},
		{with(cron("@daily"), func(s *schedule.Spec) { s.Start = at("1969-01-01T00:00:00Z") }), "start_time", "1970"},
		{with(schedule.Spec{At: day}, func(s *schedule.Spec) { s.End = day }), "at", "never fires"},
		{schedule.Spec{At: at("1969-01-01T00:00:00Z")}, "at", "1970"},

		{exclude(schedule.Exclusion{}), "exclude[0].date", "is not a date"},
		{exclude(schedule.Exclusion{Date: "2026-12-25"}, schedule.Exclusion{Date: "2026-02-30"}), "exclude[1].date", "is not a date"},
		{exclude(schedule.Exclusion{Date: "2026-12-25", From: day}), "exclude[0]", "both"},
		{exclude(schedule.Exclusion{From: day, To: day}), "exclude[0].to", "is not after from"},
		{exclude(schedule.Exclusion{From: day}), "exclude[0].to", "1970"},
		{exclude(make([]schedule.Exclusion, 101)...), "exclude", "at most 100"},
		{exclude(schedule.Exclusion{From: at("1970-01-01T00:00:00Z"), To: at("9999-12-31T23:00:00Z")}), "exclude", "never fires: every instant is excluded"},
		{with(schedule.Spec{At: day}, func(s *schedule.Spec) { s.Exclude = []schedule.Exclusion{{Date: "2026-05-01"}} }), "exclude", "never fires"},
		{
			schedule.Spec{
				Cron:  &schedule.CronSpec{Expression: "0 12 30 12 *", TimeZone: "Pacific/Apia", Gap: schedule.GapSkip},
				Start: at("2011-06-01T00:00:00Z"), End: at("2012-06-01T00:00:00Z"),
			}, "end_time", "never fires",
		},
	}
	for _, c := range cases {
		trigger, err := schedule.Compile(c.spec)
		if err == nil {
			t.Errorf("%+v is accepted; next %v", c.spec, trigger.Next(time.Time{}))
			continue
		}
		found := false
		for _, f := range schedule.FieldErrors(err) {
			found = found || f.Field == c.field && strings.Contains(f.Problem, c.problem)
		}
		if !found {
			t.Errorf("want %s: ... %s ..., got: %v", c.field, c.problem, err)
		}
	}
}

// All wrong fields are named at once, and all wrong parts of an expression.
func TestCompileNamesEveryFault(t *testing.T) {
	_, err := schedule.Compile(schedule.Spec{
		Cron:    &schedule.CronSpec{Expression: "61 * * 13 *", TimeZone: "Nowhere"},
		Jitter:  -time.Second,
		Exclude: []schedule.Exclusion{{Date: "tomorrow"}},
	})
	var got []string
	for _, f := range schedule.FieldErrors(err) {
		got = append(got, f.Field)
	}
	if want := "cron.time_zone cron.expression jitter exclude[0].date"; strings.Join(got, " ") != want {
		t.Errorf("fields %v, want %s", got, want)
	}
	for _, part := range []string{`minute "61"`, `month "13"`} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in: %v", part, err)
		}
	}
	if schedule.FieldErrors(nil) != nil {
		t.Error("no error has fields")
	}
}
