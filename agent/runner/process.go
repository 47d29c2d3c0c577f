//go:build unix

package runner

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/schedd/schedd/agent/runner/cgroup"
)

const (
	// lookEvery is how often a running attempt's orphans are reaped, its size is
	// sampled, and it is seen whether its lease is over: a timer until then would
	// stand still while the host is suspended.
	lookEvery = LeaseLook
	// stuckAfter is how long after SIGKILL a process is worth a warning.
	stuckAfter = 10 * time.Second
)

// cause is why an attempt's tree is being ended.
type cause int

const (
	byItself cause = iota // the main process has ended
	killed
	timedOut
	leaseExpired
)

// sent is what a process of the tree has been sent so far.
type sent int

const (
	nothing sent = iota
	term
	kill
	refused // the kernel would not let us
)

// process is one attempt's tree. One goroutine, supervise, sees it through from
// the start to Done; it alone reaps and signals, so that a pid it signals can't
// have become somebody else's.
type process struct {
	id             string
	marks          []string // of its environment; see marksOf
	timeout, grace time.Duration
	most           time.Duration // from start to SIGKILL, whatever anybody asks for; 0: any time
	limits         Limits
	script         string
	local          *Local
	group          *cgroup.Group // nil: none; set under home.mu, by the start
	pid            int
	started        time.Time
	poke           chan struct{} // something was asked: look at killAt
	done           chan struct{}
	exit           Exit // written before done is closed

	mu       sync.Mutex    // guards the following
	killAt   time.Time     // when SIGKILL was asked for; zero: not asked
	spare    time.Duration // how long after SIGTERM that is to be
	leaseEnd time.Duration // by local.uptime; 0: it needs no lease

	kin kin // guarded by home.mu

	// For supervise alone.
	end      ending
	sent     map[ref]sent
	peak     int64 // largest sampled size of the main process, in bytes
	sampled  int64 // and of its group, where the kernel keeps no peak
	leftover int
	soft     bool      // SIGTERM was sent
	hard     time.Time // when SIGKILL was first sent
	warned   bool
}

// kin is what the household knows about a process.
type kin struct {
	reaped bool             // the main process is gone and its pid may be another's
	tree   map[ref]struct{} // who was ever seen in the tree
	cpu    time.Duration    // of reaped orphans
	rss    int64            // of the largest reaped orphan, in bytes
}

// ending is what the kernel says at the end of a main process.
type ending struct {
	status syscall.WaitStatus
	usage  syscall.Rusage
	err    error
}

func newProcess(l *Local, s Spec) *process {
	return &process{
		id: s.ID, local: l, timeout: s.Timeout, grace: ClampGrace(s.KillGrace), leaseEnd: s.LeaseEnd, limits: s.Limits,
		marks: marksOf(s.Env),
		poke:  make(chan struct{}, 1), done: make(chan struct{}),
	}
}

func (p *process) began(pid int, now time.Time) { p.pid, p.started = pid, now }

func (p *process) PID() int              { return p.pid }
func (p *process) Started() time.Time    { return p.started }
func (p *process) Done() <-chan struct{} { return p.done }

func (p *process) Exit() Exit {
	select {
	case <-p.done:
		return p.exit
	default:
		return Exit{}
	}
}

func (p *process) Kill(grace time.Duration) {
	p.hurry(time.Now(), ClampGrace(grace))
	select {
	case p.poke <- struct{}{}:
	default: // supervise has yet to see the last one, and will see this too
	}
}

// hurry brings SIGKILL forward to what is asked for at now.
func (p *process) hurry(now time.Time, grace time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at := p.spared(now, grace); p.killAt.IsZero() || at.Before(p.killAt) {
		p.killAt, p.spare = at, grace
	}
}

// spareNow has the grace begin at now, when SIGTERM is sent: on a machine that was busy,
// or asleep, that may be later than the grace would have lasted since it was given.
func (p *process) spareNow(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.killAt = p.spared(now, p.spare)
}

// spared returns until when it is spared that is given a grace now. That ends with the time
// that it may take in all.
func (p *process) spared(now time.Time, grace time.Duration) time.Time {
	at := now.Add(grace)
	if last := p.started.Add(p.most); p.most > 0 && last.Before(at) {
		return last
	}
	return at
}

// killDue reports whether it is time for SIGKILL at now: as was asked for, or since its
// lease has been over for as long as its grace, whatever it is being ended for. That is
// when who gave the lease takes it for dead; there is no grace to spare then, and after a
// suspend not even the question.
func (p *process) killDue(now time.Time) bool {
	p.mu.Lock()
	asked := !now.Before(p.killAt)
	p.mu.Unlock()
	return asked || p.leaseOver(max(p.grace, 0))
}

// supervise sees the attempt through. It is the only goroutine of an attempt.
func (p *process) supervise() {
	main := make(chan ending, 1)
	awaitEnd(p.pid, main)

	why := p.watch(main)
	if why != byItself || !home.clean(p) {
		if why != killed {
			p.hurry(time.Now(), max(p.grace, 0))
		}
		p.clear(why, main)
	}
	known := home.forget(p)
	p.removeScript()
	used := p.measure()
	p.removeGroup()
	p.exit = p.account(why, known, used, time.Now())
	close(p.done)
}

