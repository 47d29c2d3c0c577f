package agent_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
)

// A stream that reaches its age has a successor before it ends, and nobody
// notices.
func TestMakeBeforeBreak(t *testing.T) {
	m := polite
	m.streamLife = 10 * time.Minute
	story(t, m, map[string]fakerunner.Behaviour{"r1": {Duration: 50 * time.Minute}}, func(w *world) {
		w.start()
		w.gateway.last().launch(launchOf("r1"))
		w.wait(time.Hour)
		all := w.gateway.visits()
		if len(all) != 6 && len(all) != 7 {
			t.Fatalf("%d sessions in an hour of lives of 9 to 11 minutes", len(all))
		}
		for i, v := range all[:len(all)-1] {
			next := all[i+1]
			if next.begun.After(v.over()) {
				t.Errorf("session %d ended at %v, before its successor began at %v", i, v.over(), next.begun)
			}
			if life := v.over().Sub(v.begun); life < 9*time.Minute || life > 11*time.Minute {
				t.Errorf("session %d lived for %v", i, life)
			}
			if got := v.story(); got[len(got)-1] != "goodbye" {
				t.Errorf("session %d ended with %q", i, got)
			}
			if next.hello.GetSessionEpoch() <= v.hello.GetSessionEpoch() {
				t.Errorf("session %d has no greater epoch than the one before", i+1)
			}
		}
		w.outcomeOf("r1", agentv1.Outcome_OUTCOME_SUCCEEDED, "")
		w.startsOf("r1", 1)
	})
}

// A stream that reached its age serves on while there is nowhere else to go.
func TestNoBreakWithoutMake(t *testing.T) {
	m := polite
	m.streamLife = 10 * time.Minute
	story(t, m, map[string]fakerunner.Behaviour{"r1": {Duration: time.Minute}}, func(w *world) {
		w.start()
		v := w.gateway.last()
		w.gateway.behave(func(m *manners) { m.down = true })
		w.wait(30 * time.Minute)
		v.launch(launchOf("r1"))
		w.wait(2 * time.Minute)
		w.says(v, "inventory", "started r1/1", "result r1/1 SUCCEEDED")
		w.gateway.behave(func(m *manners) { m.down = false })
		w.wait(time.Minute)
		w.says(w.gateway.last(), "inventory")
		w.says(v, "inventory", "started r1/1", "result r1/1 SUCCEEDED", "goodbye")
	})
}

// A gateway that drains, or wants the worker elsewhere, is left in time.
func TestDrainAndMove(t *testing.T) {
	story(t, polite, nil, func(w *world) {
		w.start()
		w.wait(2 * time.Minute)
		first := w.gateway.last()
		asked := time.Now()
		for range 3 {
			first.send(&agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Drain{Drain: &agentv1.Drain{Spread: durationpb.New(time.Minute)}}})
		}
		w.wait(2 * time.Minute)
		second := w.gateway.last()
		if after := second.begun.Sub(asked); len(w.gateway.visits()) != 2 || after > time.Minute {
			t.Errorf("%d sessions, the last %v after the drain", len(w.gateway.visits()), after)
		}
		if first.over().IsZero() || first.over().Before(second.begun) {
			t.Errorf("the old session ended at %v, the new one began at %v", first.over(), second.begun)
		}

		asked = time.Now()
		second.send(&agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Move{Move: &agentv1.Move{Reason: "elsewhere"}}})
		second.hangUp() // some gateways don't wait
		w.wait(time.Minute)
		third := w.gateway.last()
		if after := third.begun.Sub(asked); len(w.gateway.visits()) != 3 || after != 0 {
			t.Errorf("%d sessions, the last %v after the move", len(w.gateway.visits()), after)
		}

		w.gateway.behave(func(m *manners) { m.down = true })
		third.send(&agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Move{Move: &agentv1.Move{Reason: "there is more room"}}})
		w.wait(5 * time.Minute)
		w.says(third, "inventory") // there is nowhere to go yet
		w.gateway.behave(func(m *manners) { m.down = false })
		w.wait(time.Minute)
		if fourth := w.gateway.last(); third.over().Before(fourth.begun) {
			t.Errorf("the old session ended at %v, the new one began at %v", third.over(), fourth.begun)
		}
		w.says(third, "inventory", "goodbye")
	})
}

