package systest

import (
	"testing"
	"time"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// Two of three primaries are gone. Nothing is decided then, nothing begins and nothing is
// acknowledged, however long that takes; but nothing is given up either: what runs goes on,
// and its output waits on the worker's disk. With one of the two back all is caught up with.
func TestWithoutAMajority(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		k := w.startWorker("shop-1", nil, 50)
		w.awaitOnline()
		w.does("long", talker(10*time.Minute, time.Second))
		w.define(job("long"))
		long := w.run("long")
		w.awaitPhase(long.GetId(), time.Minute, schedv1.Phase_PHASE_RUNNING)
		w.takes("j", 5*time.Second)
		w.define(job("j", every(10*time.Second), policy(&schedv1.Policy{
			Overlap: schedv1.Overlap_OVERLAP_ALLOW, CatchUp: schedv1.CatchUp_CATCH_UP_ALL,
		})))
		w.wait(time.Minute)

		left, gone := w.group[2], w.group[:2]
		for _, m := range gone {
			m.kill()
		}
		w.wait(5 * time.Second) // for what was on its way to the worker
		begun := len(w.book.attempts())
		w.wait(6 * time.Minute)
		if r, err := left.own.jobs.RunJob(w.Context(), &schedv1.RunJobRequest{Name: "long"}); err == nil {
			w.Errorf("%s acknowledged %v by itself", left.id, r)
		}
		if n := len(w.book.attempts()); n != begun {
			w.Errorf("%d attempts began without a majority", n-begun)
		}
		if len(k.spooled()) == 0 {
			w.Errorf("the worker keeps nothing of what it ran")
		}

		gone[0].start()
		back := time.Now()
		w.awaitLeader()
		w.awaitOnline()
		w.ended(w.awaitPhase(long.GetId(), 10*time.Minute, schedv1.Phase_PHASE_SUCCEEDED), schedv1.Phase_PHASE_SUCCEEDED, succeeded)
		gone[1].start()
		w.settle(time.Hour)
		w.checkEverywhere()
		runs := w.runsOf("j")
		w.all(runs, schedv1.Phase_PHASE_SUCCEEDED)
		late := 0
		for _, r := range runs {
			if r.GetNominalTime().AsTime().Before(back) && r.GetCreatedTime().AsTime().After(back) {
				late++
			}
		}
		if late < 30 { // one each ten seconds
			w.Errorf("%d runs were caught up with", late)
		}
	})
}
