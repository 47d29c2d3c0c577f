package agent

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/schedd/schedd/agent/session"
	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
)

// refusedAgain is how often a worker asks that was told it is not wanted.
// Somebody may change that, and should not have to restart it then.
const refusedAgain = time.Hour

// errReplaced is what the gateway is told of a stream that has a successor.
var errReplaced = errors.New("replaced by a new session")

// talker keeps a session with some gateway, one after the other. A new one is
// opened before the old is closed, wherever there is a choice.
type talker struct {
	log     *slog.Logger
	table   *table
	home    *home
	hello   *agentv1.Hello
	servers []string
	dialer  func(context.Context, string) (net.Conn, error)

	wg   sync.WaitGroup // one for each conversation
	live atomic.Int32   // conversations under way

	// For run alone.
	server   int    // the one to try next
	connects uint32 // sessions tried in this life
	failures int    // in a row
}

func newTalker(c Config, s Seams, h *home, t *table) *talker {
	servers := c.servers()
	return &talker{
		log: s.Log, table: t, home: h, hello: newHello(c, s.BootID),
		servers: servers, dialer: s.Dialer, server: rand.IntN(len(servers)),
	}
}

// conversation is a session that is being run.
type conversation struct {
	*session.Session
	server string
	conn   *grpc.ClientConn
	begun  time.Time
	end    context.CancelCauseFunc
	done   chan struct{}
	err    error // why it ended; to be read after done is closed
}

// connected reports whether there is a session.
func (k *talker) connected() bool { return k.live.Load() > 0 }

// run keeps a session until ctx is done; the cause of that is what the last one
// says goodbye with.
func (k *talker) run(ctx context.Context) {
	defer k.wg.Wait()
	var current *conversation
	for ctx.Err() == nil {
		next, err := k.open(ctx)
		if err != nil {
			current = k.retry(ctx, current, err)
			continue
		}
		k.begin(ctx, next)
		if current != nil {
			current.end(errReplaced)
		}
		current = k.attend(ctx, next)
	}
}

// open opens a session over a connection of its own, so that a load balancer may
// choose anew.
func (k *talker) open(ctx context.Context) (*conversation, error) {
	server := k.servers[k.server%len(k.servers)]
	k.server++
	k.connects++
	conn, err := k.dial(server)
	if err != nil {
		return nil, err
	}
	hello := proto.CloneOf(k.hello)
	hello.SessionEpoch = uint64(k.home.starts)<<32 | uint64(k.connects)
	connect := func(ctx context.Context) (session.Stream, error) {
		return agentv1.NewAgentGatewayClient(conn).Connect(ctx, wire.SessionOptions()...)
	}
	s, err := session.Open(ctx, connect, hello, k.home.key, k.log)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	w := s.Welcome()
	k.log.Info("connected", "worker", k.table.worker, "server", server, "primary", w.GetPrimaryId(), "epoch", hello.GetSessionEpoch())
	if w.GetWorkerId() != k.table.worker {
		k.log.Warn("the gateway knows this worker by another id", "worker", k.table.worker, "there", w.GetWorkerId())
	}
	return &conversation{Session: s, server: server, conn: conn, begun: time.Now(), done: make(chan struct{})}, nil
}

func (k *talker) dial(server string) (*grpc.ClientConn, error) {
	options := append(wire.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if k.dialer != nil {
		options = append(options, grpc.WithContextDialer(k.dialer))
		server = "passthrough:///" + server
	}
	return grpc.NewClient(server, options...)
}

// begin lets a conversation run.
func (k *talker) begin(ctx context.Context, c *conversation) {
	ctx, c.end = context.WithCancelCause(ctx)
	k.live.Add(1)
	k.wg.Go(func() {
		defer close(c.done)
		defer k.live.Add(-1)
		defer c.end(nil)
		err := c.Run(ctx, k.table, k.table)
		c.err = errors.Join(err, c.conn.Close())
	})
}

// attend waits until there has to be another session. It returns c if that one
// still serves.
func (k *talker) attend(ctx context.Context, c *conversation) *conversation {
	select {
	case <-ctx.Done():
		return c
	case reason := <-c.Replace():
		return k.succeed(ctx, c, reason)
	case <-c.done:
	}
	k.outlived(c)
	select {
	case reason := <-c.Replace(): // it was cut as soon as it was asked to move
		return k.succeed(ctx, c, reason)
	default:
		return k.retry(ctx, nil, c.err)
	}
}

// succeed makes way for the successor of c: at once, unless c is so young that
// this could go round and round.
func (k *talker) succeed(ctx context.Context, c *conversation, reason string) *conversation {
	k.log.Info("replacing the session", "server", c.server, "reason", reason)
	k.outlived(c)
	if k.failures == 0 && time.Since(c.begun) >= wire.BackoffReset {
		return c
	}
	k.failures++
	return k.rest(ctx, c, wire.Backoff(k.failures, rand.Float64()))
}

// outlived forgets failures before a session that was a good one.
func (k *talker) outlived(c *conversation) {
	if time.Since(c.begun) >= wire.BackoffReset {
		k.failures = 0
	}
}

// retry waits before the next try, after one that failed or a session that
// ended.
func (k *talker) retry(ctx context.Context, current *conversation, err error) *conversation {
	if ctx.Err() != nil {
		return current
	}
	k.failures++
	wait := wire.Backoff(k.failures, rand.Float64())
	if r, ok := errors.AsType[*session.Rejected](err); ok && r.Permanent {
		wait = wire.Spread(refusedAgain, wire.StreamLifeSpread, rand.Float64())
		k.log.Error("THE GATEWAY DOES NOT WANT THIS WORKER; have an administrator look at it",
			"worker", k.table.worker, "reason", r.Reason, "again_in", wait)
	} else {
		if ok {
			wait += r.RetryAfter
		}
		k.log.Warn("no session; trying again", "err", err, "again_in", wait, "tries", k.failures)
	}
	return k.rest(ctx, current, wait)
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
			k.log.Warn("the session ended before its successor began", "server", current.server, "err", current.err)
			current, done = nil, nil
		}
	}
}
