package agent_test

import (
	"strings"
	"testing"
	"time"

	"github.com/schedd/schedd/agent/runner/fakerunner"
	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
)

// A host is suspended for ten minutes, or its agent is stopped. The launch that lay in the
// buffer of its connection meanwhile is the first thing that it reads: of a run that was
// given up long ago, perhaps. It is not carried out. The next session brings what is
// wanted still.
func TestLaunchThatLayThroughASuspend(t *testing.T) {
	story(t, polite, map[string]fakerunner.Behaviour{"old": forever, "new": forever}, func(w *world) {
		w.start()
		v := w.gateway.last()
		w.wait(20 * time.Second)
		w.host.Suspend(10 * time.Minute)
		v.launch(launchOf("old"))
		w.wait(time.Minute)
		w.startsOf("old", 0)
		if w.gateway.last() == v {
			t.Fatal("the session goes on")
		}
		w.says(w.gateway.last(), "inventory")
		w.gateway.last().launch(launchOf("new"))
		w.wait(time.Second)
		w.startsOf("new", 1)
	})
}

// A pause that is shorter than what makes a session dead loses nothing.
func TestLaunchAfterAShortPause(t *testing.T) {
	story(t, polite, map[string]fakerunner.Behaviour{"r1": forever}, func(w *world) {
		w.start()
		v := w.gateway.last()
		w.wait(time.Minute)
		w.host.Suspend(20 * time.Second)
		v.launch(launchOf("r1"))
		w.wait(time.Second)
		w.says(v, "inventory", "started r1/1")
	})
}

// The host is suspended while an attempt waits for its first lease, or while it is put on
// record. Its time to start is over then, though no timer has moved.
func TestSuspendedBeforeTheStart(t *testing.T) {
	story(t, polite, map[string]fakerunner.Behaviour{"r1": forever}, func(w *world) {
		w.start()
		v := w.gateway.last()
		v.launch(leased("r1", time.Minute))
		w.wait(10 * time.Second)
		w.host.Suspend(10 * time.Minute)
		w.gateway.behave(func(m *manners) { m.lease = true })
		w.wait(30 * time.Second)
		w.startsOf("r1", 0)
		w.outcomeOf("r1", agentv1.Outcome_OUTCOME_NOT_STARTED, "had to start within 1m0s")
	})
}

// The runner is in trouble. Its worker says so and takes no attempts, and takes them again
// when that is over. What runs goes on.
func TestRunnerInTrouble(t *testing.T) {
	story(t, polite, map[string]fakerunner.Behaviour{"r1": forever, "r2": forever, "r3": forever}, func(w *world) {
		w.start()
		v := w.gateway.last()
		v.launch(launchOf("r1"))
		w.wait(time.Second)
		w.host.Ail("it does not answer")
		w.wait(time.Second)
		v.launch(launchOf("r2"))
		w.wait(time.Second)
		w.outcomeOf("r2", agentv1.Outcome_OUTCOME_REFUSED, "it does not answer")
		w.startsOf("r2", 0)
		w.host.Ail("")
		w.wait(time.Second)
		v.launch(launchOf("r3"))
		w.wait(time.Second)
		w.startsOf("r3", 1)
		var told []string
		for _, m := range v.words() {
			if i := m.GetInventory(); i != nil {
				told = append(told, i.GetTrouble())
			}
		}
		if got := strings.Join(told, ","); got != ",it does not answer," {
			t.Errorf("told of the trouble %q", got)
		}
		if left := w.host.Running(); len(left) != 2 {
			t.Errorf("%q runs", left)
		}
	})
}
