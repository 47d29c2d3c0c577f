package gateway_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
)

func launch(run string, size int) *agentv1.GatewayMessage {
	return &agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Launch{Launch: &agentv1.Launch{
		Key: attempt(run), Task: &agentv1.Task{Stdin: make([]byte, size)},
	}}}
}

func kill(run string) *agentv1.GatewayMessage {
	return &agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Kill{Kill: &agentv1.Kill{Key: attempt(run), Fence: 7}}}
}

// clog sends more launches than fit into the buffers on the way to a worker that
// does not read, and returns how many wait in the outbox then.
func (p *primary) clog(t *testing.T, w *worker) (waiting int) {
	t.Helper()
	const launches = 30
	for range launches {
		if !p.Send(w.id, w.hello.GetSessionEpoch(), launch("clog", 100<<10)) {
			t.Fatal("the session is gone")
		}
	}
	synctest.Wait()
	waiting = launches - int(p.Stats().Sent) - 1 // send holds one
	if waiting < launches/2 {
		t.Fatalf("%d of %d messages wait, the line is not slow enough for this test", waiting, launches)
	}
	return waiting
}

// A worker's next stream takes the place of the one before.
func TestNewerSessionSupersedes(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		old := p.connect(t, 1, epoch(1))
		next := p.connect(t, 1, epoch(2))
		last, code := old.expectEnd()
		if last.GetMove() == nil || code != codes.Aborted {
			t.Errorf("the old stream got %v, then %v; want a Move, then %v", last, code, codes.Aborted)
		}
		if p.Send(old.id, 1, kill("r")) {
			t.Error("Send to the old session says that it is there")
		}
		if !p.Send(old.id, 2, kill("r")) {
			t.Error("Send to the new session says that it is gone")
		}
		next.expect("Kill")
		if live := p.Sessions(); len(live) != 1 || live[0].Epoch != 2 {
			t.Errorf("Sessions %v, want the new one", live)
		}
		told := strings.Join(p.leader.told(), ", ")
		if got := strings.ReplaceAll(told, old.id, "w"); got != "attach w 0x1, detach w 0x1, attach w 0x2" &&
			got != "attach w 0x1, attach w 0x2, detach w 0x1" {
			t.Errorf("the leader was told %q", got)
		}
		if got := p.log.with("duplicate"); len(got) != 0 {
			t.Errorf("log lines %q, want none: it is one agent", got)
		}
	})
}

// A stream that was overtaken on its way is refused, and the live one goes on.
func TestOlderSessionIsRefused(t *testing.T) {
	for _, e := range []uint64{1, 2} {
		t.Run(fmt.Sprintf("epoch %d while 2 is live", e), func(t *testing.T) {
			story(t, func(t *testing.T, p *primary) {
				live := p.connect(t, 1, epoch(2))
				late := p.dial(t, 1)
				late.hello.SessionEpoch = e
				late.greet()
				last, code := late.expectEnd()
				if r := last.GetReject(); r == nil || r.GetPermanent() || r.GetRetryAfter().AsDuration() != wire.PingInterval || code != codes.Aborted {
					t.Errorf("got %v, then %v; want a Reject for now, then %v", last, code, codes.Aborted)
				}
				live.say(&agentv1.Ping{Seq: 9})
				if got := live.expect("Pong").GetPong().GetSeq(); got != 9 {
					t.Errorf("the live session answers %d, want 9", got)
				}
				if got := p.log.with("duplicate"); len(got) != 0 {
					t.Errorf("log lines %q, want none: it is one agent", got)
				}
			})
		})
	}
}

