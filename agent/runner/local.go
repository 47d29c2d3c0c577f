//go:build unix

package runner

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/schedd/schedd/agent/runner/cgroup"
	"github.com/schedd/schedd/agent/runner/policy"
	"github.com/schedd/schedd/proto/slack"
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
	// OutputOwner is the user whose plain files alone may be appended to, and as whom
	// they are opened: whoever asks for starts, if that is another user than this
	// process's, which has to be root then. It could have anything written to
	// otherwise. Nil: any file. Linux only.
	OutputOwner *Owner
	// Groups is where each attempt gets a control group. Default: none gets one.
	Groups *cgroup.Tree
	// NoGroups says why there are none, for people.
	NoGroups string
	// Logger gets what needs somebody's attention. Default: slog.DiscardHandler.
	Logger *slog.Logger
}

// Owner is a user, by the numbers.
type Owner struct{ UID, GID int }

// Local runs real processes on this host.
type Local struct {
	temp   string
	policy func() (policy.Policy, error)
	uptime func() (time.Duration, bool)
	log    *slog.Logger
	groups *cgroup.Tree // nil: none
	keeps  Enforcement

	answer      time.Duration // see prepareInTime
	patience    time.Duration // see Probe
	probing     chan struct{} // holds one while somebody probes, who may hang
	outputOwner *Owner
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
	l := &Local{
		temp: o.TempDir, policy: o.Policy, uptime: o.Uptime, log: o.Logger, groups: o.Groups, outputOwner: o.OutputOwner,
		answer: answerWithin, patience: probeWithin, probing: make(chan struct{}, 1),
	}
	if err := l.tryGroups(); err != nil {
		l.groups, o.NoGroups = nil, err.Error()
		o.Logger.Warn("attempts get no control groups", "err", err)
	}
	l.keeps = enforcement(l.groups, o.NoGroups, os.Geteuid() == 0)
	return l
}

// bySelf is what there is to know about the groups of a runner that is not root.
const bySelf = "limits hold against mistakes and not against intent, since jobs are the user of the runner, who may change them"

// enforcement is what can be kept with these groups; nil is none.
func enforcement(groups *cgroup.Tree, why string, root bool) Enforcement {
	if groups == nil {
		return Enforcement{Memory: MeansNone, CPU: MeansNone, PIDs: MeansNone, Usage: MeansProc, Tree: MeansProc, Note: why}
	}
	by := func(has bool) Means {
		if has {
			return MeansCgroupV2
		}
		return MeansNone
	}
	c := groups.Controllers()
	var notes []string
	if groups.Note() != "" {
		notes = append(notes, groups.Note())
	}
	if !root {
		notes = append(notes, bySelf)
	}
	return Enforcement{Memory: by(c.Memory), CPU: by(c.CPU), PIDs: by(c.PIDs), Usage: MeansCgroupV2, Tree: MeansCgroupV2, Note: strings.Join(notes, "; ")}
}

// Enforcement implements Runner.
func (l *Local) Enforcement() (is Enforcement, changed <-chan struct{}) { return l.keeps, nil }

// tryGroups finds out whether a process can be started in a group: what is around
// this one, such as a filter of system calls, may not let it.
func (l *Local) tryGroups() error {
	if l.groups == nil {
		return nil
	}
	return l.tryFork()
}

// tryFork finds out whether a process can be started, in a group if attempts get one.
func (l *Local) tryFork() (err error) {
	if l.groups == nil {
		home.apart(func() { err = home.probe(nil) })
		return err
	}
	g, err := l.groups.New("probe", Limits{})
	if err != nil {
		return err
	}
	home.apart(func() { err = home.probe(g) })
	return errors.Join(err, g.Remove())
}

// probe has the kernel start a process, in a group unless that is nil, that comes to
// nothing: there is no such program, which is told only to one that was started.
func (h *household) probe(g *cgroup.Group) error {
	h.forking.RLock()
	defer h.forking.RUnlock()
	sys, done, err := within(g, &syscall.SysProcAttr{})
	if err != nil {
		return err
	}
	defer done()
	const nowhere = "/dev/null/no-such-program"
	_, err = syscall.ForkExec(nowhere, []string{nowhere}, &syscall.ProcAttr{Sys: sys})
	if errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	if g != nil {
		return fmt.Errorf("start a process in control group %s: %w", g.Dir(), err)
	}
	return fmt.Errorf("start a process: %w", err)
}

// Start starts the process of one attempt. The error wraps the system's reason
// (fs.ErrNotExist, fs.ErrPermission, syscall.EAGAIN, …), or ErrRunning.
func (l *Local) Start(s Spec) (Process, error) {
	allowed, err := l.policy()
	if err != nil {
		return nil, blame(readPolicy, s.Limits, fmt.Errorf("nothing is started here: %w", err))
	}
	s.User, s.Limits = allowed.User(s.User), allowed.Limits(s.Limits)
	s.Timeout, s.KillGrace = allowed.Timeout(s.Timeout, ClampGrace(s.KillGrace))
	if err := l.keeps.Check(s.Limits); err != nil {
		return nil, fmt.Errorf("starting attempt %q: %w", s.ID, err)
	}
	p := newProcess(l, s)
	p.most = allowed.MaxTimeout
	if err := home.reserve(p); err != nil {
		return nil, fmt.Errorf("starting attempt %q: %w", s.ID, err)
	}
	if err := l.start(p, s, allowed); err != nil {
		home.forget(p)
		return nil, err
	}
	home.crew.Go(p.supervise) // until Done
	return p, nil
}

// start brings p's main process to life.
func (l *Local) start(p *process, s Spec, allowed policy.Policy) (err error) {
	w, err := l.prepareInTime(s, allowed)
	defer w.close()
	p.script = w.script
	defer func() {
		if err != nil {
			p.removeScript()
			p.removeGroup()
		}
	}()
	if err == nil {
		err = l.checkTime(s)
	}
	if err != nil {
		return err
	}
	if l.groups != nil {
		g, err := l.groups.New(s.ID, s.Limits)
		if err != nil {
			return blame(makeGroup, s.Limits, fmt.Errorf("starting attempt %q: %w", s.ID, err))
		}
		home.settleIn(p, g)
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
	sys, done, err := within(p.group, attr.Sys)
	if err != nil {
		return blame(makeGroup, s.Limits, fmt.Errorf("starting attempt %q: %w", s.ID, err))
	}
	defer done()
	attr.Sys = sys
	home.apart(func() { err = home.fork(p, w, attr) })
	if err != nil {
		return blame(beginToRun, s.Limits, w.explain(err))
	}
	return nil
}

// fork starts w as p's main process and puts it on the list of mains, as one
// step in the eyes of whoever looks for orphans.
func (h *household) fork(p *process, w *work, attr *syscall.ProcAttr) error {
	h.forking.RLock()
	defer h.forking.RUnlock()
	var pid int
	var err error
	slack.Usual(func() { pid, err = syscall.ForkExec(w.program, w.argv, attr) })
	if err != nil {
		return err
	}
	p.began(pid, time.Now())
	h.enlist(p)
	return nil
}
