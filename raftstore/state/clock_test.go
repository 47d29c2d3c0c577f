package state_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

// day is a time on a day.
func day(hour, minute int) time.Time { return time.Date(2030, 1, 1, hour, minute, 0, 0, time.UTC) }

// Who has waited over a jump of the clock has waited for that much less; who came after
// it, or was gone before, has not.
func TestJumped(t *testing.T) {
	s := state.New()
	results := s.Apply(1, state.Entry{Now: day(12, 0), Commands: []state.Command{
		state.ClockJumped{Was: day(1, 0), Is: day(2, 0)},
		state.ClockJumped{Was: day(5, 0), Is: day(5, 10)},
		state.ClockJumped{Was: day(5, 5), Is: day(6, 0)}, // begins within the one before
		state.ClockJumped{Was: day(6, 0), Is: day(6, 0)},
		state.ClockJumped{Is: day(7, 0)},
	}})
	for i, want := range []error{nil, nil, state.ErrStale, state.ErrInvalid, state.ErrInvalid} {
		if err := results[i].Err; !errors.Is(err, want) {
			t.Errorf("jump %d: %v, want %v", i+1, err, want)
		}
	}
	for _, test := range []struct {
		from, to time.Time
		want     time.Duration
	}{
		{day(0, 30), day(1, 0), 0},
		{day(0, 30), day(2, 0), time.Hour},
		{day(1, 0), day(4, 0), time.Hour},
		{day(2, 0), day(5, 0), 0},
		{day(2, 0), day(8, 0), 10 * time.Minute},
		{day(0, 0), day(8, 0), 70 * time.Minute},
		{day(8, 0), day(9, 0), 0},
	} {
		if is := s.Jumped(test.from, test.to); is != test.want {
			t.Errorf("from %v to %v it jumped by %v, want %v", test.from, test.to, is, test.want)
		}
	}
}

// The oldest jumps are forgotten, and a snapshot has the others. A state that another one
// replaces keeps what it alone has seen: the clock has jumped for all runs.
func TestJumpsAreKept(t *testing.T) {
	s := state.New()
	jump := func(s *state.State, i int) {
		was := day(0, 0).Add(time.Duration(i) * time.Hour)
		if err := s.Apply(uint64(i+1), state.Entry{Now: was, Commands: []state.Command{state.ClockJumped{Was: was, Is: was.Add(time.Minute)}}})[0].Err; err != nil {
			t.Fatalf("jump %d: %v", i, err)
		}
	}
	for i := range state.MaxJumps + 5 {
		jump(s, i)
	}
	jumps := s.Jumps()
	if len(jumps) != state.MaxJumps || !jumps[0].Was.Equal(day(5, 0)) {
		t.Fatalf("%d jumps, the first at %v", len(jumps), jumps[0].Was)
	}
	old := s.Snapshot()
	if is := old.Restore().Jumps(); !slices.Equal(is, jumps) {
		t.Errorf("a snapshot has %v, want %v", is, jumps)
	}
	jump(s, state.MaxJumps+5)
	if is := old.Replace(s, 1000, s.Now()).Jumps(); !slices.Equal(is, s.Jumps()) {
		t.Errorf("after an older state has taken its place there are %v, want %v", is, s.Jumps())
	}
}
