package schedule_test

import (
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/schedd/schedd/server/schedule"
)

var (
	drawZone = rapid.SampledFrom([]string{
		"", "Europe/Berlin", "America/New_York", "Africa/Casablanca", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Cairo", "Pacific/Chatham", "America/Nuuk", "Asia/Gaza",
	})
	drawExpression = rapid.SampledFrom(append([]string{
		"* * * * * *", "*/13 5,7 * * * *", "H H * * *", "H/7 H(1-4) * * *", "0 0 29 2 */7", "H H H H *", "@yearly", "30 23 31 * 5", "0 0 * * 7",
	}, expressions...))
	// Instants in the places where something may go wrong, and anywhere.
	drawInstant = rapid.Custom(func(t *rapid.T) time.Time {
		base := rapid.SampledFrom([]time.Time{
			date(1970, 1, 2), date(2011, 12, 28), date(2026, 3, 27), date(2026, 10, 23), date(2024, 12, 31), date(2400, 3, 25),
			time.Unix(18_446_744_000, 0), // 2^64 ns
			date(1971+rapid.IntRange(0, 8000).Draw(t, "year"), 1, 1),
		}).Draw(t, "base")
		return base.Add(time.Duration(rapid.Int64Range(0, int64(400*24*time.Hour)).Draw(t, "offset")))
	})
	drawSpec = rapid.Custom(func(t *rapid.T) schedule.Spec {
		s := schedule.Spec{Seed: rapid.StringN(0, 5, 20).Draw(t, "seed")}
		switch rapid.IntRange(0, 5).Draw(t, "kind") {
		case 0:
			interval := time.Duration(rapid.Int64Range(int64(schedule.MinInterval), int64(schedule.MaxInterval)).Draw(t, "interval"))
			s.Every = &schedule.EverySpec{Interval: interval, Phase: time.Duration(rapid.Int64Range(0, int64(interval)-1).Draw(t, "phase"))}
		case 1:
			s.At = drawInstant.Draw(t, "at")
		default:
			s.Cron = &schedule.CronSpec{
				Expression: drawExpression.Draw(t, "expression"), TimeZone: drawZone.Draw(t, "zone"),
				Gap: schedule.Gap(rapid.IntRange(0, 1).Draw(t, "gap")), Overlap: schedule.Overlap(rapid.IntRange(0, 2).Draw(t, "overlap")),
			}
		}
		around := drawInstant.Draw(t, "around")
		if s.At.IsZero() && rapid.Bool().Draw(t, "windowed") {
			s.Start = around
			s.End = s.Start.Add(time.Duration(rapid.Int64Range(int64(time.Hour), int64(20*365*24*time.Hour)).Draw(t, "length")))
		}
		s.Jitter = time.Duration(rapid.Int64Range(0, int64(schedule.MaxJitter)).Draw(t, "jitter"))
		for range rapid.IntRange(0, 4).Draw(t, "exclusions") {
			from := around.Add(time.Duration(rapid.Int64Range(0, int64(30*24*time.Hour)).Draw(t, "from")))
			e := schedule.Exclusion{From: from, To: from.Add(time.Duration(rapid.Int64Range(1, int64(100*24*time.Hour)).Draw(t, "for")))}
			if rapid.Bool().Draw(t, "date") {
				e = schedule.Exclusion{Date: from.UTC().Format(time.DateOnly)}
			}
			s.Exclude = append(s.Exclude, e)
		}
		return s
	})
)

// What holds for every trigger, wherever one asks.
func TestTriggerProperties(t *testing.T) {
	tried, refused := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		spec := drawSpec.Draw(t, "spec")
		trigger, err := schedule.Compile(spec)
		if tried++; err != nil {
			refused++
			for _, f := range schedule.FieldErrors(err) {
				if f.Problem == "" {
					t.Fatalf("an error without a reason: %v", err)
				}
			}
			return
		}
		after := drawInstant.Draw(t, "after")
		if spec.Start.IsZero() {
			after = rapid.SampledFrom([]time.Time{after, {}}).Draw(t, "from the beginning")
		} else {
			after = spec.Start.Add(-1)
		}
		again, err := schedule.Compile(spec)
		if err != nil {
			t.Fatal(err)
		}
		var fired []time.Time
		for range 20 {
			n := trigger.Next(after)
			if !n.Equal(again.Next(after)) {
				t.Fatalf("compiled twice, Next(%v) differs", after)
			}
			if n.IsZero() {
				break
			}
			checkInstant(t, spec, trigger, after, n)
			if len(fired) > 0 {
				if before := fired[len(fired)-1]; !trigger.Due(before).Before(trigger.Due(n)) {
					t.Fatalf("%v is due at %v, not before %v at %v", before, trigger.Due(before), n, trigger.Due(n))
				}
			}
			fired, after = append(fired, n), n
		}
		checkPreview(t, trigger, fired)
	})
	if refused > tried/2 {
		t.Errorf("%d of %d specs are refused; the property sees too little", refused, tried)
	}
}

