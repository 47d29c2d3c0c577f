package agent_test

import (
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/schedd/schedd/agent"
	"github.com/schedd/schedd/agent/runner/fakerunner"
	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
)

// hanging has the disk of workers that start from now on take no fsync until the story
// ends what hang begins.
func (w *world) hanging() (hang func() (answer func())) {
	var hung atomic.Pointer[chan struct{}]
	w.change = func(_ *agent.Config, s *agent.Seams) {
		s.Fsync = func(f *os.File) error {
			if answers := hung.Load(); answers != nil {
				<-*answers
			}
			return f.Sync()
		}
	}
	return func() func() {
		answers := make(chan struct{})
		hung.Store(&answers)
		return func() {
			hung.Store(nil)
			close(answers)
		}
	}
}

// The disk hangs while the end of a log is put on it, and whoever reads that log waits. The
// session goes on, so do those that follow it, and what is killed ends.
func TestSessionsGoOnWhileTheDiskHangs(t *testing.T) {
	output := text(300_000)
	script := map[string]fakerunner.Behaviour{"r2": forever, "r1": {Duration: 20 * time.Second, Output: []fakerunner.Chunk{
		{Data: output[:299_000]}, {After: 19 * time.Second, Data: output[299_000:]},
	}}}
	story(t, manners{ackResults: true}, script, func(w *world) {
		hang := w.hanging()
		w.start()
		for _, run := range []string{"r1", "r2"} {
			w.gateway.last().launch(launchOf(run))
		}
		w.wait(10 * time.Second) // the gateway has kept nothing of the log
		answer := hang()
		w.wait(time.Minute)
		w.gateway.behave(func(m *manners) { m.ackLogs = true })
		for range 3 {
			w.gateway.last().hangUp()
			w.wait(5 * time.Minute) // some pings of each, and what they find to ship
		}
		if n, over := len(w.gateway.visits()), w.gateway.last().over(); n != 4 || !over.IsZero() {
			t.Errorf("the worker has come %d times, and was last heard until %v; want 4, and that it is there", n, over)
		}
		w.gateway.last().kill(launchOf("r2"), 0)
		w.wait(time.Second)
		if all := w.host.Running(); len(all) > 0 {
			t.Errorf("a second after it was killed %v runs", all)
		}
		answer()
		w.wait(time.Minute)
		w.outcomeOf("r1", agentv1.Outcome_OUTCOME_SUCCEEDED, "")
		w.outcomeOf("r2", agentv1.Outcome_OUTCOME_KILLED, "somebody asked")
		if got := w.gateway.log("r1"); got != string(output) {
			t.Errorf("%d of %d bytes of the log arrived", len(got), len(output))
		}
	})
}
