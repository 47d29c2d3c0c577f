package schedule_test

import (
	"archive/zip"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/schedd/schedd/server/schedule"
)

// The oracle knows when cron fires without any idea of how to compute it. It
// walks through real time, minute by minute or second by second, asks package
// time what the clock on the wall shows, and sees for itself which local times
// were jumped over and which came twice. It shares nothing with the package.

// tick is one step of a walk.
type tick struct {
	at   int64 // Unix seconds
	wall int64 // what the wall shows, counted like Unix time
}

// walk steps from one instant to another.
func walk(loc *time.Location, from, to time.Time, step int64) []tick {
	var ticks []tick
	for u := from.Unix(); u < to.Unix(); u += step {
		_, off := time.Unix(u, 0).In(loc).Zone()
		ticks = append(ticks, tick{u, u + int64(off)})
	}
	return ticks
}

// seen is what a walk showed of one expression.
type seen struct {
	at     int64
	lost   bool // the wall jumped over a match right before at
	match  bool // the wall shows a match at at
	second bool // and showed the same before
	again  bool // and will show the same again
}

// watch notes what a walk shows of an expression.
func watch(ticks []tick, step int64, x *expression) []seen {
	var all []seen
	latest := ticks[0].wall
	when := map[int64]int{} // where in all each matching wall time is
	for i, k := range ticks {
		s := seen{at: k.at}
		if i > 0 {
			for w := ticks[i-1].wall + step; w < k.wall; w += step {
				s.lost = s.lost || x.matches(w)
			}
		}
		if s.match = x.matches(k.wall); s.match && i > 0 && k.wall <= latest {
			if first, ok := when[k.wall]; ok {
				s.second, all[first].again = true, true
			}
		}
		latest = max(latest, k.wall)
		if s.match || s.lost {
			if s.match {
				when[k.wall] = len(all)
			}
			all = append(all, s)
		}
	}
	return all
}

// firings applies the documented rules to what was seen.
func firings(all []seen, elastic bool, gap schedule.Gap, overlap schedule.Overlap) []int64 {
	var list []int64
	for _, s := range all {
		fire := s.match
		if !elastic {
			switch overlap {
			case schedule.OverlapFirst:
				fire = s.match && !s.second
			case schedule.OverlapSecond:
				fire = s.match && !s.again
			case schedule.OverlapBoth:
			}
			fire = fire || s.lost && gap == schedule.GapRunAfter
		}
		if fire {
			list = append(list, s.at)
		}
	}
	return list
}

// expression is a naive reading of a cron expression.
type expression struct {
	text          string
	elastic       bool
	sec, min, hou [100]bool
	dom, mon, dow [100]bool
	either        bool
}

var numbers = map[string]int{
	"jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6, "jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12,
	"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6,
}

func naive(text string) *expression {
	x := &expression{text: text}
	switch text {
	case "@daily":
		text = "0 0 * * *"
	case "@hourly":
		text = "0 * * * *"
	}
	f := strings.Fields(text)
	if len(f) == 5 {
		f = append([]string{"0"}, f...)
	}
	read := func(s string, lo, hi int) (set [100]bool) {
		for item := range strings.SplitSeq(s, ",") {
			base, step, stepped := strings.Cut(item, "/")
			by, from, to := 1, lo, hi
			if stepped {
				by, _ = strconv.Atoi(step)
			}
			if base != "*" && base != "?" {
				a, b, isRange := strings.Cut(base, "-")
				from = value(a)
				if to = from; isRange {
					to = value(b)
				} else if stepped {
					to = max(from, hi)
				}
			}
			for v := from; v <= to; v += by {
				set[v] = true
			}
		}
		return set
	}
	x.sec, x.min, x.hou = read(f[0], 0, 59), read(f[1], 0, 59), read(f[2], 0, 23)
	x.dom, x.mon, x.dow = read(f[3], 1, 31), read(f[4], 1, 12), read(f[5], 0, 6)
	if x.dow[7] {
		x.dow[0] = true
	}
	for _, s := range f[:3] {
		x.elastic = x.elastic || strings.Contains(s, "*") || strings.Contains(s, "?") || strings.Contains(s, "/")
	}
	star := func(s string) bool { return s[0] == '*' || s[0] == '?' }
	x.either = !star(f[3]) && !star(f[5])
	return x
}

