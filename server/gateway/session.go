package gateway

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	grpcpeer "google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
	"github.com/schedd/schedd/server/peer"
)

const (
	// handshakeWithin is how long a stream may take to prove who it is.
	handshakeWithin = 10 * time.Second
	// lastWordWithin is how long an ending waits for the worker to take what is
	// said last. One that does not read has to do without.
	lastWordWithin = 2 * time.Second
)

// stream is this end of a session's stream, whoever opened it.
type stream interface {
	Send(*agentv1.GatewayMessage) error
	Recv() (*agentv1.AgentMessage, error)
	Context() context.Context
}

// session is one stream of one worker.
type session struct {
	// Session is set by the handshake, and only read once the session is live.
	peer.Session

	server *Server
	stream stream
	log    *slog.Logger
	born   time.Time
	heard  atomic.Int64 // when a message came last: nanoseconds after born

	out      *outbox
	intake   *intake
	writes   bool          // writeLogs was started; of the goroutine that receives
	greeted  chan struct{} // closed when the worker was welcomed
	received chan struct{} // closed when nothing is received any more
	ended    chan struct{} // closed by end

	telling  sync.Mutex  // held while the leader is told of the session
	attached bool        // the leader knows of it; guarded by telling
	gone     atomic.Bool // the leader need not know of it any more; set while telling is held

	asked  atomic.Bool // the worker was, or will be, asked to move
	once   sync.Once
	ending *ending // set before ended is closed

	mu    sync.Mutex  // guards what follows
	timer *time.Timer // until the next look
	pings uint64      // that were sent
}

func (s *Server) newSession(stream stream, address string) *session {
	n := &session{
		server:   s,
		stream:   stream,
		born:     time.Now(),
		out:      newOutbox(),
		intake:   newIntake(),
		greeted:  make(chan struct{}),
		received: make(chan struct{}),
		ended:    make(chan struct{}),
	}
	n.Gateway, n.ObservedAddress = s.config.PrimaryID, address
	n.log = s.config.Log.With("address", address)
	return n
}

// Connect is one session, called by gRPC for each stream. When it returns, gRPC
// ends the stream: that is the only way to wake a goroutine that waits in Recv
// or Send.
func (s *Server) Connect(stream agentv1.AgentGateway_ConnectServer) error {
	n := s.newSession(stream, observed(stream.Context()))
	if err := s.enter(n); err != nil {
		return err
	}
	defer s.tasks.Done()
	c := connectionOf(stream.Context())
	c.join(n)
	defer c.leave(n)
	n.run()
	return n.ending.status()
}

// run returns when the session has ended and its stream is to end. It does as little as
// it can: what it does is on top of a deep stack of gRPC's, and there are ten thousand.
func (n *session) run() {
	n.setTimer(handshakeWithin)
	n.server.tasks.Go(n.greet)
	<-n.ended
	n.stopTimer()
	select {
	case <-n.greeted:
		n.awaitLastWord()
	default:
	}
}

// observed returns where a stream came from.
func observed(ctx context.Context) string {
	if p, ok := grpcpeer.FromContext(ctx); ok && p.Addr != nil {
		return p.Addr.String()
	}
	return ""
}

// end ends the session, unless it has ended for another reason. It may be called
// from any goroutine, and does not wait.
func (n *session) end(e *ending) {
	n.once.Do(func() {
		n.ending = e
		n.out.close(e.word) // before run is woken: up to then tasks may grow
		close(n.ended)
	})
}

// over tells whether the session has ended.
func (n *session) over() bool {
	select {
	case <-n.ended:
		return true
	default:
		return false
	}
}

// leaving tells whether the session has ended or its connection has, which ends it soon.
func (n *session) leaving() bool { return n.over() || n.gone.Load() }

// put queues a message, and ends a session whose worker takes nothing.
func (n *session) put(p priority, m *agentv1.GatewayMessage) bool {
	if n.leaving() {
		return false
	}
	if !n.out.put(p, m) {
		n.end(silent(codes.ResourceExhausted, "%d messages wait for the worker, which does not take them", maxWaiting))
		return false
	}
	return true
}

// quietAfter is how long the gateway hears nothing of a worker before it pings it. A
// worker's own pings come sooner, and are traffic both ways, since each is answered: to
// ping it as well would double what ten thousand idle sessions cost.
const quietAfter = 13 * time.Second

// setTimer has the session be looked at after some time.
func (n *session) setTimer(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.timer == nil {
		n.timer = time.AfterFunc(d, n.look)
		return
	}
	n.timer.Reset(d)
}

func (n *session) stopTimer() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.timer.Stop()
}