// Two hosts made from one image cut each other off for ever. People are told,
// with both addresses.
func TestDuplicateIdentity(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		first := p.connect(t, 1, epoch(1))
		clone := func(h *agentv1.Hello) { h.Instance, h.Name = "clone", "host-of-clone" }

		second := p.dial(t, 1)
		clone(second.hello)
		second.hello.SessionEpoch = 1
		second.greet()
		last, code := second.expectEnd()
		if r := last.GetReject(); !strings.Contains(r.GetReason(), "connected from 192.0.2.1:4001") || r.GetPermanent() || code != codes.Aborted {
			t.Errorf("the clone got %v, then %v; want a Reject that tells of the other", last, code)
		}

		p.connect(t, 1, clone, epoch(2)) // it counts on, and comes back
		if last, _ := first.expectEnd(); last.GetMove() == nil {
			t.Errorf("the first got %v at last, want a Move", last)
		}
		again := p.dial(t, 1) // and so does the first
		again.hello.SessionEpoch = 2
		again.greet()
		if last, _ := again.expectEnd(); last.GetReject() == nil {
			t.Errorf("the first got %v at last, want a Reject", last)
		}
		for _, words := range [][]string{
			{"level=WARN", "address=192.0.2.2:4002", "other_address=192.0.2.1:4001", "name=host-of-clone", "other_name=host-1"},
			{"level=WARN", "address=192.0.2.4:4004", "other_address=192.0.2.3:4003", "name=host-1", "other_name=host-of-clone"},
		} {
			if got := p.log.with(append(words, "duplicate identity")...); len(got) != 1 {
				t.Errorf("log lines with %q: %q, want one", words, got)
			}
		}
		if got := p.Stats().Duplicates; got != 2 {
			t.Errorf("%d duplicates counted, want 2", got)
		}
	})
}

// A worker that says nothing for 45 s is gone; what it says in time may be
// anything.
func TestSilence(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		w := p.connect(t, 1)
		for range 10 {
			time.Sleep(44 * time.Second)
			w.say(&agentv1.Pong{})
		}
		quiet := time.Now()
		if _, code := w.expectEnd(); code != codes.DeadlineExceeded {
			t.Errorf("ended with %v, want %v", code, codes.DeadlineExceeded)
		}
		if got := time.Since(quiet); got != wire.DeadAfter {
			t.Errorf("ended after a silence of %v, want %v", got, wire.DeadAfter)
		}
		if told := p.leader.told(); told[len(told)-1] != fmt.Sprintf("detach %s 0x100000001", w.id) {
			t.Errorf("the leader was told %q, want a detach at last", told)
		}
		if got := p.log.with("worker left", "nothing was heard of the worker for 45s", "after=8m5s"); len(got) != 1 {
			t.Errorf("log lines of the end: %q, want one", got)
		}
	})
}

// An hour with a worker that says nothing by itself: it is pinged often enough for every
// load balancer on the way, and its answers keep the session alive.
func TestPings(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		w := p.connect(t, 1)
		last, count := time.Now(), 0
		for end := time.Now().Add(time.Hour); time.Now().Before(end); {
			m, err := w.stream.Recv()
			if err != nil {
				t.Fatalf("after %d pings: %v", count, err)
			}
			count++
			if got := m.GetPing().GetSeq(); got != uint64(count) {
				t.Fatalf("ping %d, want %d", got, count)
			}
			if wait := time.Since(last); wait > 13*time.Second {
				t.Errorf("a ping after %v, want 13 s at most", wait)
			}
			last = time.Now()
			w.say(&agentv1.Pong{Seq: m.GetPing().GetSeq()})
		}
		if count < 3600/13 {
			t.Errorf("%d pings in an hour", count)
		}
	})
}

// A worker that pings is heard by that, and answered: pings in the other direction would
// tell nobody anything.
func TestWhoPingsIsNotPinged(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		w := p.connect(t, 1)
		for seq := range uint64(300) {
			time.Sleep(wire.Spread(wire.PingInterval, wire.PingSpread, 1))
			w.say(&agentv1.Ping{Seq: seq})
			m, err := w.stream.Recv()
			if err != nil || m.GetPong().GetSeq() != seq {
				t.Fatalf("ping %d is answered by %v, %v", seq, m, err)
			}
		}
	})
}

// Workers that came whenever they did, and ping when they are asked to, do so at the same
// few instants of the minute.
func TestPingsAreGathered(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		const workers = 20
		var mu sync.Mutex
		var at []time.Time // of pings, once a worker was asked
		var all sync.WaitGroup
		begin := time.Now()
		for i := range byte(workers) {
			time.Sleep(337 * time.Millisecond)
			w := p.connect(t, i+1)
			all.Go(func() {
				for seq := range uint64(50) {
					w.say(&agentv1.Ping{Seq: seq})
					m, err := w.hear()
					next, longest := m.GetPong().GetNextPing().AsDuration(), wire.Spread(wire.PingInterval, wire.PingSpread, 1)
					if err != nil || next <= 0 || next > longest {
						t.Errorf("ping %d is answered by %v, %v; want another one asked for within %v", seq, m, err, longest)
						return
					}
					time.Sleep(next)
					mu.Lock()
					at = append(at, time.Now())
					mu.Unlock()
				}
			})
		}
		all.Wait()
		if len(at) != workers*50 {
			t.Errorf("%d pings were asked for, want %d", len(at), workers*50)
		}
		for _, when := range at {
			if since := when.Sub(begin); since%(125*time.Millisecond) != 0 {
				t.Errorf("a ping was wanted %v after the gateway began, at an instant of its own", since)
			}
		}
	})
}