func value(s string) int {
	if n, ok := numbers[strings.ToLower(s)]; ok {
		return n
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

func (x *expression) matches(wall int64) bool {
	sod := int(((wall % 86400) + 86400) % 86400)
	if !x.min[sod/60%60] || !x.hou[sod/3600] || !x.sec[sod%60] {
		return false
	}
	t := time.Unix(wall, 0).UTC()
	if !x.mon[int(t.Month())] {
		return false
	}
	dom, dow := x.dom[t.Day()], x.dow[int(t.Weekday())]
	if x.either {
		return dom || dow
	}
	return dom && dow
}

// locations are package time's reading of the compiled-in database.
var locations = sync.OnceValue(func() map[string]*time.Location {
	all := map[string]*time.Location{}
	for name, data := range zoneFiles() {
		loc, err := time.LoadLocationFromTZData(name, data)
		if err != nil {
			panic(err)
		}
		all[name] = loc
	}
	return all
})

var zoneFiles = sync.OnceValue(func() map[string][]byte {
	all := map[string][]byte{}
	archive, err := os.Open("zoneinfo.zip")
	if err != nil {
		panic(err)
	}
	defer archive.Close()
	info, err := archive.Stat()
	if err != nil {
		panic(err)
	}
	r, err := zip.NewReader(archive, info.Size())
	if err != nil {
		panic(err)
	}
	for _, f := range r.File {
		if strings.HasSuffix(f.Name, "/") {
			continue
		}
		if all[f.Name], err = fs.ReadFile(r, f.Name); err != nil {
			panic(err)
		}
	}
	return all
})

// distinct returns one name for each set of rules: many zones are links.
func distinct() []string {
	byData := map[[32]byte]string{}
	for name, data := range zoneFiles() {
		sum := sha256.Sum256(data)
		if old, ok := byData[sum]; !ok || name < old {
			byData[sum] = name
		}
	}
	var names []string
	for _, name := range byData {
		if name != "Factory" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// changes returns the hours in which the offset of a place changed.
func changes(loc *time.Location, from, to time.Time) []time.Time {
	var list []time.Time
	_, last := from.In(loc).Zone()
	for t := from; t.Before(to); t = t.Add(time.Hour) {
		if _, off := t.In(loc).Zone(); off != last {
			last, list = off, append(list, t)
		}
	}
	return list
}

func date(y, m, d int) time.Time { return time.Date(y, time.Month(m), d, 0, 0, 0, 0, time.UTC) }

// cronTrigger compiles an expression.
func cronTrigger(t testing.TB, text, zone string, gap schedule.Gap, overlap schedule.Overlap) *schedule.Trigger {
	t.Helper()
	c, err := schedule.Compile(schedule.Spec{Cron: &schedule.CronSpec{Expression: text, TimeZone: zone, Gap: gap, Overlap: overlap}})
	if err != nil {
		t.Fatalf("compiling %q in %q: %v", text, zone, err)
	}
	return c
}

// compare lets the oracle judge one expression over one walk, in all choices of
// gap and overlap. The walk must begin and end a day away from any change.
func compare(t testing.TB, zone string, ticks []tick, step int64, x *expression) {
	t.Helper()
	shown := watch(ticks, step, x)
	from, to := ticks[0].at, ticks[len(ticks)-1].at
	for _, gap := range []schedule.Gap{schedule.GapRunAfter, schedule.GapSkip} {
		for _, overlap := range []schedule.Overlap{schedule.OverlapFirst, schedule.OverlapSecond, schedule.OverlapBoth} {
			if x.elastic && (gap != schedule.GapRunAfter || overlap != schedule.OverlapFirst) {
				continue // the choices are for fixed times
			}
			c := cronTrigger(t, x.text, zone, gap, overlap)
			want := firings(shown, x.elastic, gap, overlap)
			n := c.Next(time.Unix(from-1, 0))
			for i := 0; i < len(want) || !n.IsZero() && n.Unix() <= to; i++ {
				if i >= len(want) || n.Unix() != want[i] || n.IsZero() {
					oracle := "nothing"
					if i < len(want) {
						oracle = time.Unix(want[i], 0).In(locations()[zone]).String()
					}
					t.Errorf("%q in %s, gap %d, overlap %d: Next is %v, the oracle says %v",
						x.text, zone, gap, overlap, n.In(locations()[zone]), oracle)
					return
				}
				n = c.Next(n)
			}
		}
	}
}

var expressions = []string{
	"* * * * *", "*/7 * * * *", "30 2 * * *", "0,30 1-3 * * *", "15 0 * * *", "0 0 * * *", "59 23 * * *",
	"*/20 2 * * *", "5 */2 * * *", "0 0-23 * * *", "30 2 * * SUN", "0 3 1,15 * MON", "0 4 */2 * 1",
	"30 1 28-31 mar-nov sat,sun", "0-59/30 1,2 * * *", "17 2 29 2 *", "0 12 ? * ?", "@daily", "@hourly",
	"45 2 25-31 3,10 */7", "10,20 0,1,2,3 * 4,9,10 5-7", "20/25 3 * * *",
}

func naives() []*expression {
	var list []*expression
	for _, e := range expressions {
		list = append(list, naive(e))
	}
	return list
}

// Around each change of each zone's clocks in four years, every expression fires
// when the oracle says, and at no other minute.
func TestEveryChangeOfEveryZone(t *testing.T) {
	names, exprs := distinct(), naives()
	last := date(2028, 1, 1)
	if testing.Short() {
		last = date(2025, 1, 1)
	}
	tested := 0
	for _, name := range names {
		loc := locations()[name]
		found := changes(loc, date(2024, 1, 1), last)
		if len(found) == 0 {
			continue
		}
		tested++
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, at := range found {
				ticks := walk(loc, at.AddDate(0, 0, -2), at.AddDate(0, 0, 2), 60)
				for _, x := range exprs {
					compare(t, name, ticks, 60, x)
				}
			}
		})
	}
	if tested < 50 {
		t.Errorf("only %d zones have changes; the database is not what it was", tested)
	}
}

// Whole years, in places where something is special.
func TestWholeYears(t *testing.T) {
	years := []struct {
		zone string
		year int
	}{
		{"Europe/Berlin", 2026},
		{"Africa/Casablanca", 2026},   // back for Ramadan, in the middle of spring
		{"Australia/Lord_Howe", 2026}, // half an hour
		{"Pacific/Apia", 2011},        // no 30th of December
		{"America/New_York", 2400},    // long after the tables
		{"Asia/Kathmandu", 1985},      // 15 minutes forward, never back
	}
	if testing.Short() {
		years = years[:2]
	}
	exprs := naives()
	for _, y := range years {
		t.Run(fmt.Sprint(y.zone, y.year), func(t *testing.T) {
			t.Parallel()
			ticks := walk(locations()[y.zone], date(y.year, 1, 4), date(y.year+1, 1, 4), 60)
			for _, x := range exprs {
				compare(t, y.zone, ticks, 60, x)
			}
		})
	}
}

// Second by second around changes that are not of today's kind.
func TestSecondsAroundStrangeChanges(t *testing.T) {
	cases := []struct {
		zone string
		day  time.Time
	}{
		{"Pacific/Apia", date(2011, 12, 30)},
		{"Pacific/Kwajalein", date(1993, 8, 21)},
		{"Africa/Monrovia", date(1972, 1, 7)}, // 44 minutes and 30 seconds
		{"Africa/Cairo", date(2026, 4, 24)},   // midnight
		{"Asia/Beirut", date(2026, 3, 29)},    // midnight
		{"America/Havana", date(2026, 11, 1)},
		{"Pacific/Chatham", date(2026, 4, 5)},
		{"Antarctica/Troll", date(2026, 3, 29)}, // two hours
		{"Antarctica/Casey", date(2023, 3, 9)},  // three hours back
		{"Pacific/Kiritimati", date(1979, 10, 1)},
	}
	exprs := []*expression{
		naive("*/10 * * * * *"), naive("15 30 * * * *"), naive("0,59 0,15,30,44,45,59 0-3,10,23 * * *"), naive("30 0 0 * * *"),
		naive("59 59 23 * * *"), naive("1 30 0 30 * *"), naive("*/10 30 2 * * *"), naive("5 44-46 0 7 1 *"), naive("1-3 0,45 2,3,11,13 * * *"),
	}
	for _, c := range cases {
		t.Run(c.zone, func(t *testing.T) {
			t.Parallel()
			loc := locations()[c.zone]
			if len(changes(loc, c.day.AddDate(0, 0, -1), c.day.AddDate(0, 0, 2))) == 0 {
				t.Fatal("no change here")
			}
			ticks := walk(loc, c.day.AddDate(0, 0, -2), c.day.AddDate(0, 0, 3), 1)
			for _, x := range exprs {
				compare(t, c.zone, ticks, 1, x)
			}
		})
	}
}

// Random expressions around random changes between 1970 and 2499.
func TestRandomExpressions(t *testing.T) {
	names := distinct()
	n := 300
	if testing.Short() {
		n = 60
	}
	for seed := range uint64(n) {
		r := rand.New(rand.NewPCG(seed, 7))
		zone := names[r.IntN(len(names))]
		loc := locations()[zone]
		year := 1972 + r.IntN(120)
		if r.IntN(4) == 0 {
			year += r.IntN(400)
		}
		from := date(year, 1+r.IntN(12), 1+r.IntN(28))
		if near := changes(loc, from, from.AddDate(1, 0, 0)); len(near) > 0 {
			from = near[r.IntN(len(near))].AddDate(0, 0, -2)
		}
		ticks := walk(loc, from, from.AddDate(0, 0, 5), 60)
		for range 5 {
			text := randomExpression(r)
			if _, err := schedule.Compile(schedule.Spec{Cron: &schedule.CronSpec{Expression: text}}); err != nil {
				continue // never fires
			}
			compare(t, zone, ticks, 60, naive(text))
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
	}
}

func randomExpression(r *rand.Rand) string {
	item := func(lo, hi int) string {
		a, b := lo+r.IntN(hi-lo+1), lo+r.IntN(hi-lo+1)
		a, b = min(a, b), max(a, b)
		step := 1 + r.IntN(hi-lo+1)
		return []string{
			strconv.Itoa(a), strconv.Itoa(b), fmt.Sprintf("%d-%d", a, b), fmt.Sprintf("%d-%d/%d", a, b, step),
			fmt.Sprintf("*/%d", step), fmt.Sprintf("%d/%d", a, step), "*",
		}[r.IntN(7)]
	}
	list := func(lo, hi int) string {
		s := item(lo, hi)
		for r.IntN(3) == 0 {
			s += "," + item(lo, hi)
		}
		return s
	}
	month := "*"
	if r.IntN(4) == 0 {
		month = list(1, 12)
	}
	day := []string{"*", "?", list(1, 31)}[r.IntN(3)]
	return strings.Join([]string{list(0, 59), []string{list(0, 23), "2", "0-4"}[r.IntN(3)], day, month, []string{"*", list(0, 7)}[r.IntN(2)]}, " ")
}
