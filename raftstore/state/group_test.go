package state_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/schedd/schedd/raftstore/state"
)

// Each small table holds what it was last told, in order, and tells when it has
// changed.
func TestGroupTables(t *testing.T) {
	long := strings.Repeat("x", 253)
	for _, tt := range []struct {
		name     string
		log      []state.Command
		err      error // of the last command
		standbys []string
		directs  []string
		changed  bool // by the last command
	}{
		{"nothing", []state.Command{state.SetOffline{ID: "w"}}, state.ErrNotFound, nil, nil, false},
		{"a standby", []state.Command{state.SetStandby{ID: "b", Standby: true}}, nil, []string{"b"}, nil, true},
		{"in order", []state.Command{state.SetStandby{ID: "b", Standby: true}, state.SetStandby{ID: "a", Standby: true}}, nil, []string{"a", "b"}, nil, true},
		{"again", []state.Command{state.SetStandby{ID: "b", Standby: true}, state.SetStandby{ID: "b", Standby: true}}, nil, []string{"b"}, nil, false},
		{"no longer", []state.Command{state.SetStandby{ID: "b", Standby: true}, state.SetStandby{ID: "b"}}, nil, nil, nil, true},
		{"never was", []state.Command{state.SetStandby{ID: "b"}}, nil, nil, nil, false},
		{"without an id", []state.Command{state.SetStandby{Standby: true}}, state.ErrInvalid, nil, nil, false},
		{"with a long id", []state.Command{state.SetStandby{ID: long, Standby: true}}, nil, []string{long}, nil, true},
		{"with too long an id", []state.Command{state.SetStandby{ID: long + "x", Standby: true}}, state.ErrInvalid, nil, nil, false},

		{"a worker", []state.Command{state.SetDirect{Address: "h:1"}}, nil, nil, []string{"h:1"}, true},
		{"workers in order", []state.Command{state.SetDirect{Address: "h:2"}, state.SetDirect{Address: "h:1"}}, nil, nil, []string{"h:1", "h:2"}, true},
		{"a worker again", []state.Command{state.SetDirect{Address: "h:1"}, state.SetDirect{Address: "h:1"}}, nil, nil, []string{"h:1"}, false},
		{"a worker no longer", []state.Command{state.SetDirect{Address: "h:1"}, state.SetDirect{Address: "h:1", Remove: true}}, nil, nil, nil, true},
		{"a worker that never was", []state.Command{state.SetDirect{Address: "h:1", Remove: true}}, nil, nil, nil, false},
		{"nowhere", []state.Command{state.SetDirect{}}, state.ErrInvalid, nil, nil, false},
		{"far away", []state.Command{state.SetDirect{Address: long + ":65535"}}, nil, nil, []string{long + ":65535"}, true},
		{"too far", []state.Command{state.SetDirect{Address: long + ":655350"}}, state.ErrInvalid, nil, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := state.New()
			var results []state.Result
			for i, c := range tt.log {
				s.TakeChanges()
				results = s.Apply(uint64(i+1), state.Entry{Now: noon, Commands: []state.Command{c}})
			}
			if err := results[0].Err; !errors.Is(err, tt.err) {
				t.Errorf("err = %v, want %v", err, tt.err)
			}
			var want []state.Change
			if tt.changed {
				want = []state.Change{{Group: true}}
			}
			if diff := cmp.Diff(want, s.TakeChanges()); diff != "" {
				t.Errorf("changes:\n%s", diff)
			}
			n := s.Snapshot()
			for _, s := range []*state.State{s, n.Restore()} {
				if !slices.Equal(s.Standbys(), tt.standbys) || !slices.Equal(s.Directs(), tt.directs) {
					t.Errorf("standbys %q and direct workers %q, want %q and %q", s.Standbys(), s.Directs(), tt.standbys, tt.directs)
				}
				if s.Standby("b") != slices.Contains(tt.standbys, "b") {
					t.Error("b is a standby where it is none, or the other way round")
				}
			}
		})
	}
}

// A table that is full lets nobody in until one goes.
func TestGroupTablesAreBounded(t *testing.T) {
	s := state.New()
	do := func(c state.Command) error {
		return s.Apply(s.Index()+1, state.Entry{Now: noon, Commands: []state.Command{c}})[0].Err
	}
	for i := range state.MaxTable {
		if err := errors.Join(do(state.SetDirect{Address: fmt.Sprint(i)}), do(state.SetStandby{ID: fmt.Sprint(i), Standby: true})); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []state.Command{state.SetDirect{Address: "x"}, state.SetStandby{ID: "x", Standby: true}} {
		if err := do(c); !errors.Is(err, state.ErrFull) {
			t.Errorf("%T: err = %v, want ErrFull", c, err)
		}
	}
	if err := errors.Join(do(state.SetDirect{Address: "7"}), do(state.SetDirect{Address: "7", Remove: true}), do(state.SetDirect{Address: "x"})); err != nil {
		t.Error(err)
	}
	if n := len(s.Directs()); n != state.MaxTable || len(s.Standbys()) != state.MaxTable {
		t.Errorf("%d direct workers and %d standbys, want %d", n, len(s.Standbys()), state.MaxTable)
	}
}

// What takes the place of a state counts on from the greater of both.
func TestReplaceGoesOn(t *testing.T) {
	small, large := state.New(), state.New()
	small.Apply(3, state.Entry{Now: noon, Commands: []state.Command{put(def("small", 1), 0)}})
	for i := range uint64(10) {
		large.Apply(100+i, state.Entry{Now: minute(10), Commands: []state.Command{put(def(fmt.Sprint(i), 1), 0)}})
	}
	large.Apply(110, state.Entry{Now: minute(11), Commands: []state.Command{state.DeleteJob{Key: job}}})
	large.Apply(111, state.Entry{Now: minute(11), Commands: []state.Command{put(def("large", 1), 0)}})
	for _, tt := range []struct{ old, is *state.State }{{small, large}, {large, small}} {
		s := tt.is.Snapshot().Replace(tt.old, 200, minute(5))
		if s.Index() != 200 || s.Now() != minute(11) || s.Job(job).Definition != tt.is.Job(job).Definition {
			t.Errorf("it is at %d, %v, with %+v", s.Index(), s.Now(), s.Job(job))
		}
		if serial := s.Snapshot().Serial; serial != 111 {
			t.Errorf("the last number is %d, want 111", serial)
		}
	}
}
