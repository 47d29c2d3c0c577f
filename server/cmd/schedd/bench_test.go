package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/schedd/schedd/server/bench"
	"github.com/schedd/schedd/server/bench/report"
)

func scenarioNames(all []bench.Scenario) (names []string) {
	for _, s := range all {
		names = append(names, s.Name)
	}
	return names
}

func TestChooseScenarios(t *testing.T) {
	all := scenarioNames(bench.Scenarios())
	if got, err := choose(""); err != nil || !slices.Equal(scenarioNames(got), all) {
		t.Errorf("none named: %v, %v", got, err)
	}
	// As they are named, or in another order: they are run in that of the list.
	for _, names := range []string{"sustain,define", "define,sustain", "define,sustain,define"} {
		if got, err := choose(names); err != nil || !slices.Equal(scenarioNames(got), []string{"sustain", "define"}) {
			t.Errorf("%s: %v, %v", names, scenarioNames(got), err)
		}
	}
	for _, names := range []string{"defin", "define,", "define sustain"} {
		if _, err := choose(names); err == nil || !strings.Contains(err.Error(), "sustain, ") {
			t.Errorf("%q: %v", names, err)
		}
	}
}

func TestListScenarios(t *testing.T) {
	var out strings.Builder
	if err := runBench(t.Context(), []string{"--list"}, &out); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(out.String(), "\n"); lines != len(bench.Scenarios()) || !strings.Contains(out.String(), "(also with --server)") {
		t.Error(out.String())
	}
}

// All that is wrong is told at once, before anything is started.
func TestBenchSettings(t *testing.T) {
	err := runBench(t.Context(), []string{"--scenario", "fast", "--server", "192.0.2.1:7421", "--effects", "here"}, os.Stderr)
	for _, want := range []string{`there is no "fast"`, "192.0.2.1", "--insecure", "--effects"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("it does not tell of %q: %v", want, err)
		}
	}
	if err := runBench(t.Context(), []string{"--effects", "/tmp"}, os.Stderr); err == nil || !strings.Contains(err.Error(), "without --server") {
		t.Error(err)
	}
}

// Slowness is no failure. A broken promise is, whatever else could not be measured.
func TestBenchVerdict(t *testing.T) {
	result := func(unmeasured string, figures ...func(*report.Result)) report.Result {
		r := report.Result{Scenario: "sustain", Unmeasured: unmeasured}
		for _, f := range figures {
			f(&r)
		}
		return r
	}
	slow := func(r *report.Result) { r.Add("lateness p99", 10_000, "ms") }
	missed := func(r *report.Result) { r.Add("missed", 3, "") }
	for name, test := range map[string]struct {
		results []report.Result
		code    int
		words   string
	}{
		"well":                {[]report.Result{result("")}, 0, ""},
		"slow":                {[]report.Result{result("", slow)}, 0, ""},
		"broken":              {[]report.Result{result("", missed), result("")}, 1, "sustain: missed: 3"},
		"unmeasured":          {[]report.Result{result(""), result("no luck")}, 2, "no luck"},
		"broken, and no luck": {[]report.Result{result("no luck"), result("", missed)}, 1, "no luck"},
	} {
		err := benchVerdict(report.Report{Results: test.results})
		code := 0
		if err != nil {
			code = exitCode(err, 1)
		}
		if code != test.code || err != nil && !strings.Contains(err.Error(), test.words) {
			t.Errorf("%s: exits with %d, want %d, and says %v", name, code, test.code, err)
		}
	}
}

func TestWriteFigures(t *testing.T) {
	name := filepath.Join(t.TempDir(), "figures.json")
	want := report.Report{Results: []report.Result{{Scenario: "define"}}}
	if err := writeFigures(name, want); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(name)
	var got report.Report
	if err == nil {
		err = json.Unmarshal(text, &got)
	}
	if err != nil || len(got.Results) != 1 || got.Results[0].Scenario != "define" {
		t.Errorf("%+v, %v", got, err)
	}
	if err := writeFigures(filepath.Join(name, "x"), want); !errors.Is(err, errUnmeasured) {
		t.Error(err)
	}
}
