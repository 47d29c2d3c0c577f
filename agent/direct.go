package agent

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/schedd/schedd/agent/session"
	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
)

const (
	// acceptWithin is how long a primary that dialled may take to welcome the
	// worker, all in all: whoever begins with the handshake is not known by that.
	acceptWithin = 10 * time.Second
	// acceptMost bounds the sessions that are open or being opened. There is one,
	// and its successor; the others are for those who dial and say nothing.
	acceptMost = 16
)

// direct listens: primaries dial it, and each session that is opened so takes the
// place of the one before. It dials nobody.
type direct struct {
	*sessions
	listener net.Listener

	wg sync.WaitGroup // one for each session; grows only past enter

	mu     sync.Mutex // guards all below
	open   int
	closed bool
}

// acceptor is what gRPC calls for each stream.
type acceptor struct {
	agentv1.UnimplementedAgentDirectServer
	accept func(stream agentv1.AgentDirect_AcceptServer, from string) error
}

// Accept is one session.
func (a *acceptor) Accept(stream agentv1.AgentDirect_AcceptServer) error {
	return a.accept(stream, caller(stream.Context()))
}

// caller returns where a stream came from.
func caller(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		return p.Addr.String()
	}
	return ""
}

// run accepts sessions until ctx is done; the cause of that is what the last one
// says goodbye with.
func (d *direct) run(ctx context.Context) {
	server := grpc.NewServer(append(wire.ServerOptions(), grpc.WaitForHandlers(true))...)
	agentv1.RegisterAgentDirectServer(server, &acceptor{accept: func(stream agentv1.AgentDirect_AcceptServer, from string) error {
		return d.accept(ctx, stream, from)
	}})
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(d.listener); err != nil {
			d.log.Error("no primary can dial this worker any more; restart it", "direct_listen", d.listener.Addr().String(), "err", err)
		}
	})
	<-ctx.Done()
	d.close()
	d.wg.Wait()
	server.Stop()
	serving.Wait()
}

// enter counts a session in, unless there are too many.
func (d *direct) enter() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return status.Error(codes.Unavailable, "the worker stops")
	case d.open >= acceptMost:
		return status.Errorf(codes.ResourceExhausted, "%d sessions are open here, try again later", d.open)
	}
	d.open++
	d.wg.Add(1)
	return nil
}

func (d *direct) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open--
	d.wg.Done()
}

func (d *direct) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
}

// accept is one session, called by gRPC for each stream. When it returns the
// stream ends, which is the only way to wake a session that waits in it; so it
// returns when the session hangs up, and the session ends after that.
func (d *direct) accept(ctx context.Context, stream agentv1.AgentDirect_AcceptServer, from string) error {
	if err := d.enter(); err != nil {
		return err
	}
	done, hungUp := make(chan struct{}), make(chan struct{})
	go func() { // owned by run, which waits for leave
		defer d.leave()
		defer close(done)
		d.serve(ctx, from, func(ctx context.Context) (session.Stream, error) {
			context.AfterFunc(ctx, func() { close(hungUp) })
			return accepted{stream}, nil
		})
	}()
	select {
	case <-done:
	case <-hungUp:
	}
	return nil
}

// serve opens a session with a primary that has dialled, and runs it.
func (d *direct) serve(ctx context.Context, from string, connect func(context.Context) (session.Stream, error)) {
	opening, cancel := context.WithTimeoutCause(ctx, acceptWithin, fmt.Errorf("%w within %v", session.ErrLate, acceptWithin))
	defer cancel()
	c, err := d.introduce(opening, acceptWithin, from, connect)
	if err != nil {
		d.log.Warn("no session with a primary that dialled", "from", from, "err", err)
		return
	}
	c.accepted = true
	d.converse(ctx, c)
	if c.err == nil {
		return
	}
	var asked session.Replacement // to go: it can't, but it may say why it was left
	select {
	case asked = <-c.Replace():
	default:
	}
	d.log.Warn("session ended; waiting to be dialled again", "from", from, "err", c.err, "reason", asked.Reason)
}

// accepted is a stream that a primary opened.
type accepted struct {
	agentv1.AgentDirect_AcceptServer
}

// CloseSend does nothing: our half ends when the session does.
func (accepted) CloseSend() error { return nil }
