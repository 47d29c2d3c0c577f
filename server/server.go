// Package server builds a primary from its [Config], runs it, and stops it in
// reverse. It wires what the packages below it do, and does little itself: it
// decides nothing, and knows no protocol.
package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/settings"
	"github.com/schedd/schedd/proto/wire"
	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/server/api"
	"github.com/schedd/schedd/server/clusternet"
	"github.com/schedd/schedd/server/gateway"
	"github.com/schedd/schedd/server/group"
	"github.com/schedd/schedd/server/history"
	"github.com/schedd/schedd/server/lead"
	"github.com/schedd/schedd/server/peer"
	"github.com/schedd/schedd/server/replica"
	"github.com/schedd/schedd/server/runlog"
)

// Seams are what whoever holds a primary may give it. All may be zero.
type Seams struct {
	// Log gets the story of the primary. Default: it goes nowhere.
	Log *slog.Logger
	// Memory is a disk for the replicated state, for tests. Default: DataDir.
	Memory *raftstore.Memory
	// Listen opens the API's listener, for tests. Default: TCP. With it the web
	// address is not served, nor the cluster address without ListenCluster.
	Listen func(addr string) (net.Listener, error)
	// ListenCluster opens the cluster port, for tests, together with Listen.
	ListenCluster func(addr string) (net.Listener, error)
	// DialCluster connects to another primary, for tests. Default: TCP.
	DialCluster func(ctx context.Context, addr string) (net.Conn, error)
	// DialWorker makes the connection to a worker in direct mode, for tests.
	// Default: TCP.
	DialWorker func(addr string) (*grpc.ClientConn, error)
	// WallClock reads the wall clock of the host, for tests: that of a bubble can't be
	// set. What measures how long something takes does not go by it. Default: time.Now.
	WallClock func() time.Time
	// Heartbeat is how long the leader may be silent before another is elected, and twice
	// as long as it takes to ask again how the others are, for tests. Default: the store's,
	// and the hub's.
	Heartbeat time.Duration
	// Level is up to which this primary can apply commands of the log, for tests in which it
	// is of an older version. Default: the store's.
	Level uint32
	// Fsync has a file of the run logs, or their directory, stay when the power fails, for
	// tests that know what has. Default: the operating system's.
	Fsync func(*os.File) error
}

// Server is one primary.
type Server struct {
	config Config
	log    *slog.Logger
	clock  func() time.Time // shows the time on the wall
	doubt  *doubt           // of that

	history   *history.Store
	store     *raftstore.Store
	logs      *runlog.Store
	primaries *primaries
	replica   *replica.Store
	inbox     *lead.Inbox
	hub       *peer.Hub
	uplink    *peer.Uplink
	member    *group.Member
	gateway   *gateway.Server
	api       *api.Server
	health    *health.Server
	metrics   *metrics

	net         *clusternet.Network // nil: no cluster port
	grpc        *grpc.Server        // for people and workers
	clusterGRPC *grpc.Server        // for other primaries; nil: no cluster port

	apiListener     net.Listener
	webListener     net.Listener // nil: not served
	clusterListener net.Listener // nil: no cluster port
	empty           bool         // it begins without data, in a group of others
	stopping        atomic.Bool
	abreast         atomic.Bool // the logs that it knows of were all that the leader knew of
	elsewhere       atomic.Bool // workers are better off with other primaries
	output          output
}

// Open builds a primary: everything is opened and listened to when it returns,
// and nothing is served. A server that was opened has to be run, which closes it.
func Open(c Config, seams Seams) (_ *Server, err error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	s := &Server{config: c, log: seams.Log, clock: seams.WallClock, inbox: lead.NewInbox(), metrics: newMetrics()}
	if s.clock == nil {
		s.clock = time.Now
	}
	s.doubt = newDoubt(s.clock)
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.release())
		}
	}()
	if err := s.listen(seams); err != nil {
		return nil, err
	}
	if err := s.openNet(seams); err != nil {
		return nil, err
	}
	if err := s.openStores(seams); err != nil {
		return nil, err
	}
	s.primaries = &primaries{Store: s.store, self: c.NodeID, net: s.net}
	s.replica = replica.New(replica.Config{Logs: s.logs, Peers: s.primaries, Known: s.knownLogs, Log: s.log})
	s.openLinks(seams)
	s.gateway = gateway.New(gateway.Config{
		PrimaryID: c.NodeID, Leader: s.uplink, Logs: s.replica, Owns: s.owns, Refuse: s.refuse, DialWorker: seams.DialWorker, Log: s.log,
	})
	s.api = api.New(api.Config{
		Store: s.store, History: s.history, Logs: s.replica, Presence: s.inbox, Decider: s.inbox, Gateway: s.hub, Cluster: s.store, Group: s.primaries, Primaries: s.hub,
		NodeID: c.NodeID, Version: settings.Version(), Clock: s.clock, Bounds: c.Active, Sessions: s.uplink.Len, Condition: s.condition, Log: s.log,
	})
	s.metrics.watch(s.store, s.gateway, s.uplink, s.hub)
	s.metrics.watchClock(s.store.View, s.clock)
	s.metrics.watchLogs(s.condition)
	s.metrics.watchHistory(s.history)
	s.serve()
	s.serveCluster()
	return s, nil
}

