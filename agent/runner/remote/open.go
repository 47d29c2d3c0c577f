package remote

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/schedd/schedd/agent/runner"
	runnerv1 "github.com/schedd/schedd/proto/schedd/runner/v1"
)

// Options are how an agent finds its runner.
type Options struct {
	// Dir is where agent and runner meet.
	Dir string
	// Life counts the starts of an agent in this data directory.
	Life uint64
	// Version of the agent's program.
	Version string
	// Policy is the name of the policy file that Launch gives to a runner.
	Policy string
	// Launch starts a runner for Dir, and does nothing while the one that it
	// started last still lives. Nil: somebody else starts it.
	Launch func() error
	// Marks returns the variables by which the processes of an attempt are recognised
	// that a former life of the agent has started. Nil: they can't be.
	Marks func(id string) []string
	// Log gets what happens to the runner.
	Log *slog.Logger
	// Dial connects to the runner in place of the socket, for tests.
	Dial func(ctx context.Context) (net.Conn, error)
	// Uptime is the clock that the runner counts leases and deadlines by, for tests. Default:
	// [runner.Uptime].
	Uptime func() (time.Duration, bool)
}

// Runner is a runner in another process. When that one dies it finds the next.
type Runner struct {
	o        Options
	until    func(time.Time) (context.Context, context.CancelFunc) // for calls; ends with Close too, and never when zero
	end      context.CancelFunc
	wg       sync.WaitGroup
	errands  chan struct{} // holds one: there are kills, leases or ids to forget that were not sent
	stopping chan struct{}

	// For keep alone.
	tried bool   // an idle runner of another kind was asked to make way
	links uint64 // calls of Watch so far

	mu        sync.Mutex         // guards all below, and every process as said there
	link      *link              // nil while there is none
	relinked  chan struct{}      // closed, and replaced, when link changes
	fault     error              // why there is no link
	keeps     runner.Enforcement // of the last link
	processes map[string]*process
	asking    map[string]int           // for starts of them
	adopted   bool                     // what a runner kept was heard
	forgotten map[string]bool          // that the runner was not told of yet
	gathering bool                     // more are waited for
	renewed   map[string]time.Duration // ends of leases, likewise
	trouble   string                   // why nothing should be started
	troubled  chan struct{}            // closed, and replaced, when trouble changes
	closed    bool
}

var _ runner.Lasting = (*Runner)(nil)

// link is one call of Watch, after all was told.
type link struct {
	client   runnerv1.RunnerServiceClient
	instance string
	pid      int64
	revision uint32
	keeps    runner.Enforcement
	starts   *starts // nil: the runner is of an older version, and each start is a call
}

// Open finds the runner, starts it if need be, and returns when it has told what it
// keeps. Close it.
func Open(ctx context.Context, o Options) (*Runner, error) {
	if o.Dial == nil {
		o.Dial = func(ctx context.Context) (net.Conn, error) { return dial(ctx, o.Dir) }
	}
	if o.Uptime == nil {
		o.Uptime = runner.Uptime
	}
	r := &Runner{
		o: o, errands: make(chan struct{}, 1), stopping: make(chan struct{}), relinked: make(chan struct{}), troubled: make(chan struct{}),
		processes: make(map[string]*process), asking: make(map[string]int), forgotten: make(map[string]bool), renewed: make(map[string]time.Duration),
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	r.end = end
	r.until = func(t time.Time) (context.Context, context.CancelFunc) {
		if t.IsZero() {
			return context.WithCancel(life)
		}
		return context.WithDeadline(life, t)
	}
	r.wg.Go(func() { r.keep(life) })
	r.wg.Go(func() { r.run(life) })
	r.wg.Go(func() { r.look(life) })
	wait, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	if _, err := r.await(wait, nil); err != nil {
		r.Close()
		return nil, fmt.Errorf("find the runner in %q: %w", o.Dir, err)
	}
	return r, nil
}

// Close leaves the runner. What it runs goes on.
func (r *Runner) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.end()
	r.wg.Wait()
}

// Stopping implements runner.Lasting.
func (r *Runner) Stopping() <-chan struct{} { return r.stopping }

