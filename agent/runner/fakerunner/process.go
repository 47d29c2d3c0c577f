package fakerunner

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/schedd/schedd/agent/runner"
)

// process is one fake attempt; one goroutine, live, is all its life.
type process struct {
	spec    runner.Spec
	does    Behaviour
	pid     int
	started time.Time
	out     *os.File
	uptime  func() time.Duration
	poke    chan struct{}
	woken   chan struct{}          // holds one: look at the clock of leases
	halts   chan (<-chan struct{}) // holds one: stand still until it is closed
	done    chan struct{}
	exit    runner.Exit // written before done is closed
	wrote   atomic.Int64

	mu          sync.Mutex // guards all below
	killAt      time.Time
	leaseEnd    time.Duration // since boot; 0: it needs no lease
	interrupted string        // why it was ended for the worker's sake
	still       []Span        // when it stood still
}

func (p *process) PID() int              { return p.pid }
func (p *process) Started() time.Time    { return p.started }
func (p *process) Done() <-chan struct{} { return p.done }

func (p *process) Exit() runner.Exit {
	select {
	case <-p.done:
		return p.exit
	default:
		return runner.Exit{}
	}
}

func (p *process) Kill(grace time.Duration) {
	p.hurry(time.Now().Add(max(grace, 0)))
	p.nudge()
}

// nudge has it see that it is to end.
func (p *process) nudge() {
	select {
	case p.poke <- struct{}{}:
	default: // live has yet to see the last one, and will see this too
	}
}

// halt has it stand still until awake is closed.
func (p *process) halt(awake <-chan struct{}) {
	select {
	case <-p.halts: // one that is over, and was too short to be seen
	default:
	}
	p.halts <- awake
}

// stop ends it for the worker's sake.
func (p *process) stop() { p.interrupt("the worker was stopped while it ran", p.spec.KillGrace) }

// orphan ends it as one whose runner died.
func (p *process) orphan() { p.interrupt("the worker's runner died while it ran", 0) }

func (p *process) interrupt(reason string, grace time.Duration) {
	p.mu.Lock()
	p.interrupted = reason
	p.mu.Unlock()
	p.Kill(grace)
}

// hurry brings SIGKILL forward to at.
func (p *process) hurry(at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.killAt.IsZero() || at.Before(p.killAt) {
		p.killAt = at
	}
}

func (p *process) killDue() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.killAt
}

// renew moves the end of the lease, unless that is over.
func (p *process) renew(end, now time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now < p.leaseEnd && end > p.leaseEnd {
		p.leaseEnd = end
	}
}

// graceLeft returns how much of the grace is left that follows the lease. It goes by the same
// clock, which counts the time in which the host was suspended.
func (p *process) graceLeft() time.Duration { return max(p.leaseLeft()+max(p.spec.KillGrace, 0), 0) }

// leaseLeft returns how long the lease lasts from now on.
func (p *process) leaseLeft() time.Duration {
	now := p.uptime()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.leaseEnd - now
}

// stoodStill returns when it stood still.
func (p *process) stoodStill() []Span {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.still)
}

// live is the attempt from start to end.
func (p *process) live() runner.Exit {
	defer func() { _ = p.out.Close() }() // a test reads what arrived
	e := runner.Exit{
		CPUTime: p.does.CPUTime, MaxRSS: p.does.MaxRSS, Leftover: p.does.Leftover, Started: p.started,
	}
	end, timeout := p.alarms()
	defer end.Stop()
	defer timeout.Stop()
	lease := never()
	defer lease.Stop()
	if p.spec.LeaseEnd > 0 {
		lease.Reset(p.leaseLeft())
	}
	mouth := p.speaker()
	defer mouth.stop()

	for ended := false; !ended; {
		select {
		case awake := <-p.halts:
			p.standStill(awake, end, timeout, mouth.timer)
			if p.spec.LeaseEnd > 0 {
				lease.Reset(p.leaseLeft())
			}
		case <-mouth.timer.C:
			mouth.speak()
		case <-end.C:
			mouth.finish(end.due)
			e.Code, ended = p.does.ExitCode, true
		case <-timeout.C:
			e.TimedOut, ended = true, true
			p.hurry(time.Now().Add(max(p.spec.KillGrace, 0)))
			p.die(&e, fmt.Sprintf("timed out after %v, ", p.spec.Timeout), end, mouth)
		case <-p.poke:
			e.Killed, ended = true, true
			p.die(&e, "killed on request, ", end, mouth)
		case <-p.woken:
			if p.spec.LeaseEnd > 0 {
				lease.Reset(p.leaseLeft())
			}
		case <-lease.C:
			if left := p.leaseLeft(); left > 0 {
				lease.Reset(left)
				continue
			}
			e.LeaseExpired, ended = true, true
			p.hurry(time.Now().Add(p.graceLeft()))
			p.die(&e, "its lease expired, ", end, mouth)
		}
	}
	e.Finished = time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.Killed && p.interrupted != "" {
		e.Killed, e.Interrupted, e.Reason = false, true, p.interrupted
	}
	return e
}

