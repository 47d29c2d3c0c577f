package schedule_test

import (
	"testing"
	"time"

	"github.com/schedd/schedd/server/schedule"
)

func BenchmarkNext(b *testing.B) {
	for _, c := range []struct{ name, expr, zone string }{
		{"minutely", "* * * * *", "Europe/Berlin"},
		{"daily_utc", "30 2 * * *", ""},
		{"daily", "30 2 * * *", "Europe/Berlin"},
		{"weekdays", "0 9-17 * * MON-FRI", "America/New_York"},
		{"yearly", "@yearly", "Europe/Berlin"},
		{"leap_monday", "0 0 29 2 */7", "Europe/Berlin"},
	} {
		t := cronTrigger(b, c.expr, c.zone, 0, 0)
		b.Run(c.name, func(b *testing.B) {
			start := date(2026, 6, 1)
			at := start
			for b.Loop() {
				if at = t.Next(at); at.IsZero() || at.Year() > 2036 {
					at = start
				}
			}
		})
	}
}

// The longest searches: a time that is in the gap each year, skipped.
func BenchmarkNextNever(b *testing.B) {
	t := cronTrigger(b, "30 2 25-31 3 */7", "Europe/Berlin", schedule.GapSkip, 0)
	for b.Loop() {
		if n := t.Next(date(2026, 1, 1)); !n.IsZero() {
			b.Fatal(n)
		}
	}
}

// BenchmarkCompile compiles what is written most, and, as the baseline, what takes the way
// through the parser of the cron library.
func BenchmarkCompile(b *testing.B) {
	for _, c := range []struct{ name, expr string }{
		{"plain", "0 30 2 1 * *"},
		{"parsed", "0-0 30-30 2-2 1-1 */1 */1"},
		{"spread", "H 2 * * MON-FRI"},
	} {
		spec := schedule.Spec{Cron: &schedule.CronSpec{Expression: c.expr, TimeZone: "Europe/Berlin"}, Jitter: time.Minute, Seed: "default/a/b"}
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := schedule.Compile(spec); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