// One that is silent is pinged more than once before it is given up.
func TestSilenceIsAskedAbout(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		w := p.connect(t, 1)
		pings := 0
		for {
			m, err := w.stream.Recv()
			if err != nil {
				break
			}
			if m.GetPing() != nil {
				pings++
			}
		}
		if pings < 3 {
			t.Errorf("%d pings before the session was given up, want 3 or more", pings)
		}
	})
}

// What a worker reports reaches the leader unchanged and in order.
func TestReports(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		w := p.connect(t, 1)
		reports := []proto.Message{
			&agentv1.Inventory{Attempts: []*agentv1.AttemptStatus{
				{Key: attempt("r1"), Fence: 3, Phase: agentv1.AttemptPhase_ATTEMPT_PHASE_RUNNING},
				{Key: attempt("r2"), Fence: 4, Phase: agentv1.AttemptPhase_ATTEMPT_PHASE_ENDED},
			}, More: true},
			&agentv1.Inventory{},
			&agentv1.Started{Key: attempt("r3"), Fence: 5, Pid: 77},
			&agentv1.Result{Key: attempt("r2"), Fence: 4, Outcome: agentv1.Outcome_OUTCOME_FAILED, ExitCode: 2, CpuTime: durationpb.New(time.Second)},
		}
		var want []*agentv1.AgentMessage
		for _, r := range reports {
			w.say(r)
			want = append(want, say(r))
		}
		p.leader.told()
		if diff := cmp.Diff(want, p.leader.reports, protocmp.Transform()); diff != "" {
			t.Errorf("reports (-want +got):\n%s", diff)
		}
	})
}

// The leader need not know of each message, only that the worker lives.
func TestSeen(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		w := p.connect(t, 1)
		for range 100 {
			w.say(&agentv1.Pong{})
			time.Sleep(100 * time.Millisecond)
		}
		p.leader.told()
		if got := len(p.leader.seen); got != 10 {
			t.Errorf("seen %d times in 10 s of 100 messages, want 10", got)
		}
		for i, at := range p.leader.seen[1:] {
			if gap := at.Sub(p.leader.seen[i]); gap < time.Second {
				t.Errorf("seen twice within %v", gap)
			}
		}
	})
}