// await returns a link other than the one given, as soon as there is one.
func (r *Runner) await(ctx context.Context, not *link) (*link, error) {
	for {
		r.mu.Lock()
		l, changed, fault, over := r.link, r.relinked, r.fault, r.closed
		r.mu.Unlock()
		switch {
		case over:
			return nil, errors.New("the agent is leaving its runner")
		case l != nil && l != not:
			return l, nil
		}
		select {
		case <-changed:
		case <-r.stopping:
			return nil, errGoodbye
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", context.Cause(ctx), fault)
		}
	}
}

// awaitFor is await for a start: until it is too late for that, or, once it was asked for,
// since then only a runner knows, for as long as it takes.
func (r *Runner) awaitFor(s runner.Spec, asked bool, not *link) (*link, error) {
	if l := r.linked(); l != nil && l != not && !r.isClosed() {
		return l, nil // as nearly always, and without a context
	}
	var late time.Time
	if !asked {
		late = r.deadline(s)
	}
	ctx, cancel := r.until(late)
	defer cancel()
	return r.await(ctx, not)
}

// relink takes note of a new link, or of the loss of one.
func (r *Runner) relink(l *link, fault error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.link, r.fault = l, fault
	if l != nil {
		r.keeps = l.keeps
	}
	close(r.relinked)
	r.relinked = make(chan struct{})
	wake(r.errands)
}

// Known implements runner.Lasting. It is called before the first Start.
func (r *Runner) Known() map[string]runner.Process {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := make(map[string]runner.Process, len(r.processes))
	for id, p := range r.processes {
		known[id] = p
	}
	return known
}

// Start implements runner.Runner. When the runner dies meanwhile nobody can tell
// whether the process was started. Then it returns one that has ended and was
// interrupted, after it has ended what there may be.
func (r *Runner) Start(s runner.Spec) (runner.Process, error) {
	r.beginAsking(s.ID)
	defer r.endAsking(s.ID)
	var l *link
	var err error
	for asked := ""; ; {
		if l, err = r.awaitFor(s, asked != "", l); err != nil && asked == "" {
			return nil, runner.Unable(fmt.Errorf("starting attempt %q: there is no runner: %w", s.ID, err))
		} else if err != nil {
			return r.doubtful(s)
		}
		if p := r.told(s.ID); p != nil {
			return p, nil
		}
		if asked != "" && l.instance != asked {
			return r.doubtful(s)
		}
		if s.LeaseEnd > 0 && l.revision < leaseRevision {
			return nil, fmt.Errorf("starting attempt %q: %w: its runner, process %d, is of an older version and has attempts; it is replaced when the agent starts and nothing runs", s.ID, runner.ErrNoLeases, l.pid)
		}
		// One of an older version would start it, and hear nothing of its limits.
		if err := l.keeps.Check(s.Limits); err != nil && asked == "" {
			return nil, fmt.Errorf("starting attempt %q: %w", s.ID, err)
		}
		asked = l.instance
		if p, err := r.ask(l, s); !errors.Is(err, errUnanswered) {
			return p, err
		}
	}
}

func (r *Runner) beginAsking(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asking[id]++
}

func (r *Runner) endAsking(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asking[id]--; r.asking[id] == 0 {
		delete(r.asking, id)
	}
}

// deadline of a start, by the clock of contexts; zero is never.
func (r *Runner) deadline(s runner.Spec) time.Time {
	if s.Deadline == 0 {
		return time.Time{}
	}
	now, _ := r.o.Uptime()
	return time.Now().Add(s.Deadline - now)
}

// Enforcement implements runner.Runner: that of the runner that there is, or was last.
func (r *Runner) Enforcement() (is runner.Enforcement, changed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.keeps, r.relinked
}

// errUnanswered says that it is not known what became of a question.
var errUnanswered = errors.New("the runner did not answer")

