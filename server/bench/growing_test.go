package bench

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/schedd/schedd/server/bench/report"
)

func figure(t *testing.T, r report.Result, name string) float64 {
	t.Helper()
	for _, f := range r.Figures {
		if f.Name == name {
			return f.Value
		}
	}
	t.Fatalf("there is no figure %q", name)
	return 0
}

// Two scenarios tell of the same jobs, each its part.
func TestGrowingTells(t *testing.T) {
	g := &growing{verdict: verdict{missed: 3, twice: 1}, sizes: []size{
		{stage: stage{1_000, false, true}, atRest: Usage{Resident: 40e6}, resting: time.Second, restedFor: 100 * time.Second, cost: 500 * time.Microsecond, runs: 6000},
		{stage: stage{10_000, true, true}, atRest: Usage{Resident: 50e6, Files: 20e6, Peak: 60e6}, resting: time.Second, restedFor: 10 * time.Second, cost: 400 * time.Microsecond, runs: 5000},
		{stage: stage{100_000, true, true}, atRest: Usage{Resident: 150e6}, restedFor: time.Second, cost: 700 * time.Microsecond, runs: 6000},
	}}
	memory := report.Result{Scenario: memoryName}
	g.tellMemory(&memory)
	if got := figure(t, memory, "primary, 10,000 jobs"); got != 50 || figure(t, memory, "primary, 10,000 jobs, at most") != 60 ||
		figure(t, memory, "primary, 10,000 jobs, pages of files in it") != 20 || len(memory.Figures) != 6 {
		t.Errorf("%v MB, of %v", got, memory.Figures)
	}
	growth := report.Result{Scenario: growthName}
	g.tellGrowth(&growth)
	if got := figure(t, growth, "cost per fire, dearest to cheapest"); got != 1.75 {
		t.Errorf("dearest to cheapest: %v", got)
	}
	if figure(t, growth, "cost per fire, 1,000 jobs") != 500 || figure(t, growth, "processor at rest, 10,000 jobs") != 10 {
		t.Errorf("%v", growth.Figures)
	}
	if figure(t, growth, "missed") != 3 || figure(t, growth, "twice") != 1 {
		t.Errorf("%v", growth.Figures)
	}
}

// What was not asked for has no figures.
func TestGrowingTellsWhatWasMeasured(t *testing.T) {
	g := &growing{sizes: []size{{stage: stage{10_000, true, false}}}}
	growth := report.Result{Scenario: growthName}
	g.tellGrowth(&growth)
	if len(growth.Figures) != 0 {
		t.Errorf("%v", growth.Figures)
	}
}

// Each scenario has its sizes, and no memory is looked at where a load was before, but
// for the largest.
func TestStages(t *testing.T) {
	for _, quick := range []bool{true, false} {
		for _, asked := range [][2]bool{{true, false}, {false, true}, {true, true}} {
			memory, growth := map[int]bool{}, map[int]bool{}
			for _, stages := range stages(quick, asked[0], asked[1]) {
				last := 0
				for _, s := range stages {
					if s.jobs <= last {
						t.Errorf("%d jobs after %d", s.jobs, last)
					}
					last = s.jobs
					memory[s.jobs], growth[s.jobs] = memory[s.jobs] || s.memory, growth[s.jobs] || s.growth
				}
			}
			for _, jobs := range map[bool][]int{true: {1_000}, false: {10_000, 100_000, 1_000_000}}[quick] {
				if memory[jobs] != asked[0] || growth[jobs] != asked[1] {
					t.Errorf("quick %v, asked for memory and growth %v: with %d jobs %v and %v are looked at", quick, asked, jobs, memory[jobs], growth[jobs])
				}
			}
			if growth[1_000] != asked[1] {
				t.Errorf("quick %v: growth with 1,000 jobs is looked at: %v", quick, growth[1_000])
			}
		}
	}
}

// The load is spread over the second.
func TestSteadyLoad(t *testing.T) {
	phases := map[time.Duration]bool{}
	for _, j := range steadyLoad(time.Unix(1000, 0), time.Unix(1060, 0)) {
		e := j.GetTriggers()[0].GetEvery()
		if e.GetInterval().AsDuration() != time.Second {
			t.Errorf("%s is due each %v", j.GetName(), e.GetInterval().AsDuration())
		}
		phases[e.GetPhase().AsDuration()] = true
	}
	if len(phases) != steadyJobs {
		t.Errorf("%d phases of %d jobs", len(phases), steadyJobs)
	}
}

// What does not come is not waited for; what is due, or is being written, is.
func TestAwaitCalm(t *testing.T) {
	const calm = 45 * time.Second
	begin := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // of all bubbles
	for name, test := range map[string]struct {
		dueUntil, writtenAt time.Duration // 0: never
		least, most         time.Duration
	}{
		"too few entries for one":       {0, 0, calm, calm},
		"one is due, and comes":         {time.Minute, time.Minute, time.Minute + calm, time.Minute + calm + 2*time.Second},
		"one is being written":          {0, 20 * time.Second, 2 * calm, 2 * calm},
		"one is due, and does not come": {time.Hour, 0, snapshotWithin, snapshotWithin + 2*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				err := awaitCalm(t.Context(), calm, func(context.Context) (due bool, written float64, err error) {
					if at := time.Since(begin); test.writtenAt > 0 && at >= test.writtenAt {
						written = 1
					}
					return time.Since(begin) < test.dueUntil, written, nil
				})
				if took := time.Since(begin); err != nil || took < test.least || took > test.most {
					t.Errorf("it took %v, %v; want %v to %v", took, err, test.least, test.most)
				}
			})
		})
	}
}

// A primary that does not answer is told.
func TestAwaitCalmFails(t *testing.T) {
	gone := errors.New("gone")
	if err := awaitCalm(t.Context(), time.Second, func(context.Context) (bool, float64, error) { return false, 0, gone }); !errors.Is(err, gone) {
		t.Errorf("err = %v, want %v", err, gone)
	}
}
