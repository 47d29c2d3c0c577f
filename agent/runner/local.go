//go:build unix

package runner

import (
	"fmt"
	"log/slog"
	"os"
	"syscall"
	"time"

	"github.com/schedd/schedd/agent/runner/policy"
)

// Options are what a Local needs to know about its host.
type Options struct {
	// TempDir holds the files of scripts while they run. Only the agent may
	// write to it, and the users that attempts run as must be able to pass
	// through it and its parents (mode 0711). Default: os.TempDir().
	TempDir string
	// Policy returns what may be started, and is asked before each start. An
	// error of it keeps all from starting. Default: anything may be.
	Policy func() (policy.Policy, error)
	// Uptime is the clock that leases are counted by, for tests. Default: [Uptime].
	Uptime func() (time.Duration, bool)
	// Logger gets what needs somebody's attention. Default: slog.DiscardHandler.
	Logger *slog.Logger
}

// Local runs real processes on this host.
type Local struct {
	temp   string
	policy func() (policy.Policy, error)
	uptime func() (time.Duration, bool)
	log    *slog.Logger
}

var _ Runner = (*Local)(nil)

// New prepares this process to start others. It sets the umask to 022 and, on
// Linux, keeps open files and a disregard for SIGHUP or SIGINT (nohup) that this
// process has inherited from its children, and makes it adopt their orphans.
// As children belong to a whole process, so does the care for them: any number
// of Locals may be used together, but nothing else in this process may start
// one in a session of its own.
func New(o Options) *Local {
	if o.TempDir == "" {
		o.TempDir = os.TempDir()
	}
	if o.Policy == nil {
		o.Policy = func() (policy.Policy, error) { return policy.Policy{}, nil }
	}
	if o.Uptime == nil {
		o.Uptime = Uptime
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if err := home.settle(); err != nil {
		o.Logger.Warn("processes that leave an attempt's session and lose their parent will not be found", "err", err)
	}
	return &Local{temp: o.TempDir, policy: o.Policy, uptime: o.Uptime, log: o.Logger}
}

// Start starts the process of one attempt. The error wraps the system's reason
// (fs.ErrNotExist, fs.ErrPermission, syscall.EAGAIN, …), or ErrRunning.
func (l *Local) Start(s Spec) (Process, error) {
	allowed, err := l.policy()
	if err != nil {
		return nil, fmt.Errorf("nothing is started here: %w", err)
	}
	s.User, s.Timeout = allowed.User(s.User), allowed.Timeout(s.Timeout)
	p := newProcess(l, s)
	if err := home.reserve(p); err != nil {
		return nil, fmt.Errorf("starting attempt %q: %w", s.ID, err)
	}
	if err := l.start(p, s, allowed); err != nil {
		home.forget(p)
		return nil, err
	}
	go p.supervise() // until Done
	return p, nil
}

// start brings p's main process to life.
func (l *Local) start(p *process, s Spec, allowed policy.Policy) (err error) {
	w, err := l.prepare(s, allowed)
	defer w.close()
	p.script = w.script
	defer func() {
		if err != nil {
			p.removeScript()
		}
	}()
	if err == nil {
		err = l.checkLease(s)
	}
	if err != nil {
		return err
	}
	attr := &syscall.ProcAttr{
		Dir:   w.dir,
		Env:   w.env,
		Files: []uintptr{uintptr(w.stdin), uintptr(w.output), uintptr(w.output)},
		// A session rather than a process group: it has no controlling
		// terminal, a process can't join that of another attempt, and what a
		// shell with job control moves to other groups stays recognisable.
		Sys: &syscall.SysProcAttr{Setsid: true, Credential: w.who.credential()},
	}
	home.apart(func() { err = home.fork(p, w, attr) })
	if err != nil {
		return w.explain(err)
	}
	return nil
}

// fork starts w as p's main process and puts it on the list of mains, as one
// step in the eyes of whoever looks for orphans.
func (h *household) fork(p *process, w *work, attr *syscall.ProcAttr) error {
	h.forking.RLock()
	defer h.forking.RUnlock()
	pid, err := syscall.ForkExec(w.program, w.argv, attr)
	if err != nil {
		return err
	}
	p.began(pid, time.Now())
	h.enlist(p)
	return nil
}
