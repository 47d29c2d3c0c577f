package systest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/server"
)

// A job that may run beside itself fires each second, and somebody asks for another one in a
// loop, while no worker is there: only so many wait, on all primaries, also after the leader was
// killed. What is too much is skipped or refused, and told; another job has room. When a worker
// comes all that waits runs, and what comes due is a run again.
func TestNobodyFillsTheMemory(t *testing.T) {
	story(t, func(w *world) {
		w.settings = func(c *server.Config) { c.Active.Runs, c.Active.RunsPerJob = 40, 30 }
		w.startGroup(3)
		allow := policy(&schedv1.Policy{Overlap: schedv1.Overlap_OVERLAP_ALLOW})
		w.define(job("each-second", every(time.Second), allow))
		w.define(job("by-hand", allow))
		w.define(job("other", every(time.Minute), allow))
		w.wait(2 * time.Minute)
		w.awaitLeader().kill()
		w.wait(2 * time.Minute)
		var refused error
		for i := range 50 {
			if _, err := w.primary.jobs.RunJob(w.Context(), &schedv1.RunJobRequest{Name: "by-hand", RequestId: fmt.Sprint(i)}); err != nil {
				refused = err
			}
		}
		if status.Code(refused) != codes.ResourceExhausted || !strings.Contains(status.Convert(refused).Message(), "--active-runs") {
			w.Errorf("the last that was asked for: %v, want RESOURCE_EXHAUSTED, and what to do", refused)
		}
		waiting := len(w.runs("phase=PHASE_PENDING"))
		if waiting != 40 || len(w.runs("job=each-second,phase=PHASE_PENDING")) != 30 {
			w.Errorf("%d wait in all, and %d of the job that fires each second; want 40 and 30", waiting, len(w.runs("job=each-second,phase=PHASE_PENDING")))
		}
		skipped := w.runs("job=each-second,phase=PHASE_SKIPPED")
		if len(skipped) == 0 || !strings.Contains(skipped[0].GetReason(), "30 runs of the job have not ended") {
			w.Errorf("%d were skipped, the last for %v", len(skipped), skipped)
		}
		if n := len(w.runs("job=other,phase=PHASE_PENDING")); n < 3 {
			w.Errorf("%d runs of the other job wait, want one of each minute", n)
		}
		w.startWorker("shop-1", nil, 100)
		w.awaitOnline()
		w.wait(time.Minute)
		if n := len(w.runs("phase=PHASE_PENDING")); n > 2 {
			w.Errorf("%d wait although there is a worker", n)
		}
		if last := w.runs("job=each-second"); last[len(last)-1].GetPhase() == phaseSkipped {
			w.Errorf("with room again the latest is skipped: %s", last[len(last)-1].GetReason())
		}
	})
}
