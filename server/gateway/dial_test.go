package gateway_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
	"github.com/schedd/schedd/server/gateway"
)

// host is where workers listen, made by hand.
type host struct {
	agentv1.UnimplementedAgentDirectServer
	t        *testing.T
	listener *bufconn.Listener
	came     chan *worker // each stream that was opened

	mu    sync.Mutex
	down  bool // can't be reached
	mute  bool // takes connections and says nothing
	dials []time.Time
	seen  byte // streams
}

// reachable starts a host at which all addresses lead, until the test ends.
func reachable(t *testing.T) *host {
	h := &host{t: t, listener: bufconn.Listen(64 << 10), came: make(chan *worker, 100)}
	server := grpc.NewServer(append(wire.ServerOptions(), grpc.WaitForHandlers(true))...)
	agentv1.RegisterAgentDirectServer(server, h)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(h.listener); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(func() {
		server.Stop()
		serving.Wait()
	})
	return h
}

// Accept is one stream. It ends when the worker leaves.
func (h *host) Accept(stream agentv1.AgentDirect_AcceptServer) error {
	h.mu.Lock()
	h.seen++
	w := newWorker(h.t, 1, accepted{stream})
	w.hello.SessionEpoch = 1<<32 | uint64(h.seen)
	h.mu.Unlock()
	select {
	case h.came <- w:
	case <-stream.Context().Done():
	}
	select {
	case <-w.leave:
	case <-stream.Context().Done():
	}
	return nil
}

// accepted is a stream that the gateway opened.
type accepted struct {
	agentv1.AgentDirect_AcceptServer
}

func (accepted) CloseSend() error { return nil }

// dial is what the gateway dials with.
func (h *host) dial(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address, append(wire.DialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			h.mu.Lock()
			h.dials = append(h.dials, time.Now())
			down, mute := h.down, h.mute
			h.mu.Unlock()
			if down {
				return nil, errors.New("connection refused")
			}
			if mute {
				here, _ := net.Pipe()
				return here, nil
			}
			return h.listener.DialContext(ctx)
		}))...)
}

func (h *host) behave(down, mute bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.down, h.mute = down, mute
}

func (h *host) dialled() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.dials)
}

// next waits for the next stream, whose worker has not said anything yet.
func (h *host) next(within time.Duration) *worker {
	h.t.Helper()
	late := time.NewTimer(within)
	defer late.Stop()
	select {
	case w := <-h.came:
		return w
	case <-late.C:
		h.t.Fatalf("nobody has dialled within %v", within)
		return nil
	}
}

// welcomed waits for the next stream and shakes hands.
func (h *host) welcomed(within time.Duration) *worker {
	h.t.Helper()
	w := h.next(within)
	w.greet()
	w.id = w.expect("Welcome").GetWelcome().GetWorkerId()
	synctest.Wait()
	return w
}

// dialStory is a story with a host to dial.
func dialStory(t *testing.T, tell func(t *testing.T, p *primary, h *host), change ...func(*gateway.Config)) {
	t.Helper()
	var h *host
	story(t, func(t *testing.T, p *primary) {
		h = reachable(t)
		tell(t, p, h)
	}, append(change, func(c *gateway.Config) {
		c.DialWorker = func(address string) (*grpc.ClientConn, error) { return h.dial(address) }
	})...)
}

const there = "10.1.2.3:7422"

// A worker on the list has a session like any other, which says that it is
// direct, and ends when the worker leaves the list.
func TestDial(t *testing.T) {
	dialStory(t, func(t *testing.T, p *primary, h *host) {
		p.Dial([]string{there, there})
		w := h.welcomed(time.Second)
		live := p.Sessions()
		if len(live) != 1 || !live[0].Direct || live[0].ObservedAddress != there || live[0].Worker != w.id || live[0].Epoch != 1<<32|1 {
			t.Fatalf("sessions %v, want the direct one with %s", live, there)
		}
		if !p.Send(w.id, 1<<32|1, kill("r")) {
			t.Error("the session takes no message")
		}
		w.expect("Kill")
		w.say(output("r", 0, []byte("hello")))
		if got := w.expect("LogAck").GetLogAck().GetDurable(); got != 5 {
			t.Errorf("%d bytes are durable, want 5", got)
		}
		for range 3 {
			p.Dial([]string{there})
			time.Sleep(20 * time.Second)
			w.say(&agentv1.Ping{})
			w.expect("Pong")
		}
		if n := h.dialled(); n != 1 {
			t.Errorf("dialled %d times, want once", n)
		}

		began := time.Now()
		p.Dial(nil)
		if last, code := w.expectEnd(); last.GetMove() == nil || code != codes.OK {
			t.Errorf("got %v, then %v; want a Move, then the end of the stream", last, code)
		}
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("it ended after %v: another primary has 5 s to dial", took)
		}
		close(w.leave)
		time.Sleep(time.Hour)
		if told := p.leader.told(); len(told) != 2 || len(p.Sessions()) != 0 || h.dialled() != 1 {
			t.Errorf("the leader was told %q, and it was dialled %d times", told, h.dialled())
		}
	})
}

