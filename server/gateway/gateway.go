// Package gateway holds the sessions of workers on this primary. It proves who
// dials in, or answers where it was told to dial, keeps one session for each
// worker, hands what a worker reports to the leader, what the leader says to the
// worker, and output to the run logs.
//
// It is a socket and decides nothing: it never starts, ends, retries or judges
// an attempt, reads and writes no replicated state, and what it remembers of a
// worker ends with its session. The end of a session says nothing about the
// attempts behind it.
//
// # One session
//
// Two to four goroutines, so that nothing waits for what is slower than itself. Most of
// ten thousand workers have nothing to say most of the time, so two of them are there
// only when they are needed:
//
//	Connect   waits for the end. When it returns, gRPC ends the stream, which
//	          wakes the others. For a worker that was dialled it is called direct,
//	          and hangs up itself. A timer looks after pings and silence.
//	receive   sorts what the worker says, once it was greeted. It never blocks:
//	          all it fills is bounded, and what overflows ends the session.
//	send      sends what waits in the outbox, by priority: a kill overtakes
//	          launches, and both overtake acknowledgements of output. It is there
//	          while something waits.
//	writeLogs writes output to disk and has it made durable, that of several
//	          attempts side by side. A slow disk delays nothing else. It begins
//	          with the first output.
//
// [peer.Leader] hears Attach, the reports and Detach of a session in this order, and
// one after the other. When a connection has ended it hears so first, and what the sessions
// on it have left behind is cleared away after that.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
	"github.com/schedd/schedd/server/peer"
	"github.com/schedd/schedd/server/runlog"
)

// Config is what a gateway is made of. PrimaryID, Leader, Logs and Log are
// needed.
type Config struct {
	// PrimaryID names this primary to workers and to the leader.
	PrimaryID string

	// Leader hears of sessions and of what workers report.
	Leader peer.Leader

	// Logs takes the output of attempts.
	Logs Logs

	// Admit refuses a worker by an error, whose text the worker is told and does
	// not come back soon. It is asked at each new session, more than once, and
	// must not block. To revoke a worker, first let Admit refuse it, then Cut
	// it: then no session of it is left. Nil admits all who prove their key.
	Admit func(workerID string) error

	// Refuse returns why no worker should come in through this primary at present,
	// or "". A worker is told to try again at once: the load balancer may lead it
	// to another one. It must not block. Nil takes all.
	Refuse func() string

	// Owns tells whether an attempt, by its fence too, was given to a worker, so
	// that nobody writes in another's log. It may wait for a second, and no longer
	// than ctx, which ends with the session: what waits for it is the output of that
	// worker, which waits for the disk as well. Nil takes every worker's word.
	Owns func(ctx context.Context, workerID string, k runlog.Key) bool

	// DialWorker makes the connection to a worker that is to be dialled, for
	// tests. Nil: over TCP, with [wire.DialOptions].
	DialWorker func(address string) (*grpc.ClientConn, error)

	// MaxHandshakes is how many streams may be open that have not yet proved
	// who they are; 0 means 2048. One more takes the place of the oldest that has
	// said nothing, or is told to try again if all have.
	MaxHandshakes int

	// Log is told when a worker comes and goes, and why.
	Log *slog.Logger
}

// Server is the gateway of one primary: what agents dial, and what the leader
// reaches them through. Register it as [agentv1.AgentGatewayServer], on a server
// made with [wire.ServerOptions].
type Server struct {
	agentv1.UnimplementedAgentGatewayServer

	config Config
	born   time.Time // slots are counted from here
	counts counts
	tasks  sync.WaitGroup // all goroutines; grows only before closed is set, or while one of the same session goes on

	mu       sync.Mutex
	draining bool
	closed   bool
	crowd    crowd                         // of those that shake hands
	open     map[*session]struct{}         // from the first byte to the last
	live     map[string]*session           // by worker, once they proved their key
	left     chan struct{}                 // closed, and made anew, when one leaves
	dialled  map[string]context.CancelFunc // by address: ends what keeps a session with it
}

var _ peer.Gateway = (*Server)(nil)

// New returns a gateway without sessions.
func New(c Config) *Server {
	if c.MaxHandshakes == 0 {
		c.MaxHandshakes = 2048
	}
	if c.DialWorker == nil {
		c.DialWorker = dialWorker
	}
	return &Server{
		config: c, born: time.Now(), crowd: newCrowd(c.MaxHandshakes), open: make(map[*session]struct{}), live: make(map[string]*session), left: make(chan struct{}),
		dialled: make(map[string]context.CancelFunc),
	}
}

// Send puts a Launch, Kill, ResultAck, InventoryRequest or Lease in the session's
// queue, and reports whether it did. It did not when that session is gone, or
// for a message that no worker could take: another kind, or one larger than
// [wire.MaxMessage], which is logged. The message must not be changed
// afterwards. It never blocks; a queue that is full ends the session.
func (s *Server) Send(worker string, epoch uint64, m *agentv1.GatewayMessage) bool {
	p, ok := priorityOf(m)
	if size := proto.Size(m); !ok || size > wire.MaxMessage {
		s.config.Log.Error("leader's message is not fit for a worker, dropped",
			"worker", worker, "kind", fmt.Sprintf("%T", m.GetBody()), "bytes", size)
		return false
	}
	n := s.session(worker)
	if n == nil || n.Epoch != epoch {
		return false
	}
	return n.put(p, m)
}

