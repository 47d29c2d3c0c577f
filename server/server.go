// Package server builds a primary from its [Config], runs it, and stops it in
// reverse. It wires what the packages below it do, and does little itself: it
// decides nothing, and knows no protocol.
package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
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
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/api"
	"github.com/schedd/schedd/server/gateway"
	"github.com/schedd/schedd/server/lead"
	"github.com/schedd/schedd/server/plan"
	"github.com/schedd/schedd/server/runlog"
)

// Seams are what whoever holds a primary may give it. All may be zero.
type Seams struct {
	// Log gets the story of the primary. Default: it goes nowhere.
	Log *slog.Logger
	// Memory is a disk for the replicated state, for tests. Default: DataDir.
	Memory *raftstore.Memory
	// Listen opens the API's listener, for tests. Default: TCP. Without it the
	// web address is not served.
	Listen func(addr string) (net.Listener, error)
}

// Server is one primary.
type Server struct {
	config Config
	log    *slog.Logger

	store   *raftstore.Store
	logs    *runlog.Store
	inbox   *lead.Inbox
	gateway *gateway.Server
	api     *api.Server
	grpc    *grpc.Server
	health  *health.Server
	metrics *metrics

	apiListener net.Listener
	webListener net.Listener // nil: not served
	stopping    atomic.Bool
}

// Open builds a primary: everything is opened and listened to when it returns,
// and nothing is served. A server that was opened has to be run, which closes it.
func Open(c Config, seams Seams) (_ *Server, err error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	s := &Server{config: c, log: seams.Log, inbox: lead.NewInbox(), metrics: newMetrics()}
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
	s.store, err = raftstore.Open(raftstore.Config{
		NodeID: c.NodeID, Address: cmp.Or(c.Cluster.Advertise, c.Cluster.Addr),
		Dir: filepath.Join(c.DataDir, "raft"), Memory: seams.Memory,
		Observer: s.metrics.store(), Log: s.log,
	})
	if err != nil {
		return nil, fmt.Errorf("open the replicated state: %w%s", err, whatToDo(err))
	}
	s.logs, err = runlog.Open(filepath.Join(c.DataDir, "runlogs"), s.log)
	if err != nil {
		return nil, fmt.Errorf("open the run logs: %w%s", err, whatToDo(err))
	}
	s.gateway = gateway.New(gateway.Config{PrimaryID: c.NodeID, Leader: s.inbox, Logs: s.logs, Owns: s.owns, Log: s.log})
	s.api = api.New(api.Config{
		Store: s.store, Logs: s.logs, Presence: s.inbox, Gateway: s.gateway, Cluster: s.store,
		NodeID: c.NodeID, Version: settings.Version(), Sessions: s.inbox.Len, Log: s.log,
	})
	s.metrics.watch(s.store, s.gateway)
	s.serve()
	return s, nil
}

// whatToDo is what an operator may do about a data directory that can't be used.
func whatToDo(err error) string {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.EROFS) {
		return "; create it for this user, or name another with --data-dir"
	}
	return ""
}

// listen opens the listeners first: a port that is in use is the most frequent
// reason why a primary can't start.
func (s *Server) listen(seams Seams) (err error) {
	if seams.Listen != nil {
		s.apiListener, err = seams.Listen(s.config.APIAddr)
		return err
	}
	if s.apiListener, err = listenTCP("--api-addr", s.config.APIAddr); err != nil {
		return err
	}
	s.webListener, err = listenTCP("--web-addr", s.config.WebAddr)
	return err
}

func listenTCP(flag, addr string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr) //nolint:noctx // an address of this host: there is nobody to wait for
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w; stop what uses it, or choose another with %s", addr, err, flag)
	}
	return l, nil
}

// serve puts the services on one gRPC server.
func (s *Server) serve() {
	options := slices.Concat(wire.ServerOptions(), api.ServerOptions(s.log, s.metrics.called), s.untilCaughtUp())
	s.grpc = grpc.NewServer(options...)
	s.health = health.NewServer()
	s.health.SetServingStatus("", grpc_health_v1.HealthCheckResponse_SERVING)
	s.health.SetServingStatus(agentv1.AgentGateway_ServiceDesc.ServiceName, grpc_health_v1.HealthCheckResponse_SERVING)
	grpc_health_v1.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc)
	agentv1.RegisterAgentGatewayServer(s.grpc, s.gateway)
	s.api.Register(s.grpc)
}

// owns tells whether an attempt was given to a worker.
func (s *Server) owns(worker string, k runlog.Key) (owns bool) {
	id, err := state.ParseRunID(k.Run)
	if err != nil {
		return false
	}
	s.store.View(func(st *state.State) {
		r, n := st.Run(id), int(k.Attempt)
		owns = r != nil && n >= 1 && n <= len(r.Attempts) && r.Attempts[n-1].Worker == state.WorkerID(worker)
	})
	return owns
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
	run("serve the API", func() error { return s.grpc.Serve(s.apiListener) })
	if s.webListener != nil {
		run("serve "+s.WebAddr(), func() error {
			if err := web.Serve(s.webListener); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
	}
	run("lead", func() error {
		return s.store.Lead(work, func(ctx context.Context) error {
			lead.Run(ctx, s.leader())
			return nil
		})
	})
	wg.Go(func() { keepLogs(work, s.store, s.logs, s.log) })

	var err error
	select {
	case <-ctx.Done():
	case <-s.store.Failed():
		err = s.store.Err()
	case err = <-fault:
	}
	s.quiet(work, web)
	stop()
	wg.Wait()
	err = errors.Join(err, s.release())
	s.log.Info("primary stopped", "primary", s.config.NodeID)
	return err
}

func (s *Server) leader() lead.Config {
	return lead.Config{
		Store: s.store, Gateway: s.gateway, Inbox: s.inbox, Observer: s.metrics, Log: s.log,
		Retention: plan.DefaultRetention, OfflineAfter: wire.OfflineAfter,
	}
}

// callsTimeout is how long a primary that stops waits for calls that are being
// answered.
const callsTimeout = 5 * time.Second

// quiet ends what comes in: new work first, then sessions, then calls. Workers
// are told to come back at once rather than within a spread: there is no other
// primary that they could come back to, and this one is likely to be restarted.
func (s *Server) quiet(ctx context.Context, web *http.Server) {
	s.stopping.Store(true)
	s.health.Shutdown()
	ctx, cancel := context.WithTimeout(ctx, callsTimeout)
	defer cancel()
	if err := s.gateway.Close(ctx); err != nil {
		s.log.Warn("stopping without the end of all sessions", "err", err)
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

// release closes what was opened, in reverse.
func (s *Server) release() error {
	var errs []error
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	if s.logs != nil {
		errs = append(errs, s.logs.Close())
	}
	for _, l := range []net.Listener{s.webListener, s.apiListener} {
		if l == nil {
			continue
		}
		if err := l.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
