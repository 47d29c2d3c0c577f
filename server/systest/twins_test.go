package systest

import (
	"testing"
	"time"
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
