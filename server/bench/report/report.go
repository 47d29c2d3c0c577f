// Package report is what a benchmark tells: figures, each with what it is to reach and
// what it is shown beside, as a table for people and as JSON. It is pure, and never
// measures anything itself.
package report

import (
	"slices"
	"time"
)

// Report is what one run of the benchmark found.
type Report struct {
	Program Program   `json:"program"`
	Machine Machine   `json:"machine"`
	Start   time.Time `json:"start"`
	// Quick tells that sizes and spans were small: nobody compares such figures.
	Quick   bool     `json:"quick"`
	Results []Result `json:"results"`
}

// Program is what was measured.
type Program struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Modified bool   `json:"modified,omitempty"` // not all of it is in that commit
	Go       string `json:"go"`
}

// Machine is where it was measured.
type Machine struct {
	OS         string `json:"os"`
	Arch       string `json:"arch"`
	Kernel     string `json:"kernel,omitempty"`
	CPU        string `json:"cpu,omitempty"`
	Cores      int    `json:"cores"`
	MemoryMB   int    `json:"memory_mb,omitempty"`
	FileSystem string `json:"file_system,omitempty"` // of the directory that was used
	// Load is what else wanted a processor in the minute before, on average.
	Load float64 `json:"load"`
}

// Result is what one scenario found.
type Result struct {
	Scenario string   `json:"scenario"`
	What     string   `json:"what"`
	Figures  []Figure `json:"figures,omitempty"`
	// Notes say, in a sentence each, what one has to know to read the figures.
	Notes []string `json:"notes,omitempty"`
	// Unmeasured says why it could not be measured, or not wholly.
	Unmeasured string        `json:"unmeasured,omitempty"`
	Took       time.Duration `json:"took_ns"`
}

// Figure is one number.
type Figure struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit,omitempty"`
	// Baseline is what the machine does without schedd; nil where nothing compares.
	Baseline *Baseline `json:"baseline,omitempty"`
	// Target is what the figure is to reach; nil where nothing is asked.
	Target *Target `json:"target,omitempty"`
}

// Baseline is a number of the same run, and in the unit of the figure, that it is shown
// beside.
type Baseline struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
}

// Target is what a figure is to reach.
type Target struct {
	// Bound is in the unit of the figure, or, with Share, in baselines.
	Bound float64 `json:"bound"`
	Share bool    `json:"share,omitempty"`
	// Most tells that less is better: the figure has to be at most Bound. Else it has
	// to be at least that.
	Most bool `json:"most,omitempty"`
	// Promise tells that a figure which does not reach it is no slowness but a broken
	// promise.
	Promise bool `json:"promise,omitempty"`
}

// Add adds a figure. What it is to reach stands in [Targets].
func (r *Result) Add(name string, value float64, unit string) {
	r.Figures = append(r.Figures, Figure{Name: name, Value: value, Unit: unit, Target: target(r.Scenario, name)})
}

// Beside adds a figure that is shown beside a baseline in the same unit.
func (r *Result) Beside(name string, value float64, unit, baseline string, base float64) {
	r.Add(name, value, unit)
	r.Figures[len(r.Figures)-1].Baseline = &Baseline{Name: baseline, Value: base}
}

// Note adds a sentence.
func (r *Result) Note(text string) { r.Notes = append(r.Notes, text) }

// target returns what a figure is to reach, nil if nothing.
func target(scenario, figure string) *Target {
	if t, ok := Targets[scenario][figure]; ok {
		return &t
	}
	return nil
}

// Ratio is how often the baseline goes into the figure; 0 without one.
func (f Figure) Ratio() float64 {
	if f.Baseline == nil || f.Baseline.Value == 0 {
		return 0
	}
	return f.Value / f.Baseline.Value
}

// Reached tells whether the figure reaches its target. One that is a share of a
// baseline that is not there is not reached.
func (f Figure) Reached() bool {
	if f.Target == nil {
		return true
	}
	value := f.Value
	if f.Target.Share {
		if f.Baseline == nil || f.Baseline.Value == 0 {
			return false
		}
		value = f.Ratio()
	}
	if f.Target.Most {
		return value <= f.Target.Bound
	}
	return value >= f.Target.Bound
}

// Broken are the figures that show a broken promise.
func (r Result) Broken() []Figure {
	return slices.DeleteFunc(slices.Clone(r.Figures), func(f Figure) bool {
		return f.Target == nil || !f.Target.Promise || f.Reached()
	})
}

// Missing are the names of the figures that have a target and were not measured, in
// the order of the alphabet.
func (r Result) Missing() []string {
	var names []string
	for name := range Targets[r.Scenario] {
		if !slices.ContainsFunc(r.Figures, func(f Figure) bool { return f.Name == name }) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
