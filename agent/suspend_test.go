package agent_test

import (
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
