package lead

import (
	"testing"
	"time"

	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/plan"
)

// What the wall clock shows has no monotonic reading: two instants that had one would
// be compared by it, and no step of the clock would ever be seen.
func TestWallHasNoMonotonicReading(t *testing.T) {
	now := time.Now()
	if now == now.Round(0) { //nolint:staticcheck // the representations, not the instants
		t.Fatal("the clock of this system is not monotonic, so this proves nothing")
	}
	c := Config{Clock: func() time.Time { return now }}
	if c.wall() != now.Round(0) { //nolint:staticcheck // as above
		t.Errorf("the wall clock is read as %v", c.wall())
	}
}

// The instants of a run move along with the state's clock when that jumps, each by how
// much it has since the leader learned of it, and stay when it only drifts.
func TestInstantsMoveWithTheClock(t *testing.T) {
	begin := time.Now()
	at := func(elapsed, shown time.Duration) mark {
		return mark{begin.Add(elapsed), begin.Round(0).Add(shown)}
	}
	stamp := func(d time.Duration) time.Time { return begin.Round(0).Add(d) }
	id := state.RunID{1}
	run := &state.Run{ID: id, Created: stamp(0), NotBefore: stamp(time.Minute), Attempts: []state.Attempt{
		{Number: 1, Assigned: stamp(0)}, {Number: 2, Assigned: stamp(time.Minute)},
	}}
	for name, test := range map[string]struct {
		changed, now  mark
		born, further time.Duration // by how much they move
	}{
		"nothing happened":              {at(time.Minute, time.Minute), at(time.Hour, time.Hour), 0, 0},
		"it drifted":                    {at(time.Minute, time.Minute), at(time.Hour, time.Hour+tolerance), 0, 0},
		"it was set forward after that": {at(time.Minute, time.Minute), at(2*time.Minute, time.Hour+2*time.Minute), time.Hour, time.Hour},
		"it was set forward before":     {at(time.Minute, time.Hour+time.Minute), at(2*time.Minute, time.Hour+2*time.Minute), time.Hour, 0},
		"it stands still":               {at(time.Minute, time.Minute), at(time.Hour, time.Minute), -59 * time.Minute, -59 * time.Minute},
	} {
		term := &term{active: plan.NewTable[state.RunID, sighting]()}
		term.active.Set(id, sighting{born: at(0, 0), changed: test.changed})
		is := term.moved(run, test.now)
		if d := is.Created.Sub(run.Created); d != test.born {
			t.Errorf("%s: when it was made moves by %v, want %v", name, d, test.born)
		}
		if d := is.NotBefore.Sub(run.NotBefore); d != test.further {
			t.Errorf("%s: when it may start moves by %v, want %v", name, d, test.further)
		}
		for i, want := range []time.Duration{0, test.further} {
			if d := is.Attempts[i].Assigned.Sub(run.Attempts[i].Assigned); d != want {
				t.Errorf("%s: when attempt %d was assigned moves by %v, want %v", name, i+1, d, want)
			}
		}
		if !run.Attempts[1].Assigned.Equal(stamp(time.Minute)) {
			t.Fatalf("%s: the run itself was changed", name)
		}
	}
}

// Whether a run was cancelled or took too long is told by what ended it, whatever the clock
// does until it has ended.
func TestCancelledOrTimedOut(t *testing.T) {
	const minute, hour = time.Minute, time.Hour
	begin := time.Now()
	at := func(elapsed, shown time.Duration) mark {
		return mark{begin.Add(elapsed), begin.Round(0).Add(shown)}
	}
	for name, test := range map[string]struct {
		cancelled, ended mark
		want             state.Phase
	}{
		"cancelled in time":                      {at(minute, minute), at(15*minute, 15*minute), state.Cancelled},
		"ended by its total_timeout":             {at(10*minute, 10*minute), at(11*minute, 11*minute), state.TimedOut},
		"cancelled while the clock stands":       {at(minute, 0), at(15*minute, 0), state.Cancelled},
		"cancelled, and the clock is set back":   {at(9*minute, 9*minute), at(15*minute, 9*minute), state.Cancelled},
		"timed out, and the clock is set ahead":  {at(10*minute, 10*minute), at(11*minute, hour+11*minute), state.TimedOut},
		"cancelled, and the clock is set ahead":  {at(minute, minute), at(2*minute, hour+2*minute), state.Cancelled},
		"cancelled after the clock is set ahead": {at(minute, hour+minute), at(2*minute, hour+2*minute), state.Cancelled},
		"timed out while the clock stands":       {at(10*minute, 0), at(11*minute, 0), state.TimedOut},
	} {
		d := &state.Definition{Policy: &state.Policy{}}
		d.Policy.TotalTimeout = 10 * minute
		r := &state.Run{ID: state.RunID{1}, Definition: d, Phase: state.Running, Created: begin.Round(0), Attempts: []state.Attempt{
			{Number: 1, Fence: 5, Assigned: begin.Round(0)},
		}}
		term, st := &term{active: plan.NewTable[state.RunID, sighting]()}, state.New()
		term.see(st, r, at(0, 0))
		c := *r
		c.CancelTime, c.CancelNote = test.cancelled.shown, "enough"
		if test.want == state.TimedOut {
			c.CancelNote = plan.Check(r, time.Time{}, time.Time{}, r.Created.Add(d.Policy.TotalTimeout)).Command.(state.Cancel).Note
		}
		term.see(st, &c, test.cancelled)
		started := c // another change, that is none of the run's end
		term.see(st, &started, test.ended)
		f := plan.Ended(term.moved(&started, test.ended), 5, state.Attempt{Outcome: state.OutcomeCancelled}, test.ended.shown)
		if f.Phase != test.want {
			t.Errorf("%s: it is %v (%s), want %v", name, f.Phase, f.Reason, test.want)
		}
	}
}

