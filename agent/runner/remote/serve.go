package remote

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/schedd/schedd/agent/runner"
	runnerv1 "github.com/schedd/schedd/proto/schedd/runner/v1"
)

// ServeOptions are what a runner is told.
type ServeOptions struct {
	// Dir is where agent and runner meet; it is made if it is not there. Only
	// one runner may use it at a time ([ErrInUse]).
	Dir string
	// Runner starts the processes.
	Runner runner.Runner
	// BootID tells one boot of the host from another; empty when not known.
	BootID string
	// Idle is how long the runner stays without an agent and without attempts
	// that run. 0 is for ever.
	Idle time.Duration
	// Version of the program, for people and for agents of another version.
	Version string
	// Policy is the name of the file that Runner goes by, for agents that expect
	// another one.
	Policy string
	// Guest is the user of the agent if that is another than the runner's. The runner
	// then has to be told what it may start for it, and whose files it may write to.
	// Nil: agent and runner are one user. Linux only.
	Guest *Guest
	// Log gets the runner's story.
	Log *slog.Logger
	// Listener is used in place of the socket, by tests.
	Listener net.Listener
}

// Serve is a runner, until ctx is done or an agent's user stops it: then what runs
// is ended, each attempt with its grace, and is on record as interrupted. It also
// ends when it is idle. Whatever is told is written down before.
func Serve(ctx context.Context, o ServeOptions) (err error) {
	lock, err := occupy(context.WithoutCancel(ctx), o.Dir, o.Guest)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	b, ended, left, err := openBook(o.Dir, o.BootID, o.Log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.journal.Close()) }()
	if o.Listener == nil {
		l, err := listen(o.Dir, o.Guest)
		if err != nil {
			return err
		}
		o.Listener = guarded{l, o.Guest, o.Log}
	}
	k := newKeeper(o.Log, o.Runner, b)
	if o.Guest != nil {
		k.most = maxKept
	}
	k.resume(ended, left)
	o.Log.Info("runner starts", "pid", os.Getpid(), "version", o.Version, "dir", o.Dir, "ended", len(ended), "lost", len(left))
	s := &service{keeper: k, version: o.Version, policy: o.Policy, guest: o.Guest != nil, instance: rand.Text(), end: make(chan struct{}, 1)}
	s.live(ctx, o)
	o.Log.Info("runner ends")
	return nil
}

// service is the runner as its agent sees it.
type service struct {
	runnerv1.UnimplementedRunnerServiceServer
	*keeper
	version  string
	policy   string
	guest    bool // the agent is of another user
	instance string
	end      chan struct{} // holds one: somebody has stopped the runner
}

// live serves until it is time to end, and until nothing runs any more.
func (s *service) live(ctx context.Context, o ServeOptions) {
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.StaticStreamWindowSize(window), grpc.StaticConnWindowSize(window), grpc.NumStreamWorkers(streamWorkers))
	runnerv1.RegisterRunnerServiceServer(server, s)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := server.Serve(o.Listener); err != nil {
			s.log.Error("runner can't be reached any more", "err", err)
		}
	})
	s.awaitEnd(ctx, o.Idle)
	still := true
	if running, grace, _ := s.stop(false); running > 0 {
		s.log.Warn("runner stops; ending what runs", "attempts", running)
		still = s.awaitStill(context.WithoutCancel(ctx), grace+overtime)
	}
	close(s.over)
	hangUp(server)
	wg.Wait()
	if !still {
		s.crew.Dismiss() // what hangs may go on for ever
		return
	}
	s.rest()
}

// hangUp lets an agent hear the last words, and ends all calls. It does not wait for one that
// hangs, as a start does for as long as a file system does not answer.
func hangUp(server *grpc.Server) {
	heard := make(chan struct{})
	go func() { // until the last call has come back
		server.GracefulStop()
		close(heard)
	}()
	deaf := time.NewTimer(farewell)
	defer deaf.Stop()
	select {
	case <-heard:
	case <-deaf.C:
		server.Stop()
	}
}

// awaitEnd waits until somebody stops the runner, or until it has been idle for
// long enough.
func (s *service) awaitEnd(ctx context.Context, idle time.Duration) {
	timer := time.NewTimer(idle)
	defer timer.Stop()
	timer.Stop()
	waiting := false
	for {
		if _, alone := s.quiet(); alone != waiting && idle > 0 {
			waiting = alone
			timer.Stop()
			if alone {
				timer.Reset(idle)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-s.end:
			return
		case <-timer.C:
			s.log.Info("no agent and nothing that runs", "for", idle)
			return
		case <-s.changed:
		}
	}
}

// awaitStill reports whether nothing runs any more. It does not wait for ever:
// what does not end after SIGKILL is stuck in the kernel.
func (s *service) awaitStill(ctx context.Context, patience time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		if still, _ := s.quiet(); still {
			return true
		}
		select {
		case <-s.changed:
		case <-ctx.Done():
			s.log.Error("attempts did not end; ending without them")
			return false
		}
	}
}