// logRoom is how many bytes the file of Raft's log has from the beginning: about what it
// comes to in a group that has something to do.
const logRoom = 64 << 20

// openStores opens what is kept on disk.
func (s *Server) openStores(seams Seams) (err error) {
	c := s.config
	s.history = history.New(history.Config{Dir: filepath.Join(c.DataDir, "history"), Keep: c.History, Clock: s.doubt.now, Filled: func() { s.replica.KnownChanged() }, Log: s.log})
	sc := raftstore.Config{
		NodeID: c.NodeID, Address: s.advertised(), Join: !c.Cluster.alone(), HeartbeatTimeout: seams.Heartbeat,
		Dir: filepath.Join(c.DataDir, "raft"), Memory: seams.Memory, Clock: s.clock, Archive: s.history, Observer: s.metrics.store(), Log: s.log,
		Room:   logRoom,
		Level:  seams.Level,
		Levels: func() map[string]uint32 { return s.hub.Levels() },
	}
	if s.net != nil {
		sc.Streams = s.net.Streams()
	}
	if s.store, err = raftstore.Open(sc); err != nil {
		return fmt.Errorf("open the replicated state: %w%s", err, whatToDo(err))
	}
	s.history.Start(s.store.View) // the store has locked the directory
	s.empty = !s.store.Formed() && !c.Cluster.alone()
	fsync := seams.Fsync
	if fsync == nil {
		fsync = (*os.File).Sync
	}
	if s.logs, err = runlog.OpenOn(fsync, filepath.Join(c.DataDir, "runlogs"), s.log); err != nil {
		return fmt.Errorf("open the run logs: %w%s", err, whatToDo(err))
	}
	return nil
}

// whatToDo is what an operator may do about a data directory that can't be used.
func whatToDo(err error) string {
	if errors.Is(err, syscall.EROFS) {
		return "; the file system is read-only: the kernel's log says why if that was not asked for; mount it writable, then start this primary again"
	}
	if errors.Is(err, syscall.ENOSPC) && !strings.Contains(err.Error(), "make room") {
		return "; make room on that disk, then start this primary again"
	}
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return "; create it for this user, or name another with --data-dir"
	}
	return ""
}

// listen opens the listeners first: a port that is in use is the most frequent
// reason why a primary can't start.
func (s *Server) listen(seams Seams) (err error) {
	if seams.Listen != nil {
		if s.apiListener, err = seams.Listen(s.config.APIAddr); err != nil || seams.ListenCluster == nil {
			return err
		}
		s.clusterListener, err = seams.ListenCluster(s.config.Cluster.Addr)
		return err
	}
	if s.apiListener, err = listenTCP("--api-addr", s.config.APIAddr); err != nil {
		return err
	}
	if s.webListener, err = listenTCP("--web-addr", s.config.WebAddr); err != nil || s.config.Cluster.Addr == "" {
		return err
	}
	s.clusterListener, err = listenTCP("--cluster-addr", s.config.Cluster.Addr)
	return err
}

func listenTCP(flag, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr) //nolint:noctx // an address of this host: there is nobody to wait for
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w; stop what uses it, or choose another with %s", addr, err, flag)
	}
	return l, nil
}

// streamWorkers is how many goroutines answer calls one after the other. gRPC would start
// one for each call, whose stack grows anew each time. Beyond, and when all of them hold
// workers' sessions, it still does.
const streamWorkers = 32

// serve puts the services on one gRPC server.
func (s *Server) serve() {
	options := slices.Concat(wire.ServerOptions(), api.ServerOptions(s.log, s.metrics.called), s.untilCaughtUp(), s.api.Forwarding())
	options = append(options, grpc.NumStreamWorkers(streamWorkers), grpc.Creds(s.gateway.Credentials()))
	s.grpc = grpc.NewServer(options...)
	s.health = health.NewServer()
	s.health.SetServingStatus("", grpc_health_v1.HealthCheckResponse_SERVING)
	s.health.SetServingStatus(agentv1.AgentGateway_ServiceDesc.ServiceName, grpc_health_v1.HealthCheckResponse_SERVING)
	grpc_health_v1.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc)
	agentv1.RegisterAgentGatewayServer(s.grpc, s.gateway)
	s.api.Register(s.grpc)
}

// APIAddr returns where the API is served.
func (s *Server) APIAddr() string { return s.apiListener.Addr().String() }

// WebAddr returns where metrics and health are served; "" where they are not.
func (s *Server) WebAddr() string {
	if s.webListener == nil {
		return ""
	}
	return s.webListener.Addr().String()
}

