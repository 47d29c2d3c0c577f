package agent

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/schedd/schedd/agent/session"
	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
)

// leaveWithin is how long a worker stays on a connection that takes no new
// streams any more. A load balancer that is reloaded says so to all its workers
// at once, and gives them some seconds before it cuts.
const leaveWithin = 5 * time.Second

// talker dials: it keeps a session with some gateway, one after the other. A new
// one is opened before the old is ended, wherever there is a choice.
type talker struct {
	*sessions
	servers []string // in the order of their turns
	dialer  func(context.Context, string) (net.Conn, error)

	wg sync.WaitGroup // two for each conversation

	// For run alone.
	server   int           // whose turn it is
	failures int           // in a row, but for tries that took too long
	refusals int           // the last of these, those with a status that may be meant
	late     int           // tries in a row that took too long
	took     time.Duration // to open the last session
	stops    int           // of the other end, in a row, by sessions that were young
	rhythm   rhythm
}

// newTalker returns a talker that tries the servers in an order of its own, so
// that the workers of one that is away spread over all others.
func newTalker(c Config, s Seams, all *sessions) *talker {
	servers := c.servers()
	rand.Shuffle(len(servers), func(i, j int) { servers[i], servers[j] = servers[j], servers[i] })
	return &talker{sessions: all, servers: servers, dialer: s.Dialer}
}

// run keeps a session until ctx is done; the cause of that is what the last one
// says goodbye with.
func (k *talker) run(ctx context.Context) {
	defer k.wg.Wait()
	var current *conversation
	for k.awaitTurn(ctx) {
		next, err := k.open(ctx)
		if err != nil {
			current = k.retry(ctx, current, err)
			continue
		}
		leaving := k.begin(ctx, next)
		current = k.attend(ctx, next, leaving)
	}
}

// awaitTurn waits while a primary that has dialled this worker serves it: whoever
// dials as well would only throw that one out. It returns false at the end.
func (k *talker) awaitTurn(ctx context.Context) bool {
	for ctx.Err() == nil {
		c := k.current()
		if c == nil || !c.accepted {
			return true
		}
		select {
		case <-ctx.Done():
		case <-c.done:
		}
	}
	return false
}

// open opens a session over a connection of its own, so that a load balancer may
// choose anew.
func (k *talker) open(ctx context.Context) (*conversation, error) {
	server := k.servers[k.server%len(k.servers)]
	k.server++
	conn, err := k.dial(server)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	connect := func(ctx context.Context) (session.Stream, error) {
		return agentv1.NewAgentGatewayClient(conn).Connect(ctx, wire.SessionOptions()...)
	}
	c, err := k.introduce(ctx, wire.Patience(k.late, k.took), server, connect)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	k.late, k.refusals, k.took = 0, 0, c.begun.Sub(began)
	c.conn = conn
	return c, nil
}

func (k *talker) dial(server string) (*grpc.ClientConn, error) {
	options := append(wire.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if k.dialer != nil {
		options = append(options, grpc.WithContextDialer(k.dialer))
		server = "passthrough:///" + server
	}
	return grpc.NewClient(server, options...)
}

// begin lets a conversation run. What it returns is closed when it is time to
// leave its connection, if that comes before its end.
func (k *talker) begin(ctx context.Context, c *conversation) (leaving <-chan struct{}) {
	left := make(chan struct{})
	ctx, over := context.WithCancel(ctx)
	k.wg.Go(func() {
		defer over()
		k.converse(ctx, c)
	})
	k.wg.Go(func() {
		if goesAway(ctx, c.conn) {
			close(left)
		}
	})
	return left
}

// goesAway reports whether a connection takes no new streams any more, which is
// all that can be seen of an HTTP/2 GOAWAY: a load balancer or a primary at the
// other end is about to stop. It waits until that is so and, since all workers
// see it at once, for a part of [leaveWithin]. It is false when ctx is done
// before, as it is when the connection broke and the session with it.
func goesAway(ctx context.Context, conn *grpc.ClientConn) bool {
	// A stream may be open a moment before its connection is said to be ready.
	for conn.GetState() == connectivity.Connecting {
		if !conn.WaitForStateChange(ctx, connectivity.Connecting) {
			return false
		}
	}
	if !conn.WaitForStateChange(ctx, connectivity.Ready) {
		return false
	}
	moment := time.NewTimer(rand.N(leaveWithin))
	defer moment.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-moment.C:
		return true
	}
}

