//go:build e2e

package e2e_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/schedd/schedd/server/bench/report"
)

// benchmark starts schedd bench --quick, with a directory of its own for what is
// temporary.
func benchmark(t *testing.T, temp string, args ...string) *process {
	t.Helper()
	return start(t, "schedd bench", []string{"TMPDIR=" + temp}, append([]string{binary("schedd"), "bench", "--quick"}, args...)...)
}

// figures reads what a benchmark wrote.
func figures(t *testing.T, file string) (r report.Report) {
	t.Helper()
	if err := json.Unmarshal([]byte(readFile(t, file)), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// measured sees that a scenario has all figures that have a target, but for some that
// can't be had, that none shows a broken promise, and that those which tell how fast
// something is tell something. How fast is told, and nothing else.
func measured(t *testing.T, r report.Result, unknown ...string) {
	t.Helper()
	missing := slices.DeleteFunc(r.Missing(), func(name string) bool { return slices.Contains(unknown, name) })
	if r.Unmeasured != "" || len(r.Broken()) > 0 || len(missing) > 0 {
		t.Errorf("%s: not measured: %q, broken: %v, missing: %v", r.Scenario, r.Unmeasured, r.Broken(), missing)
	}
	found := map[string]float64{}
	for _, f := range r.Figures {
		found[f.Name] = f.Value
	}
	for _, name := range positive[r.Scenario] {
		if found[name] <= 0 {
			t.Errorf("%s: %s is %v", r.Scenario, name, found[name])
		}
	}
	t.Logf("measured: %s", r.Block())
}

// What is positive in each scenario.
var positive = map[string][]string{
	"sustain":   {"lateness p50"}, // how many jobs are carried in time may be none
	"burst":     {"last start after", "start p50"},
	"control":   {"processor of the primaries, each run, one primary"}, // likewise
	"trigger":   {"to first instruction p50", "runs, 1 caller", "runs, 32 callers"},
	"define":    {"jobs defined", "acknowledged after p50"},
	"memory":    {"primary, 1,000 jobs"},
	"growth":    {"cost per fire, 200 jobs", "cost per fire, 1,000 jobs"},
	"restart":   {"next fire, 200 jobs", "next fire, 1,000 jobs"},
	"failover":  {"next fire, median", "next fire, worst"},
	"history":   {"runs made", "primary, running", "list by job p50", "list by worker p50"},
	"workers":   {"memory of the primary", "sessions"},
	"reconnect": {"all back after", "dispatch p99 meanwhile"},
	"logs":      {"one job", "many jobs", "control p99, many jobs"},
}

// What is measured only when there is time for so many jobs.
var large = map[string][]string{
	"memory":  {"primary, 10,000 jobs", "primary, 100,000 jobs", "primary, 1,000,000 jobs"},
	"restart": {"next fire, 10,000 jobs", "next fire, 100,000 jobs"},
}

// nothingLeft sees that a benchmark took all along that it made.
func nothingLeft(t *testing.T, temp string) {
	t.Helper()
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("it left %v behind, %v", left, err)
	}
	noneLeft(t, temp)
}

// Each scenario finds figures, on clusters of its own, and leaves nothing behind: those
// that measure how fast something is done, and those that kill primaries or let them grow.
func TestBench(t *testing.T) {
	t.Parallel()
	for _, scenarios := range []string{"sustain,burst,control,trigger,define,workers,reconnect,logs", "memory,growth,restart,failover,history"} {
		t.Run(scenarios, func(t *testing.T) {
			t.Parallel()
			testBench(t, scenarios)
		})
	}
}

func testBench(t *testing.T, scenarios string) {
	t.Helper()
	temp, file := t.TempDir(), filepath.Join(t.TempDir(), "figures.json")
	code, said := benchmark(t, temp, "--scenario", scenarios, "--json", file).verdict(t)
	if code != 0 {
		t.Fatalf("it exits with %d, and says:\n%s", code, said)
	}
	r := figures(t, file)
	if len(r.Results) != len(strings.Split(scenarios, ",")) || r.Machine.Cores < 1 || !r.Quick {
		t.Errorf("%+v", r)
	}
	for _, result := range r.Results {
		measured(t, result, large[result.Scenario]...)
		if !strings.Contains(said, result.Block()) {
			t.Errorf("it does not tell what it found of %s, but\n%s", result.Scenario, said)
		}
	}
	nothingLeft(t, temp)
}

// On a cluster that runs the same is found, its jobs are removed, and what would harm it
// is not run.
func TestBenchOfAClusterThatRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "--slots", "32")
	temp, effects, file := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "figures.json")
	code, said := benchmark(t, temp, "--server", w.api, "--effects", effects, "--scenario", "burst,trigger,define", "--json", file).verdict(t)
	if code != 0 {
		t.Fatalf("it exits with %d, and says:\n%s", code, said)
	}
	for _, result := range figures(t, file).Results {
		measured(t, result, "peak memory (primary)") // which may be on another host
	}
	if left := w.jobsOf(t, "bench"); len(left) > 0 {
		t.Errorf("it left %d jobs, such as %v", len(left), left[0])
	}
	nothingLeft(t, temp)
	nothingLeft(t, effects)
}

// One that is stopped in the middle takes all of it along, and has measured nothing.
func TestBenchIsStopped(t *testing.T) {
	t.Parallel()
	temp := t.TempDir()
	p := benchmark(t, temp, "--scenario", "sustain")
	await(t, "it has carried a load", func() (bool, any) {
		said := readFile(t, p.out)
		return strings.Contains(said, " 0 missed, "), said
	})
	p.signal(t, syscall.SIGINT)
	if code, said := p.verdict(t); code != 2 || !strings.Contains(said, "it was stopped before its end") {
		t.Errorf("it exits with %d, and says:\n%s", code, said)
	}
	nothingLeft(t, temp)
}
