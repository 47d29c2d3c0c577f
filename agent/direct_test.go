package agent_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/schedd/schedd/agent"
	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
)

// port is where a worker listens, and what primaries dial.
type port struct {
	w        *world
	listener *bufconn.Listener
	wg       sync.WaitGroup // one for each call
}

// directly has the workers that start from now on listen, and dial nobody but
// the server, if one is given.
func directly(w *world, server string) *port {
	p := &port{w: w, listener: bufconn.Listen(1 << 20)}
	w.change = func(c *agent.Config, s *agent.Seams) {
		c.Server, c.DirectListen = server, "127.0.0.1:7422"
		s.Listen = func(context.Context, string) (net.Listener, error) { return p.listener, nil }
	}
	return p
}

// call dials the worker as a primary does, and has a gateway talk to it. The
// error is how the stream ended.
func (p *port) call(g *gateway) <-chan error {
	p.w.Helper()
	conn, err := grpc.NewClient("passthrough:///worker", append(wire.DialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return p.listener.DialContext(ctx) }))...)
	if err != nil {
		p.w.Fatal(err)
	}
	ended := make(chan error, 1)
	p.wg.Go(func() {
		defer func() { _ = conn.Close() }()
		ctx, hangUp := context.WithCancel(p.w.Context())
		defer hangUp()
		stream, err := agentv1.NewAgentDirectClient(conn).Accept(ctx, wire.SessionOptions()...)
		if err == nil {
			err = g.converse(stream)
		}
		ended <- err
	})
	p.w.wait(10 * time.Millisecond)
	return ended
}

// A worker that listens does, over a stream that a primary opened, all that it
// does over one of its own.
func TestDirect(t *testing.T) {
	output := text(300_000)
	script := map[string]fakerunner.Behaviour{"r1": {Duration: time.Minute, Output: []fakerunner.Chunk{{Data: output}}}}
	story(t, polite, script, func(w *world) {
		p := directly(w, "")
		one := w.start()
		w.wait(time.Hour)
		p.call(w.gateway)
		v := w.gateway.last()
		v.launch(launchOf("r1"))
		w.wait(30 * time.Minute)
		w.says(v, "inventory", "started r1/1", "result r1/1 SUCCEEDED")
		if got := w.gateway.log("r1"); got != string(output) {
			t.Errorf("a log of %d bytes arrived, want the %d that were written", len(got), len(output))
		}
		one.end()
		p.wg.Wait()
		w.says(v, "inventory", "started r1/1", "result r1/1 SUCCEEDED", "goodbye")
		if w.gateway.dialled() != 0 {
			t.Errorf("the worker dialled %d times, and should only listen", w.gateway.dialled())
		}
		if log := one.log.String(); !strings.Contains(log, "direct_listen=bufconn") {
			t.Errorf("the log does not say where it listens: %s", log)
		}
	})
}

// Each primary that dials takes the place of the one before, without a gap.
func TestDirectMakeBeforeBreak(t *testing.T) {
	story(t, polite, map[string]fakerunner.Behaviour{"r1": {Duration: time.Hour}}, func(w *world) {
		p := directly(w, "")
		w.start()
		p.call(w.gateway)
		w.gateway.last().launch(launchOf("r1"))
		other := newGateway(w.T, polite)
		defer other.close()
		for _, next := range []*gateway{other, other, w.gateway, other} {
			w.wait(time.Minute)
			p.call(next)
		}
		w.wait(time.Minute)

		all := append(w.gateway.visits(), other.visits()...)
		live := 0
		for _, v := range all {
			if v.over().IsZero() {
				live++
				w.says(v, "inventory r1/1=RUNNING")
				continue
			}
			if got := v.story(); got[len(got)-1] != "goodbye" || v.over().Sub(v.begun) < time.Minute {
				t.Errorf("a session ended after %v with %q", v.over().Sub(v.begun), got)
			}
		}
		if len(all) != 5 || live != 1 || !other.last().over().IsZero() {
			t.Errorf("%d of %d sessions live, want the last of 5", live, len(all))
		}
		w.startsOf("r1", 1)
		w.workers[0].end()
		p.wg.Wait()
	})
}

