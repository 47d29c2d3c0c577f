package raftstore

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

// Each command is on the list: one that is not would be taken for the newest by
// versions to come, which would refuse it where an older primary knows it well.
func TestEveryCommandHasALevel(t *testing.T) {
	since := map[reflect.Type]uint32{reflect.TypeFor[state.SetEnforcement](): 2, reflect.TypeFor[state.ClockJumped](): 2}
	for _, c := range commands {
		want := max(since[reflect.TypeOf(c)], 1)
		if got := levelOf(c); got != want {
			t.Errorf("%T is of level %d, want %d: that version was the first to know it", c, got, want)
		}
	}
	limited := state.PutJob{Definition: &state.Definition{Policy: &state.Policy{}, Task: state.Task{Limits: state.Limits{PIDs: 1}}}}
	if got := levelOf(limited); got != 2 {
		t.Errorf("a job with limits is of level %d, want 2", got)
	}
	if got := levelOf(state.PutJob{Definition: &state.Definition{Policy: &state.Policy{}}}); got != 1 {
		t.Errorf("a job without limits is of level %d, want 1", got)
	}
}

// A job with a kill_after is of the second level, and is the only thing that is.
func TestLevelOfKillAfter(t *testing.T) {
	d := &state.Definition{Policy: &state.Policy{KillAfter: 1}}
	if got := levelOf(state.PutJob{Definition: d}); got != 2 {
		t.Errorf("a job with kill_after is of level %d, want 2", got)
	}
	if got := levelOf(state.PutJob{Definition: &state.Definition{Policy: &state.Policy{}}}); got != 1 {
		t.Errorf("a job without is of level %d, want 1", got)
	}
	if got := levelOf(state.Finish{Attempt: state.Attempt{Outcome: state.OutcomeLeaseExpired}}); got != 1 {
		t.Errorf("the end of its attempts is of level %d, want 1: it must not wait for a primary that is down", got)
	}
}

// What is new is proposed when all who must apply it can.
func TestAdmit(t *testing.T) {
	group := []Server{{ID: "a", Voter: true}, {ID: "b", Voter: true}, {ID: "c", Voter: true}, {ID: "d"}}
	for _, test := range []struct {
		name  string
		known map[string]uint32
		want  string // part of the error
	}{
		{"all are new", map[string]uint32{"a": 2, "b": 2, "c": 3, "d": 2}, ""},
		{"who asks knows itself", map[string]uint32{"b": 2, "c": 2, "d": 2}, ""},
		{"one is old", map[string]uint32{"b": 2, "c": 1}, "primary c is of a version that knows those up to 1: upgrade it first"},
		{"one was never heard of", map[string]uint32{"b": 2}, "primary c has not told its level"},
		{"one without a vote was never heard of", map[string]uint32{"b": 2, "c": 2}, ""},
		{"one without a vote is old", map[string]uint32{"b": 2, "c": 2, "d": 1}, "primary d is of a version"},
		{"an old one has left", map[string]uint32{"b": 2, "c": 2, "gone": 1}, ""},
	} {
		err := admit(2, "a", group, test.known)
		if test.want == "" && err != nil || test.want != "" && (!errors.Is(err, ErrOldPrimary) || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
}

// A group with an old primary refuses what is new, goes on with what is not, and
// takes the new once that one has been upgraded.
func TestNewCommandsWaitForOldPrimaries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		leader := c.leader()
		known := map[string]uint32{}
		for _, s := range c.stores {
			known[s.id] = 2
		}
		old := c.other(leader)
		known[old.id] = 1
		leader.levels = func() map[string]uint32 { return known }
		leader.levelOf = func(c state.Command) uint32 {
			if _, isNew := c.(state.SetStandby); isNew {
				return 2
			}
			return levelOf(c)
		}
		news := state.SetStandby{ID: "x", Standby: true}
		if _, err := leader.Propose(t.Context(), putWorker(1), news); !errors.Is(err, ErrOldPrimary) || !strings.Contains(err.Error(), old.id) {
			t.Errorf("err = %v, want one that names %s", err, old.id)
		}
		propose(t, leader, putWorker(2))
		if n := numWorkers(leader); n != 1 {
			t.Errorf("%d workers, want only the second: nothing of what is refused is done", n)
		}
		if _, err := old.Propose(t.Context(), news); !errors.Is(err, ErrNotLeader) {
			t.Errorf("err of a follower = %v, want ErrNotLeader", err)
		}
		known[old.id] = 2
		propose(t, leader, news)
	})
}

// One of an older version refuses as a leader what it does not know, and as a follower it
// stops where it meets that.
func TestOlderVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		l := c.leader()
		old := c.other(l)
		c.kill(old.id)
		c.net.Heal()
		old = c.startAs(old.id, old.id, firstLevel)
		propose(t, l, putWorker(1))
		if err := l.TransferTo(t.Context(), old.id); err != nil {
			t.Fatal(err)
		}
		if c.leader() != old {
			t.Fatal("it does not lead")
		}
		propose(t, old, putWorker(2))
		news := state.ClockJumped{Was: time.Now(), Is: time.Now().Add(time.Hour)}
		if _, err := old.Propose(t.Context(), news); !errors.Is(err, ErrOldPrimary) || !strings.Contains(err.Error(), "knows those up to 1") {
			t.Errorf("err = %v, want that it does not know this itself", err)
		}
		if err := old.TransferTo(t.Context(), l.id); err != nil {
			t.Fatal(err)
		}
		propose(t, c.leader(), news) // by mistake: it is said to be new
		time.Sleep(10 * time.Second)
		if err := old.Err(); !errors.Is(err, errNewer) {
			t.Errorf("it goes on, with the error %v", err)
		}
	})
}
