package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/schedd/schedd/server/bench/measure"
	"github.com/schedd/schedd/server/bench/report"
)

// Each target is one of a scenario that there is, or will be: a misspelt name would
// leave figures unjudged.
func TestScenarios(t *testing.T) {
	var names []string
	for _, s := range Scenarios() {
		if _, ok := report.Targets[s.Name]; !ok || s.What == "" || s.Run == nil || slices.Contains(names, s.Name) {
			t.Errorf("%q is not whole, has no targets, or is there twice", s.Name)
		}
		names = append(names, s.Name)
	}
}

// run runs scenarios that are made for a test, and returns what was told.
func run(t *testing.T, c Config, scenarios ...Scenario) (report.Report, string, []string) {
	t.Helper()
	var out strings.Builder
	c.Dir, c.Scenarios, c.Out = t.TempDir(), scenarios, &out
	r, err := Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range left {
		names = append(names, e.Name())
	}
	return r, out.String(), names
}

func scenario(name string, f func(l *Lab, r *report.Result) error) Scenario {
	return Scenario{Name: name, What: "for a test", Run: func(_ context.Context, l *Lab, r *report.Result) error { return f(l, r) }}
}

// What fails hides neither what was found before nor the other scenarios, and leaves
// what shows why; what succeeds leaves nothing.
func TestRun(t *testing.T) {
	fine := scenario("fine", func(l *Lab, r *report.Result) error {
		r.Add("figure", 1, "")
		_, err := l.newEffects("e")
		return err
	})
	fails := scenario("fails", func(_ *Lab, r *report.Result) error { r.Add("figure", 2, ""); return errors.New("no luck") })
	r, out, left := run(t, Config{}, fine)
	if len(r.Results) != 1 || len(left) > 0 || !strings.Contains(out, "fine: for a test") {
		t.Errorf("%+v, left %v, and told:\n%s", r.Results, left, out)
	}
	r, out, left = run(t, Config{}, fails, fine)
	if len(r.Results) != 2 || r.Results[0].Unmeasured != "no luck" || len(r.Results[0].Figures) != 1 || r.Results[1].Unmeasured != "" {
		t.Errorf("%+v", r.Results)
	}
	if len(left) != 1 || !strings.Contains(out, "NOT MEASURED: no luck") || !strings.Contains(out, "kept ") || !strings.Contains(out, left[0]) {
		t.Errorf("left %v, and told:\n%s", left, out)
	}
	broken := scenario("sustain", func(_ *Lab, r *report.Result) error { r.Add("twice", 1, ""); return nil })
	if _, _, left = run(t, Config{}, broken); len(left) != 1 {
		t.Error("what shows a broken promise was removed")
	}
}

// On a cluster of others nothing is run that would harm it.
func TestRunAnywhere(t *testing.T) {
	harmful := scenario("harmful", func(*Lab, *report.Result) error { t.Error("it was run"); return nil })
	r, _, left := run(t, Config{Servers: []string{"127.0.0.1:1"}}, harmful)
	if !strings.Contains(r.Results[0].Unmeasured, "without --server") || len(left) > 0 {
		t.Errorf("%+v, left %v", r.Results, left)
	}
}

// Each baseline is measured once, but for how fast programs are started: that is the mean of
// before and after.
func TestBaselines(t *testing.T) {
	b := newBaselines(t.TempDir(), true, sayer(&strings.Builder{}))
	b.span = 20 * time.Millisecond
	for name, f := range map[string]func() (float64, error){
		"raft":   func() (float64, error) { return b.BareRaft(t.Context(), 2, 100) },
		"stream": func() (float64, error) { return b.StreamCopy(t.Context()) },
	} {
		first, err := f()
		again, err2 := f()
		if first <= 0 || first != again || err != nil || err2 != nil {
			t.Errorf("%s: %v, then %v, %v, %v", name, first, again, err, err2)
		}
	}
	if len(b.known) != 2 {
		t.Errorf("%v", b.known)
	}
	told := &strings.Builder{}
	b.say = sayer(told)
	first := 0.0
	rate, err := b.ForkExecAround(t.Context(), func(before float64) error { first = before; return nil })
	if err != nil || first <= 0 {
		t.Fatalf("%v programs at first, %v", first, err)
	}
	for _, value := range []float64{first, 2*rate - first} {
		if line := fmt.Sprintf("baseline: %.0f programs started", value); !strings.Contains(told.String(), line) {
			t.Errorf("the mean is %v, and none of the two is told as %q:\n%s", rate, line, told)
		}
	}
}

func TestParseStarts(t *testing.T) {
	boot := time.Unix(1000, 0)
	got, err := parseStarts("12.34 a 1970-01-01T00:16:52Z\n5.00 b 1970-01-01T00:16:45Z\n", boot)
	want := []measure.Start{
		{Occurrence: measure.Occurrence{Job: "a", Nominal: 1012}, At: boot.Add(12350 * time.Millisecond)},
		{Occurrence: measure.Occurrence{Job: "b", Nominal: 1005}, At: boot.Add(5010 * time.Millisecond)},
	}
	if err != nil || !slices.EqualFunc(got, want, func(a, b measure.Start) bool { return a.Occurrence == b.Occurrence && a.At.Equal(b.At) }) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"12.34 a\n", "x a 1970-01-01T00:16:52Z\n", "12.34 a yesterday\n", "12.34 a 1970-01-01T00:16:52Z 12.34\n", "\n"} {
		if got, err := parseStarts(bad, boot); err == nil {
			t.Errorf("%q is %v", bad, got)
		}
	}
}

