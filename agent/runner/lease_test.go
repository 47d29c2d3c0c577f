//go:build linux

package runner_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/schedd/schedd/agent/runner"
)

// bootClock is a clock that leases are counted by: it goes on only when a test says
// so, as that of a host that sleeps does when it wakes.
type bootClock struct {
	now   atomic.Int64
	reads atomic.Int64
}

func (c *bootClock) uptime() (time.Duration, bool) {
	c.reads.Add(1)
	return time.Duration(c.now.Load()), true
}

func (c *bootClock) set(d time.Duration) { c.now.Store(int64(d)) }

// leasing returns a place whose runner counts leases by a clock of its own.
func leasing(t *testing.T) (place, *bootClock) {
	p, c := newPlace(t), &bootClock{}
	c.set(time.Hour)
	p.runner = runner.New(runner.Options{TempDir: p.dir, Uptime: c.uptime})
	return p, c
}

// looked waits until the clock has been read a few times more, and so has been seen as
// it is now.
func (p place) looked(c *bootClock) {
	p.Helper()
	from := c.reads.Load()
	p.until("a look at the clock", func() bool { return c.reads.Load() > from+2 })
}

// What comes too late is not started, by the clock that goes on in a suspend.
func TestDeadline(t *testing.T) {
	p, c := leasing(t)
	s := p.sh("echo up")
	s.Deadline = time.Hour + time.Second
	p.wait(p.start(s))
	c.set(s.Deadline)
	if _, err := p.runner.Start(s); !errors.Is(err, runner.ErrLate) {
		t.Errorf("told %v", err)
	}
	if got := p.read(s.Output); got != "up\n" {
		t.Errorf("it printed %q", got)
	}
}

// A lease is renewed, and then it is not: what runs is asked to end.
func TestLease(t *testing.T) {
	p, c := leasing(t)
	s := p.sh("trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done")
	s.LeaseEnd = time.Hour + time.Minute
	proc := p.start(s)
	p.lines(s, 1)
	p.runner.Renew(map[string]time.Duration{s.ID: time.Hour + 3*time.Minute, "nobody/1": 2 * time.Hour})
	p.runner.Renew(map[string]time.Duration{s.ID: time.Hour + 2*time.Minute}) // it was overtaken
	c.set(time.Hour + 3*time.Minute - 1)
	p.looked(c)
	if e := proc.Exit(); e != (runner.Exit{}) {
		t.Fatalf("with a lease it has ended: %+v", e)
	}
	c.set(time.Hour + 3*time.Minute)
	if e := p.wait(proc); !e.LeaseExpired || e.Killed || e.TimedOut || e.Code != 7 || e.Reason != "its lease expired, ended after SIGTERM" {
		t.Errorf("exit %+v", e)
	}
}

// A hypervisor hides a pause from the clock of its guest: that has not gone on, so nothing
// tells that the lease is over, and what has it goes on until the guest's clock says so.
func TestLeaseGoesByTheGuestsClock(t *testing.T) {
	p, c := leasing(t)
	s := p.sh("echo up; while :; do echo on; sleep 0.01; done")
	s.LeaseEnd = time.Hour + time.Millisecond
	proc := p.start(s)
	began := time.Now()
	p.lines(s, 5)
	for time.Since(began) < 100*time.Millisecond {
		p.looked(c) // the lease is over by each clock but this one
	}
	if e := proc.Exit(); e != (runner.Exit{}) {
		t.Fatalf("its clock stands still, and it has ended: %+v", e)
	}
	c.set(s.LeaseEnd)
	if e := p.wait(proc); !e.LeaseExpired {
		t.Errorf("exit %+v", e)
	}
}

// A host was suspended until long after the lease and the grace that follows it: what
// wakes up there is killed at the first look, and not asked.
func TestLeaseAfterASuspend(t *testing.T) {
	p, c := leasing(t)
	s := p.sh(deaf)
	s.LeaseEnd, s.KillGrace = time.Hour+time.Minute, time.Hour
	proc := p.start(s)
	p.lines(s, 1)
	c.set(3 * time.Hour)
	if e := p.wait(proc); !e.LeaseExpired || e.Signal != "SIGKILL" || e.Reason != "its lease expired, ended with SIGKILL" {
		t.Errorf("exit %+v", e)
	}
}

// What is deaf to SIGTERM is killed when the grace is over by the clock of the lease,
// though by another clock, which stood still in a suspend, it is not.
func TestGraceOfALease(t *testing.T) {
	p, c := leasing(t)
	s := p.sh("trap 'echo asked' TERM; echo up; while :; do sleep 0.01; done")
	s.LeaseEnd, s.KillGrace = time.Hour+time.Minute, time.Hour
	proc := p.start(s)
	p.lines(s, 1)
	c.set(s.LeaseEnd)
	p.lines(s, 2)
	c.set(s.LeaseEnd + s.KillGrace)
	if e := p.wait(proc); !e.LeaseExpired || e.Signal != "SIGKILL" {
		t.Errorf("exit %+v", e)
	}
}

// A lease that is over does not begin again, and nothing is started with one.
func TestLeaseIsOver(t *testing.T) {
	p, c := leasing(t)
	s := p.sh("exec sleep 1000")
	s.LeaseEnd = time.Hour + time.Minute
	proc := p.start(s)
	c.set(s.LeaseEnd)
	p.runner.Renew(map[string]time.Duration{s.ID: 100 * time.Hour})
	if e := p.wait(proc); !e.LeaseExpired {
		t.Errorf("exit %+v", e)
	}
	if _, err := p.runner.Start(s); err == nil || !strings.Contains(err.Error(), "its lease had ended") {
		t.Errorf("told %v", err)
	}
	blind := runner.New(runner.Options{TempDir: p.dir, Uptime: func() (time.Duration, bool) { return 0, false }})
	if _, err := blind.Start(s); !errors.Is(err, runner.ErrNoLeases) {
		t.Errorf("without a clock it is told %v", err)
	}
}

// The clock of the kernel goes on.
func TestUptime(t *testing.T) {
	p := newPlace(t)
	first, ok := p.runner.Uptime()
	if !ok {
		t.Skip("this system has no clock that counts a suspend")
	}
	p.until("the clock to go on", func() bool {
		now, ok := p.runner.Uptime()
		return ok && now > first
	})
}

// A timeout is of the time in which a job could work. A suspend, which the clock of leases
// counts, is none of it.
func TestTimeoutCountsNoSuspend(t *testing.T) {
	p, c := leasing(t)
	s := p.sh("echo up; exec sleep 1000")
	s.Timeout, s.LeaseEnd = time.Hour, 100*time.Hour
	proc := p.start(s)
	p.lines(s, 1)
	c.set(50 * time.Hour)
	p.looked(c)
	if e := proc.Exit(); e != (runner.Exit{}) {
		t.Errorf("with a timeout of an hour it has ended after a suspend: %+v", e)
	}
	proc.Kill(0)
	p.wait(proc)
}