// Watch implements the RPC.
func (s *service) Watch(req *runnerv1.WatchRequest, stream grpc.ServerStreamingServer[runnerv1.WatchResponse]) error {
	keeps, _ := s.runner.Enforcement() // a runner of real processes keeps the same as long as it lives
	hello := &runnerv1.Hello{
		Revision: commonRevision(req), MinRevision: minRevision, MaxRevision: maxRevision,
		Instance: s.instance, Version: s.version, Pid: int64(os.Getpid()), Policy: s.policy,
		Enforcement: showEnforcement(keeps),
	}
	if err := stream.Send(&runnerv1.WatchResponse{Body: &runnerv1.WatchResponse_Hello{Hello: hello}}); err != nil {
		return err
	}
	if hello.GetRevision() == 0 {
		s.log.Error("an agent speaks another language", "version", req.GetVersion(), "min_revision", req.GetMinRevision(), "max_revision", req.GetMaxRevision())
		return nil
	}
	w, err := s.take(req.GetLife(), req.GetLink())
	if err != nil {
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	defer s.leave(w)
	s.log.Info("agent has come", "life", req.GetLife(), "version", req.GetVersion())
	w.shared = hello.GetRevision() >= startsRevision
	for {
		if err := s.tell(w, stream); err != nil {
			return err
		}
		select {
		case <-w.wake:
		case <-w.replaced:
			return status.Error(codes.Aborted, "a newer call of the agent is there")
		case <-s.over:
			return s.tell(w, stream)
		case <-stream.Context().Done():
			s.log.Info("agent has gone", "life", req.GetLife())
			return nil
		}
	}
}

// tell tells what there is to tell now.
func (s *service) tell(w *watcher, stream grpc.ServerStreamingServer[runnerv1.WatchResponse]) error {
	for _, m := range s.news(w) {
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	return nil
}

// commonRevision returns the highest revision that both speak, or 0.
func commonRevision(req *runnerv1.WatchRequest) uint32 {
	r := min(req.GetMaxRevision(), maxRevision)
	if r < max(req.GetMinRevision(), minRevision) {
		return 0
	}
	return r
}

// Start implements the RPC. What keeps an attempt from starting is an answer; an
// error says nothing about it.
func (s *service) Start(_ context.Context, req *runnerv1.StartRequest) (*runnerv1.StartResponse, error) {
	spec := readSpec(req)
	if err := s.checkStart(req, spec.Env); err != nil {
		return &runnerv1.StartResponse{Error: sentence(fmt.Sprintf("starting attempt %.40q: %v", req.GetId(), err))}, nil
	}
	a, err := s.start(asker{life: req.GetLife(), link: req.GetLink()}, spec)
	switch {
	case errors.Is(err, errNotLink):
		return nil, status.Error(codes.Unavailable, err.Error()) // which leaves it open
	case errors.Is(err, errNotAgent):
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	case err != nil:
		return &runnerv1.StartResponse{Error: sentence(err.Error()), Unable: errors.Is(err, runner.ErrUnable)}, nil
	}
	return &runnerv1.StartResponse{Attempt: s.show(a)}, nil
}

// Probe implements the RPC.
func (s *service) Probe(context.Context, *runnerv1.ProbeRequest) (*runnerv1.ProbeResponse, error) {
	if err := s.probe(); err != nil {
		return &runnerv1.ProbeResponse{Error: sentence(err.Error())}, nil
	}
	return &runnerv1.ProbeResponse{}, nil
}

// Kill implements the RPC.
func (s *service) Kill(_ context.Context, req *runnerv1.KillRequest) (*runnerv1.KillResponse, error) {
	s.kill(req.GetId(), runner.ClampGrace(req.GetGrace().AsDuration()))
	return &runnerv1.KillResponse{}, nil
}

// Renew implements the RPC.
func (s *service) Renew(_ context.Context, req *runnerv1.RenewRequest) (*runnerv1.RenewResponse, error) {
	s.runner.Renew(readLeases(req))
	return &runnerv1.RenewResponse{}, nil
}

// Forget implements the RPC.
func (s *service) Forget(_ context.Context, req *runnerv1.ForgetRequest) (*runnerv1.ForgetResponse, error) {
	s.forget(req.GetIds())
	return &runnerv1.ForgetResponse{}, nil
}

// EndStrays implements the RPC.
func (s *service) EndStrays(_ context.Context, req *runnerv1.EndStraysRequest) (*runnerv1.EndStraysResponse, error) {
	if err := checkStrays(req); err != nil {
		return &runnerv1.EndStraysResponse{Error: sentence(fmt.Sprintf("ending strays of attempt %.40q: %v", req.GetId(), err))}, nil
	}
	if s.at(req.GetId()) != nil {
		return &runnerv1.EndStraysResponse{Error: fmt.Sprintf("ending strays of attempt %q: %v", req.GetId(), runner.ErrRunning)}, nil
	}
	n, err := s.runner.EndStrays(req.GetId(), readEnv(req.GetEnv()))
	m := &runnerv1.EndStraysResponse{Ended: int32(n), Unsupported: errors.Is(err, errors.ErrUnsupported)}
	if err != nil {
		m.Error = sentence(err.Error())
	}
	return m, nil
}

// Check implements the RPC.
func (s *service) Check(context.Context, *runnerv1.CheckRequest) (*runnerv1.CheckResponse, error) {
	return &runnerv1.CheckResponse{Trouble: sentence(s.book.trouble())}, nil
}

// Stop implements the RPC.
func (s *service) Stop(ctx context.Context, req *runnerv1.StopRequest) (*runnerv1.StopResponse, error) {
	running, grace, ok := s.stop(req.GetIfIdle())
	if !ok {
		return &runnerv1.StopResponse{}, nil
	}
	s.log.Info("runner is stopped", "attempts", running)
	wake(s.end)
	s.awaitGone(ctx, grace+overtime)
	return &runnerv1.StopResponse{Stopped: true, Ended: int32(running)}, nil
}

// awaitGone waits until the runner is about to end.
func (s *service) awaitGone(ctx context.Context, patience time.Duration) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-s.over:
	case <-timer.C:
	case <-ctx.Done():
	}
}
