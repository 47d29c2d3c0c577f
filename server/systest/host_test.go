package systest

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
)

// book keeps every start of a process, on any host.
type book struct {
	mu     sync.Mutex
	starts map[string][]start // by attempt, "run/number"
}

// start is one start of a process.
type start struct {
	at     time.Time
	worker string
	spec   runner.Spec
	does   fakerunner.Behaviour
}

func (b *book) enter(s start) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.starts[s.spec.ID] = append(b.starts[s.spec.ID], s)
}

// of returns the starts of an attempt.
func (b *book) of(id string) []start {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.starts[id]
}

// attempts returns the names of all attempts that were started.
func (b *book) attempts() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var ids []string
	for id := range b.starts {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// printed is all that the process writes when it is left alone.
func (s start) printed() []byte {
	var all []byte
	for _, c := range s.does.Output {
		all = append(all, c.Data...)
	}
	return all
}

// env returns a variable of the process's environment.
func (s start) env(name string) string { return env(s.spec, name) }

func env(s runner.Spec, name string) string {
	for _, e := range s.Env {
		if value, ok := strings.CutPrefix(e, name+"="); ok {
			return value
		}
	}
	return ""
}

// life is what one life of an agent has of its host's processes. They outlive
// it: when it is dead it can't start, end or see them any more.
type life struct {
	*fakerunner.Fake
	clock  *wallClock
	older  bool              // the runner is of an older version
	hold   func(runner.Spec) // called before each start
	dead   chan struct{}     // closed: the agent was killed
	buried chan struct{}     // closed: what is left of it may end
	ended  chan struct{}     // closed: it has ended in order
	views  sync.WaitGroup
}

var errDead = errors.New("the agent was killed before it could start this")

func newLife(f *fakerunner.Fake, clock *wallClock, hold func(runner.Spec), older bool) *life {
	return &life{Fake: f, clock: clock, hold: hold, older: older, dead: make(chan struct{}), buried: make(chan struct{}), ended: make(chan struct{})}
}

func (l *life) over() bool {
	select {
	case <-l.dead:
		return true
	default:
		return false
	}
}

// Start implements runner.Runner.
func (l *life) Start(s runner.Spec) (runner.Process, error) {
	l.hold(s)
	if l.over() {
		<-l.buried
		return nil, errDead
	}
	p, err := l.Fake.Start(s)
	if err != nil {
		return nil, err
	}
	return l.see(p), nil
}

// see returns this life's view of a process.
func (l *life) see(p runner.Process) *view {
	v := &view{Process: p, life: l, began: l.clock.error(), done: make(chan struct{})}
	l.views.Go(v.wait)
	return v
}

// Known implements runner.Lasting.
func (l *life) Known() map[string]runner.Process {
	known := l.Fake.Known()
	for id, p := range known {
		known[id] = l.see(p)
	}
	return known
}

// Forget implements runner.Lasting.
func (l *life) Forget(id string) {
	if !l.over() {
		l.Fake.Forget(id)
	}
}

// Renew implements runner.Runner.
func (l *life) Renew(ends map[string]time.Duration) {
	if !l.over() {
		l.Fake.Renew(ends)
	}
}

// Stopping implements runner.Lasting: what happens to the host is no news to a life
// that is over.
func (l *life) Stopping() <-chan struct{} {
	if l.over() {
		return nil
	}
	return l.Fake.Stopping()
}

// Probe implements runner.Runner.
func (l *life) Probe() error {
	if l.over() {
		return errDead
	}
	return l.Fake.Probe()
}

// EndStrays implements runner.Runner.
func (l *life) EndStrays(id string, env []string) (int, error) {
	if l.over() {
		return 0, errDead
	}
	return l.Fake.EndStrays(id, env)
}

// view is one life's view of a process.
type view struct {
	runner.Process
	life  *life
	began time.Duration // by how much the host's clock was wrong when it was seen first
	ended time.Duration // and when it had ended; when done is closed
	done  chan struct{}
}

// Started is when the process began, as the host's clock had it.
func (v *view) Started() time.Time { return v.Process.Started().Add(v.began) }

// Exit is how it ended, and when, as the host's clock had it.
func (v *view) Exit() runner.Exit {
	e := v.Process.Exit()
	if !e.Finished.IsZero() {
		e.Started, e.Finished = e.Started.Add(v.began), e.Finished.Add(v.ended)
	}
	return e
}

func (v *view) wait() {
	select {
	case <-v.Process.Done():
		if v.life.over() {
			<-v.life.buried
		}
	case <-v.life.dead:
		<-v.life.buried
	case <-v.life.ended:
		return // nobody looks any more
	}
	v.ended = v.life.clock.error()
	close(v.done)
}

func (v *view) Done() <-chan struct{} { return v.done }

func (v *view) Kill(grace time.Duration) {
	if !v.life.over() {
		v.Process.Kill(grace)
	}
}
