package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/schedd/schedd/agent/runner"
	runnerv1 "github.com/schedd/schedd/proto/schedd/runner/v1"
)

var (
	errRetired  = errors.New("an idle runner of another kind makes way for one of ours")
	errStrange  = errors.New("the runner broke the protocol")
	errGoodbye  = errors.New("the runner is being stopped")
	errLanguage = errors.New("agent and runner have no protocol in common")
)

// keep keeps a link until ctx is done, or until the runner is stopped.
func (r *Runner) keep(ctx context.Context) {
	pause := lookLeast
	for ctx.Err() == nil {
		began := time.Now()
		err := r.attend(ctx)
		if ctx.Err() != nil {
			return
		}
		had := r.linked()
		r.relink(nil, err)
		if r.isStopping() {
			r.o.Log.Info("the runner was stopped")
			return
		}
		if had != nil {
			r.o.Log.Error("the runner is gone; looking for the next", "pid", had.pid, "err", err)
		}
		if had != nil || errors.Is(err, errRetired) || time.Since(began) > lookMost {
			pause = lookLeast
		}
		if !rest(ctx, pause) {
			return
		}
		pause = min(2*pause, lookMost)
	}
}

// rest waits, and reports whether it was left in peace.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (r *Runner) isStopping() bool {
	select {
	case <-r.stopping:
		return true
	default:
		return false
	}
}

// attend connects, and listens to the runner until the connection ends. If there
// is nobody it has one started.
func (r *Runner) attend(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	first, err := r.o.Dial(ctx)
	if err != nil {
		if r.o.Launch == nil {
			return fmt.Errorf("nobody is there: %w; start one with schedagent runner", err)
		}
		if lerr := r.o.Launch(); lerr != nil {
			return fmt.Errorf("start a runner: %w", lerr)
		}
		return err
	}
	conn, err := dialed(first, r.o.Dial)
	if err != nil {
		return errors.Join(err, first.Close())
	}
	defer func() { _ = conn.Close() }() // the runner sees that we have gone
	l := &link{client: runnerv1.NewRunnerServiceClient(conn)}
	r.links++
	stream, err := l.client.Watch(ctx, &runnerv1.WatchRequest{
		MinRevision: minRevision, MaxRevision: maxRevision, Life: r.o.Life, Version: r.o.Version, Link: r.links,
	})
	if err != nil {
		return err
	}
	late := time.AfterFunc(answerWithin, cancel)
	defer late.Stop()
	hello, err := r.greet(l, stream)
	if err != nil {
		return err
	}
	all, err := r.hear(stream)
	if err != nil {
		return err
	}
	late.Stop()
	if r.isOther(hello) && len(all) == 0 && !r.tried {
		return r.retire(ctx, l)
	}
	if r.isOther(hello) && hello.GetPolicy() != r.o.Policy {
		r.o.Log.Error("THE RUNNER GOES BY ANOTHER POLICY than the one that this agent was given, since it has attempts and can't be replaced: let them end, then schedagent stop",
			"pid", hello.GetPid(), "policy", hello.GetPolicy(), "wanted", r.o.Policy)
	}
	if l.revision >= startsRevision {
		if l.starts, err = openStarts(ctx, l.client, r.links); err != nil {
			return err
		}
		var heard sync.WaitGroup
		heard.Go(func() { l.starts.hear(); cancel(); l.starts.others.Wait() })
		defer heard.Wait()
		defer cancel()
	}
	r.adopt(l, all) //nolint:contextcheck // what it has to end it ends over other links, too
	return r.listen(l, stream)
}

// dialed returns a gRPC connection over first; if that breaks at once, over another
// one.
func dialed(first net.Conn, again func(context.Context) (net.Conn, error)) (*grpc.ClientConn, error) {
	taken := make(chan net.Conn, 1)
	taken <- first
	return grpc.NewClient("passthrough:///runner",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			select {
			case c := <-taken:
				return c, nil
			default:
				return again(ctx)
			}
		}),
		grpc.WithStaticStreamWindowSize(window), grpc.WithStaticConnWindowSize(window),
		grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)))
}

