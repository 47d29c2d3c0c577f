package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/cgroup"
	"github.com/schedd/schedd/agent/runner/policy"
	"github.com/schedd/schedd/agent/runner/remote"
	"github.com/schedd/schedd/agent/runner/trust"
	"github.com/schedd/schedd/proto/settings"
	"github.com/schedd/schedd/proto/wire"
)

// runnerDir is where, in a data directory, agent and runner meet.
const runnerDir = "runner"

// runnerLog is what a runner says that an agent has started. A pipe or a terminal
// of the agent would not do: the runner is there after both are gone.
const runnerLog = "runner.log"

// runnerLogMax is how large that file may be when a runner is started, in bytes. A
// larger one is set aside, in place of the one that was before.
const runnerLogMax = 4 << 20

// openRunner sees that there is a runner in s. It returns how to leave it, which may
// be done twice.
func (h *home) openRunner(ctx context.Context, c Config, s *Seams) (leave func(), err error) {
	switch {
	case s.Runner != nil:
		return func() {}, nil
	case c.InProcess || len(s.RunnerCommand) == 0:
		local, release, err := localRunner(RunnerConfig{DataDir: h.dir, Policy: c.Policy, Cgroup: c.Cgroup}, nil, s.Log)
		if err != nil {
			return nil, err
		}
		s.Runner = local
		return sync.OnceFunc(release), nil
	}
	o := remote.Options{Dir: filepath.Join(cmp.Or(c.RunnerDir, h.dir), runnerDir), Life: uint64(h.starts), Version: settings.Version(), Policy: c.Policy, Log: s.Log}
	worker := wire.WorkerID(h.public())
	o.Marks = func(id string) []string { return marks(worker, id) }
	if c.StartRunner {
		o.Launch = h.launcher(c, *s)
	}
	r, err := remote.Open(ctx, o)
	if err != nil && c.StartRunner {
		return nil, fmt.Errorf("%w; what it says is in %s", err, h.path(runnerLog))
	}
	if err != nil {
		return nil, err
	}
	s.Runner = r
	return sync.OnceFunc(r.Close), nil
}

// localRunner returns a runner of real processes for a data directory, and how to
// give back what it took of the host. Its scripts are where every user can pass
// through. A policy that can't be read, or kept, keeps it from starting at all, so that
// the operator is told and not only whoever has jobs.
func localRunner(c RunnerConfig, guest *remote.Guest, log *slog.Logger) (_ *runner.Local, release func(), err error) {
	o := runner.Options{TempDir: filepath.Join(c.DataDir, scriptDir), Logger: log}
	var allowed policy.Policy
	if c.Policy != "" {
		o.Policy = c.readPolicy
		if allowed, err = c.readPolicy(); err != nil {
			return nil, nil, err
		}
	}
	if guest != nil {
		o.OutputOwner = &runner.Owner{UID: guest.UID, GID: guest.GID}
	}
	if err := os.MkdirAll(o.TempDir, 0o711); err != nil {
		return nil, nil, fmt.Errorf("make a directory for scripts: %w", err)
	}
	if o.Groups, o.NoGroups, err = takeGroups(c.Cgroup); err != nil {
		return nil, nil, err
	}
	release = func() {}
	if o.Groups != nil {
		for _, err := range o.Groups.Remains() {
			log.Warn("something of a former runner is left in a control group", "err", err)
		}
		release = func() { _ = o.Groups.Close() } // it held a lock, and wrote nothing
	}
	local := runner.New(o)
	keeps, _ := local.Enforcement()
	if err := keeps.Check(allowed.MaxLimits); err != nil {
		release()
		return nil, nil, fmt.Errorf("this worker's policy %s sets limits: %w", c.Policy, err)
	}
	if keeps.Note != "" {
		log.Info("jobs are not held to all limits here", "why", keeps.Note)
	}
	return local, release, nil
}

// What the setting of control groups may say in place of a directory.
const (
	// CgroupAuto takes the control group that was delegated to the runner, if one was.
	CgroupAuto = "auto"
	// CgroupNone takes none.
	CgroupNone = "none"
)

// takeGroups takes the directory in which attempts get control groups, and says why
// they get none. Only where the operator has named one it fails.
func takeGroups(setting string) (tree *cgroup.Tree, why string, err error) {
	switch setting {
	case "", CgroupNone:
		return nil, "control groups are switched off by the worker's operator", nil
	case CgroupAuto:
		dir, err := cgroup.Delegated()
		if err == nil {
			tree, err = cgroup.Take(dir)
		}
		if err != nil {
			return nil, err.Error(), nil //nolint:nilerr // it is told to all who look at the worker
		}
		return tree, "", nil
	}
	if err := os.Mkdir(setting, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, "", fmt.Errorf("make the control group that was named: %w", err)
	}
	tree, err = cgroup.Take(setting)
	return tree, "", err
}

// checkCgroup finds what is wrong with the setting of control groups.
func checkCgroup(setting string) error {
	if setting == "" || setting == CgroupAuto || setting == CgroupNone || filepath.IsAbs(setting) {
		return nil
	}
	return fmt.Errorf("cgroup: %q is neither auto, none nor a directory from / on", setting)
}

// RunnerConfig is all that a runner is told by its operator, or by the agent that
// starts it.
type RunnerConfig struct {
	// DataDir is that of the agent, if both are one user. Where this process is root,
	// nobody else may be able to change it, or what is on the way to it.
	DataDir string
	// Policy is the name of a file that says what may be started on this host;
	// see package policy. Default: anything may be.
	Policy string
	// Cgroup says where attempts get control groups (cgroup v2): [CgroupAuto],
	// [CgroupNone], or a directory of that file system, which is made if it is not
	// there. Default: none.
	Cgroup string
	// AgentUser is the name of the agent's user, if that is another than this
	// process's, which has to be root then. There has to be a Policy with users: it is
	// what keeps that user from being root. DataDir is the runner's own then, in which
	// the agent has no right but to connect. Default: the same user.
	AgentUser string
	// IdleExit is how long it stays without an agent and without attempts that
	// run. 0 is for ever.
	IdleExit time.Duration
}