func checkInstant(t *rapid.T, spec schedule.Spec, trigger *schedule.Trigger, after, n time.Time) {
	if !n.After(after) || n.Location() != time.UTC || n.Year() < 1970 || n.Year() > 9999 {
		t.Fatalf("Next(%v) is %v", after, n)
	}
	if !spec.Start.IsZero() && (n.Before(spec.Start) || !n.Before(spec.End)) {
		t.Fatalf("%v is outside of the window", n)
	}
	if spec.Cron != nil && n.Nanosecond() != 0 {
		t.Fatalf("%v is no whole second", n)
	}
	for _, e := range spec.Exclude {
		if e.Date == "" && !n.Before(e.From) && n.Before(e.To) {
			t.Fatalf("%v is excluded by %v", n, e)
		}
	}
	// Nothing is between: asked from anywhere in between, the answer is the same.
	gap := n.Sub(after)
	for _, part := range []int64{1, 2, 3} {
		if m := after.Add(gap / 4 * time.Duration(part)); m.Before(n) && !trigger.Next(m).Equal(n) {
			t.Fatalf("Next(%v) is %v, but Next(%v) is %v", after, n, m, trigger.Next(m))
		}
	}
	if prev := n.Add(-1); !trigger.Next(prev).Equal(n) {
		t.Fatalf("Next(%v) is %v, not %v", prev, trigger.Next(prev), n)
	}
	if e := spec.Every; e != nil {
		since := new(big.Int).Mul(big.NewInt(n.Unix()), big.NewInt(1e9))
		since.Add(since, big.NewInt(int64(n.Nanosecond())-int64(e.Phase)))
		if since.Mod(since, big.NewInt(int64(e.Interval))).Sign() != 0 {
			t.Fatalf("%v is out of phase", n)
		}
		if len(spec.Exclude) == 0 && spec.Start.IsZero() && !after.IsZero() && n.Sub(after) > e.Interval {
			t.Fatalf("from %v to %v is more than the interval", after, n)
		}
	}
	if late := trigger.Due(n).Sub(n); late < 0 || late > 0 && late >= spec.Jitter {
		t.Fatalf("%v is due %v later; jitter is %v", n, late, spec.Jitter)
	}
	if x := trigger.Explain(n); !x.Fires || !x.Nominal.Equal(n) {
		t.Fatalf("Explain(%v) is %+v", n, x)
	}
}

// checkPreview compares a preview with what Next said from the same place on.
func checkPreview(t *rapid.T, trigger *schedule.Trigger, fired []time.Time) {
	if len(fired) == 0 {
		return
	}
	list := trigger.Preview(fired[0].Add(-1), 60)
	var previewed []time.Time
	for i, x := range list {
		if x.Fires {
			previewed = append(previewed, x.Nominal)
		} else if x.Note == "" {
			t.Fatalf("%v does not fire, without a note", x.Nominal)
		}
		if i > 0 && x.Nominal.Before(list[i-1].Nominal) {
			t.Fatalf("%v comes after %v", x.Nominal, list[i-1].Nominal)
		}
	}
	for i := range min(len(fired), len(previewed)) {
		if !fired[i].Equal(previewed[i]) {
			t.Fatalf("Next says %v, Preview %v", fired[i], previewed[i])
		}
	}
	if len(list) < 60 && len(previewed) < len(fired) {
		t.Fatalf("Preview ends after %d of at least %d", len(previewed), len(fired))
	}
}

// Whoever writes the trigger, Compile and Next neither panic nor run for ever.
func FuzzCompile(f *testing.F) {
	for _, e := range append(expressions, "H(1-3)/2 * * * *", "@every 1s", "TZ=UTC", "*/99 * * * *", "0 0 30 2 *", "1-2-3 , * * 7-7/7", "H(, * * * *", "0 0 29 2 */7") {
		f.Add(e, "Europe/Berlin", "seed", int64(1_800_000_000), int64(time.Hour), uint8(0))
	}
	f.Add("0 0 * * *", "Local", "", int64(-1), int64(-1), uint8(255))
	f.Fuzz(func(t *testing.T, expr, zone, seed string, after, n int64, choice uint8) {
		spec := schedule.Spec{Seed: seed, Jitter: time.Duration(n)}
		switch {
		case choice%8 < 6:
			spec.Cron = &schedule.CronSpec{Expression: expr, TimeZone: zone, Gap: schedule.Gap(choice % 2), Overlap: schedule.Overlap(choice % 3)}
			spec.Jitter = 0
		case choice%8 == 6:
			spec.Every = &schedule.EverySpec{Interval: time.Duration(n), Phase: time.Duration(after)}
		default:
			spec.At = time.Unix(after, n)
		}
		if choice&64 != 0 {
			spec.Exclude = []schedule.Exclusion{{Date: expr}, {From: time.Unix(after, 0), To: time.Unix(n, 0)}}
		}
		trigger, err := schedule.Compile(spec)
		if err != nil {
			if len(schedule.FieldErrors(err)) == 0 {
				t.Errorf("an error without a field: %v", err)
			}
			return
		}
		last := time.Unix(after, 0)
		for range 5 {
			next := trigger.Next(last)
			if next.IsZero() {
				break
			}
			if !next.After(last) {
				t.Fatalf("Next(%v) is %v", last, next)
			}
			last = next
		}
		trigger.Explain(time.Unix(after, 0))
		trigger.Preview(time.Unix(after, 0), 5)
	})
}
