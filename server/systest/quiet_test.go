package systest

import (
	"strings"
	"testing"
	"time"

	"github.com/schedd/schedd/server"
)

// A primary that can have no others, as that of schedd dev, one that is alone, and a
// group in which nothing happens have nothing to complain of.
func TestNothingToComplainOf(t *testing.T) {
	for name, begin := range map[string]func(w *world){
		"alone for ever": func(w *world) {
			w.settings = func(c *server.Config) { c.Cluster.Addr = "" }
			w.startPrimary()
		},
		"alone":   func(w *world) { w.startPrimary() },
		"a group": func(w *world) { w.startGroup(3) },
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(w *world) {
				begin(w)
				w.startWorker("shop-1", nil, 4)
				w.awaitOnline()
				w.wait(10 * time.Second)
				before := len(w.tail.after(0))
				w.define(job("j", every(10*time.Second)))
				w.wait(10 * time.Minute)
				for _, line := range w.tail.after(before) {
					if strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") {
						w.Errorf("all is well, and it says %s", line)
					}
				}
				w.check()
			})
		})
	}
}
