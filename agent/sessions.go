package agent

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/schedd/schedd/agent/session"
	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
)

var (
	// errReplaced is what the gateway is told of a stream that has a successor.
	errReplaced = errors.New("replaced by a new session")
	// errOutdated is what it is told of one that can't have any, unless it is dialled
	// again.
	errOutdated = errors.New("the worker's runner can hold attempts to other limits than were said")
)

// sessions are all sessions of this life, whether the worker dialled or was
// dialled. One of them counts, the one with the greatest epoch. Those before it
// are ended once it has begun, never sooner.
type sessions struct {
	log    *slog.Logger
	table  *table
	key    ed25519.PrivateKey
	starts uint32 // lives of an agent with this key, this one included
	hello  *agentv1.Hello

	mu     sync.Mutex // guards all below
	tries  uint32     // in this life
	newest *conversation
}

// conversation is a session that the gateway has welcomed.
type conversation struct {
	*session.Session
	where    string // it was dialled, or was accepted from
	accepted bool
	epoch    uint64
	begun    time.Time
	conn     *grpc.ClientConn // it has for itself; nil if it was accepted
	said     *agentv1.Enforcement
	outdated chan struct{} // closed when said is not so any more
	end      context.CancelCauseFunc
	done     chan struct{} // closed when it has ended
	err      error         // why; to be read after done is closed
}

func newSessions(c Config, s Seams, h *home, t *table) *sessions {
	return &sessions{log: s.Log, table: t, key: h.key, starts: h.starts, hello: newHello(c, s.BootID)}
}

// introduce opens a session on the stream that connect returns. Converse on it,
// or the stream leaks.
func (s *sessions) introduce(ctx context.Context, within time.Duration, where string, connect func(context.Context) (session.Stream, error)) (*conversation, error) {
	hello := s.nextHello()
	opened, err := session.Open(ctx, within, connect, hello, s.key, s.table.uptime, s.log)
	if err != nil {
		return nil, err
	}
	w := opened.Welcome()
	s.log.Info("connected", "worker", s.table.worker, "server", where, "primary", w.GetPrimaryId(), "epoch", hello.GetSessionEpoch())
	if w.GetWorkerId() != s.table.worker {
		s.log.Warn("the gateway knows this worker by another id", "worker", s.table.worker, "there", w.GetWorkerId())
	}
	return &conversation{
		Session: opened, where: where, epoch: hello.GetSessionEpoch(), begun: time.Now(),
		said: hello.GetEnforcement(), outdated: make(chan struct{}), done: make(chan struct{}),
	}, nil
}

// nextHello returns a hello with an epoch greater than all before.
func (s *sessions) nextHello() *agentv1.Hello {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tries++
	hello := proto.CloneOf(s.hello)
	keeps, _ := s.table.runner.Enforcement()
	hello.Enforcement = enforcement(keeps)
	hello.SessionEpoch = uint64(s.starts)<<32 | uint64(s.tries)
	hello.Leases = s.table.canLease()
	return hello
}

// converse runs c until it has ended. What it takes the place of is ended; and c
// is, if it was overtaken while it was opened.
func (s *sessions) converse(ctx context.Context, c *conversation) {
	defer close(c.done)
	ctx, c.end = context.WithCancelCause(ctx)
	defer c.end(nil)
	if loser := s.claim(c); loser != nil {
		loser.end(errReplaced)
	}
	var wg sync.WaitGroup
	wg.Go(func() { s.watchRunner(ctx, c) })
	c.err = c.Run(ctx, s.table, s.table, s.table)
	c.end(nil)
	wg.Wait()
	s.leave(c)
	if c.conn != nil {
		c.err = errors.Join(c.err, c.conn.Close())
	}
}

// watchRunner waits until another runner has taken the place of the one that the gateway
// was told of, and can hold attempts to something else: then the gateway has to be told
// anew, which a hello does and nothing else. Who dials has a successor of c say it; who
// is dialled can only end c.
func (s *sessions) watchRunner(ctx context.Context, c *conversation) {
	for {
		keeps, changed := s.table.runner.Enforcement()
		if !proto.Equal(enforcement(keeps), c.said) {
			break
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
	close(c.outdated)
	if c.accepted {
		s.log.Info("ending the session, to be dialled again", "from", c.where, "reason", errOutdated)
		c.end(errOutdated)
	}
}

// claim makes c the newest conversation if it is, and returns the one that has
// to go, or nil.
func (s *sessions) claim(c *conversation) (loser *conversation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.newest != nil && s.newest.epoch > c.epoch {
		return c
	}
	loser, s.newest = s.newest, c
	return loser
}

func (s *sessions) leave(c *conversation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.newest == c {
		s.newest = nil
	}
}

// current returns the session that counts, or nil if there is none.
func (s *sessions) current() *conversation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newest
}

// connected reports whether there is a session.
func (s *sessions) connected() bool { return s.current() != nil }
