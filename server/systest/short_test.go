package systest

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/schedd/schedd/agent/runner"
	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/server"
)

// each adds a job that is due so often, and does something.
func (w *world) each(name string, interval time.Duration, does script, p *schedv1.Policy, parts ...func(*schedv1.Job)) {
	w.Helper()
	w.does(name, does)
	w.define(job(name, append(parts, every(interval), policy(p))...))
}

// pass lets minutes pass, and looks each minute at what has ended.
func (w *world) pass(minutes int) {
	w.Helper()
	for range minutes {
		w.wait(time.Minute)
		w.finality()
	}
}

// A small world in which each promise is put to the test once or twice, within half an
// hour of its time, and without dice: .ci/mutants breaks them, and sees that each check of
// the simulation notices.
func TestShortWorld(t *testing.T) {
	story(t, func(w *world) {
		w.settings = func(c *server.Config) { // so that most of what has ended is in histories only
			c.Hot.RunsPerJob, c.Hot.RunAge = 5, 10*time.Minute
		}
		w.startGroup(3)
		lone := w.startWorker("lone", map[string]string{"zone": "lone"}, 8)
		w.awaitOnline()
		w.takes("lost", time.Hour)
		w.define(job("lost", policy(&schedv1.Policy{OnLost: onLostRetry, LostAfter: seconds(60)})))
		w.does("leased", deafForEver)
		w.define(job("leased", policy(&schedv1.Policy{KillAfter: seconds(30), KillGrace: seconds(5), LostAfter: seconds(60), OnLost: onLostRetry})))
		w.define(job("given-up", policy(&schedv1.Policy{LostAfter: seconds(60)})))
		w.takes("given-up", 4*time.Minute)
		w.define(job("unheard", policy(&schedv1.Policy{LostAfter: seconds(60)})))
		w.takes("unheard", 4*time.Minute)
		for _, name := range []string{"lost", "leased", "given-up", "unheard"} {
			w.run(name)
		}
		w.startWorker("shop-1", nil, 20)
		w.startWorker("shop-2", nil, 20)
		w.awaitOnline()
		w.manyJobs()
		w.checkHealed() // there is nothing to heal, and each primary is asked for the first time
		young := w.goroutines()
		people := w.watchWrites(rand.New(rand.NewPCG(1, 0)), 4)

		w.shortLife(lone)
		w.mend()
		w.checkHealed()
		w.finality() // with what came late, which is to stay
		w.calm()
		people.check()
		w.endless()
		w.settle(time.Hour)
		w.askAgain()
		w.finality()
		w.checkEverywhere()
		w.checkGoroutines(young)
	})
}

// manyJobs puts one job for each thing that a policy can ask for.
func (w *world) manyJobs() {
	w.Helper()
	again := &schedv1.Retry{MaxAttempts: 3, InitialDelay: seconds(5), ExitCodes: []int32{75}}
	w.each("skip", 20*time.Second, talker(30*time.Second, time.Second), &schedv1.Policy{})
	w.each("queue", 30*time.Second, talker(25*time.Second, 5*time.Second), &schedv1.Policy{Overlap: overlapQueue})
	w.each("replace", 40*time.Second, talker(time.Minute, 10*time.Second), &schedv1.Policy{Overlap: overlapReplace})
	w.each("again", time.Minute, exits(75), &schedv1.Policy{Retry: again})
	w.each("once", time.Minute, exits(1), &schedv1.Policy{Overlap: schedv1.Overlap_OVERLAP_ALLOW, Retry: again})
	w.each("slow", time.Minute, deafForEver, &schedv1.Policy{Timeout: seconds(20), KillGrace: seconds(5)})
	w.each("long", 5*time.Minute, talker(time.Hour, time.Minute), &schedv1.Policy{TotalTimeout: seconds(90)})
	w.each("nowhere", 5*time.Minute, exits(0), &schedv1.Policy{QueueTimeout: seconds(90)}, selector("zone=mars"))
	w.each("paused", 10*time.Second, exits(0), &schedv1.Policy{})
	w.each("gone", 30*time.Second, exits(0), &schedv1.Policy{})
	w.each("held", 2*time.Minute, talker(10*time.Second, time.Second), &schedv1.Policy{Retry: again})
	w.define(job("hurried", policy(&schedv1.Policy{StartWithin: seconds(5)})))
	w.takes("turns", 5*time.Second)
	w.define(job("turns", policy(&schedv1.Policy{Overlap: overlapQueue})))
	w.hold(func(s runner.Spec) {
		switch env(s, "SCHEDD_JOB") {
		case "held":
			time.Sleep(25 * time.Second) // so that it is told to start more than once
		case "hurried":
			time.Sleep(time.Minute) // so that it is too late, by all that may delay an order
		}
	})
}

// shortLife is what happens in the small world.
func (w *world) shortLife(lone *worker) {
	w.Helper()
	w.pause("paused", "", nil)
	lone.link.cut()
	w.cancel(w.only("unheard").GetId()) // which its worker does not hear
	w.pass(1)
	w.run("hurried")
	for range 5 { // of which the last ones still wait when all is mended
		w.run("queue")
	}
	w.cancel(w.run("replace").GetId())
	w.pass(1)
	running := w.runs("job=skip,active=true")
	if len(running) == 0 {
		w.wait(20 * time.Second)
		running = w.runs("job=skip,active=true")
	}
	if len(running) == 0 {
		w.Fatal("nothing runs of a job that is due all the time")
	}
	w.cancel(running[0].GetId())
	m := w.awaitLeader()
	m.kill()
	w.pass(1)
	m.start()
	w.wait(20 * time.Second)
	f := w.follower()
	f.isolate(true)
	back := w.ask(w.awaitLeader())
	w.pass(2)
	back()
	f.isolate(false)
	w.workers[1].crash()
	w.wait(5 * time.Second)
	w.workers[1].start()
	w.changes()
	w.pass(1)
	for range 3 {
		w.run("turns") // of which two have to wait for the others
	}
	w.pass(1)
	w.empty(w.follower()) // which is to be back, with a vote, when all was mended
}

// changes is what people do in the small world to jobs, and to what has ended.
func (w *world) changes() {
	w.Helper()
	w.deleteJob("gone")
	w.define(job("paused", every(10*time.Second), func(j *schedv1.Job) { j.Description = "changed while it was paused" }))
	w.checkJobs(w.jobs())
	w.resume("paused")
	w.checkJobs(w.jobs())
	must[*schedv1.Run](w)(w.retryRun(w.runs("job=once,phase=PHASE_FAILED")[0].GetId(), ""))
}
