package agent_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/schedd/schedd/agent"
	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
)

// generous is a gateway behind which the leader gives each lease at once.
var generous = manners{ackResults: true, ackLogs: true, lease: true}

// leased returns the launch of an attempt that may go on without a lease for so long.
func leased(run string, killAfter time.Duration) *agentv1.Launch {
	l := launchOf(run)
	l.KillAfter = durationpb.New(killAfter)
	return l
}

// took returns how long after a moment a run ended.
func (w *world) took(run string, since time.Time) time.Duration {
	return w.gateway.result(run).GetFinishedTime().AsTime().Sub(since)
}

// While there are leases an attempt goes on. When the leader gives none any more, though
// the gateway answers each ping, its worker ends it: a minute after the last ping that
// the leader had answered was sent. What needs no lease goes on.
func TestLeaseExpires(t *testing.T) {
	story(t, generous, map[string]fakerunner.Behaviour{"r1": forever, "r2": forever}, func(w *world) {
		w.start()
		v := w.gateway.last()
		v.launch(leased("r1", time.Minute))
		v.launch(launchOf("r2"))
		w.wait(time.Hour)
		if r := w.gateway.result("r1"); r != nil {
			t.Fatalf("with a lease it has ended: %v", r)
		}
		w.gateway.behave(func(m *manners) { m.lease = false })
		cut := time.Now()
		w.wait(2 * time.Minute)
		w.outcomeOf("r1", agentv1.Outcome_OUTCOME_LEASE_EXPIRED, "had no lease from the leader for 1m0s (kill_after); its lease expired, ended after SIGTERM")
		if took := w.took("r1", cut); took < 48*time.Second || took > time.Minute {
			t.Errorf("it was ended %v after the last lease was given", took)
		}
		if got := w.host.Running(); len(got) != 1 || got[0] != "r2/1" {
			t.Errorf("%q runs", got)
		}
		if !v.hello.GetLeases() {
			t.Error("the worker does not say that it keeps leases")
		}
	})
}

// A worker is cut off from everybody. It ends the attempt by itself, and tells of it
// when somebody hears it again.
func TestLeaseExpiresWhileCutOff(t *testing.T) {
	story(t, generous, map[string]fakerunner.Behaviour{"r1": forever}, func(w *world) {
		w.start()
		w.gateway.last().launch(leased("r1", time.Minute))
		w.wait(10 * time.Minute)
		cut := time.Now()
		w.gateway.behave(func(m *manners) { m.down = true })
		w.gateway.last().hangUp()
		w.wait(59 * time.Second)
		w.wait(time.Second)
		if left := w.host.Running(); len(left) > 0 {
			t.Errorf("after a minute there still run %q", left)
		}
		w.wait(10 * time.Minute)
		w.gateway.behave(func(m *manners) { m.down = false })
		w.wait(time.Minute)
		w.outcomeOf("r1", agentv1.Outcome_OUTCOME_LEASE_EXPIRED, "(kill_after)")
		if took := w.took("r1", cut); took > time.Minute {
			t.Errorf("it was ended %v after the cut", took)
		}
	})
}

// A worker comes back in time, through another session. It asks for a lease at once and
// not with its next ping, so that nothing is ended that need not be.
func TestLeaseIsAskedForAtOnce(t *testing.T) {
	story(t, generous, map[string]fakerunner.Behaviour{"r1": {Duration: 10 * time.Minute}}, func(w *world) {
		w.start()
		w.gateway.last().launch(leased("r1", time.Minute))
		w.wait(time.Second)
		for range 8 {
			v := w.gateway.last()
			w.gateway.behave(func(m *manners) { m.down = true })
			v.hangUp()
			w.wait(15 * time.Second)
			w.gateway.behave(func(m *manners) { m.down = false })
			for w.gateway.last() == v {
				w.wait(time.Second)
			}
			w.wait(time.Second)
			if len(w.gateway.last().asks()) == 0 {
				t.Fatal("a second after the session began it has not asked for a lease")
			}
		}
		w.wait(10 * time.Minute)
		w.outcomeOf("r1", agentv1.Outcome_OUTCOME_SUCCEEDED, "")
	})
}

// Without a lease an attempt does not start. The first one is asked for as soon as it is
// launched; with the others of that moment in one ping.
func TestNoStartWithoutALease(t *testing.T) {
	script := map[string]fakerunner.Behaviour{"r1": forever, "r2": forever, "r3": forever, "r4": forever}
	story(t, polite, script, func(w *world) {
		w.start()
		v := w.gateway.last()
		w.wait(time.Second)
		for i, run := range []string{"r1", "r2", "r3", "r4"} {
			l := leased(run, time.Minute)
			l.Fence = uint64(41 + i)
			v.launch(l)
		}
		w.wait(500 * time.Millisecond)
		asks := v.asks()
		if len(asks) == 0 || len(asks) > 3 || len(asks[len(asks)-1].GetFences()) != 4 {
			t.Errorf("half a second after the launches it has asked with %v", asks)
		}
		w.startsOf("r1", 0)
		v.lease(&agentv1.Ping{Seq: asks[len(asks)-1].GetSeq(), Fences: []uint64{41}})
		w.wait(time.Millisecond)
		w.startsOf("r1", 1)
		w.startsOf("r2", 0)

		killed := leased("r2", time.Minute)
		killed.Fence = 42
		v.kill(killed, 0)
		w.wait(time.Second)
		w.outcomeOf("r2", agentv1.Outcome_OUTCOME_NOT_STARTED, "killed before it started; somebody asked")

		w.wait(time.Minute)
		w.outcomeOf("r3", agentv1.Outcome_OUTCOME_NOT_STARTED, "needs a lease (kill_after), and the leader gave none within 1m0s")
		w.outcomeOf("r1", agentv1.Outcome_OUTCOME_LEASE_EXPIRED, "")
		w.startsOf("r3", 0)
	})
}