// alarms are for its own end and for that of its time.
func (p *process) alarms() (end, timeout *alarm) {
	end, timeout = never(), never()
	if p.does.Duration >= 0 {
		end.set(p.started.Add(p.does.Duration))
	}
	if p.spec.Timeout > 0 && (p.does.Duration < 0 || p.spec.Timeout < p.does.Duration) { // who ends in time has ended
		timeout.set(p.started.Add(p.spec.Timeout))
	}
	return end, timeout
}

// die is what comes after the first signal.
func (p *process) die(e *runner.Exit, why string, end *alarm, mouth *mouth) {
	due := p.killDue()
	if due.After(time.Now()) && !p.does.IgnoreTerm {
		e.Code, e.Signal, e.Reason = 143, "SIGTERM", why+"ended after SIGTERM"
		return
	}
	soft := due.After(time.Now())
	for {
		left := time.Until(p.killDue())
		if left <= 0 {
			break
		}
		kill := time.NewTimer(left)
		select {
		case <-mouth.timer.C:
			mouth.speak()
		case awake := <-p.halts:
			p.standStill(awake, end, mouth.timer)
			if e.LeaseExpired { // the clock of leases went on
				p.hurry(time.Now().Add(p.graceLeft()))
			}
		case <-end.C:
			mouth.finish(end.due)
			kill.Stop()
			e.Code, e.Reason = p.does.ExitCode, why+"ended after SIGTERM"
			return
		case <-p.poke:
		case <-kill.C:
		}
		kill.Stop()
	}
	e.Code, e.Signal, e.Reason = 137, "SIGKILL", why+"ended with SIGKILL"
	if soft {
		e.Reason = why + "did not end after SIGTERM and was ended with SIGKILL"
	}
}

// standStill is what it does while its host is suspended: nothing, until that goes on. What
// was to come then comes so much later. SIGKILL ends it all the same.
func (p *process) standStill(awake <-chan struct{}, all ...*alarm) {
	began, killAt, poked := time.Now(), p.killDue(), false
	p.mu.Lock()
	p.still = append(p.still, Span{From: began})
	p.mu.Unlock()
	for asleep := true; asleep; {
		select {
		case <-awake:
			asleep = false
		case <-p.poke:
			poked, asleep = true, p.killDue().After(time.Now())
		}
	}
	if poked {
		p.nudge()
	}
	d := time.Since(began)
	for _, a := range all {
		a.putOff(d)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.still[len(p.still)-1].To = time.Now()
	if !killAt.IsZero() && p.killAt.Equal(killAt) {
		p.killAt = killAt.Add(d)
	}
}

// alarm is a timer that can be put off.
type alarm struct {
	*time.Timer
	due time.Time // zero: it was never set
}

// never is an alarm that is not set.
func never() *alarm {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &alarm{Timer: t}
}

func (a *alarm) set(due time.Time) {
	a.due = due
	a.Reset(time.Until(due))
}

// putOff has it be due so much later, if it has not gone off.
func (a *alarm) putOff(d time.Duration) {
	if !a.due.IsZero() {
		a.set(a.due.Add(d))
	}
}

// mouth says the chunks when they are due.
type mouth struct {
	p     *process
	rest  []Chunk
	timer *alarm // for the first of rest
}

func (p *process) speaker() *mouth {
	m := &mouth{p: p, rest: p.does.Output, timer: never()}
	m.next(p.started)
	return m
}

// next sets the timer for the next chunk, which comes after that moment.
func (m *mouth) next(after time.Time) {
	m.timer.due = time.Time{}
	if len(m.rest) > 0 {
		m.timer.set(after.Add(m.rest[0].After))
	}
}

// speak writes one chunk. A disk that is full is the attempt's own trouble, as
// it is for a real process.
func (m *mouth) speak() {
	n, _ := m.p.out.Write(m.rest[0].Data)
	m.p.wrote.Add(int64(n))
	m.rest = m.rest[1:]
	m.next(m.timer.due)
}

// finish writes what was due by the end: timers of one instant fire in any order.
func (m *mouth) finish(end time.Time) {
	for len(m.rest) > 0 && !m.timer.due.After(end) {
		m.speak()
	}
}

func (m *mouth) stop() { m.timer.Stop() }
