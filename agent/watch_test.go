package agent

import (
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/schedd/schedd/agent/runner/fakerunner"
	"github.com/schedd/schedd/agent/session"
	"github.com/schedd/schedd/agent/spool"
	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
)

// A log that is long by the first look is seen at that, and while it goes on to grow fast it
// is looked at often.
func TestFloodIsSeenSoon(t *testing.T) {
	inTable(t, func(t *testing.T, tb *table, _ *disk, _ *fakerunner.Fake) {
		k, path := startFlood(tb)
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

// startFlood starts an attempt, and returns where its process would write half a gigabyte.
func startFlood(tb *table) (k session.Key, path string) {
	launch, k := launchMessage("r1"), session.Key{Run: "r1", Attempt: 1}
	launch.GetLaunch().LogLimitBytes = 512 << 20
	tb.Handle(launch)
	synctest.Wait()
	tb.mu.Lock()
	defer tb.mu.Unlock()
	return k, tb.attempts[k].log.Path()
}

// A disk that does not take output holds up neither a kill nor what reads it.
func TestDiskThatTakesNoOutput(t *testing.T) {
	var answers chan struct{}
	hangs := func(*os.File, int64, int64, bool) error { <-answers; return nil }
	inTableOn(t, spool.Disk{WriteOut: hangs}, func(t *testing.T, tb *table, _ *disk, host *fakerunner.Fake) {
		answers = make(chan struct{}) // in the bubble
		k, path := startFlood(tb)
		if err := os.Truncate(path, 8<<20); err != nil {
			t.Fatal(err)
		}
		time.Sleep(tellAfter)
		synctest.Wait()
		if n, err := tb.ReadLog(k, 0, make([]byte, 1000)); n != 1000 || err != nil {
			t.Errorf("%d bytes were read, %v, want 1000", n, err)
		}
		tb.Handle(killMessage("r1"))
		time.Sleep(time.Second)
		synctest.Wait()
		if all := host.Running(); len(all) > 0 {
			t.Errorf("a second after it was killed %v runs", all)
		}
		close(answers)
	})
}

// A disk that hangs when the first output is put on record holds up no kill: not of the
// attempt whose output that is, and not of another. The results wait for the disk.
func TestDiskThatKeepsNoRecordOfOutput(t *testing.T) {
	var answers chan struct{}
	hangs := func(*os.File) error { <-answers; return nil }
	inTableOn(t, spool.Disk{Fsync: hangs}, func(t *testing.T, tb *table, _ *disk, host *fakerunner.Fake) {
		answers = make(chan struct{}) // in the bubble
		for _, run := range []string{"r1", "r2"} {
			tb.Handle(launchMessage(run))
		}
		time.Sleep(2 * pollMost)
		synctest.Wait()
		for _, run := range []string{"r1", "r2"} {
			if size, _ := tb.LogSize(session.Key{Run: run, Attempt: 1}); size != 0 {
				t.Fatalf("%d bytes of %s are told, of which the disk keeps no record", size, run)
			}
			tb.Handle(killMessage(run))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if all := host.Running(); len(all) > 0 {
			t.Errorf("a second after they were killed %v run", all)
		}
		close(answers)
		synctest.Wait()
		for _, run := range []string{"r1", "r2"} {
			if r := resultOf(tb, run); r.GetOutcome() != agentv1.Outcome_OUTCOME_KILLED || r.GetLogBytes() != int64(len("hello")) {
				t.Errorf("result of %s once the disk answers: %v", run, r)
			}
		}
	})
}

// killMessage has an attempt of [launchMessage] killed, without grace.
func killMessage(run string) *agentv1.GatewayMessage {
	return &agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Kill{Kill: &agentv1.Kill{
		Key: &agentv1.AttemptKey{RunId: run, Attempt: 1}, Fence: 9,
	}}}
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
