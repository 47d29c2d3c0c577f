package agent

import (
	"math"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/schedd/schedd/agent/journal"
	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
)

// far is as long as a message can say.
var far = &durationpb.Duration{Seconds: math.MaxInt64, Nanos: math.MaxInt32}

// A primary that was taken over asks for times beyond all that a job may have. Its worker lives
// on, and neither a kill nor its own end waits for them.
func TestAbsurdTimes(t *testing.T) {
	inTable(t, func(t *testing.T, tb *table, _ *disk, host *fakerunner.Fake) {
		m := launchMessage("r1")
		l := m.GetLaunch()
		l.Timeout, l.KillGrace, l.StartWithin, l.KillAfter, l.LogLimitBytes = far, far, far, far, math.MaxInt64
		tb.Handle(m)
		for range 3 { // the first lease, and others that renew it
			synctest.Wait()
			tb.Granted([]uint64{9}, tb.uptime())
		}
		synctest.Wait()
		if got := host.Running(); len(got) != 1 {
			t.Errorf("%q run: %v", got, resultOf(tb, "r1"))
			return
		}
		spec := host.Specs()[0]
		if now := tb.uptime(); spec.KillGrace != runner.MaxKillGrace || spec.LeaseEnd != now+longest || spec.Deadline != now+longest {
			t.Errorf("at %v it was started with %+v", now, spec)
		}
		host.Stop()
		if took := tb.stop(); took != runner.MaxKillGrace+overtime {
			t.Errorf("a stop waits for %v", took)
		}
	})
}

// The agent of a former version kept a grace, and a kill_after, as a primary had them.
func TestAbsurdTimesOnRecord(t *testing.T) {
	inTable(t, func(t *testing.T, tb *table, _ *disk, _ *fakerunner.Fake) {
		before := newAttempt(keyOf(&agentv1.AttemptKey{RunId: "r1", Attempt: 1}), 9)
		before.grace, before.killAfter = math.MaxInt64, math.MaxInt64
		accepted := tb.acceptedRecord(before)
		a := newAttempt(before.key, before.fence)
		if recall(a, journal.Entry{Accepted: &accepted}); a.grace != runner.MaxKillGrace || a.killAfter != longest {
			t.Errorf("recalled with a grace of %v and a kill_after of %v", a.grace, a.killAfter)
		}
	})
}

// What is less than nothing is too late, or no time at all.
func TestNegativeTimes(t *testing.T) {
	before := &durationpb.Duration{Seconds: math.MinInt64, Nanos: math.MinInt32}
	for name, test := range map[string]struct {
		change func(*agentv1.Launch)
		starts int
	}{
		"start_within": {func(l *agentv1.Launch) { l.StartWithin = before }, 0},
		"kill_after":   {func(l *agentv1.Launch) { l.KillAfter = before }, 0},
		"kill_grace":   {func(l *agentv1.Launch) { l.KillGrace = before }, 1},
		"timeout":      {func(l *agentv1.Launch) { l.Timeout = before }, 1},
		"log_limit":    {func(l *agentv1.Launch) { l.LogLimitBytes = math.MinInt64 }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			inTable(t, func(t *testing.T, tb *table, _ *disk, host *fakerunner.Fake) {
				m := launchMessage("r1")
				test.change(m.GetLaunch())
				tb.Handle(m)
				synctest.Wait()
				tb.Granted([]uint64{9}, tb.uptime())
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				want := agentv1.Outcome_OUTCOME_NOT_STARTED
				if test.starts > 0 {
					want = agentv1.Outcome_OUTCOME_SUCCEEDED
				}
				if r := resultOf(tb, "r1"); host.Starts("r1/1") != test.starts || r.GetOutcome() != want {
					t.Errorf("%d starts, %v", host.Starts("r1/1"), r)
				}
			})
		})
	}
}