// look pings the worker when it is silent, and ends the session when nothing was heard
// for too long, or the handshake takes too long.
func (n *session) look() {
	if n.over() {
		return
	}
	select {
	case <-n.greeted:
	default:
		n.end(silent(codes.DeadlineExceeded, "the handshake took longer than %v", handshakeWithin))
		return
	}
	quiet := n.silent()
	if quiet >= wire.DeadAfter {
		n.server.counts.silent.Add(1)
		n.end(silent(codes.DeadlineExceeded, "nothing was heard of the worker for %v", wire.DeadAfter))
		return
	}
	wait := quietAfter - quiet
	if wait <= 0 {
		n.ping()
		wait = pingWait()
	}
	n.setTimer(min(wait, wire.DeadAfter-quiet))
}

func (n *session) ping() {
	n.mu.Lock()
	n.pings++
	seq := n.pings
	n.mu.Unlock()
	n.put(urgent, &agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Ping{Ping: &agentv1.Ping{Seq: seq}}})
}

func pingWait() time.Duration { return wire.Spread(wire.PingInterval, wire.PingSpread, rand.Float64()) }

// silent returns for how long nothing was heard of the worker.
func (n *session) silent() time.Duration {
	return time.Since(n.born) - time.Duration(n.heard.Load())
}

// awaitLastWord gives the worker some time to take what send says last.
func (n *session) awaitLastWord() {
	if n.ending.word == nil {
		return
	}
	late := time.NewTimer(lastWordWithin)
	defer late.Stop()
	select {
	case <-n.out.flushed:
	case <-late.C:
	}
}

// send sends what waits in the outbox.
func (n *session) send() {
	for m := n.out.next(); m != nil; m = n.out.next() {
		if err := n.stream.Send(m); err != nil {
			n.end(broken(err))
			n.out.abandon()
			return
		}
		n.server.counts.sent.Add(1)
	}
}

// say sends the last message of a stream that was not welcomed. Whether it arrives
// changes nothing: the stream ends either way, and workers come back after any end.
func (n *session) say(m *agentv1.GatewayMessage) {
	if err := n.stream.Send(m); err != nil {
		n.log.Debug("last word not sent", "err", err)
	}
}

// greet shakes hands and begins the session. It takes much of a stack, which it gives
// back: what follows is in a goroutine of its own.
func (n *session) greet() {
	s := n.server
	refused := n.handshake()
	s.greeted(n)
	if refused != nil {
		defer close(n.received)
		defer s.leave(n)
		n.end(refused)
		s.counts.rejected.Add(1)
		n.log.Info("worker refused", "worker", n.Worker, "reason", n.ending.reason)
		return
	}
	s.counts.welcomed.Add(1)
	n.log = n.log.With("worker", n.Worker, "name", n.Hello.GetName(), "epoch", n.Epoch)
	close(n.greeted)
	n.setTimer(quietAfter)
	n.out.open(func() { s.tasks.Go(n.send) })
	n.log.Info("worker connected", "instance", n.Hello.GetInstance(), "version", n.Hello.GetVersion(), "direct", n.Direct)
	n.attach()
	s.tasks.Go(n.receive)
}

// attach tells the leader of the session, unless its connection has ended already.
func (n *session) attach() {
	n.telling.Lock()
	defer n.telling.Unlock()
	if n.attached = !n.gone.Load(); n.attached {
		n.server.config.Leader.Attach(n.Session)
	}
}

// tell hands on what is of interest as long as the leader knows of the session. A worker
// says again what was not answered.
func (n *session) tell(f func(peer.Leader)) {
	n.telling.Lock()
	defer n.telling.Unlock()
	if n.attached {
		f(n.server.config.Leader)
	}
}

// detach tells the leader, once, that the session is over.
func (n *session) detach() {
	n.telling.Lock()
	defer n.telling.Unlock()
	if n.attached {
		n.server.config.Leader.Detach(n.Worker, n.Epoch)
	}
	n.attached = false
	n.gone.Store(true)
}

// receive takes what the worker says, until the stream ends.
func (n *session) receive() {
	defer close(n.received)
	n.listen()
	n.parted()
}

// parted tells that nothing comes any more.
func (n *session) parted() {
	defer n.server.leave(n)
	n.detach()
	n.log.Info("worker left", "reason", n.ending.reason, "after", time.Since(n.born).Round(time.Millisecond))
}

// listen takes messages until the session ends.
func (n *session) listen() {
	var seen time.Time
	for {
		m, err := n.stream.Recv()
		if n.over() {
			return
		}
		if err != nil {
			n.end(broken(err))
			return
		}
		now := time.Now()
		n.heard.Store(int64(now.Sub(n.born)))
		n.server.counts.received.Add(1)
		if seen.IsZero() || now.Sub(seen) >= time.Second {
			seen = now
			n.tell(func(l peer.Leader) { l.Seen(n.Worker, n.Epoch, now) })
		}
		if e := n.handle(m); e != nil {
			n.end(e)
			return
		}
	}
}

// broken is the ending of a stream that gRPC has ended. It is no goodbye: a
// load balancer that ran into a timeout looks just so.
func broken(err error) *ending {
	if errors.Is(err, io.EOF) {
		return silent(codes.OK, "the worker closed the stream without a goodbye")
	}
	return silent(status.Code(err), "the connection broke: %s", status.Convert(err).Message())
}