// attend waits until there has to be another session. It returns c if that one
// still serves.
func (k *talker) attend(ctx context.Context, c *conversation, leaving <-chan struct{}) *conversation {
	rotation := time.NewTimer(k.rhythm.rotation(c.begun, rand.Float64()))
	defer rotation.Stop()
	select {
	case <-ctx.Done():
		return c
	case <-rotation.C:
		k.log.Info("replacing the session", "server", c.where, "reason", "it is about to be cut")
		k.failures = 0 // it is as old as a session gets here
		return c
	case why := <-c.Replace():
		return k.succeed(ctx, c, why)
	case <-leaving:
		return k.succeed(ctx, c, session.Replacement{Reason: "its connection takes no new streams", Stops: true})
	case <-c.outdated:
		return k.succeed(ctx, c, session.Replacement{Reason: "the runner is another one, with other limits", Stops: true})
	case <-c.done:
	}
	return k.lost(ctx, c)
}

// lost goes on after c has ended.
func (k *talker) lost(ctx context.Context, c *conversation) *conversation {
	if k.current() != nil {
		return nil // a primary has dialled this worker
	}
	k.outlived(c)
	select {
	case why := <-c.Replace(): // it was cut as soon as it was asked to move
		return k.succeed(ctx, c, why)
	default:
	}
	if wasCut(c.err) {
		k.noteCut(time.Since(c.begun))
	}
	return k.retry(ctx, nil, c.err)
}

// noteCut tells people of a load balancer that ends streams by the clock.
func (k *talker) noteCut(age time.Duration) {
	if limit, news := k.rhythm.cut(age, time.Now()); news {
		k.log.Warn("the load balancer cuts every stream at the same age; replacing sessions before that. A longer timeout there would be better",
			"age", limit.Round(time.Second))
	}
}

// succeed makes way for the successor of c: at once, unless c is so young that this
// could go round and round. An end that stops is no failure, and a session with it was a
// good one, but only so many times in a row.
func (k *talker) succeed(ctx context.Context, c *conversation, why session.Replacement) *conversation {
	k.log.Info("replacing the session", "server", c.where, "reason", why.Reason)
	k.outlived(c)
	switch {
	case time.Since(c.begun) >= wire.BackoffReset:
		return c
	case why.Stops && k.stops < stopsAtOnce:
		k.stops++
		k.failures = 0
		return c
	}
	k.failures++
	return k.rest(ctx, c, wire.Backoff(k.failures, rand.Float64()))
}

// outlived forgets what was before a session that was a good one.
func (k *talker) outlived(c *conversation) {
	if time.Since(c.begun) >= wire.BackoffReset {
		k.failures, k.stops = 0, 0
	}
}

// retry waits before the next try, after one that failed or a session that
// ended.
func (k *talker) retry(ctx context.Context, current *conversation, err error) *conversation {
	if ctx.Err() != nil {
		return current
	}
	k.count(err)
	wait := pause(k.failures, k.refusals, rand.Float64())
	if r, ok := errors.AsType[*session.Rejected](err); ok && r.Permanent {
		wait = wire.Spread(refusedAgain, wire.StreamLifeSpread, rand.Float64())
		k.log.Error("THE GATEWAY DOES NOT WANT THIS WORKER; have an administrator look at it",
			"worker", k.table.worker, "reason", r.Reason, "again_in", wait)
	} else {
		if ok {
			wait += r.RetryAfter
		}
		k.log.Warn("no session; trying again", "err", err, "again_in", wait, "tries", k.failures+k.late)
	}
	return k.rest(ctx, current, wait)
}

// count takes note of a failure. A try that took too long has cost time enough,
// and the next one may take longer: the pauses do not grow as well.
func (k *talker) count(err error) {
	if errors.Is(err, session.ErrLate) {
		k.late++
		return
	}
	k.late = 0
	k.failures++
	if !mayBeMeant(err) {
		k.refusals = 0
		return
	}
	k.refusals++
}

// rest waits. The conversation that goes on meanwhile, if any, is returned
// unless it ends.
func (k *talker) rest(ctx context.Context, current *conversation, wait time.Duration) *conversation {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	var done <-chan struct{}
	if current != nil {
		done = current.done
	}
	for {
		select {
		case <-ctx.Done():
			return current
		case <-timer.C:
			return current
		case <-done:
			k.log.Warn("the session ended before its successor began", "server", current.where, "err", current.err)
			current, done = nil, nil
		}
	}
}
