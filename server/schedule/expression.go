package schedule

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/robfig/cron/v3"
)

// A field is one of the six of an expression, in the order in which they stand.
type field struct {
	name     string
	min, max int
	hashMax  int // the largest value for a bare H: every month has a 28th
	parser   cron.Parser
	bits     func(*cron.SpecSchedule) uint64
}

var fields = [6]field{
	{"second", 0, 59, 59, cron.NewParser(cron.Second), func(s *cron.SpecSchedule) uint64 { return s.Second }},
	{"minute", 0, 59, 59, cron.NewParser(cron.Minute), func(s *cron.SpecSchedule) uint64 { return s.Minute }},
	{"hour", 0, 23, 23, cron.NewParser(cron.Hour), func(s *cron.SpecSchedule) uint64 { return s.Hour }},
	{"day of month", 1, 31, 28, cron.NewParser(cron.Dom), func(s *cron.SpecSchedule) uint64 { return s.Dom }},
	{"month", 1, 12, 12, cron.NewParser(cron.Month), func(s *cron.SpecSchedule) uint64 { return s.Month }},
	{"day of week", 0, 6, 6, cron.NewParser(cron.Dow), func(s *cron.SpecSchedule) uint64 { return s.Dow }},
}

// descriptors are shorthands for expressions.
var descriptors = map[string]string{
	"@yearly":   "0 0 1 1 *",
	"@annually": "0 0 1 1 *",
	"@monthly":  "0 0 1 * *",
	"@weekly":   "0 0 * * 0",
	"@daily":    "0 0 * * *",
	"@midnight": "0 0 * * *",
	"@hourly":   "0 * * * *",
}

// parseExpression reads a cron expression. Elastic is what the package's
// documentation says. The error joins one for each wrong field.
func parseExpression(expr, seed string) (t table, elastic bool, err error) {
	if len(expr) > MaxExpression {
		return t, false, fmt.Errorf("longer than %d bytes", MaxExpression)
	}
	expr = strings.TrimSpace(expr)
	if err := refuse(expr); err != nil {
		return t, false, err
	}
	if long, ok := descriptors[expr]; ok {
		expr = long
	}
	texts := strings.Fields(expr)
	switch len(texts) {
	case 5:
		texts = append([]string{"0"}, texts...)
	case 6:
	default:
		return t, false, fmt.Errorf("has %d fields; want 5 (minute, hour, day of month, month, day of week), or 6 with seconds first", len(texts))
	}
	var sets [6]uint64
	var errs []error
	for i, text := range texts {
		sets[i], err = fields[i].parse(text, seed)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %.64q: %w", fields[i].name, text, err))
		}
		elastic = elastic || i <= 2 && strings.ContainsAny(text, "*?/")
	}
	t = table{
		second: sets[0], minute: sets[1], hour: uint32(sets[2]),
		dom: uint32(sets[3]), month: uint16(sets[4]), dow: uint8(sets[5]),
		anyDay: !starred(texts[3]) && !starred(texts[5]),
	}
	return t, elastic, errors.Join(errs...)
}

// refuse says what to write instead of things that other crons know.
func refuse(expr string) error {
	switch {
	case expr == "":
		return errors.New("is empty")
	case strings.HasPrefix(expr, "TZ="), strings.HasPrefix(expr, "CRON_TZ="):
		return errors.New("a time zone does not belong here; use time_zone")
	case strings.HasPrefix(expr, "@every"):
		return errors.New("@every is not cron; use the every trigger")
	case expr == "@reboot":
		return errors.New("@reboot is not a time; no trigger fires at a restart")
	case strings.HasPrefix(expr, "@") && descriptors[expr] == "":
		return fmt.Errorf("%.32q is not known; use @hourly, @daily, @midnight, @weekly, @monthly, @yearly or @annually", expr)
	}
	return nil
}

// starred is Vixie cron's mark of an unrestricted day field.
func starred(text string) bool { return text[0] == '*' || text[0] == '?' }

// parse returns the set of values that a field's text stands for. The parser of
// robfig/cron reads the items; before that H and Sunday as 7 are replaced, and
// refused is what it would silently take for something else ("*-5", "1,,2", "+5")
// and steps that cannot mean what they say ("*/90").
func (f *field) parse(text, seed string) (uint64, error) {
	items := strings.Split(text, ",")
	for i, item := range items {
		var err error
		if items[i], err = f.normalize(item, seed); err != nil {
			return 0, err
		}
	}
	if set, ok := f.plain(items[0]); ok && len(items) == 1 {
		return set, nil
	}
	s, err := f.parser.Parse(strings.Join(items, ","))
	if err != nil {
		return 0, err
	}
	spec, ok := s.(*cron.SpecSchedule)
	if !ok {
		return 0, errors.New("is not a field")
	}
	set := f.bits(spec) & (1<<(f.max+1) - 1) // without the parser's star bit
	return set, nil
}

