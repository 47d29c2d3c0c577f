package gateway

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
)

// refusedAgain is how often a worker is dialled that is not wanted here: as often
// as one that dials asks.
const refusedAgain = time.Hour

// handOverWithin is how long a session whose worker another primary is to dial
// goes on, so that there is no time without one.
const handOverWithin = 5 * time.Second

// Dial says at which addresses, host:port each, there are workers that this
// gateway has to dial, since they can't dial out. It is the whole list each time:
// with each one session is kept, and opened again whenever it ends. One whose
// address left the list ends when another primary has dialled the worker, or a few
// seconds later. It does not wait. From [Server.Drain] on nobody is dialled any
// more, and sessions go on.
//
// A worker serves the primary that dialled it last. Two that dial the same worker
// take it from each other, so each address belongs on the list of one primary.
func (s *Server) Dial(addresses []string) {
	wanted := make(map[string]bool, len(addresses))
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range addresses {
		wanted[a] = true
		if s.dialled[a] == nil && !s.draining && !s.closed {
			s.dialled[a] = s.keepLocked(a)
		}
	}
	for a, stop := range s.dialled {
		if !wanted[a] {
			stop()
			delete(s.dialled, a)
		}
	}
}

// keepLocked keeps a session with the worker at an address, until stop.
func (s *Server) keepLocked(address string) (stop context.CancelFunc) {
	ctx, stop := context.WithCancel(context.Background())
	d := &dialler{server: s, address: address, log: s.config.Log.With("address", address)}
	s.tasks.Go(func() { d.run(ctx) })
	return stop
}

// dials reports whether this gateway dials workers.
func (s *Server) dials() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.draining && !s.closed
}

// dialWorker is what [Config.DialWorker] is by default.
func dialWorker(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient(address, append(wire.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
}

// dialler keeps a session with the worker at one address, by the rules that
// workers dial by.
type dialler struct {
	server   *Server
	address  string
	log      *slog.Logger
	failures int // in a row
}

// run returns when ctx is done, which ends the session, or when the gateway
// drains, which does not.
func (d *dialler) run(ctx context.Context) {
	var current *session
	for ctx.Err() == nil && d.server.dials() {
		next, refused := d.call(ctx)
		if refused != nil {
			d.rest(ctx, refused)
			continue
		}
		if current != nil { // it is over, unless another worker has the address now
			current.end(move(codes.Aborted, "replaced by a new session"))
		}
		current = next
		d.attend(ctx, current)
	}
	if current != nil && ctx.Err() != nil {
		current.handOver()
	}
}

// handOver ends a session, once another primary has had time to dial its worker,
// which ends it as well.
func (n *session) handOver() {
	late := time.NewTimer(handOverWithin)
	defer late.Stop()
	select {
	case <-n.ended:
	case <-late.C:
		n.end(move(codes.Aborted, "this primary does not dial the worker any more"))
	}
}

// call dials the worker and opens a session, or returns why there is none. The
// session goes on until it ends, in a goroutine that is counted among the tasks.
func (d *dialler) call(ctx context.Context) (*session, *ending) {
	conn, err := d.server.config.DialWorker(d.address)
	if err != nil {
		return nil, silent(codes.Unavailable, "dial: %v", err)
	}
	streamCtx, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	late := time.AfterFunc(handshakeWithin, hangUp)
	defer late.Stop()
	stop := context.AfterFunc(ctx, hangUp)
	defer stop()
	stream, err := agentv1.NewAgentDirectClient(conn).Accept(streamCtx, wire.SessionOptions()...)
	if err == nil {
		n := d.server.newSession(stream, d.address)
		n.Direct = true
		if err = d.server.enter(n); err == nil {
			go n.direct(stream, conn, hangUp)
			return n.greeting()
		}
	}
	hangUp()
	n := silent(status.Code(err), "dial: %s", status.Convert(err).Message())
	if err := conn.Close(); err != nil {
		d.log.Debug("connection not closed", "err", err)
	}
	return nil, n
}

// attend waits until there has to be another session: the life of n is over,
// while it goes on, or n has ended.
func (d *dialler) attend(ctx context.Context, n *session) {
	life := time.NewTimer(wire.Spread(wire.StreamLife, wire.StreamLifeSpread, rand.Float64()))
	defer life.Stop()
	select {
	case <-ctx.Done():
	case <-life.C:
		d.failures = 0
	case <-n.ended:
		if time.Since(n.born) >= wire.BackoffReset {
			d.failures = 0
		}
		d.rest(ctx, n.ending)
	}
}

// rest waits before the worker is dialled again.
func (d *dialler) rest(ctx context.Context, e *ending) {
	if ctx.Err() != nil {
		return
	}
	d.failures++
	wait := again(e, d.failures, rand.Float64())
	d.log.Warn("no session with a worker that is to be dialled; dialling again", "reason", e.reason, "again_in", wait, "tries", d.failures)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// again returns how long to wait after failures in a row, the last of which was
// e: as long as a worker that dials would, had it heard the same. r is a random
// number in [0, 1).
func again(e *ending, failures int, r float64) time.Duration {
	reject := e.word.GetReject()
	if reject.GetPermanent() {
		return wire.Spread(refusedAgain, wire.StreamLifeSpread, r)
	}
	return wire.Backoff(failures, r) + reject.GetRetryAfter().AsDuration()
}

// greeting waits for the end of the handshake, and returns the session or why
// there is none.
func (n *session) greeting() (*session, *ending) {
	select {
	case <-n.greeted:
		return n, nil
	case <-n.ended:
		return nil, n.ending
	}
}

// direct runs a session that this gateway opened, as Connect does for those that
// workers open. It is counted by enter.
func (n *session) direct(stream agentv1.AgentDirect_AcceptClient, conn *grpc.ClientConn, hangUp context.CancelFunc) {
	defer n.server.tasks.Done()
	n.run()
	n.part(stream, hangUp)
	hangUp() // wakes those that wait in the stream
	if err := conn.Close(); err != nil {
		n.log.Debug("connection not closed", "err", err)
	}
}

// part lets the worker hear the last word, and end the stream: if this end did,
// that would overtake the word. A worker that takes too long has to do without.
func (n *session) part(stream agentv1.AgentDirect_AcceptClient, hangUp context.CancelFunc) {
	if n.ending.word == nil {
		return
	}
	late := time.AfterFunc(lastWordWithin, hangUp)
	defer late.Stop()
	select { // who sent, will send no more
	case <-n.greeted:
		<-n.out.flushed
	default:
		<-n.received
	}
	if err := stream.CloseSend(); err != nil {
		return
	}
	<-n.received
	for {
		if _, err := stream.Recv(); err != nil {
			return
		}
	}
}
