package systest

import (
	"fmt"
	"testing"
	"time"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// entriesBeforeSnapshot is after how many entries of its log a primary has taken
// a snapshot, some minutes later.
const entriesBeforeSnapshot = 16_400

// A primary has been up for so long that it begins from a snapshot when it is
// killed and stopped. It knows everything as before: what runs, what waits, what
// is paused, was redefined, deleted or is still to be tried again.
func TestRestartFromSnapshot(t *testing.T) {
	story(t, func(w *world) {
		k := shop(w)
		w.takes("long", 2*time.Hour)
		w.define(job("long"))
		w.define(job("often", every(20*time.Second)))
		w.define(job("twice", cron("*/3 * * * *", "Europe/Berlin"), at(time.Now().Add(3*time.Hour))))
		w.define(job("homeless", selector("gpu"), every(10*time.Minute), policy(&schedv1.Policy{Overlap: schedv1.Overlap_OVERLAP_QUEUE, QueueTimeout: seconds(86400)})))
		w.define(job("paused", cron("* * * * *", "")))
		w.define(job("deleted", every(30*time.Second)))
		long := w.run("long")
		w.wait(10 * time.Minute)
		w.deleteJob("deleted")
		w.define(job("often", every(15*time.Second)))
		for i := 0; w.applied() < entriesBeforeSnapshot; i++ {
			w.pause("paused", fmt.Sprint("for the ", i, "th time"), nil)
		}
		w.wait(10 * time.Minute)
		before := w.runs("")

		w.restart(time.Second)
		w.awaitOnline()
		after := map[string]schedv1.Phase{}
		for _, r := range w.runs("") {
			after[r.GetId()] = r.GetPhase()
		}
		for _, r := range before {
			if is, ok := after[r.GetId()]; !ok || is < r.GetPhase() {
				w.Errorf("run %s of %s was %v, and is %v", r.GetId(), r.GetJob(), r.GetPhase(), is)
			}
		}
		w.wait(10 * time.Minute)
		w.stopPrimary()
		w.startPrimary()
		w.awaitOnline()
		w.ended(w.get(long.GetId()), phaseRunning, 0)
		w.startWorker("strong", map[string]string{"gpu": ""}, 4)
		if w.wait(time.Minute); len(k.host.Running()) == 0 {
			w.Error("the long run does not go on")
		}
		w.check()
		w.ended(w.get(long.GetId()), phaseSucceeded, succeeded)
	})
}

// applied returns how many entries of its log the primary has applied.
func (w *world) applied() uint64 {
	w.Helper()
	return must[*schedv1.GetStatusResponse](w)(w.primary.clusters.GetStatus(w.Context(), &schedv1.GetStatusRequest{})).GetStatus().GetAppliedIndex()
}