// The process that writes down that it began is read again.
func TestEffects(t *testing.T) {
	l := &Lab{Dir: t.TempDir()}
	e, err := l.newEffects("e")
	if err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	begin(t, e.argv(), "SCHEDD_JOB=j", "SCHEDD_SCHEDULED_AT="+before.UTC().Format(time.RFC3339))
	if err := e.await(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	starts, err := e.starts()
	if err != nil || len(starts) != 1 || starts[0].Job != "j" || starts[0].Nominal != before.Unix() {
		t.Fatalf("%v, %v", starts, err)
	}
	if at := starts[0].At; at.Before(before) || at.After(time.Now().Add(resolution)) {
		t.Errorf("it began at %v, between %v and %v", at, before, time.Now())
	}
}

func TestPipe(t *testing.T) {
	l := &Lab{Dir: t.TempDir()}
	p, err := l.newPipe(2)
	if err != nil {
		t.Fatal(err)
	}
	begin(t, p.argv(1), "SCHEDD_RUN_ID=r1")
	if a := <-p.arrived[1]; a.run != "r1" || time.Since(a.at) < 0 {
		t.Errorf("%+v", a)
	}
	begin(t, p.argv(0), "SCHEDD_RUN_ID=r0")
	begin(t, p.argv(0), "SCHEDD_RUN_ID=r0")
	<-p.arrived[0]
	<-p.arrived[0]
	for _, test := range []struct {
		asked         []string
		missed, twice int
	}{
		{[]string{"r0", "r1"}, 0, 1},
		{[]string{"r0", "r1", "r2"}, 1, 1},
		{[]string{"r1"}, 0, 2}, // nobody asked for r0
	} {
		if missed, twice := p.count(test.asked); missed != test.missed || twice != test.twice {
			t.Errorf("of %v %d are missed, %d twice", test.asked, missed, twice)
		}
	}
	if err := p.close(); err != nil {
		t.Error(err)
	}
}

func TestSchedule(t *testing.T) {
	s := schedule{prefix: "p-", jobs: 2, start: time.Unix(100, 0).UTC(), seconds: 2}
	due := func(job string, second int64) measure.Due {
		return measure.Due{Occurrence: measure.Occurrence{Job: job, Nominal: second}, At: time.Unix(second, 0).UTC()}
	}
	want := []measure.Due{due("p-0", 100), due("p-0", 101), due("p-1", 100), due("p-1", 101)}
	if got := s.due(); !slices.Equal(got, want) || s.occurrences() != 4 || !s.end().Equal(time.Unix(102, 0)) {
		t.Errorf("%v, %d until %v", got, s.occurrences(), s.end())
	}
	jobs := s.definitions([]string{"true"})
	if len(jobs) != 2 || jobs[1].GetName() != "p-1" || jobs[1].GetTriggers()[0].GetEndTime().AsTime() != s.end() {
		t.Errorf("%v", jobs)
	}
}

// What ledgers and processes both tell counts once, and what only one of them tells is
// not lost.
func TestVerdict(t *testing.T) {
	var v verdict
	v.add(measure.Tally{Missed: 2, Twice: 1, Stray: 1}, ledger{missed: 3})
	v.add(measure.Tally{Missed: 1}, ledger{twice: 1, different: 2})
	if v != (verdict{missed: 4, twice: 4}) {
		t.Errorf("%+v", v)
	}
}

func TestParseUsage(t *testing.T) {
	status := "Name:\tx\nVmHWM:\t   3000 kB\nVmRSS:\t    2000 kB\nRssAnon:\t 1500 kB\nRssFile:\t 500 kB\nThreads:\t3\n"
	stat := "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 900 900 20 0 1 0 5"
	u, err := parseUsage(status, stat)
	if err != nil || u != (Usage{Resident: 2000 << 10, Peak: 3000 << 10, Files: 500 << 10, Processor: 2 * time.Second, Children: 18 * time.Second}) {
		t.Errorf("%+v, %v", u, err)
	}
	if _, err := parseUsage("VmRSS: many\n", stat); err == nil {
		t.Error("not a number")
	}
	if _, err := parseUsage(status, "7 (a) S 1"); err == nil {
		t.Error("too few fields")
	}
	if own, err := UsageOf(os.Getpid()); err != nil || own.Resident <= 0 || own.Peak < own.Resident {
		t.Errorf("of this process: %+v, %v", own, err)
	}
}

func TestMachine(t *testing.T) {
	mounts := "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:5 / /tmp rw,shared:1 master:1 - tmpfs tmpfs rw\n3 1 0:6 / /tmp/x rw - xfs /dev/b rw\n"
	for dir, want := range map[string]string{"/tmp/y": "tmpfs", "/tmp": "tmpfs", "/tmp/x": "xfs", "/tmp/xy": "tmpfs", "/var": "ext4"} {
		if got := fileSystem(mounts, dir); got != want {
			t.Errorf("%s is %s, want %s", dir, got, want)
		}
	}
	if got := field("a : b\nmodel name\t: C P U\nmodel name\t: other\n", "model name"); got != "C P U" {
		t.Error(got)
	}
	if got := memory("1000000 kB"); got != 1024 {
		t.Error(got)
	}
	if got := load("1.25 0.5 0.1 1/200 7\n"); got != 1.25 {
		t.Error(got)
	}
}
