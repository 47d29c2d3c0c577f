package plan

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/schedd/schedd/raftstore/raftstoretest"
	"github.com/schedd/schedd/raftstore/state"
)

// pruned applies what Prune asks for, and returns which runs are gone.
func pruned(s *state.State, keep Retention, held, now time.Time) (gone []*state.Run) {
	was := slices.Collect(s.RunsByBirth())
	cmds, _ := Prune(s, keep, held, now)
	for _, c := range cmds {
		s.Apply(s.Index()+1, state.Entry{Now: now, Commands: []state.Command{c}})
	}
	for _, r := range was {
		if s.Run(r.ID) == nil {
			gone = append(gone, r)
		}
	}
	return gone
}

// finished is a state with runs that ended, some seconds ago each, the oldest first.
func finished(ages ...time.Duration) (*state.State, []*state.Run) {
	n := &state.Snapshot{Index: 100, Now: noon, Serial: 100}
	for i, age := range ages {
		r := &state.Run{
			ID: state.RequestRunID(1, fmt.Sprint(i)), UID: 1, Phase: state.Succeeded, Serial: uint64(i + 1), Created: noon.Add(-age), Finished: noon.Add(-age),
			Attempts: []state.Attempt{{Number: 1, Outcome: state.OutcomeSucceeded}},
		}
		n.Runs = append(n.Runs, r)
	}
	return n.Restore(), n.Runs
}

func TestPrune(t *testing.T) {
	const h = time.Hour
	keep := Retention{RunsPerJob: 2, Runs: 10, RunAge: 24 * h, LostAge: 240 * h, MostRuns: 6}
	for _, test := range []struct {
		name string
		ages []time.Duration
		lost int           // which of them was lost; 0: none, else from 1
		held time.Duration // how far behind the history is
		want int           // how many of the oldest are forgotten
		soon bool          // others are in a moment
	}{
		{"few and young", []time.Duration{2 * h, h}, 0, 0, 0, false},
		{"too many of the job", []time.Duration{4 * h, 3 * h, 2 * h, h}, 0, 0, 2, false},
		{"too old", []time.Duration{30 * h, 25 * h}, 0, 0, 2, false},
		{"too many, and the history lags", []time.Duration{4 * h, 3 * h, 2 * h, h}, 0, 3*h + time.Minute, 1, false},
		{"too old, and the history is broken", []time.Duration{30 * h, 25 * h}, 0, 1000 * h, 0, false},
		{"more than memory holds, and the history is broken", []time.Duration{9 * h, 8 * h, 7 * h, 6 * h, 5 * h, 4 * h, 3 * h, 2 * h}, 0, 1000 * h, 2, false},
		{"too many, but just over", []time.Duration{4 * time.Second, 3 * time.Second, 2 * time.Second}, 0, 0, 0, true},
		{"too many, but just over, and the history lags", []time.Duration{4 * time.Second, 3 * time.Second, 2 * time.Second}, 0, h, 0, false},
		{"too many, some just over", []time.Duration{h, 3 * time.Second, 2 * time.Second, time.Second}, 0, 0, 1, true},
		{"lost, and its result may still come", []time.Duration{200 * h, h}, 1, 0, 0, false},
		{"lost for good", []time.Duration{250 * h, h}, 1, 0, 1, false},
	} {
		s, runs := finished(test.ages...)
		if test.lost > 0 {
			runs[test.lost-1].Phase = state.Lost
			runs[test.lost-1].Attempts[0].Outcome = state.OutcomeLost
		}
		if _, soon := Prune(s, keep, noon.Add(-test.held), noon); soon != test.soon {
			t.Errorf("%s: others are to be forgotten in a moment: %v", test.name, soon)
		}
		gone := pruned(s, keep, noon.Add(-test.held), noon)
		if !slices.Equal(gone, runs[:test.want]) {
			t.Errorf("%s: %d are gone, want the oldest %d", test.name, len(gone), test.want)
		}
	}
}

// What a primary keeps when nobody says otherwise: for 30 days a run of which its worker may
// still tell how it ended, and 200,000 in all while the history takes none.
func TestPruneByDefault(t *testing.T) {
	const day = 24 * time.Hour
	s, runs := finished(31*day, 29*day)
	for _, r := range runs {
		r.Phase, r.Attempts[0].Outcome = state.Lost, state.OutcomeLost
	}
	if gone := pruned(s, DefaultRetention, noon, noon); !slices.Equal(gone, runs[:1]) {
		t.Errorf("%d are gone that were lost 31 and 29 days ago, want the older one", len(gone))
	}
	s, runs = finished(slices.Repeat([]time.Duration{time.Hour}, 200_001)...)
	if gone := pruned(s, DefaultRetention, noon.Add(-2*time.Hour), noon); !slices.Equal(gone, runs[:1]) {
		t.Errorf("%d are gone of 200,001 that the history does not take, want the oldest", len(gone))
	}
}

// What has not ended is kept, and so is what the history does not hold, short of the
// bound that memory sets.
func TestPruneKeepsWhatItMust(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := state.New()
		w := raftstoretest.NewWalk(t, s)
		var now time.Time
		for i := range rapid.IntRange(1, 30).Draw(t, "entries") {
			e := w.Entry()
			now = e.Now
			s.Apply(uint64(i+1), e)
		}
		number := func(label string, most int) int { return rapid.IntRange(0, most).Draw(t, label) }
		keep := Retention{
			RunsPerJob: number("per job", 3), Runs: number("runs", 6), RunAge: time.Duration(number("age", 600)) * time.Second,
			LostAge: time.Duration(number("lost age", 1200)) * time.Second, MostRuns: number("most", 20),
		}
		held := now.Add(-time.Duration(number("lag", 600)) * time.Second)
		for _, r := range pruned(s, keep, held, now) {
			if !r.Phase.Final() {
				t.Errorf("run %v is forgotten while it is %v", r.ID, r.Phase)
			}
			if left := ended(s); !r.Finished.Before(held) && left < keep.MostRuns {
				t.Errorf("a run is forgotten that ended at %v, and the history holds what ended before %v; %d are left, of %d that memory holds", r.Finished, held, left, keep.MostRuns)
			}
		}
		if n := ended(s); n > keep.MostRuns {
			t.Errorf("%d runs are left, of %d that memory holds", n, keep.MostRuns)
		}
	})
}

// ended counts the runs that have.
func ended(s *state.State) (n int) {
	for r := range s.RunsByBirth() {
		if r.Phase.Final() {
			n++
		}
	}
	return n
}

// BenchmarkPrune looks for what to forget among the runs of a load that has just ended:
// none may go yet.
func BenchmarkPrune(b *testing.B) {
	for _, runs := range []int{20_000, 200_000} {
		b.Run(fmt.Sprint("runs=", runs), func(b *testing.B) {
			n := &state.Snapshot{Index: 100, Now: noon, Serial: uint64(runs)}
			for i := range runs {
				n.Runs = append(n.Runs, &state.Run{
					ID: state.RequestRunID(1, fmt.Sprint(i)), UID: uint64(i%10_000 + 1), Phase: state.Succeeded, Serial: uint64(i + 1), Created: noon, Finished: noon,
					Attempts: []state.Attempt{{Number: 1, Outcome: state.OutcomeSucceeded}},
				})
			}
			s := n.Restore()
			for b.Loop() {
				if cmds, _ := Prune(s, DefaultRetention, noon, noon.Add(time.Second)); len(cmds) > 0 {
					b.Fatal(cmds)
				}
			}
		})
	}
}
