package schedule

import (
	"archive/zip"
	_ "embed" // the tz database
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// The tz database, release 2025c, as Go 1.26.8 distributes it (lib/time/zoneinfo.zip
// in GOROOT; the data is in the public domain). A release of schedd carries
// exactly one, so all its primaries agree on it.
//
// A plain import of time/tzdata does not give that: time.LoadLocation asks
// $ZONEINFO and the host's /usr/share/zoneinfo first and takes the embedded data
// only when they have nothing, so that two primaries would compute different
// instants after one host's package was updated; and there is no way to get at
// the embedded bytes themselves.
//
//go:generate sh -c "cp \"$(go env GOROOT)/lib/time/zoneinfo.zip\" zoneinfo.zip"
//go:embed zoneinfo.zip
var tzdata string

// zones holds every zone, decoded when the program starts (a few ms and
// about 1 MB) and never changed, so that it needs no lock.
var zones = mustDecode(tzdata)

// utc is the zone of triggers that name none.
var utc = zones["UTC"]

// ZoneNames returns the time zones that a trigger may name, sorted.
func ZoneNames() []string {
	return slices.Sorted(maps.Keys(zones))
}

// zoneNamed returns the zone with a name, or says what to write instead.
func zoneNamed(name string) (*zone, error) {
	if name == "" {
		return utc, nil
	}
	if z := zones[name]; z != nil {
		return z, nil
	}
	if name == "Local" {
		return nil, errors.New(`"Local" would differ from host to host; name a zone, such as "Europe/Berlin"`)
	}
	for known := range maps.Keys(zones) {
		if strings.EqualFold(known, name) {
			return nil, fmt.Errorf("unknown time zone %.64q; did you mean %q?", name, known)
		}
	}
	return nil, fmt.Errorf(`unknown time zone %.64q; use a name of the tz database, such as "Europe/Berlin" or "UTC"`, name)
}

// mustDecode panics only on data that we compiled in ourselves.
func mustDecode(archive string) map[string]*zone {
	r, err := zip.NewReader(strings.NewReader(archive), int64(len(archive)))
	if err != nil {
		panic("schedule: opening the compiled-in tz database: " + err.Error())
	}
	all := make(map[string]*zone, len(r.File))
	for _, f := range r.File {
		// Factory is what a host shows that was never given a zone.
		if f.FileInfo().IsDir() || f.Name == "Factory" {
			continue
		}
		data, err := fs.ReadFile(r, f.Name)
		if err == nil {
			all[f.Name], err = decodeZone(f.Name, data)
		}
		if err != nil {
			panic("schedule: decoding the compiled-in zone " + f.Name + ": " + err.Error())
		}
	}
	return all
}

var errTZif = errors.New("not a TZif file of version 2 or later")

// decodeZone reads a TZif file (RFC 9636): the 64-bit block and the footer. What
// ended before 1970 is left out.
func decodeZone(name string, data []byte) (*zone, error) {
	data, h, err := tzifHeader(data)
	if err != nil {
		return nil, err
	}
	skip := h.times*5 + h.types*6 + h.chars + h.leaps*8 + h.std + h.ut
	if len(data) < skip {
		return nil, errTZif
	}
	data, h, err = tzifHeader(data[skip:])
	if err != nil {
		return nil, err
	}
	body := h.times*9 + h.types*6 + h.chars + h.leaps*12 + h.std + h.ut
	if h.types == 0 || len(data) < body {
		return nil, errTZif
	}
	times, data := data[:h.times*8], data[h.times*8:]
	index, data := data[:h.times], data[h.times:]
	types, data := data[:h.types*6], data[h.types*6:]
	chars, footer := data[:h.chars], data[h.chars+h.leaps*12+h.std+h.ut:]

	kinds := decodeKinds(types, chars)
	z := &zone{name: name}
	s := kinds[0]
	s.start = alpha
	for i := range h.times {
		s.end = int64(binary.BigEndian.Uint64(times[i*8:]))
		z.add(s)
		start := s.end
		s = kinds[index[i]]
		s.start = start
	}
	s.end = omega
	text, whole := strings.CutSuffix(string(footer), "\n")
	if !whole || !strings.HasPrefix(text, "\n") {
		return nil, errTZif
	}
	if z.rule, err = parseRule(text[1:]); err != nil {
		return nil, err
	}
	if z.rule != nil {
		// The last change in the table is kept with the rule's next one as its
		// end, and the rule takes over there.
		s.end = z.rule.at(max(s.start, 0), s.start).end
	}
	z.add(s)
	return z, nil
}

// decodeKinds reads the offsets and abbreviations that a file's changes refer to.
func decodeKinds(types, chars []byte) []span {
	kinds := make([]span, 0, len(types)/6)
	for t := range slices.Chunk(types, 6) {
		abbr, _, _ := strings.Cut(string(chars[t[5]:]), "\x00")
		kinds = append(kinds, span{off: int32(binary.BigEndian.Uint32(t)), abbr: abbr})
	}
	return kinds
}

// add appends a span unless it ended before 1970.
func (z *zone) add(s span) {
	if s.end <= 0 || s.end == s.start {
		return
	}
	if len(z.spans) == 0 {
		s.start = alpha
	}
	z.spans = append(z.spans, s)
}

type tzifCounts struct{ ut, std, leaps, times, types, chars int }

func tzifHeader(data []byte) (rest []byte, c tzifCounts, err error) {
	if len(data) < 44 || string(data[:4]) != "TZif" || data[4] < '2' {
		return nil, c, errTZif
	}
	for i, n := range []*int{&c.ut, &c.std, &c.leaps, &c.times, &c.types, &c.chars} {
		*n = int(binary.BigEndian.Uint32(data[20+4*i:]))
	}
	return data[44:], c, nil
}

// parseRule reads a TZif footer, such as CET-1CEST,M3.5.0,M10.5.0/3. It returns
// nil when the zone has no daylight saving time. Of the three ways to write a
// date it knows the one that the database uses.
func parseRule(s string) (*yearly, error) {
	bad := fmt.Errorf("rule %q is not understood", s)
	zone, dates, _ := strings.Cut(s, ",")
	var y yearly
	var ok bool
	if y.std.abbr, zone, ok = ruleName(zone); !ok {
		return nil, bad
	}
	off, zone, ok := ruleTime(zone)
	if !ok {
		return nil, bad
	}
	y.std.off = int32(-off)
	if zone == "" && dates == "" {
		return nil, nil
	}
	if y.dst.abbr, zone, ok = ruleName(zone); !ok {
		return nil, bad
	}
	y.dst.off = y.std.off + hour
	if zone != "" {
		if off, zone, ok = ruleTime(zone); !ok || zone != "" {
			return nil, bad
		}
		y.dst.off = int32(-off)
	}
	begin, end, _ := strings.Cut(dates, ",")
	var ok1, ok2 bool
	y.dstBegin, ok1 = parseRuleDate(begin)
	y.dstEnd, ok2 = parseRuleDate(end)
	if !ok1 || !ok2 {
		return nil, bad
	}
	return &y, nil
}

// ruleName takes a name such as CET or <+0330> from the front.
func ruleName(s string) (name, rest string, ok bool) {
	if strings.HasPrefix(s, "<") {
		return strings.Cut(s[1:], ">")
	}
	n := strings.IndexAny(s, "+-0123456789")
	if n < 0 {
		n = len(s)
	}
	return s[:n], s[n:], n >= 3
}

// ruleTime takes [+-]h[:mm[:ss]] from the front, in seconds.
func ruleTime(s string) (seconds int64, rest string, ok bool) {
	sign := int64(1)
	if s != "" && (s[0] == '-' || s[0] == '+') {
		if s[0] == '-' {
			sign = -1
		}
		s = s[1:]
	}
	n := 0
	for n < len(s) && (s[n] == ':' || '0' <= s[n] && s[n] <= '9') {
		n++
	}
	unit := int64(hour)
	for part := range strings.SplitSeq(s[:n], ":") {
		v, err := strconv.Atoi(part)
		if err != nil || unit == 0 {
			return 0, "", false
		}
		seconds += int64(v) * unit
		unit /= 60
	}
	return sign * seconds, s[n:], true
}

// parseRuleDate reads Mm.w.d[/time].
func parseRuleDate(s string) (ruleDate, bool) {
	date, at, timed := strings.Cut(s, "/")
	r := ruleDate{seconds: 2 * hour}
	if timed {
		var rest string
		var ok bool
		if r.seconds, rest, ok = ruleTime(at); !ok || rest != "" {
			return r, false
		}
	}
	parts := strings.Split(strings.TrimPrefix(date, "M"), ".")
	if !strings.HasPrefix(date, "M") || len(parts) != 3 {
		return r, false
	}
	for i, to := range []*int{&r.month, &r.week, &r.weekday} {
		v, err := strconv.Atoi(parts[i])
		if err != nil {
			return r, false
		}
		*to = v
	}
	return r, 1 <= r.month && r.month <= 12 && 1 <= r.week && r.week <= 5 && 0 <= r.weekday && r.weekday <= 6
}