// plain returns the set of an item that is a star or a number, as nearly all are: the
// parser takes ten times as long to say the same.
func (f *field) plain(item string) (set uint64, ok bool) {
	if item == "*" || item == "?" {
		return 1<<(f.max+1) - 1<<f.min, true
	}
	n, err := strconv.ParseUint(item, 10, 6)
	if err != nil || int(n) < f.min || int(n) > f.max {
		return 0, false
	}
	return 1 << n, true
}

// normalize checks one item of a field and returns it as the parser knows it.
func (f *field) normalize(item, seed string) (string, error) {
	base, step, stepped := strings.Cut(item, "/")
	lo, hi, isRange := strings.Cut(base, "-")
	switch {
	case strings.HasPrefix(base, "H"):
		return f.spread(base[1:], step, stepped, seed)
	case base == "*" || base == "?":
	case !isValue(lo) || isRange && !isValue(hi):
		return "", fmt.Errorf("%.32q is not a value, a range, * or H", item)
	}
	if stepped {
		if n, err := strconv.Atoi(step); err != nil || n < 1 || n > f.max-f.min+1 {
			return "", fmt.Errorf("step %.32q is not a number from 1 to %d; for other distances use the every trigger", step, f.max-f.min+1)
		}
	}
	if f.hashMax == 6 {
		return sunday(lo, hi, step, isRange, stepped, item)
	}
	return item, nil
}

func isValue(s string) bool {
	for i := range len(s) {
		if c := s[i] | 0x20; (s[i] < '0' || s[i] > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return s != ""
}

// sunday replaces a Sunday written as 7 by 0, also at the end of a range.
func sunday(lo, hi, step string, isRange, stepped bool, item string) (string, error) {
	switch {
	case lo == "7" && !isRange:
		return "0", nil
	case hi != "7":
		return item, nil
	}
	from, err := strconv.Atoi(lo)
	if err != nil {
		names := map[string]int{"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}
		var ok bool
		if from, ok = names[strings.ToLower(lo)]; !ok {
			return "", fmt.Errorf("%.32q is not a day of the week", lo)
		}
	}
	if from > 7 {
		return "", fmt.Errorf("beginning of range %.32q is beyond its end", item)
	}
	by := 1
	if stepped {
		by, _ = strconv.Atoi(step) // checked by normalize
	}
	var days []string
	for d := from; d <= 7; d += by {
		days = append(days, strconv.Itoa(d%7))
	}
	return strings.Join(days, ","), nil
}

// spread replaces H, H(a-b), H/n and H(a-b)/n by what the seed makes of it: one
// value of the range, or every nth from one of its first n values on.
func (f *field) spread(between, step string, stepped bool, seed string) (string, error) {
	lo, hi := f.min, f.hashMax
	if stepped {
		hi = f.max
	}
	if between != "" {
		a, b, ok := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(between, "("), ")"), "-")
		from, err1 := strconv.ParseUint(a, 10, 8)
		to, err2 := strconv.ParseUint(b, 10, 8)
		if !ok || err1 != nil || err2 != nil || between[0] != '(' || between[len(between)-1] != ')' {
			return "", fmt.Errorf("%.32q is not H, H/n, H(a-b) or H(a-b)/n", "H"+between)
		}
		lo, hi = int(from), int(to)
		if lo < f.min || hi > f.max || lo > hi {
			return "", fmt.Errorf("H(%d-%d) is not a range within %d-%d", lo, hi, f.min, f.max)
		}
	}
	h := newHash(seed).text(f.name)
	if !stepped {
		return strconv.Itoa(lo + int(h.below(uint64(hi-lo+1)))), nil
	}
	n, err := strconv.Atoi(step)
	if err != nil || n < 1 || n > hi-lo+1 {
		return "", fmt.Errorf("step %.32q is not a number from 1 to %d", step, hi-lo+1)
	}
	return fmt.Sprintf("%d-%d/%d", lo+int(h.below(uint64(n))), hi, n), nil
}
