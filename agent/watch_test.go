package agent

import (
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/schedd/schedd/agent/runner/fakerunner"
	"github.com/schedd/schedd/agent/session"
)

// A log that is long by the first look is seen at that, and while it goes on to grow fast it
// is looked at often.
func TestFloodIsSeenSoon(t *testing.T) {
	inTable(t, func(t *testing.T, tb *table, _ *disk, _ *fakerunner.Fake) {
		launch, k := launchMessage("r1"), session.Key{Run: "r1", Attempt: 1}
		launch.GetLaunch().LogLimitBytes = 512 << 20
		tb.Handle(launch)
		synctest.Wait()
		tb.mu.Lock()
		path := tb.attempts[k].log.Path()
		tb.mu.Unlock()
		for i, step := range []struct {
			size   int64
			within time.Duration
		}{
			{8 << 20, tellAfter},
			{48 << 20, pollLeast / 2}, // it has grown by twice pollEach
			{88 << 20, pollFlood},
			{128 << 20, pollFlood},
		} {
			if err := os.Truncate(path, step.size); err != nil {
				t.Fatal(err)
			}
			time.Sleep(step.within)
			synctest.Wait()
			if size, _ := tb.LogSize(k); size != step.size {
				t.Errorf("%d: %d bytes are seen after %v, want %d", i, size, step.within, step.size)
			}
		}
	})
}

// A log that grows slowly is looked at each pollLeast, and one that does not grow less and
// less often.
func TestNextLook(t *testing.T) {
	for _, test := range []struct {
		pause time.Duration
		grown int64
		want  time.Duration
	}{
		{pollLeast, 0, 2 * pollLeast},
		{pollMost, 0, pollMost},
		{pollMost, 1, pollLeast},
		{pollLeast, 1, pollLeast},
		{pollLeast, 2 * pollEach, pollLeast / 2},
		{pollLeast, 1 << 50, pollFlood},
		{pollFlood, pollEach, pollFlood},
		{pollFlood, 1, pollLeast},
	} {
		if got := nextLook(test.pause, test.grown); got != test.want {
			t.Errorf("%d bytes in %v: %v, want %v", test.grown, test.pause, got, test.want)
		}
	}
}
