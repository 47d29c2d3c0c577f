package systest

import (
	"bytes"
	"testing"
	"time"

	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// A copy of a worker connects before the leader has heard what the worker has started, and
// nothing of that is known to it. So it starts all of it as well, which is why that is
// excused.
func TestTwinsBothStart(t *testing.T) {
	for name, does := range map[string]script{"ends at once": exits(75), "talks": talker(20*time.Second, time.Second)} {
		t.Run(name, func(t *testing.T) {
			story(t, func(w *world) {
				k := shop(w)
				k.end()
				clone := k.clone("clone")
				k.start()
				w.awaitOnline()
				w.does("j", does)
				w.define(job("j"))
				w.net.mute(way{k.name, "primary-1"})
				r := w.run("j")
				w.wait(2 * time.Second)
				clone.start()
				w.wait(time.Minute)
				starts := w.book.of(attemptID(r, w.get(r.GetId()).GetAttempts()[0]))
				if !w.byTwins(starts) {
					w.Errorf("it was started %d times, want once by the worker and once by its copy: %+v", len(starts), starts)
				}
				w.net.free(func(way) bool { return true })
				w.check()
			})
		})
	}
}

// lessEachTime prints less each time that it is started.
func lessEachTime() script {
	size := 300_000
	return func(runner.Spec) fakerunner.Behaviour {
		size /= 10
		return fakerunner.Behaviour{Duration: time.Second, Output: []fakerunner.Chunk{{Data: bytes.Repeat([]byte("x"), size)}}}
	}
}

// Twins that both started an attempt printed different things, and the one that is heard
// first has printed less. What the other one has is never taken, and it is told so: it does
// not ask for ever, and keeps nothing in its spool.
func TestTwinsSayDifferentThings(t *testing.T) {
	story(t, func(w *world) {
		k := shop(w)
		k.end()
		clone := k.clone("clone")
		k.start()
		w.awaitOnline()
		w.does("j", lessEachTime())
		w.define(job("j"))
		w.net.mute(way{k.name, "primary-1"})
		r := w.run("j")
		w.wait(2 * time.Second)
		clone.start()
		w.wait(time.Minute)
		w.net.free(func(way) bool { return true })
		clone.end()
		w.wait(time.Minute)
		if left := k.spooled(); len(left) > 0 {
			w.Errorf("a minute after it is heard %s keeps %q", k.name, left)
		}
		if log, _ := w.readLog(&schedv1.ReadLogRequest{RunId: r.GetId()}); len(log) != 3000 {
			w.Errorf("the log has %d bytes, want the 3000 of who was heard first", len(log))
		}
		w.check()
	})
}