// A worker that breaks the protocol is told what it did, and the others notice
// nothing.
func TestViolations(t *testing.T) {
	for _, test := range []struct {
		name   string
		body   proto.Message
		code   codes.Code
		reason string
	}{
		{"a second hello", &agentv1.Hello{}, codes.InvalidArgument, "Hello"},
		{"a second proof", &agentv1.AuthProof{}, codes.InvalidArgument, "AuthProof"},
		{"a result of nothing", &agentv1.Result{}, codes.InvalidArgument, "attempt 0"},
		{"a result without a run", &agentv1.Result{Key: &agentv1.AttemptKey{Attempt: 1}}, codes.InvalidArgument, `run id ""`},
		{"a start elsewhere", &agentv1.Started{Key: attempt("../../etc")}, codes.InvalidArgument, `run id "../../etc"`},
		{"an inventory of nobody", &agentv1.Inventory{Attempts: []*agentv1.AttemptStatus{{}}}, codes.InvalidArgument, "attempt 0"},
		{"a huge inventory", &agentv1.Inventory{Attempts: make([]*agentv1.AttemptStatus, 1001)}, codes.InvalidArgument, "1001 attempts"},
		{"output of nothing", &agentv1.LogAppend{}, codes.InvalidArgument, "attempt 0"},
		{"output to another file", output("a/b", 0, nil), codes.InvalidArgument, `run id "a/b"`},
		{"output before the beginning", output("r", -1, nil), codes.InvalidArgument, "offset -1"},
		{"output beyond all disks", output("r", 1<<62, nil), codes.InvalidArgument, "offset 46116"},
		{"a large chunk", output("r", 0, make([]byte, wire.MaxLogChunk+1)), codes.InvalidArgument, "a chunk of 131073 bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			story(t, func(t *testing.T, p *primary) {
				other := p.connect(t, 2)
				w := p.connect(t, 1)
				if inv, ok := test.body.(*agentv1.Inventory); ok {
					for i, a := range inv.Attempts {
						if a == nil {
							inv.Attempts[i] = &agentv1.AttemptStatus{Key: attempt("r")}
						}
					}
				}
				w.say(test.body)
				last, code := w.expectEnd()
				r := last.GetReject()
				if r == nil || r.GetPermanent() || r.GetRetryAfter().AsDuration() <= 0 || code != test.code {
					t.Errorf("got %v, then %v; want a Reject for now, then %v", last, code, test.code)
				}
				if !strings.Contains(r.GetReason(), test.reason) {
					t.Errorf("reason %q, want it to contain %q", r.GetReason(), test.reason)
				}
				if len(p.leader.reports) != 0 || p.logs.calls != 0 || p.Stats().Violations != 1 {
					t.Errorf("reports %v, %d appends, stats %+v", p.leader.reports, p.logs.calls, p.Stats())
				}
				other.say(&agentv1.Ping{})
				other.expect("Pong")
			})
		})
	}
}

// A newer worker may say what this version does not know: that is no crime.
func TestUnknownMessageIsIgnored(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		w := p.connect(t, 1)
		unknown := &agentv1.AgentMessage{}
		unknown.ProtoReflect().SetUnknown([]byte{0xfa, 0x07, 0}) // field 127
		if err := w.stream.Send(unknown); err != nil {
			t.Fatal(err)
		}
		w.say(&agentv1.Ping{Seq: 1})
		w.expect("Pong")
	})
}

// The leader's messages are sorted by kind, and nobody else's are sent.
func TestSendTakesOnlyWhatTheLeaderMaySay(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		w := p.connect(t, 1)
		send := func(m *agentv1.GatewayMessage) bool { return p.Send(w.id, w.hello.GetSessionEpoch(), m) }
		for _, m := range []*agentv1.GatewayMessage{
			launch("r", 1), kill("r"),
			{Body: &agentv1.GatewayMessage_ResultAck{ResultAck: &agentv1.ResultAck{Key: attempt("r")}}},
			{Body: &agentv1.GatewayMessage_InventoryRequest{InventoryRequest: &agentv1.InventoryRequest{}}},
		} {
			if !send(m) {
				t.Errorf("Send of a %s: false", kindOf(m))
			}
			if got, err := w.hear(); err != nil || !proto.Equal(got, m) {
				t.Errorf("got %v, %v; want %v", got, err, m)
			}
		}
		for _, m := range []*agentv1.GatewayMessage{
			{}, {Body: &agentv1.GatewayMessage_Welcome{}}, {Body: &agentv1.GatewayMessage_LogAck{}}, launch("r", wire.MaxMessage),
		} {
			if send(m) {
				t.Errorf("Send of a %T of %d bytes: true", m.GetBody(), proto.Size(m))
			}
		}
		if p.Send(w.id, 1, kill("r")) || p.Send("w-nobody", 1, kill("r")) {
			t.Error("Send to a session that is not there: true")
		}
		if got := p.log.with("not fit for a worker"); len(got) != 4 {
			t.Errorf("log lines %q, want four", got)
		}
	})
}

// Rather than wait for a worker that takes nothing, its session ends.
func TestFullQueueEndsSession(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		w := p.connect(t, 1)
		waiting := p.clog(t, w)
		for p.Send(w.id, w.hello.GetSessionEpoch(), launch("r", 10)) {
			waiting++
		}
		if waiting != 4096 {
			t.Errorf("%d messages waited when the session ended, want 4096", waiting)
		}
		if got := p.log.with("worker left", "4096 messages wait"); len(got) != 1 {
			t.Errorf("log lines %q, want one", got)
		}
		if _, code := w.expectEnd(); code != codes.ResourceExhausted {
			t.Errorf("ended with %v, want %v", code, codes.ResourceExhausted)
		}
	})
}
