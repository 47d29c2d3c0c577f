package server

import (
	"testing"
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

// It is told how far the state's clock is ahead of this primary's, and nothing when it is
// behind.
func TestStateClockAhead(t *testing.T) {
	now := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	for clock, want := range map[time.Duration]float64{time.Minute: 0, 0: 0, -time.Hour: 3600} {
		st := state.New()
		st.Apply(1, state.Entry{Now: now})
		m := newMetrics()
		m.watchClock(func(f func(*state.State)) { f(st) }, func() time.Time { return now.Add(clock) })
		families, err := m.registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		told := false
		for _, f := range families {
			if f.GetName() != "schedd_state_clock_ahead_seconds" {
				continue
			}
			told = true
			if is := f.GetMetric()[0].GetGauge().GetValue(); is != want {
				t.Errorf("with a clock that is %v from the state's: %v s, want %v", clock, is, want)
			}
		}
		if !told {
			t.Error("there is no such metric")
		}
	}
}