// Run is a primary, until ctx is done; then it stops and returns nil. Otherwise
// it returns what keeps it from going on. Either way all that it opened is
// closed.
func (s *Server) Run(ctx context.Context) error {
	s.log.Info("primary starts", "primary", s.config.NodeID, "api", s.APIAddr(), "web", s.WebAddr(), "data_dir", s.config.DataDir, "version", settings.Version())
	if s.config.Insecure {
		s.log.Warn("INSECURE: no TLS and no authentication; whoever reaches the API can run programs on all workers")
	}
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	fault := make(chan error, 4)
	var wg sync.WaitGroup
	run := func(what string, f func() error) {
		wg.Go(func() {
			if err := f(); err != nil {
				fault <- fmt.Errorf("%s: %w", what, err)
			}
		})
	}
	web := s.webServer()
	run("serve the API", func() error { return s.grpc.Serve(arrivals{s.apiListener}) })
	if s.net != nil {
		run("serve other primaries", func() error { return s.clusterGRPC.Serve(s.net.Listener()) })
	}
	if s.webListener != nil {
		run("serve "+s.WebAddr(), func() error {
			if err := web.Serve(s.webListener); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
	}
	run("lead", func() error { return s.store.Lead(work, s.lead) })
	wg.Go(func() { s.uplink.Run(work, s.gateway) })
	for _, f := range []func(context.Context){s.doubt.run, s.member.Run, s.replica.Run, s.watchGroup, s.watchHealth, s.watchOutput, s.keepLogs, s.keepHistory} {
		wg.Go(func() { f(work) })
	}

	var err error
	select {
	case <-ctx.Done():
	case <-s.store.Failed():
		err = s.store.Err()
	case err = <-fault:
	}
	s.quiet(work, web)
	stop()
	if s.clusterGRPC != nil {
		s.clusterGRPC.Stop()
	}
	wg.Wait()
	err = errors.Join(err, s.release())
	s.log.Info("primary stopped", "primary", s.config.NodeID)
	return err
}

func (s *Server) leader() lead.Config {
	return lead.Config{
		Store: s.store, Gateway: s.hub, Inbox: s.inbox, Observer: s.metrics, Log: s.log,
		Clock: s.clock, SureClock: s.doubt.now, History: s.history, Bounds: s.config.Active, Retention: s.config.Hot, OfflineAfter: wire.OfflineAfter,
	}
}

const (
	// callsTimeout is how long a primary that stops waits for calls that are being
	// answered.
	callsTimeout = 5 * time.Second
	// drainRate is how many workers a second are sent to the other primaries
	// when this one stops, and drainMax how long that may take.
	drainRate = 200
	drainMax  = 20 * time.Second
	// leaveWithin is how long a worker may take, beyond that, to find another
	// primary before its session ends.
	leaveWithin = 5 * time.Second
)

// quiet ends what comes in: new work first, then sessions, then the leadership,
// then calls.
func (s *Server) quiet(ctx context.Context, web *http.Server) {
	s.stopping.Store(true)
	s.health.Shutdown()
	if s.primaries.several() {
		s.drain(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, callsTimeout)
	defer cancel()
	if err := s.gateway.Close(ctx); err != nil {
		s.log.Warn("stopping without the end of all sessions", "err", err)
	}
	if s.primaries.several() && s.store.Leads() {
		if err := s.store.TransferTo(ctx, ""); err != nil {
			s.log.Warn("stopping without handing the leadership over: the others elect a leader", "err", err)
		}
	}
	s.api.Close()
	done := make(chan struct{})
	go func() { // ends with Stop at the latest
		s.grpc.GracefulStop()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		s.grpc.Stop()
		<-done
	}
	if s.webListener != nil {
		_ = web.Shutdown(ctx) // its connections end with the process at the latest
	}
}

// drain has workers come back through other primaries, not all at once, and
// without a gap: each opens its next session before it closes this one. Without
// other primaries there is nowhere to go, and nothing to wait for.
func (s *Server) drain(ctx context.Context) {
	n := s.uplink.Len()
	if n == 0 {
		return
	}
	spread := min(time.Duration(n)*time.Second/drainRate, drainMax)
	s.log.Info("workers are asked to come back through other primaries", "sessions", n, "within", spread)
	s.gateway.Drain(spread)
	ctx, cancel := context.WithTimeout(ctx, spread+leaveWithin)
	defer cancel()
	s.gateway.AwaitEmpty(ctx)
}

// release closes what was opened, in reverse.
func (s *Server) release() error {
	var errs []error
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	if s.history != nil { // after the store, which hands over what it still applies
		errs = append(errs, s.history.Close())
	}
	if s.net != nil {
		errs = append(errs, s.net.Close())
	}
	if s.logs != nil {
		errs = append(errs, s.logs.Close())
	}
	for _, l := range []net.Listener{s.webListener, s.apiListener, s.clusterListener} {
		if l == nil {
			continue
		}
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