// The agent is killed, and nobody comes in its place for an hour. The lease ends all the
// same, and the next agent tells why. One that comes in time goes on asking, for what it
// finds in its journal.
func TestLeaseAndTheNextAgent(t *testing.T) {
	story(t, generous, map[string]fakerunner.Behaviour{"r1": {Duration: 30 * time.Minute}}, func(w *world) {
		one := w.start()
		w.gateway.last().launch(leased("r1", time.Minute))
		w.wait(time.Second)
		for range 10 {
			one.end()
			w.wait(30 * time.Second)
			one = w.start()
			w.wait(time.Minute)
		}
		if left := w.host.Running(); len(left) != 1 {
			t.Fatalf("%q runs", left)
		}
		one.end()
		gone := time.Now()
		w.wait(time.Hour)
		w.start()
		w.wait(time.Minute)
		w.outcomeOf("r1", agentv1.Outcome_OUTCOME_LEASE_EXPIRED, "1m0s (kill_after)")
		if took := w.took("r1", gone); took > time.Minute {
			t.Errorf("it was ended %v after its agent had gone", took)
		}
	})
}

// A runner that can't keep leases is given nothing that needs one, and its worker says
// so from the beginning.
func TestWorkerWithoutLeases(t *testing.T) {
	story(t, generous, map[string]fakerunner.Behaviour{"r1": forever}, func(w *world) {
		w.change = func(_ *agent.Config, s *agent.Seams) { s.Runner = timeless{w.host} }
		w.start()
		v := w.gateway.last()
		if v.hello.GetLeases() {
			t.Error("the worker says that it keeps leases")
		}
		v.launch(leased("r1", time.Minute))
		w.wait(time.Second)
		r := w.outcomeOf("r1", agentv1.Outcome_OUTCOME_REFUSED, runner.ErrNoLeases.Error())
		if !strings.Contains(r.GetReason(), "leases") {
			t.Errorf("told %v", r)
		}
		w.startsOf("r1", 0)
	})
}

// The runner is of an older version when its agent wants to ask for the first lease, and
// is replaced by a newer one in the next moment. Nobody has asked for a lease then, so the
// attempt does not start: without the end of one it would go on for ever.
func TestRunnerIsReplacedBeforeTheFirstLease(t *testing.T) {
	story(t, polite, map[string]fakerunner.Behaviour{"r1": forever}, func(w *world) {
		var older atomic.Int32
		w.change = func(_ *agent.Config, s *agent.Seams) { s.Runner = replaced{w.host, &older} }
		w.start()
		v := w.gateway.last()
		w.wait(time.Second)
		older.Store(3) // the last look is whether to ask for a lease
		v.launch(leased("r1", time.Minute))
		w.wait(10 * time.Minute)
		if older.Load() > 0 {
			t.Fatal("nobody has asked the older runner")
		}
		w.startsOf("r1", 0)
		w.outcomeOf("r1", agentv1.Outcome_OUTCOME_REFUSED, "no lease")
	})
}

// replaced is a runner that says some times that it keeps no leases, and is a newer one
// from then on.
type replaced struct {
	*fakerunner.Fake
	older *atomic.Int32
}

func (r replaced) Uptime() (time.Duration, bool) {
	now, ok := r.Fake.Uptime()
	if r.older.Load() > 0 {
		r.older.Add(-1)
		return now, false
	}
	return now, ok
}

// timeless is a runner on a system without a clock that counts a suspend.
type timeless struct{ *fakerunner.Fake }

func (t timeless) Uptime() (time.Duration, bool) {
	now, _ := t.Fake.Uptime()
	return now, false
}

// No lease is asked for while the disk has not taken what was launched: should the agent
// crash, the leader would wait for the end of one that nobody holds. Then it starts as ever.
func TestNoLeaseForWhatIsNotOnRecord(t *testing.T) {
	story(t, generous, map[string]fakerunner.Behaviour{"r1": {Duration: time.Minute}}, func(w *world) {
		hang := w.hanging()
		w.start()
		v := w.gateway.last()
		answer := hang()
		v.launch(leased("r1", time.Minute))
		w.wait(40 * time.Second)
		if asks := v.asks(); len(asks) > 0 {
			t.Errorf("it has asked for leases: %v", asks)
		}
		answer()
		w.wait(10 * time.Second)
		if got := w.host.Running(); len(got) != 1 || len(v.asks()) == 0 {
			t.Errorf("%q run, and leases were asked for: %v", got, v.asks())
		}
		w.wait(2 * time.Minute)
		w.outcomeOf("r1", agentv1.Outcome_OUTCOME_SUCCEEDED, "")
	})
}