// A leader learns of a run after the clock has jumped. What the leaders before have put on
// record counts for what began before that, each for itself; what has happened since its
// own first look it has seen.
func TestInstantsMoveByWhatIsOnRecord(t *testing.T) {
	const minute, hour = time.Minute, time.Hour
	begin := time.Now()
	stamp := func(d time.Duration) time.Time { return begin.Round(0).Add(d) }
	st := state.New()
	st.Apply(1, state.Entry{Now: stamp(2 * hour), Commands: []state.Command{state.ClockJumped{Was: stamp(10 * minute), Is: stamp(hour + 10*minute)}}})
	d := &state.Definition{Policy: &state.Policy{}}
	d.Policy.Retry = state.Retry{MaxAttempts: 5, InitialDelay: 3 * hour, Multiplier: 1, MaxDelay: 3 * hour}
	id := state.RunID{1}
	before := func(r *state.Run) time.Time { return r.Created }
	assigned := func(r *state.Run) time.Time { return r.Attempts[0].Assigned }
	notBefore := func(r *state.Run) time.Time { return r.NotBefore }
	live := func(at time.Duration) []state.Attempt {
		return []state.Attempt{{Number: 1, Fence: 1, Assigned: stamp(at)}}
	}
	ended := func(at time.Duration) (*state.Run, []state.Attempt) {
		r := &state.Run{ID: id, Definition: d, Phase: state.Running, Created: stamp(0), Attempts: live(0)}
		result := state.Attempt{Outcome: state.OutcomeFailed, ExitCode: 1}
		r.NotBefore = plan.Ended(r, 1, result, stamp(at)).NotBefore
		result.Number, result.Fence, result.Assigned = 1, 1, stamp(0)
		return r, []state.Attempt{result}
	}
	retry := func(at time.Duration) *state.Run {
		r, attempts := ended(at)
		r.Phase, r.Attempts = state.Pending, attempts
		return r
	}
	refused := func(at time.Duration) *state.Run { // after an attempt that was made
		failed := state.Attempt{Number: 1, Fence: 1, Assigned: stamp(0), Outcome: state.OutcomeFailed}
		r := &state.Run{Phase: state.Pending, Created: stamp(0), NotBefore: stamp(2 * hour)}
		for n := range 3 {
			r.Attempts = append(r.Attempts, state.Attempt{Number: n + 2, Fence: uint64(n + 2), Assigned: stamp(at), Outcome: state.OutcomeRefused})
			at = 2 * hour
		}
		r.Attempts = append([]state.Attempt{failed}, r.Attempts...)
		return r
	}
	for name, test := range map[string]struct {
		run  *state.Run
		what func(*state.Run) time.Time
		want time.Duration
	}{
		"made before":            {&state.Run{Phase: state.Pending, Created: stamp(0)}, before, hour},
		"made after":             {&state.Run{Phase: state.Pending, Created: stamp(hour + 11*minute)}, before, 0},
		"assigned before":        {&state.Run{Phase: state.Assigned, Created: stamp(0), Attempts: live(minute)}, assigned, hour},
		"assigned after":         {&state.Run{Phase: state.Assigned, Created: stamp(0), Attempts: live(hour + 11*minute)}, assigned, 0},
		"to be retried, before":  {retry(minute), notBefore, hour},
		"to be retried, after":   {retry(hour + 11*minute), notBefore, 0},
		"refused before":         {refused(minute), plan.QueuedSince, hour},
		"refused after":          {refused(hour + 11*minute), plan.QueuedSince, 0},
		"made before, cancelled": {&state.Run{Phase: state.Running, Created: stamp(0), CancelTime: stamp(hour + 11*minute), Attempts: live(0)}, before, hour},
	} {
		test.run.ID, test.run.Definition = id, d
		term := &term{active: plan.NewTable[state.RunID, sighting]()}
		here := mark{begin, stamp(2 * hour)}
		term.see(st, test.run, here)
		if by := test.what(term.moved(test.run, here)).Sub(test.what(test.run)); by != test.want {
			t.Errorf("%s: it moves by %v, want %v", name, by, test.want)
		}
		// Another hour is jumped now, and is put on record, too.
		later := mark{begin.Add(minute), stamp(3*hour + minute)}
		j, ok := here.jump(later)
		if !ok {
			t.Fatal("the jump is not seen")
		}
		st := st.Snapshot().Restore()
		st.Apply(2, state.Entry{Now: later.shown, Commands: []state.Command{j}})
		if by := test.what(term.moved(test.run, later)).Sub(test.what(test.run)); by != test.want+hour {
			t.Errorf("%s: after another hour it moves by %v, want %v", name, by, test.want+hour)
		}
		term.see(st, test.run, later) // it has changed otherwise
		if by := test.what(term.moved(test.run, later)).Sub(test.what(test.run)); by != test.want+hour {
			t.Errorf("%s: seen again it moves by %v, want %v", name, by, test.want+hour)
		}
	}
}