// Validate returns all that is wrong, each fault with what to do, joined.
func (c RunnerConfig) Validate() error {
	err := errors.Join(checkDataDir(c.DataDir), checkCgroup(c.Cgroup))
	if c.Policy != "" && !filepath.IsAbs(c.Policy) {
		err = errors.Join(err, fmt.Errorf("policy: %q is not absolute; write it from / on", c.Policy))
	}
	if c.AgentUser != "" && c.Policy == "" {
		err = errors.Join(err, errors.New("agent-user: needs a policy, which says what that user may have started: without one it could be root"))
	}
	if c.IdleExit < 0 {
		err = errors.Join(err, fmt.Errorf("idle-exit: %v is negative; 0 is for ever", c.IdleExit))
	}
	return err
}

// ServeRunner is the runner of a data directory, until ctx is done or it is stopped
// by [StopRunner]: then what runs is asked to end and killed after its grace. It
// never talks to a gateway.
func ServeRunner(ctx context.Context, c RunnerConfig, log *slog.Logger) error {
	if err := c.Validate(); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	guest, err := c.guest()
	if err != nil {
		return err
	}
	if err := c.checkPlace(); err != nil {
		return err
	}
	local, release, err := localRunner(c, guest, log)
	if err != nil {
		return err
	}
	defer release()
	return remote.Serve(ctx, remote.ServeOptions{
		Dir: filepath.Join(c.DataDir, runnerDir), Runner: local, BootID: runner.BootID(), Idle: c.IdleExit,
		Version: settings.Version(), Policy: c.Policy, Guest: guest, Log: log,
	})
}

// guest is the agent's user; nil when it is this process's own.
func (c RunnerConfig) guest() (*remote.Guest, error) {
	if c.AgentUser == "" {
		return nil, nil //nolint:nilnil // there is none, and nothing is wrong
	}
	if runtime.GOOS != "linux" {
		return nil, fmt.Errorf("agent-user: who has connected can't be told on %s: let agent and runner be one user", runtime.GOOS)
	}
	u, err := user.Lookup(c.AgentUser)
	if err != nil {
		return nil, fmt.Errorf("agent-user: %w: create it, or name another", err)
	}
	uid, uerr := strconv.Atoi(u.Uid)
	gid, gerr := strconv.Atoi(u.Gid)
	switch me := os.Geteuid(); {
	case uerr != nil || gerr != nil:
		return nil, fmt.Errorf("agent-user: %q has the numbers %s and %s, which are none", c.AgentUser, u.Uid, u.Gid)
	case uid == me:
		return nil, nil //nolint:nilnil // likewise
	case me != 0:
		return nil, fmt.Errorf("agent-user: this runner is user number %d, and only root can write to the files of another: start it as root, or as %q", me, c.AgentUser)
	}
	return &remote.Guest{UID: uid, GID: gid}, nil
}

// checkPlace finds what would let others have root write where they like.
func (c RunnerConfig) checkPlace() error {
	if os.Geteuid() != 0 {
		return nil
	}
	if err := trust.Path(c.DataDir); err != nil {
		return fmt.Errorf("data-dir: this runner is root, and works in none that others can change: %w; an agent of another user has its own, and finds this one by --runner-dir", err)
	}
	return nil
}

// readPolicy reads the policy. For an agent of another user it has to say whom jobs
// may run as.
func (c RunnerConfig) readPolicy() (policy.Policy, error) {
	p, err := policy.Read(c.Policy)
	if err == nil && c.AgentUser != "" && p.Users == nil {
		err = fmt.Errorf("this worker's policy %s lets jobs run as any user, and the agent %q could be root by that: say users in it", c.Policy, c.AgentUser)
	}
	return p, err
}

// ErrNoRunner is returned by [StopRunner] when there is none.
var ErrNoRunner = remote.ErrNobody

// StopRunner stops the runner of a data directory, and with it all that runs there
// and the agent. It returns how many attempts ran, when none does any more.
func StopRunner(ctx context.Context, dataDir string) (ended int, err error) {
	return remote.Stop(ctx, filepath.Join(dataDir, runnerDir))
}

// launcher returns what starts a runner, unless the one that it started last still
// lives. It is for one goroutine.
func (h *home) launcher(c Config, s Seams) func() error {
	var last *runner.Detached
	return func() error {
		if last != nil && !last.Ended() {
			return nil
		}
		log := h.path(runnerLog)
		if info, err := os.Stat(log); err == nil && info.Size() > runnerLogMax {
			if err := os.Rename(log, log+".1"); err != nil {
				s.Log.Warn("the runner's log is large and was not set aside", "path", log, "err", err)
			}
		}
		argv := slices.Concat(s.RunnerCommand, []string{"--data-dir=" + h.dir, "--idle-exit=" + remote.IdleExit.String()})
		if c.Policy != "" {
			argv = append(argv, "--policy="+c.Policy)
		}
		if c.Cgroup != "" {
			argv = append(argv, "--cgroup="+c.Cgroup)
		}
		started, err := runner.Detach(argv, log)
		if err != nil {
			return err
		}
		last = started
		s.Log.Info("started a runner", "pid", last.PID(), "log", log)
		return nil
	}
}
