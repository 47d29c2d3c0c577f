package replica

import (
	"testing"
)

// What is acknowledged can be read on any primary, while any one of them is
// down.
func TestReadWhileAnyIsDown(t *testing.T) {
	story(t, 3, func(t *testing.T, w *world) {
		k := key(1)
		w.write("a", k, 0, 1000)
		for _, down := range w.members {
			w.kill(down)
			for _, id := range w.members {
				if id != down {
					w.check(id, k, 1000)
				}
			}
			w.start(down)
		}
	})
}