// greet hears who the runner is.
func (r *Runner) greet(l *link, stream grpc.ServerStreamingClient[runnerv1.WatchResponse]) (*runnerv1.Hello, error) {
	m, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	hello := m.GetHello()
	switch {
	case hello == nil:
		return nil, fmt.Errorf("%w: it begins with %v", errStrange, m)
	case hello.GetRevision() == 0:
		return nil, fmt.Errorf("%w: the runner, process %d, is version %s and speaks %d to %d, this agent %d to %d: let what it runs end, then schedagent stop",
			errLanguage, hello.GetPid(), hello.GetVersion(), hello.GetMinRevision(), hello.GetMaxRevision(), minRevision, maxRevision)
	}
	l.instance, l.pid, l.revision, l.keeps = hello.GetInstance(), hello.GetPid(), hello.GetRevision(), readEnforcement(hello.GetEnforcement())
	return hello, nil
}

// hear returns all that the runner keeps.
func (r *Runner) hear(stream grpc.ServerStreamingClient[runnerv1.WatchResponse]) (all []*runnerv1.Attempt, err error) {
	for {
		m, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		all = append(all, attemptsOf(m)...)
		switch m.GetBody().(type) {
		case *runnerv1.WatchResponse_Stopping:
			return nil, errGoodbye
		case *runnerv1.WatchResponse_Synced:
			return all, nil
		}
	}
}

// attemptsOf returns the attempts that are told in a message.
func attemptsOf(m *runnerv1.WatchResponse) []*runnerv1.Attempt {
	if one := m.GetAttempt(); one != nil {
		return []*runnerv1.Attempt{one}
	}
	return m.GetAttempts().GetAttempts()
}

// isOther reports whether a runner is not as this agent would have started it.
func (r *Runner) isOther(hello *runnerv1.Hello) bool {
	return r.o.Launch != nil && (hello.GetVersion() != r.o.Version || hello.GetPolicy() != r.o.Policy)
}

// retire asks an idle runner to end.
func (r *Runner) retire(ctx context.Context, l *link) error {
	r.tried = true
	if _, err := l.client.Stop(ctx, &runnerv1.StopRequest{IfIdle: true}); err != nil {
		return fmt.Errorf("%w: %w", errRetired, err)
	}
	return errRetired
}

// adopt takes what a runner keeps for what there is, and then uses it.
func (r *Runner) adopt(l *link, all []*runnerv1.Attempt) {
	there := map[string]bool{}
	for _, m := range all {
		there[m.GetId()] = true
		r.heard(m)
	}
	r.mu.Lock()
	r.adopted = true
	r.mu.Unlock()
	r.o.Log.Info("runner found", "pid", l.pid, "attempts", len(all))
	r.relink(l, nil)
	for _, p := range r.missing(there) {
		r.wg.Go(func() { r.settle(p) })
	}
}

// missing returns the processes that ran and that a runner does not know: it is
// another one.
func (r *Runner) missing(there map[string]bool) (all []*process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, p := range r.processes {
		if !there[id] && !p.isOver() {
			all = append(all, p)
		}
	}
	return all
}

// settle ends what is left of an attempt whose runner died before it had put it on
// record.
func (r *Runner) settle(p *process) {
	reason := "the worker's runner died while it ran"
	if _, err := r.EndStrays(p.id, r.marksOf(p)); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		reason += "; processes that it left may still run: " + err.Error()
	}
	p.over(runner.Exit{Interrupted: true, Reason: reason, Started: p.Started(), Finished: time.Now()})
}

// marksOf returns by what the processes of an attempt are recognised: one that a former
// life of the agent has started was told without.
func (r *Runner) marksOf(p *process) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.marks == nil && r.o.Marks != nil {
		return r.o.Marks(p.id)
	}
	return p.marks
}

// listen hears of changes until the stream ends.
func (r *Runner) listen(l *link, stream grpc.ServerStreamingClient[runnerv1.WatchResponse]) error {
	for {
		m, err := stream.Recv()
		if err != nil {
			if r.isStopping() {
				return errGoodbye
			}
			return err
		}
		for _, a := range attemptsOf(m) {
			r.heard(a)
			l.starts.told(a)
		}
		if m.GetStopping() != nil && !r.isStopping() {
			close(r.stopping)
		}
	}
}
