package schedule

import (
	"archive/zip"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unsafe"
)

// Package time reads the same data with other code. Both must see the same
// offsets and abbreviations: at each change of our own, in each week of seventy
// years, and at random until the year 9999.
func TestZonesAgreeWithPackageTime(t *testing.T) {
	r, err := zip.NewReader(strings.NewReader(tzdata), int64(len(tzdata)))
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for name, z := range zones {
		data, err := fs.ReadFile(r, name)
		if err != nil {
			t.Fatal(err)
		}
		loc, err := time.LoadLocationFromTZData(name, data)
		if err != nil {
			t.Fatal(err)
		}
		check := func(at int64) {
			abbr, off := time.Unix(at, 0).In(loc).Zone()
			s := z.at(at)
			if s.abbr != abbr || int(s.off) != off {
				t.Errorf("%s at %v: %s %d, package time says %s %d", name, time.Unix(at, 0).UTC(), s.abbr, s.off, abbr, off)
			}
			if at < s.start || at >= s.end {
				t.Errorf("%s: %d is not in its span [%d, %d)", name, at, s.start, s.end)
			}
		}
		for at := int64(0); at < 4_000_000_000 && !t.Failed(); {
			s := z.at(at)
			check(at)
			if s.end == omega {
				break
			}
			check(s.end - 1)
			at = s.end
		}
		for at := int64(0); at < 2_200_000_000 && !t.Failed(); at += 7*day + 1 {
			check(at)
		}
		for range 100 {
			check(random.Int64N(lastInstant.Unix()))
		}
	}
}

// What rule.go relies on when it looks at neighbouring spans only, and when it
// searches no further than a cycle after the tables.
func TestZonesAreTame(t *testing.T) {
	for name, z := range zones {
		if end := z.spans[len(z.spans)-1].start; end > tablesEnd {
			t.Errorf("%s: its table ends in %v, after tablesEnd", name, time.Unix(end, 0).UTC())
		}
		last := int64(alpha)
		for s := z.at(0); s.end < cycleSeconds+tablesEnd; {
			next := z.at(s.end)
			if next.off != s.off {
				if last != alpha && s.end-last < minSpan {
					t.Errorf("%s: offset changes at %v and again at %v", name, time.Unix(last, 0).UTC(), time.Unix(s.end, 0).UTC())
				}
				last = s.end
			}
			if d := int64(next.off - s.off); d >= reach || d <= -reach {
				t.Errorf("%s: offset changes by %d s", name, d)
			}
			s = next
		}
	}
	if len(zones) < 500 {
		t.Errorf("only %d zones are compiled in", len(zones))
	}
}

// Civil dates are those of package time, for every day of the years 1969 to 10000.
func TestDates(t *testing.T) {
	at := time.Date(1969, 1, 1, 0, 0, 0, 0, time.UTC)
	for at.Year() <= 10000 {
		n := floorDiv(at.Unix(), day)
		y, m, d := dateOf(n)
		if y != at.Year() || m != int(at.Month()) || d != at.Day() || weekday(n) != int(at.Weekday()) || dayNumber(y, m, d) != n {
			t.Fatalf("%v: date %d-%d-%d, weekday %d, day %d", at, y, m, d, weekday(n), dayNumber(y, m, d))
		}
		at = at.AddDate(0, 0, 1)
	}
}

// A million triggers live in memory.
func TestTriggersAreSmall(t *testing.T) {
	if size := unsafe.Sizeof(Trigger{}) + unsafe.Sizeof(cronRule{}); size > 160 {
		t.Errorf("a cron trigger takes %d bytes", size)
	}
}

// Names that differ little spread well: no bucket has twice its share.
func TestHashSpreads(t *testing.T) {
	var buckets [60]int
	const each = 200
	for i := range each * len(buckets) {
		name := "default/job-" + string(rune('a'+i%26)) + strings.Repeat("x", i/26%10) + string(rune('0'+i/260))
		buckets[newHash(name).text("minute").below(60)]++
	}
	for b, n := range buckets {
		if n < each/2 || n > each*2 {
			t.Errorf("%d of %d names fall on %d", n, each*len(buckets), b)
		}
	}
}

func TestDecodeZoneRefusesDamage(t *testing.T) {
	r, err := zip.NewReader(strings.NewReader(tzdata), int64(len(tzdata)))
	if err != nil {
		t.Fatal(err)
	}
	good, err := fs.ReadFile(r, "Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(good) {
		if _, err := decodeZone("cut", good[:n]); err == nil {
			t.Errorf("the first %d of %d bytes pass for a zone", n, len(good))
		}
	}
}

func TestParseRule(t *testing.T) {
	for _, s := range []string{"CET-1CEST", "CET-1CEST,M3.5.0", "CET", "", "X-1", "CET-1CEST,M13.5.0,M10.5.0/3", "CET-1CEST,J60,J300", "CET-1CEST,M3.5.0/x,M10.5.0"} {
		if _, err := parseRule(s); err == nil {
			t.Errorf("%q passes for a rule", s)
		}
	}
}
