package report

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestReached(t *testing.T) {
	beside := func(v float64) *Baseline { return &Baseline{"b", v} }
	least, most, share, mostShare := atLeast(10), atMost(10), atLeastShare(0.5), atMostShare(2)
	for name, test := range map[string]struct {
		figure Figure
		want   bool
	}{
		"nothing is asked":      {Figure{Value: 1}, true},
		"enough":                {Figure{Value: 10, Target: &least}, true},
		"too little":            {Figure{Value: 9.9, Target: &least}, false},
		"little enough":         {Figure{Value: 10, Target: &most}, true},
		"too much":              {Figure{Value: 10.1, Target: &most}, false},
		"enough of it":          {Figure{Value: 5, Baseline: beside(10), Target: &share}, true},
		"too little of it":      {Figure{Value: 4, Baseline: beside(10), Target: &share}, false},
		"little enough of it":   {Figure{Value: 20, Baseline: beside(10), Target: &mostShare}, true},
		"too much of it":        {Figure{Value: 21, Baseline: beside(10), Target: &mostShare}, false},
		"of nothing":            {Figure{Value: 21, Target: &mostShare}, false},
		"of a baseline of none": {Figure{Value: 0, Baseline: beside(0), Target: &mostShare}, false},
		"none":                  {Figure{Value: 0, Target: &none}, true},
		"not none":              {Figure{Value: 1, Target: &none}, false},
	} {
		if got := test.figure.Reached(); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// example has a figure of each kind.
func example() Result {
	r := Result{Scenario: "sustain", What: "jobs each second", Took: 61300 * time.Millisecond, Unmeasured: "the rest"}
	r.Beside("jobs each second", 700, "/s", "bare fork and exec", 1000)
	r.Add("lateness p99", 612.7, "ms")
	r.Add("missed", 0, "")
	r.Add("processor", 0.4567, "ms")
	r.Note("A note.")
	return r
}

// What is not reached is told and breaks nothing; a broken promise does; and what
// was not measured is not left out.
func TestBlock(t *testing.T) {
	want := `sustain: jobs each second (1m1s)
  jobs each second          700 /s        at least 0.60 of the baseline  yes  0.70 of bare fork and exec: 1,000 /s
  lateness p99              613 ms        at most 500 ms                 no
  missed                    0             none                           yes
  processor                 0.457 ms
  jobs each second, spread  not measured  at least 0.60 of the baseline
  lateness p99, spread      not measured  at most 500
  twice                     not measured  none
  A note.
  NOT MEASURED: the rest
`
	r := example()
	if got := r.Block(); got != want {
		t.Errorf("it is\n%s\nwant\n%s", got, want)
	}
	if b, m := r.Broken(), r.Missing(); len(b) > 0 || !slices.Equal(m, []string{"jobs each second, spread", "lateness p99, spread", "twice"}) {
		t.Errorf("broken: %v, missing: %v", b, m)
	}
	r.Add("twice", 2, "")
	if b := r.Broken(); len(b) != 1 || b[0].Name != "twice" || !strings.Contains(r.Block(), "  none                           BROKEN\n") {
		t.Errorf("broken: %v, in\n%s", b, r.Block())
	}
}

func TestHeading(t *testing.T) {
	r := Report{
		Program: Program{Version: "v1", Commit: "0123456789abcdef", Modified: true, Go: "go1"},
		Machine: Machine{OS: "linux", Arch: "amd64", Kernel: "6", Cores: 2, MemoryMB: 25276, FileSystem: "ext4", Load: 0.25},
		Start:   time.Date(2026, 11, 27, 14, 0, 0, 0, time.UTC), Quick: true,
	}
	want := `schedd v1, commit 0123456789ab with changes, go1, 2026-11-27T14:00:00Z
2 cores of unknown, 25,276 MB, linux/amd64 6, ext4; load before 0.250
QUICK: sizes and spans are small, and the figures are not to be compared
`
	if got := r.Heading(); got != want {
		t.Errorf("it is\n%s\nwant\n%s", got, want)
	}
}

func TestNumber(t *testing.T) {
	for value, want := range map[float64]string{
		0: "0", 7: "7", 0.5: "0.500", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 999.9: "1,000", 1234.5: "1,234", 1234567: "1,234,567", -1234: "-1,234", -123: "-123",
	} {
		if got := number(value); got != want {
			t.Errorf("%v is %q, want %q", value, got, want)
		}
	}
}

// Whoever compares figures by program reads them by these names.
func TestJSON(t *testing.T) {
	text, err := json.Marshal(Report{Results: []Result{example()}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"scenario":"sustain"`, `"took_ns":61300000000`, `"unmeasured":"the rest"`, `"notes":["A note."]`,
		`{"name":"jobs each second","value":700,"unit":"/s","baseline":{"name":"bare fork and exec","value":1000},"target":{"bound":0.6,"share":true}}`,
		`{"name":"missed","value":0,"target":{"bound":0,"most":true,"promise":true}}`,
		`{"name":"processor","value":0.4567,"unit":"ms"}`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("it has no %s: %s", want, text)
		}
	}
}