// Primaries are restarted one after the other within seconds, twice. Their worker has
// not been anywhere for long when it is told to go: that is no reason to wait, and it
// is never without a session.
func TestRollingRestart(t *testing.T) {
	story(t, polite, nil, func(w *world) {
		primaries := []*gateway{w.gateway, newGateway(w.T, polite), newGateway(w.T, polite)}
		defer primaries[1].close()
		defer primaries[2].close()
		b := w.behind(&balancer{backends: slices.Clone(primaries)})
		w.start()
		last := w.gateway.last()
		for round := range 2 * len(primaries) {
			w.wait(3 * time.Second)
			asked, at := time.Now(), slices.Index(primaries, last.gateway)
			b.put(at, nil) // it is about to stop, and takes nobody
			last.send(&agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Drain{Drain: &agentv1.Drain{}}})
			w.wait(wire.BackoffBase)
			next := newest(primaries)
			if next == last {
				w.Fatalf("restart %d: no other session %v after the worker was asked to leave", round+1, time.Since(asked))
			}
			if over := last.over(); over.IsZero() || over.Before(next.begun) {
				t.Errorf("restart %d: a session began at %v, the one before ended at %v", round+1, next.begun, over)
			}
			b.put(at, primaries[at])
			last = next
		}
	})
}

// newest returns the session that began last.
func newest(gateways []*gateway) *visit {
	var last *visit
	for _, g := range gateways {
		for _, v := range g.visits() {
			if last == nil || v.hello.GetSessionEpoch() > last.hello.GetSessionEpoch() {
				last = v
			}
		}
	}
	return last
}

// A gateway that sends every worker away as soon as it comes is not asked without
// end, whether it says that it is about to stop or not, and whether it waits until the
// worker has gone or not.
func TestMoveInCircles(t *testing.T) {
	for what, m := range map[string]*agentv1.GatewayMessage{
		"move":  {Body: &agentv1.GatewayMessage_Move{Move: &agentv1.Move{Reason: "go away"}}},
		"drain": {Body: &agentv1.GatewayMessage_Drain{Drain: &agentv1.Drain{}}},
	} {
		for _, cuts := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, cut %v", what, cuts), func(t *testing.T) {
				story(t, polite, nil, func(w *world) {
					w.start()
					begun, told := time.Now(), (*visit)(nil)
					for time.Since(begun) < 10*time.Minute {
						v := w.gateway.last()
						v.send(m)
						if cuts && v != told {
							v.hangUp()
						}
						told = v
						w.wait(100 * time.Millisecond)
					}
					if n := len(w.gateway.visits()); n < 10 || n > 150 {
						t.Errorf("%d sessions in 10 minutes, want one each 15 s on average, after some at once", n)
					}
				})
			})
		}
	}
}

// A gateway that says nothing for 45 s is dead, even though the connection is in
// order.
func TestSilentGatewayIsDead(t *testing.T) {
	story(t, manners{mute: true}, nil, func(w *world) {
		w.start()
		w.wait(time.Minute)
		v := w.gateway.visits()[0]
		if lived := v.over().Sub(v.begun); lived != 45*time.Second {
			t.Errorf("the session was given up after %v", lived)
		}
		pings := 0
		for _, m := range v.words() {
			if m.GetPing() != nil {
				pings++
			}
		}
		if pings < 3 || pings > 5 {
			t.Errorf("%d pings in 45 s", pings)
		}
		if !strings.Contains(w.workers[0].log.String(), "silent for too long") {
			t.Error("the log does not say why the session ended")
		}
	})
}