// watch waits until the main process has ended, and reaps it, or until it has
// to end.
func (p *process) watch(main <-chan ending) cause {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	var timeout <-chan time.Time
	if p.timeout > 0 {
		t := time.NewTimer(time.Until(p.started.Add(p.timeout)))
		defer t.Stop()
		timeout = t.C
	}
	if p.leaseOver(0) {
		return leaseExpired // the start took longer than that
	}
	for {
		select {
		case e := <-main:
			p.end = home.reap(p, e)
			return byItself
		case <-p.poke:
			return killed
		case <-timeout:
			return timedOut
		case <-look.C:
			if p.leaseOver(0) {
				return leaseExpired
			}
			home.sight()
			p.peak = max(p.peak, peakRSS(p.pid))
			if p.group != nil {
				p.sampled = max(p.sampled, p.group.Sample())
			}
		}
	}
}

// clear ends the tree: SIGTERM to all that is there, SIGKILL to all that is
// there when that is due, until nothing is.
func (p *process) clear(why cause, main <-chan ending) {
	p.sent = map[ref]sent{}
	timer := time.NewTimer(0)
	defer timer.Stop()
	const shortest = time.Millisecond
	for pause := shortest; ; pause = min(2*pause, p.patience()) {
		tree := home.tree(p)
		if !p.anyone(tree) && (len(tree) > 0 || home.clean(p)) {
			return
		}
		if p.signal(tree, why) {
			pause = shortest
		}
		p.warnIfStuck(tree)
		timer.Reset(p.untilLook(pause))
		select {
		case e := <-main:
			p.end = home.reap(p, e)
			pause = shortest
		case <-p.poke:
		case <-timer.C:
		}
	}
}

// anyone reports whether it is worth waiting for the tree: not for those that
// the kernel keeps us from ending, unless it is the main process.
func (p *process) anyone(tree []ref) bool {
	for _, r := range tree {
		if r.pid == p.pid || p.sent[r] != refused {
			return true
		}
	}
	return false
}

// signal sends what is due to whoever hasn't had it, and reports whether it has
// sent anything.
func (p *process) signal(tree []ref, why cause) (any bool) {
	now := time.Now()
	if !p.soft && p.hard.IsZero() {
		p.spareNow(now)
	}
	want, sig := term, syscall.SIGTERM
	if p.killDue(now) {
		want, sig = kill, syscall.SIGKILL
	}
	for _, r := range tree {
		had := p.sent[r]
		if had >= want {
			continue
		}
		switch err := r.signal(sig); {
		case errors.Is(err, fs.ErrPermission) && p.group != nil:
			p.sent[r] = want // it hears nothing of SIGTERM, but its group is killed with it in it
		case errors.Is(err, fs.ErrPermission):
			p.sent[r] = refused
		case err == nil:
			p.sent[r], any = want, true
			if why == byItself && had == nothing {
				p.leftover++
			}
		} // else it was gone
	}
	if want == kill {
		p.killGroup() // after the others: each that was ended is counted
	}
	p.soft = p.soft || any && want == term
	if any && want == kill && p.hard.IsZero() {
		p.hard = time.Now()
	}
	return any
}

// patience is the longest pause between two looks at the tree.
func (p *process) patience() time.Duration {
	if p.hard.IsZero() {
		return 100 * time.Millisecond
	}
	return time.Second // what does not end after SIGKILL is stuck in the kernel
}

// untilLook is pause, or less when SIGKILL is due before.
func (p *process) untilLook(pause time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if due := time.Until(p.killAt); due > 0 {
		return min(pause, due)
	}
	return pause
}

func (p *process) warnIfStuck(tree []ref) {
	if p.warned || len(tree) == 0 || p.hard.IsZero() || time.Since(p.hard) < stuckAfter {
		return
	}
	p.warned = true
	p.local.log.Warn("processes do not end after SIGKILL; the attempt stays until they do",
		"attempt", p.id, "processes", len(tree), "pid", tree[0].pid)
}

// killGroup kills whoever the signals do not reach: who forks faster than it is
// looked for, and who runs as another user.
func (p *process) killGroup() {
	if p.group == nil {
		return
	}
	if err := p.group.Kill(); err != nil {
		p.local.log.Warn("a control group was not killed", "attempt", p.id, "err", err)
	}
}

// measure returns what the group has used; zero without one.
func (p *process) measure() cgroup.Usage {
	if p.group == nil {
		return cgroup.Usage{}
	}
	used, err := p.group.Usage()
	if err != nil {
		p.local.log.Warn("an attempt was not measured whole", "attempt", p.id, "err", err)
	}
	used.Memory = max(used.Memory, p.sampled)
	return used
}

func (p *process) removeGroup() {
	if p.group == nil {
		return
	}
	if err := p.group.Remove(); err != nil {
		p.local.log.Warn("a control group was not removed; the next runner tries again", "attempt", p.id, "err", err)
	}
}

func (p *process) removeScript() { removeScript(p.local.log, p.id, p.script) }

// removeScript removes the script of an attempt, if it has one.
func removeScript(log *slog.Logger, id, script string) {
	if script == "" {
		return
	}
	if err := os.Remove(script); err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("a script was not removed", "attempt", id, "err", err)
	}
}
