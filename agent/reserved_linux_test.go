package agent_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/schedd/schedd/agent/runner/fakerunner"
	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
)

// second launches r2 in the file of r1, which has printed nothing, and waits for less than
// it takes to be looked at.
func (w *world) second() {
	w.Helper()
	w.gateway.last().launch(launchOf("r1"))
	w.wait(10 * time.Second)
	w.gateway.last().launch(launchOf("r2"))
	w.wait(100 * time.Millisecond)
	if named, _ := filepath.Glob(filepath.Join(w.dir, "spool", "*")); len(named) > 0 {
		w.Errorf("in the spool: %q; want it to have the file of the one before", named)
	}
}

// quietThen is a script of r1, which prints nothing, and of r2.
func quietThen(second fakerunner.Behaviour) map[string]fakerunner.Behaviour {
	return map[string]fakerunner.Behaviour{"r1": {Duration: time.Second}, "r2": second}
}

// The agent dies, or is stopped, before it has looked at what a process has printed into a
// file that was another one's before. The next one has all of it.
func TestOutputInAFileThatWasAnothers(t *testing.T) {
	output := text(30_000)
	for name, goOn := range map[string]func(*world) (dir string){
		"it dies":       func(w *world) string { dir := w.image(); w.startIn(dir, w.boot); return dir },
		"it is stopped": func(w *world) string { w.workers[0].end(); w.start(); return w.dir },
	} {
		t.Run(name, func(t *testing.T) {
			story(t, polite, quietThen(minutes(output)), func(w *world) {
				w.start()
				w.second()
				dir := goOn(w)
				found, _ := filepath.Glob(filepath.Join(dir, "spool", "r2.1.*.log"))
				if len(found) != 1 {
					t.Fatalf("the next agent has %q", found)
				}
				if got, err := os.ReadFile(found[0]); string(got) != string(output[:10_000]) { // the rest follows
					t.Errorf("the next agent has %d bytes: %v", len(got), err)
				}
				w.wait(4 * time.Minute)
				w.outcomeOf("r2", agentv1.Outcome_OUTCOME_FAILED, "")
				if got := w.gateway.log("r2"); got != string(output) {
					t.Errorf("%d of %d bytes of the log arrived", len(got), len(output))
				}
				w.startsOf("r2", 1)
			})
		})
	}
}

// What an agent leaves is found by one of a former version as well, which knows nothing
// of files that were reserved.
func TestStoppedAgentNamesLogs(t *testing.T) {
	story(t, polite, quietThen(minutes(nil)), func(w *world) {
		one := w.start()
		w.second()
		one.end()
		if named, _ := filepath.Glob(filepath.Join(w.dir, "spool", "r2.1.*.log")); len(named) != 1 {
			t.Errorf("of r2 there is %q", named)
		}
		w.start()
		w.wait(4 * time.Minute)
		w.nothingLeft()
	})
}

// The agent dies before the leader has the result of one that has printed nothing. Its
// file is nobody's then, whoever else has it.
func TestFileOfOneThatHasEnded(t *testing.T) {
	output := text(30_000)
	story(t, manners{}, quietThen(minutes(output)), func(w *world) {
		w.start()
		w.gateway.last().launch(launchOf("r1"))
		w.wait(10 * time.Second)
		w.gateway.behave(func(m *manners) { *m = polite })
		w.startIn(w.image(), w.boot)
		w.wait(time.Minute)
		w.outcomeOf("r1", agentv1.Outcome_OUTCOME_SUCCEEDED, "")
		w.gateway.last().launch(launchOf("r2"))
		w.wait(4 * time.Minute)
		if got := w.gateway.log("r2"); got != string(output) {
			t.Errorf("%d of %d bytes of the log arrived", len(got), len(output))
		}
	})
}
