package agent_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/schedd/schedd/agent/runner/fakerunner"
)

// Of a process that is over soon the operator is told in one line, and of one that goes on
// when it was launched, too; each with the number of its process.
func TestLogTellsOfShortRunsOnce(t *testing.T) {
	script := map[string]fakerunner.Behaviour{"short": {Duration: 20 * time.Millisecond}, "long": {Duration: 10 * time.Second}}
	story(t, polite, script, func(w *world) {
		w.start()
		for _, run := range []string{"short", "long"} {
			w.gateway.last().launch(launchOf(run))
		}
		w.wait(time.Minute)
		for run, want := range map[string][]string{"short": {"finished"}, "long": {"launched", "finished"}} {
			var told []string
			for line := range strings.Lines(w.workers[0].log.String()) {
				if !strings.Contains(line, "level=INFO") || !strings.Contains(line, "run="+run) {
					continue
				}
				_, rest, _ := strings.Cut(line, "msg=")
				what, rest, _ := strings.Cut(rest, " ")
				told = append(told, what)
				if !strings.Contains(rest, " pid=") || strings.Contains(rest, " pid=0") {
					t.Errorf("no number of a process: %s", line)
				}
			}
			if !slices.Equal(told, want) {
				t.Errorf("of the %s one it tells %q, want %q", run, told, want)
			}
		}
	})
}
