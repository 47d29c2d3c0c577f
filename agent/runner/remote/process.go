package remote

import (
	"sync"
	"time"

	"github.com/schedd/schedd/agent/runner"
	runnerv1 "github.com/schedd/schedd/proto/schedd/runner/v1"
)

// process is an attempt of another process's, as far as it was told.
type process struct {
	runner *Runner
	id     string
	marks  []string // of its environment; nil when not known

	once sync.Once
	done chan struct{}
	exit runner.Exit // written before done is closed

	// Guarded by Runner.mu.
	pid     int
	started time.Time
	killAt  time.Time // when SIGKILL was asked for; zero: not asked
	sentTo  *link     // over which the runner was told of it
	sentAt  time.Time // the killAt of then
}

func newProcess(r *Runner, id string) *process {
	return &process{runner: r, id: id, done: make(chan struct{})}
}

func (p *process) PID() int {
	p.runner.mu.Lock()
	defer p.runner.mu.Unlock()
	return p.pid
}

func (p *process) Started() time.Time {
	p.runner.mu.Lock()
	defer p.runner.mu.Unlock()
	return p.started
}

func (p *process) Done() <-chan struct{} { return p.done }

func (p *process) Exit() runner.Exit {
	if !p.isOver() {
		return runner.Exit{}
	}
	return p.exit
}

func (p *process) Kill(grace time.Duration) {
	r := p.runner
	r.mu.Lock()
	defer r.mu.Unlock()
	if at := time.Now().Add(max(grace, 0)); p.killAt.IsZero() || at.Before(p.killAt) {
		p.killAt = at
	}
	wake(r.errands)
}

func (p *process) isOver() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// over takes note of how it ended. What it is told first stands.
func (p *process) over(e runner.Exit) {
	p.once.Do(func() {
		p.exit = e
		close(p.done)
	})
}

// take notes what the runner says of an attempt, and returns its process. env is
// what it was started with, if that is known.
func (r *Runner) take(m *runnerv1.Attempt, env []string) *process {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.processes[m.GetId()]
	if p == nil {
		p = newProcess(r, m.GetId())
		r.processes[p.id] = p
	}
	if env != nil {
		p.marks = runner.Marks(env)
	}
	p.pid, p.started = int(m.GetPid()), readTime(m.GetStartedTime())
	if m.GetExit() != nil {
		p.over(readExit(m.GetExit()))
	}
	return p
}

// heard takes what a runner tells of an attempt, if that is anybody's concern. One that has
// ended and is not is forgotten once more: a runner that dies may not have put it on record,
// and its successor would keep it for as long as this agent lives.
func (r *Runner) heard(m *runnerv1.Attempt) {
	if r.isWanted(m.GetId()) {
		r.take(m, nil)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.GetExit() != nil && !r.forgotten[m.GetId()] {
		r.forgetLocked(m.GetId())
	}
}

// isWanted reports whether an attempt is anybody's concern: it is known, or asked for just
// now. One that was forgotten may be told of once more, by a message that was on its way, or
// by a runner that does not know of that yet. What a runner keeps that is found for the first
// time is left of a former life.
func (r *Runner) isWanted(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.forgotten[id] && (!r.adopted || r.processes[id] != nil || r.asking[id] > 0)
}

// told returns the process of an attempt that the runner has told of.
func (r *Runner) told(id string) *process {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.processes[id]
}
