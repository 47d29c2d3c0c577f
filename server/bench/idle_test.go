package bench

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// Whatever the time of day, no idle job is due within an hour, and they are spread over
// the rest of the day.
func TestIdleJobsAreNotDue(t *testing.T) {
	zones, err := loadZones()
	if err != nil {
		t.Fatal(err)
	}
	for hour := range 24 {
		now := time.Date(2026, 11, 27, hour, 59, 30, 0, time.UTC)
		seen := map[string]bool{}
		for n := range len(zones) * idleHours * 60 {
			cron := idle(n, zones, now).GetTriggers()[0].GetCron()
			place := zones[slices.IndexFunc(zones, func(z *time.Location) bool { return z.String() == cron.GetTimeZone() })]
			var m, h int
			if _, err := fmt.Sscanf(cron.GetExpression(), "%d %d * * *", &m, &h); err != nil {
				t.Fatalf("%q: %v", cron.GetExpression(), err)
			}
			local := now.In(place)
			due := time.Date(local.Year(), local.Month(), local.Day(), h, m, 0, 0, place)
			if !due.After(now) {
				due = due.AddDate(0, 0, 1)
			}
			if due.Sub(now) < time.Hour {
				t.Fatalf("job %d is due at %v, it is %v", n, due, now)
			}
			seen[cron.GetTimeZone()+cron.GetExpression()] = true
		}
		if len(seen) != len(zones)*idleHours*60 {
			t.Errorf("only %d different schedules", len(seen))
		}
	}
}

func TestIdleJobsDiffer(t *testing.T) {
	utc := []*time.Location{time.UTC}
	a, b := idle(7, utc, time.Unix(0, 0)), idle(8, utc, time.Unix(0, 0))
	if a.GetName() == b.GetName() || a.GetTask().GetExec().GetArgv()[2] == b.GetTask().GetExec().GetArgv()[2] || len(a.GetLabels()) != 3 {
		t.Errorf("%v and %v", a, b)
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int]string{0: "0", 7: "7", 999: "999", 1000: "1,000", 54321: "54,321", 1_000_000: "1,000,000"} {
		if got := count(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}
