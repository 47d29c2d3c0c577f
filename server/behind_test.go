package server

import (
	"strings"
	"testing"
	"time"
)

// A primary that is in no group says why, and not that it is on its way.
func TestNotReadyWithoutAGroup(t *testing.T) {
	c := localConfig(t)
	c.Cluster.Join = "127.0.0.1:1" // nobody is there
	s := start(t, c)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if strings.Contains(s.unready(), "start one of them with --bootstrap-expect") {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	t.Errorf("not ready, since %q", s.unready())
}
