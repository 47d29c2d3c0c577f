package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Heading says where, when and what was measured.
func (r Report) Heading() string {
	var b strings.Builder
	p, m := r.Program, r.Machine
	fmt.Fprintf(&b, "schedd %s", p.Version)
	if p.Commit != "" {
		fmt.Fprintf(&b, ", commit %.12s", p.Commit)
	}
	if p.Modified {
		b.WriteString(" with changes")
	}
	fmt.Fprintf(&b, ", %s, %s\n", p.Go, r.Start.UTC().Format(time.RFC3339))
	fmt.Fprintf(&b, "%d cores of %s, %s MB, %s/%s %s, %s; load before %s\n", m.Cores, known(m.CPU), number(float64(m.MemoryMB)), m.OS, m.Arch, m.Kernel, known(m.FileSystem), number(m.Load))
	if r.Quick {
		b.WriteString("QUICK: sizes and spans are small, and the figures are not to be compared\n")
	}
	return b.String()
}

func known(text string) string {
	if text == "" {
		return "unknown"
	}
	return text
}

// Block is a scenario as people read it.
func (r Result) Block() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s (%v)\n", r.Scenario, r.What, r.Took.Round(time.Second))
	var rows [][]string
	for _, f := range r.Figures {
		rows = append(rows, []string{f.Name, quantity(f.Value, f.Unit), f.target(), f.verdict(), f.beside()})
	}
	for _, name := range r.Missing() {
		t := Targets[r.Scenario][name]
		rows = append(rows, []string{name, "not measured", Figure{Target: &t}.target(), "", ""})
	}
	b.WriteString(align(rows))
	for _, note := range r.Notes {
		b.WriteString("  " + note + "\n")
	}
	if r.Unmeasured != "" {
		b.WriteString("  NOT MEASURED: " + r.Unmeasured + "\n")
	}
	return b.String()
}

// align puts cells below each other, without white space at the end of lines.
func align(rows [][]string) string {
	var b, trimmed strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, cells := range rows {
		_, _ = fmt.Fprintln(w, "  "+strings.Join(cells, "\t")) // it keeps all until it is flushed
	}
	_ = w.Flush() // a strings.Builder takes all
	for line := range strings.Lines(b.String()) {
		trimmed.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return trimmed.String()
}

// target says what is to be reached.
func (f Figure) target() string {
	if f.Target == nil {
		return ""
	}
	if f.Target.Promise {
		return "none"
	}
	relation, bound := "at least ", quantity(f.Target.Bound, f.Unit)
	if f.Target.Most {
		relation = "at most "
	}
	if f.Target.Share {
		bound = ratio(f.Target.Bound) + " of the baseline"
	}
	return relation + bound
}

// verdict says whether it was.
func (f Figure) verdict() string {
	switch {
	case f.Target == nil:
		return ""
	case f.Reached():
		return "yes"
	case f.Target.Promise:
		return "BROKEN"
	}
	return "no"
}

// beside is the baseline.
func (f Figure) beside() string {
	if f.Baseline == nil {
		return ""
	}
	return fmt.Sprintf("%s of %s: %s", ratio(f.Ratio()), f.Baseline.Name, quantity(f.Baseline.Value, f.Unit))
}

func ratio(r float64) string { return strconv.FormatFloat(r, 'f', 2, 64) }

func quantity(value float64, unit string) string {
	return strings.TrimRight(number(value)+" "+unit, " ")
}

// number writes a number with three digits that count, or all before the point.
func number(v float64) string {
	digits := 0
	switch abs := math.Abs(v); {
	case v == math.Trunc(v) || abs >= 100:
	case abs >= 10:
		digits = 1
	case abs >= 1:
		digits = 2
	default:
		digits = 3
	}
	whole, fraction, point := strings.Cut(strconv.FormatFloat(v, 'f', digits, 64), ".")
	for at := len(whole) - 3; at > 0 && whole[at-1] != '-'; at -= 3 {
		whole = whole[:at] + "," + whole[at:]
	}
	if point {
		whole += "." + fraction
	}
	return whole
}