// Who is dialled can't open another session when its runner comes back with other limits:
// it ends the one there is, and says them when it is dialled again.
func TestDirectRunnerKeepsOtherLimits(t *testing.T) {
	story(t, polite, nil, func(w *world) {
		p := directly(w, "")
		w.start()
		ended := p.call(w.gateway)
		v := w.gateway.last()
		is, _ := w.host.Enforcement()
		is.Memory = runner.MeansNone
		w.host.SetEnforcement(is)
		<-ended
		w.says(v, "inventory", "goodbye")
		p.call(w.gateway)
		if got := w.gateway.last().hello.GetEnforcement().GetMemory(); got != agentv1.Means_MEANS_NONE {
			t.Errorf("then memory is kept by %v", got)
		}
		w.workers[0].end()
		p.wg.Wait()
	})
}

// A worker that may do both serves who dialled it, and dials when nobody does.
func TestBothWays(t *testing.T) {
	story(t, polite, nil, func(w *world) {
		p := directly(w, "127.0.0.1:7421")
		w.start()
		w.wait(2 * time.Minute)
		dialled := w.gateway.last()

		p.call(w.gateway)
		accepted := w.gateway.last()
		w.wait(3 * time.Hour)
		w.says(dialled, "inventory", "goodbye")
		w.says(accepted, "inventory")
		if n := len(w.gateway.visits()); n != 2 {
			t.Errorf("%d sessions, want the one that it was dialled for to last", n)
		}

		accepted.hangUp()
		w.wait(time.Second)
		if n := len(w.gateway.visits()); n != 3 {
			t.Errorf("%d sessions, want it to dial when nobody has dialled it", n)
		}
		w.workers[0].end()
		p.wg.Wait()
	})
}

// Those who dial and say nothing are hung up on, and are bounded meanwhile.
func TestDirectMuteCallers(t *testing.T) {
	story(t, polite, nil, func(w *world) {
		p := directly(w, "")
		w.start()
		mute := newGateway(w.T, manners{deaf: true})
		defer mute.close()
		begun := time.Now()
		var ended []<-chan error
		for range 17 {
			ended = append(ended, p.call(mute))
		}
		if err := <-ended[16]; status.Code(err) != codes.ResourceExhausted {
			t.Errorf("one too many got %v", err)
		}
		for _, e := range ended[:16] {
			<-e
		}
		if took := time.Since(begun); took < 10*time.Second || took > 11*time.Second {
			t.Errorf("they were hung up on after %v, want 10 s", took)
		}
		p.call(w.gateway)
		w.says(w.gateway.last(), "inventory")
		w.workers[0].end()
		p.wg.Wait()
	})
}

// Nor does it help a stranger to begin with the handshake: it is the whole of it that has
// its time.
func TestDirectStranger(t *testing.T) {
	story(t, polite, nil, func(w *world) {
		p := directly(w, "")
		w.start()
		stranger := newGateway(w.T, manners{stranger: true})
		defer stranger.close()
		begun := time.Now()
		<-p.call(stranger)
		if took := time.Since(begun); took < 10*time.Second || took > 11*time.Second {
			t.Errorf("it was hung up on after %v, want 10 s", took)
		}
		w.workers[0].end()
		p.wg.Wait()
	})
}

// A primary that fell silent is given up, although only the end of the call wakes
// what waits for it.
func TestDirectSilence(t *testing.T) {
	story(t, manners{mute: true}, nil, func(w *world) {
		p := directly(w, "")
		one := w.start()
		p.call(w.gateway)
		v := w.gateway.last()
		w.wait(time.Minute)
		if lived := v.over().Sub(v.begun); lived != wire.DeadAfter {
			t.Errorf("the session was given up after %v, want %v", lived, wire.DeadAfter)
		}
		if !strings.Contains(one.log.String(), "waiting to be dialled again") {
			t.Error("the log does not say so")
		}
		one.end()
		p.wg.Wait()
	})
}

// A worker that was told to listen and can't does not start.
func TestCannotListen(t *testing.T) {
	c := agent.DefaultConfig()
	c.Name, c.DataDir, c.Server, c.DirectListen = "a", t.TempDir(), "", "127.0.0.1:7422"
	inUse := errors.New("address already in use")
	err := agent.Run(t.Context(), c, agent.Seams{Listen: func(context.Context, string) (net.Listener, error) { return nil, inUse }})
	if !errors.Is(err, inUse) || !strings.Contains(err.Error(), "--direct-listen") {
		t.Errorf("error %v", err)
	}
}