// ask asks the runner once to start an attempt.
func (r *Runner) ask(l *link, s runner.Spec) (runner.Process, error) {
	_, shared := r.o.Uptime()
	req := showSpec(r.o.Life, s, shared)
	if l.starts != nil && proto.Size(req) <= maxShared {
		return r.askAmong(l.starts, req, s)
	}
	if l.starts != nil {
		req.Link = l.starts.link // once it is asked again over the next one, it is not started for this one
	}
	ctx, cancel := r.until(time.Time{}) // an answer that comes late is an answer
	defer cancel()
	resp, err := l.client.Start(ctx, req)
	switch status.Code(err) {
	case codes.OK:
		if resp.GetError() != "" {
			return nil, refusal(resp.GetError(), resp.GetUnable())
		}
		return r.take(resp.GetAttempt(), s.Env), nil
	case codes.FailedPrecondition:
		return nil, fmt.Errorf("starting attempt %q: %w", s.ID, runner.ErrLeft)
	case codes.InvalidArgument, codes.ResourceExhausted, codes.Unimplemented:
		return nil, fmt.Errorf("starting attempt %q: the runner can't be asked: %w", s.ID, err)
	default:
		return nil, errUnanswered
	}
}

// refusal is why an attempt was not started, in the runner's words.
func refusal(why string, unable bool) error {
	if unable {
		return runner.Unable(errors.New(why))
	}
	return errors.New(why)
}

// Probe implements runner.Runner. Of a runner of an older version, which never says
// that it is unable, it finds out whether it is there.
func (r *Runner) Probe() error {
	ctx, cancel := r.until(time.Now().Add(answerWithin))
	defer cancel()
	l, err := r.await(ctx, nil)
	if err != nil {
		return fmt.Errorf("there is no runner: %w", err)
	}
	resp, err := l.client.Probe(ctx, &runnerv1.ProbeRequest{})
	switch {
	case status.Code(err) == codes.Unimplemented:
		return nil
	case err != nil:
		return fmt.Errorf("the runner says: %w", err)
	case resp.GetError() != "":
		return errors.New(resp.GetError())
	}
	return nil
}

// doubtful returns an attempt that may have run: it was asked for, and whoever was
// asked died.
func (r *Runner) doubtful(s runner.Spec) (runner.Process, error) {
	reason := "the worker's runner died before it could tell whether it had started it"
	_, err := r.EndStrays(s.ID, runner.Marks(s.Env))
	if r.isClosed() {
		return nil, fmt.Errorf("starting attempt %q: %w", s.ID, runner.ErrLeft)
	}
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		reason += "; processes of it may run: " + err.Error()
	}
	p, now := newProcess(r, s.ID), time.Now()
	p.over(runner.Exit{Interrupted: true, Reason: reason, Started: now, Finished: now})
	return p, nil
}

func (r *Runner) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

// EndStrays implements runner.Runner.
func (r *Runner) EndStrays(id string, env []string) (int, error) {
	ctx, cancel := r.until(time.Now().Add(startWithin))
	defer cancel()
	var l *link
	for {
		var err error
		if l, err = r.await(ctx, l); err != nil {
			return 0, fmt.Errorf("ending strays of attempt %q: there is no runner: %w", id, err)
		}
		resp, err := l.client.EndStrays(ctx, &runnerv1.EndStraysRequest{Id: id, Env: showEnv(env)})
		switch {
		case status.Code(err) == codes.Unavailable:
			continue
		case err != nil:
			return 0, fmt.Errorf("ending strays of attempt %q: the runner says: %w", id, err)
		case resp.GetUnsupported():
			return int(resp.GetEnded()), fmt.Errorf("%s: %w", resp.GetError(), errors.ErrUnsupported)
		case resp.GetError() != "":
			return int(resp.GetEnded()), errors.New(resp.GetError())
		}
		return int(resp.GetEnded()), nil
	}
}

// Forget implements runner.Lasting.
func (r *Runner) Forget(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forgetLocked(id)
}

func (r *Runner) forgetLocked(id string) {
	delete(r.processes, id)
	r.forgotten[id] = true
	if !r.gathering {
		r.gathering = true
		time.AfterFunc(forgetWithin, r.sendSoon)
	}
}

// sendSoon ends the gathering of what the runner may forget.
func (r *Runner) sendSoon() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gathering = false
	wake(r.errands)
}