// priorityOf tells in which queue a message of the leader waits, and whether it
// is one that the leader may send.
func priorityOf(m *agentv1.GatewayMessage) (priority, bool) {
	switch m.GetBody().(type) {
	case *agentv1.GatewayMessage_Kill, *agentv1.GatewayMessage_Lease:
		return urgent, true
	case *agentv1.GatewayMessage_Launch, *agentv1.GatewayMessage_ResultAck, *agentv1.GatewayMessage_InventoryRequest:
		return normal, true
	}
	return 0, false
}

// session returns the live session of a worker, or nil.
func (s *Server) session(worker string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.live[worker]; n != nil && !n.leaving() {
		return n
	}
	return nil
}

// Sessions returns all live sessions, in no order.
func (s *Server) Sessions() []peer.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]peer.Session, 0, len(s.live))
	for _, n := range s.live {
		if !n.leaving() {
			all = append(all, n.Session)
		}
	}
	return all
}

// Cut ends the session of a worker, if there is one, after telling it why in the
// stream: only what is said there has authority.
func (s *Server) Cut(worker, reason string, permanent bool) {
	n := s.session(worker)
	if n == nil {
		return
	}
	code := codes.Unavailable
	if permanent {
		code = codes.PermissionDenied
	}
	n.end(reject(code, permanent, 0, reason))
}

// Drain asks all workers to come back through another connection within the
// spread, and refuses new sessions from here on: it is the beginning of the
// end, which [Server.Close] is. Sessions go on until their workers leave; those
// of workers that were dialled, until another primary dials them.
func (s *Server) Drain(spread time.Duration) {
	s.mu.Lock()
	s.draining = true
	all := make([]*session, 0, len(s.live))
	for _, n := range s.live {
		all = append(all, n)
	}
	s.mu.Unlock()
	for _, n := range all {
		n.put(urgent, &agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Drain{
			Drain: &agentv1.Drain{Spread: durationpb.New(spread)},
		}})
	}
}

// Close ends all sessions, telling workers to come back through another
// connection now, refuses new ones, and waits until no goroutine is left. The
// only thing that may take longer than a few seconds is a disk that does not
// answer; the error is that of ctx then. Close it before what it was given.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	all := make([]*session, 0, len(s.open))
	for n := range s.open {
		all = append(all, n)
	}
	stops := slices.Collect(maps.Values(s.dialled))
	s.mu.Unlock()
	for _, n := range all {
		n.end(move(codes.Unavailable, "the primary stops"))
	}
	for _, stop := range stops {
		stop()
	}

	done := make(chan struct{})
	go func() { // ends with the last session
		s.tasks.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close the gateway: not all sessions have ended, a disk may not answer: %w", context.Cause(ctx))
	}
}

// enter counts a new stream in. Each one that was is followed by leave and by
// tasks.Done.
func (s *Server) enter(n *session) error {
	goes, err := s.letIn(n)
	if goes != nil {
		goes.end(crowdedOut(s.config.MaxHandshakes))
	}
	return err
}

// letIn is enter, but for the stream that goes to make room.
func (s *Server) letIn(n *session) (goes *session, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, status.Error(codes.Unavailable, "the primary stops, come back through another connection")
	}
	goes, ok := s.crowd.join(n)
	if !ok {
		s.counts.rejected.Add(1)
		return nil, status.Errorf(codes.ResourceExhausted, "%d streams are shaking hands here, try again later", s.config.MaxHandshakes)
	}
	s.tasks.Add(1)
	s.open[n] = struct{}{}
	return goes, nil
}

// spoke tells that a stream has said Hello.
func (s *Server) spoke(n *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.crowd.spoke(n)
}

// greeted tells that a stream is no longer shaking hands, whatever came of it.
func (s *Server) greeted(n *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.crowd.leave(n)
}

// leave counts a stream out.
func (s *Server) leave(n *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, n)
	if s.live[n.Worker] == n {
		delete(s.live, n.Worker)
	}
	close(s.left)
	s.left = make(chan struct{})
}

var (
	errDraining = errors.New("this primary is about to stop, come back through another connection")
	errOldEpoch = errors.New("a session of this worker that is as new or newer is live")
)

// claim makes n the worker's live session, and returns the one it takes the
// place of, or the one that is in its way together with [errOldEpoch].
func (s *Server) claim(n *session) (old *session, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.draining {
		return nil, errDraining
	}
	old = s.live[n.Worker]
	if old != nil && n.Epoch <= old.Epoch {
		// Also when it is over: until it has left, the leader may not have heard of
		// its end, and would take n for the older of two.
		return old, errOldEpoch
	}
	s.live[n.Worker] = n
	return old, nil
}