// Whatever becomes of a session with a worker on the list, there is another one,
// as soon as a worker that dials would be back.
func TestDialAgain(t *testing.T) {
	dialStory(t, func(t *testing.T, p *primary, h *host) {
		h.behave(true, false)
		p.Dial([]string{there})
		time.Sleep(time.Hour)
		if n := h.dialled(); n < 150 || n > 400 {
			t.Errorf("dialled %d times in an hour, want a try each 15 s on average", n)
		}
		h.behave(false, false)
		h.welcomed(30 * time.Second) // and then it says nothing
		time.Sleep(wire.DeadAfter)
		w := h.welcomed(30 * time.Second)

		for _, end := range []func(w *worker){
			func(w *worker) { w.say(&agentv1.Goodbye{Reason: "restarting"}) },
			func(w *worker) { close(w.leave) },
			func(w *worker) { p.Cut(w.id, "of no use", false); w.expectEnd(); close(w.leave) },
		} {
			for range 4 { // it is a good one
				time.Sleep(20 * time.Second)
				w.say(&agentv1.Ping{})
			}
			end(w)
			w = h.welcomed(500 * time.Millisecond)
		}
	})
}

// A worker that is not wanted is told so, and asked again as seldom as it would
// ask.
func TestDialRefused(t *testing.T) {
	removed := errors.New("worker was removed by ada")
	dialStory(t, func(t *testing.T, p *primary, h *host) {
		p.Dial([]string{there})
		for range 5 {
			w := h.next(66 * time.Minute)
			w.greet()
			last, code := w.expectEnd()
			if r := last.GetReject(); r.GetReason() != removed.Error() || !r.GetPermanent() || code != codes.OK {
				t.Errorf("got %v, then %v; want a permanent Reject, then the end", last, code)
			}
			close(w.leave)
			time.Sleep(54 * time.Minute)
		}
		if n := h.dialled(); n != 5 {
			t.Errorf("dialled %d times in 5 hours", n)
		}
	}, func(c *gateway.Config) { c.Admit = func(string) error { return removed } })
}

// Before a session has reached its age there is the next one.
func TestDialMakesBeforeItBreaks(t *testing.T) {
	dialStory(t, func(t *testing.T, p *primary, h *host) {
		p.Dial([]string{there})
		w, begun := h.welcomed(time.Second), time.Now()
		for time.Since(begun) < 70*time.Minute && h.dialled() == 1 {
			time.Sleep(10 * time.Second)
			w.say(&agentv1.Ping{})
			if len(p.Sessions()) != 1 {
				t.Fatalf("no session after %v", time.Since(begun))
			}
		}
		if age := time.Since(begun); age < 54*time.Minute || age > 66*time.Minute+10*time.Second {
			t.Errorf("dialled again after %v, want an hour, give or take 10 %%", age)
		}
		next := h.next(time.Second)
		w.say(&agentv1.Ping{}) // while the next one is slow
		next.greet()
		if next.expect("Welcome"); len(p.Sessions()) != 1 || p.Sessions()[0].Epoch != 1<<32|2 {
			t.Errorf("sessions %v, want the next one", p.Sessions())
		}
		if last, _ := w.expectEnd(); last.GetMove() == nil {
			t.Errorf("the old one got %v, want a Move", last)
		}
		close(w.leave)
		synctest.Wait()
		if got := p.Stats(); got.Welcomed != 2 || got.Superseded != 1 || got.Sessions != 1 {
			t.Errorf("stats %+v", got)
		}
	})
}

// A host that takes connections and says nothing costs 10 s a try, and nobody
// waits for it at the end.
func TestDialMuteHost(t *testing.T) {
	dialStory(t, func(t *testing.T, p *primary, h *host) {
		h.behave(false, true)
		p.Dial([]string{there})
		time.Sleep(11 * time.Second)
		if n := h.dialled(); n != 2 {
			t.Errorf("dialled %d times in 11 s, want twice", n)
		}
		h.behave(false, false)
		w := h.next(11 * time.Second) // connected, and says nothing either
		time.Sleep(11 * time.Second)
		if _, code := w.expectEnd(); code != codes.Canceled {
			t.Errorf("ended with %v", code)
		}
		began := time.Now()
		if err := p.Close(t.Context()); err != nil || time.Since(began) > lastWord {
			t.Errorf("closed after %v: %v", time.Since(began), err)
		}
	})
}

// lastWord is how long a worker has for what is said last.
const lastWord = 2 * time.Second

// A primary that drains dials nobody any more. It serves on those that it has
// dialled, until another primary has, or it stops.
func TestDialAndDrain(t *testing.T) {
	dialStory(t, func(t *testing.T, p *primary, h *host) {
		p.Dial([]string{there})
		w := h.welcomed(time.Second)
		p.Drain(20 * time.Second)
		w.expect("Drain")
		time.Sleep(20 * time.Second)
		w.say(&agentv1.Ping{})
		w.expect("Pong")
		p.Dial([]string{there, "10.1.2.4:7422"})

		p.Shed(10) // it can't move by itself
		time.Sleep(30 * time.Second)
		p.AwaitEmpty(t.Context()) // nor can it leave
		w.say(&agentv1.Goodbye{Reason: "replaced by a new session"})
		time.Sleep(time.Hour)
		if n := h.dialled(); n != 1 {
			t.Errorf("dialled %d times, want once", n)
		}
	})
	dialStory(t, func(t *testing.T, p *primary, h *host) {
		p.Dial([]string{there})
		w := h.welcomed(time.Second)
		p.Drain(20 * time.Second)
		w.expect("Drain")
		done := make(chan error)
		go func() { done <- p.Close(t.Context()) }()
		if last, code := w.expectEnd(); last.GetMove() == nil || code != codes.OK {
			t.Errorf("got %v, then %v; want a Move, then the end", last, code)
		}
		close(w.leave)
		if err := <-done; err != nil {
			t.Errorf("close: %v", err)
		}
	})
}
