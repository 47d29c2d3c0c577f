package agent

import (
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/schedd/schedd/agent/runner/fakerunner"
	"github.com/schedd/schedd/agent/spool"
	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
)

// roomy is a disk with half of its blocks left, of which anybody has as many as it is told.
func roomy(forAnybody *atomic.Int64) spool.Disk {
	return spool.Disk{Statfs: func(_ string, st *unix.Statfs_t) error {
		st.Bsize, st.Blocks, st.Bfree = 4096, 1<<20, 1<<19
		st.Bavail = uint64(forAnybody.Load())
		return nil
	}}
}

// All that is left of the disk is kept for root. A job that is not root can write nothing,
// and its worker says so, whoever the worker is.
func TestOnlyRootHasRoom(t *testing.T) {
	var room atomic.Int64
	room.Store(1 << 18)
	inTableOn(t, roomy(&room), func(t *testing.T, tb *table, _ *disk, host *fakerunner.Fake) {
		tb.Handle(launchMessage("r1"))
		time.Sleep(time.Second)
		room.Store(0)
		time.Sleep(pollMost)
		synctest.Wait()
		tb.Handle(launchMessage("r2"))
		synctest.Wait()
		if why := tb.Trouble(); !strings.Contains(why, errFull.Error()) || host.Starts("r2/1") != 0 {
			t.Errorf("its trouble is %q, and r2 was started %d times", why, host.Starts("r2/1"))
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if r := resultOf(tb, "r1"); r.GetOutcome() != agentv1.Outcome_OUTCOME_SUCCEEDED || !strings.Contains(r.GetReason(), fullReason) {
			t.Errorf("the result of what ran: %v", r)
		}
		room.Store(1 << 18)
		time.Sleep(2 * troubleAgain)
		synctest.Wait()
		if why := tb.Trouble(); why != "" {
			t.Errorf("with room its trouble is %q", why)
		}
	})
}

// The disk is full for a moment in which one of the attempts is looked at, or is to start,
// and no other. The results of all that ran then say so, and no later one's does. A moment
// in which nobody looks is not noticed.
func TestFullBetweenLooks(t *testing.T) {
	var room atomic.Int64
	room.Store(1 << 18)
	inTableOn(t, roomy(&room), func(t *testing.T, tb *table, _ *disk, _ *fakerunner.Fake) {
		tb.Handle(launchMessage("r1"))
		time.Sleep(10*time.Second + pollMost/2) // it is looked at each second
		room.Store(0)
		tb.Handle(launchMessage("r2"))
		synctest.Wait()
		room.Store(1 << 18)
		time.Sleep(2 * troubleAgain)
		synctest.Wait()
		tb.Handle(launchMessage("r3"))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		seen := tb.fulls.Load()
		room.Store(0)
		time.Sleep(pollFlood)
		room.Store(1 << 18)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if r := resultOf(tb, "r2"); r.GetOutcome() != agentv1.Outcome_OUTCOME_REFUSED {
			t.Errorf("r2 was to start without room: %v", r)
		}
		if n := tb.fulls.Load() - seen; n != 0 {
			t.Errorf("the moment that was to be between two looks was seen by %d", n)
		}
		for run, want := range map[string]bool{"r1": true, "r3": false} {
			r := resultOf(tb, run)
			if got := strings.Contains(r.GetReason(), fullReason); got != want || r.GetOutcome() != agentv1.Outcome_OUTCOME_SUCCEEDED {
				t.Errorf("that output of %s may be missing is told: %v, want %v; %v", run, got, want, r)
			}
		}
	})
}
