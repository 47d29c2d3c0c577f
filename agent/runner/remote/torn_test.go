package remote_test

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/schedd/schedd/agent/runner/fakerunner"
)

// tear takes the last bytes of a journal, and the room behind them.
func (h *host) tear(name string) {
	h.Helper()
	data, err := os.ReadFile(name)
	if err == nil {
		err = os.Truncate(name, int64(len(bytes.TrimRight(data, "\x00")))-h.torn)
	}
	if err != nil {
		h.Fatal(err)
	}
}

// The runner is killed amid a write to its journal. Of a start that is torn the agent knows,
// and names what ran to the next runner, which ends what is left of it. How an attempt ended
// that is torn is lost: it is interrupted, and not made up.
func TestRunnersJournalIsTorn(t *testing.T) {
	does := map[string]fakerunner.Behaviour{"a/1": {Duration: -1}, "b/1": {Duration: 10 * time.Second, ExitCode: 4}}
	for _, torn := range []int64{1, 5, 20} {
		t.Run(fmt.Sprint("a start, by ", torn), func(t *testing.T) {
			story(t, does, func(h *host) {
				r := h.agent()
				a := h.start(r, "a/1")
				h.wait(time.Minute)
				h.torn = torn
				h.kill()
				h.wait(30 * time.Second)
				if e := a.Exit(); !e.Interrupted || e.Reason != "the worker's runner died while it ran" {
					t.Errorf("it ended as %+v", e)
				}
				if got := h.present().fake.Swept("a/1"); !slices.Equal(got, marks("a/1")) {
					t.Errorf("its successor looked for %q", got)
				}
				r.Close()
			})
		})
		t.Run(fmt.Sprint("an end, by ", torn), func(t *testing.T) {
			story(t, does, func(h *host) {
				r := h.agent()
				h.start(r, "a/1")
				h.start(r, "b/1")
				r.Close()
				h.wait(time.Minute)
				h.torn = torn
				h.kill()
				r = h.agent()
				h.wait(30 * time.Second)
				for _, id := range []string{"a/1", "b/1"} {
					if e := r.Known()[id].Exit(); !e.Interrupted || e.Code != 0 || !strings.HasPrefix(e.Reason, "the worker's runner died while it ran") {
						t.Errorf("%s ended as %+v", id, e)
					}
				}
				if got := h.present().fake.Swept("a/1"); !slices.Equal(got, marks("a/1")) {
					t.Errorf("the next runner looked for %q", got)
				}
				r.Close()
			})
		})
	}
}