// A gateway that only pings is alive, and gets its answers.
func TestPingsAreAnswered(t *testing.T) {
	story(t, manners{mute: true}, nil, func(w *world) {
		w.start()
		v := w.gateway.last()
		for seq := range uint64(10) {
			v.send(&agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Ping{Ping: &agentv1.Ping{Seq: seq}}})
			w.wait(40 * time.Second)
		}
		var got []uint64
		for _, m := range v.words() {
			if m.GetPong() != nil {
				got = append(got, m.GetPong().GetSeq())
			}
		}
		if want := []uint64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}; !slices.Equal(got, want) {
			t.Errorf("pongs %v, want %v", got, want)
		}
		if n := len(w.gateway.visits()); n != 1 {
			t.Errorf("%d sessions, want the one to last", n)
		}
	})
}

// A worker that is told it is not wanted asks once an hour, says so loudly, and
// is back when somebody has changed that.
func TestRejectedForGood(t *testing.T) {
	m := polite
	m.reject = &agentv1.Reject{Reason: "revoked by an administrator", Permanent: true}
	story(t, m, nil, func(w *world) {
		one := w.start()
		w.wait(10 * time.Hour)
		if n := w.gateway.tried(); n < 9 || n > 12 {
			t.Errorf("%d tries in 10 hours", n)
		}
		if log := one.log.String(); !strings.Contains(log, "level=ERROR") || !strings.Contains(log, "revoked by an administrator") {
			t.Errorf("the log is not loud: %s", log)
		}
		w.gateway.behave(func(m *manners) { m.reject = nil })
		w.wait(70 * time.Minute)
		w.says(w.gateway.last(), "inventory")
	})
}

// A session may be refused for a while; and one that is under way be cut with
// the same words.
func TestRejectedForAWhile(t *testing.T) {
	m := polite
	m.reject = &agentv1.Reject{Reason: "too many", RetryAfter: durationpb.New(2 * time.Minute)}
	story(t, m, nil, func(w *world) {
		w.start()
		w.wait(time.Hour)
		if n := w.gateway.tried(); n < 20 || n > 31 {
			t.Errorf("%d tries in an hour, want one each 2 to 2.5 minutes", n)
		}
		w.gateway.behave(func(m *manners) { m.reject = nil })
		w.wait(3 * time.Minute)
		v := w.gateway.last()
		v.send(&agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Reject{Reject: &agentv1.Reject{Reason: "revoked", Permanent: true}}})
		w.wait(30 * time.Minute)
		if w.gateway.last() != v {
			t.Error("the worker came back at once after it was told not to")
		}
	})
}

// A runner comes back, set up anew, while the session goes on. What it can hold attempts
// to now is said in a new session, before the one that said otherwise ends.
func TestRunnerKeepsOtherLimits(t *testing.T) {
	story(t, polite, nil, func(w *world) {
		w.start()
		first := w.gateway.last()
		if got := first.hello.GetEnforcement().GetMemory(); got != agentv1.Means_MEANS_CGROUP_V2 {
			t.Fatalf("at first memory is kept by %v", got)
		}
		w.wait(10 * time.Minute)
		is, _ := w.host.Enforcement()
		w.host.SetEnforcement(is) // another runner that is no different
		w.wait(time.Minute)
		if n := len(w.gateway.visits()); n != 1 {
			t.Fatalf("%d sessions though nothing has changed", n)
		}
		is.Memory, is.Note = runner.MeansNone, "not delegated"
		w.host.SetEnforcement(is)
		w.wait(10 * time.Second)
		last := w.gateway.last()
		if e := last.hello.GetEnforcement(); last == first || e.GetMemory() != agentv1.Means_MEANS_NONE || e.GetNote() != "not delegated" {
			t.Errorf("of %d sessions the last says %v", len(w.gateway.visits()), e)
		}
		if first.over().Before(last.begun) {
			t.Errorf("it ended at %v, before its successor began at %v", first.over(), last.begun)
		}
	})
}
