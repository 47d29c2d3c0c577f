// Package runner starts and ends the processes of attempts on a worker.
//
// It is the only package that starts processes. It owns an attempt's whole
// tree: the main process, what that one started, and what left the session and
// was orphaned. An attempt is done when nothing of its tree is left.
//
// It decides nothing: whether an attempt may start, and only once, is its
// caller's to know. It reads no log, keeps no journal and never writes to the
// output of an attempt. What goes in and out is plain data, so that it is the
// same from within one process ([Local]) and from another one (package remote).
package runner

import (
	"errors"
	"time"
)

// ErrRunning is returned by Start, and by EndStrays, for an ID whose process
// this runner has started and not yet seen the end of.
var ErrRunning = errors.New("this attempt is already running")

// ErrLeft is returned by the Start of a [Lasting] runner whose user leaves it, or
// has been replaced, before it was told whether the process runs. The next user is
// told.
var ErrLeft = errors.New("the agent has left its runner; whether this was started the next one learns")

// ErrNoLeases is returned by Start for an attempt that needs a lease, by a runner
// that can't keep any. No process was started.
var ErrNoLeases = errors.New("this worker can't keep leases")

// ErrLate is returned by Start after the deadline. No process was started.
var ErrLate = errors.New("it is too late to start it")

// Runner starts the processes of attempts. It may be used by many goroutines.
type Runner interface {
	// Start starts the process of one attempt, and returns once its program
	// runs (exec has succeeded) or can't. An error is about this attempt only,
	// is one sentence for people, and means that no process was left behind,
	// but for ErrLeft. One that is ErrUnable is about this worker.
	Start(Spec) (Process, error)
	// Probe does for nobody what every start needs, and returns why that fails. It
	// leaves nothing behind.
	Probe() error
	// EndStrays ends what a former life of the runner left of an attempt, by
	// the variables in env that tell whose it is, and returns how many
	// processes it ended, after they are gone. It fails with ErrRunning when
	// this runner runs the attempt, when env does not say whose it is, and with errors.ErrUnsupported where
	// nobody can find them.
	EndStrays(id string, env []string) (int, error)
	// Uptime returns the time on the clock that leases are counted by: since the
	// host was booted, suspend included. False: it can't keep leases, and the clock may
	// stand still in a suspend, and be of this process alone.
	Uptime() (time.Duration, bool)
	// Renew moves the ends of leases, by ID, to later times on that clock. It
	// returns at once. What does not run, has no lease, or has one that is over,
	// is left as it is.
	Renew(ends map[string]time.Duration)
	// Enforcement returns what attempts can be held to here, and what is closed when
	// that may have changed: another runner in the place of this one, after a restart,
	// may say otherwise. Nil: it does not change.
	Enforcement() (is Enforcement, changed <-chan struct{})
}

// Lasting is a Runner that outlives its user: what it has started goes on without
// one, and how that ended is kept until the next one has taken note.
type Lasting interface {
	Runner
	// Known returns what was started before this user came, by ID: what runs,
	// and what has ended and is not forgotten.
	Known() map[string]Process
	// Forget lets the runner forget how an attempt ended. It returns at once;
	// an attempt that still runs is kept.
	Forget(id string)
	// Trouble returns why nothing should be started at present, or "": a disk that takes
	// no records, or nobody who answers. It also returns what is closed when that changes.
	Trouble() (why string, changed <-chan struct{})
	// Stopping is closed when somebody has stopped the runner: it starts nothing
	// any more, and ends what runs.
	Stopping() <-chan struct{}
}

// Process is the running, or ended, process tree of one attempt. It may be used
// by many goroutines.
type Process interface {
	// PID is the process id of the main process; its session has the same id.
	PID() int
	// Started is when the program began to run.
	Started() time.Time
	// Kill ends the whole tree: SIGTERM now and SIGKILL after grace, or SIGKILL
	// at once when grace is not positive, and after [MaxKillGrace] at most. It returns
	// at once and may be called at any time, any number of times; the earliest SIGKILL
	// asked for holds.
	Kill(grace time.Duration)
	// Done is closed when the main process and its whole tree have ended and
	// been reaped.
	Done() <-chan struct{}
	// Exit is how it ended. It is the zero Exit until Done is closed.
	Exit() Exit
}

// Spec is all that is to be known to start one attempt. Exactly one of Argv and
// Script is given.
type Spec struct {
	// ID names the attempt ("run/attempt"); no two running ones share it.
	ID string
	// Argv is the program and its arguments; there is no shell. Without a slash
	// Argv[0] is looked up in the PATH of Env, or, when Env has none, in
	// [DefaultPath]; a relative one is relative to Dir.
	Argv []string
	// Script is the body of a script. It is run from a private file by the
	// interpreter of its "#!" line, else by Interpreter, else by "/bin/sh -e".
	Script      string
	Interpreter []string
	// Env is the whole environment, as "K=V"; the agent's own is never passed
	// on. HOME, USER, LOGNAME and SHELL are added unless given.
	// SCHEDD_RUN_ID and SCHEDD_ATTEMPT in it are how processes that left the
	// session are recognised.
	Env []string
	// Dir is the working directory. Empty is the home of the user, or "/" where
	// that does not exist.
	Dir string
	// User is the name or number of the user to run as, the runner's own when
	// empty, unless its policy names another. Only root may run as another.
	User string
	// Stdin is what the process reads; empty is /dev/null.
	Stdin []byte
	// Output is the path of an existing file to which standard output and
	// standard error are appended by the process itself. Empty discards both.
	Output string
	// Timeout is how long the main process may run; 0 is for ever.
	Timeout time.Duration
	// KillGrace is the time between SIGTERM and SIGKILL after a timeout, and
	// for what outlives the main process; 0 is SIGKILL at once, and more than
	// [MaxKillGrace] is as much as that.
	KillGrace time.Duration
	// Limits hold all processes of the attempt together. One that can't be kept
	// keeps the attempt from being started (ErrUnenforced).
	Limits Limits
	// Deadline is when, by [Runner.Uptime], it is too late to start it; 0 is never.
	Deadline time.Duration
	// LeaseEnd is when, by [Runner.Uptime], the tree is ended as by Kill with
	// KillGrace, unless Renew moves it; 0 is never. It is the runner that watches
	// it, so it holds whatever becomes of who uses the runner. The end is noticed
	// within [LeaseLook], also after a suspend.
	LeaseEnd time.Duration
}

// MaxKillGrace is the longest grace between SIGTERM and SIGKILL. No job may have more, so who
// asks for more would have a process never end.
const MaxKillGrace = time.Hour

// ClampGrace returns the grace that who asks for one is given: none for less than none, and
// [MaxKillGrace] at most.
func ClampGrace(asked time.Duration) time.Duration { return min(max(asked, 0), MaxKillGrace) }

// LeaseLook is how long it takes at most to notice that a lease has ended, while
// the host is awake.
const LeaseLook = time.Second

// DefaultPath is where programs are looked up when Env has no PATH.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Exit is how an attempt's process ended.
type Exit struct {
	// Code is the exit code of the main process, or 128 plus the number of the
	// signal that ended it.
	Code int
	// Signal is the signal that ended the main process ("SIGKILL"), or "".
	Signal string
	// TimedOut, Killed and LeaseExpired say that the timeout, a call of Kill, or
	// the end of its lease came before the main process had ended. At most one is
	// set: the one that came first.
	TimedOut     bool
	Killed       bool
	LeaseExpired bool
	// Interrupted says that it was ended for the worker's sake, or that its
	// runner lost sight of it: how it would have ended, or did end, nobody
	// knows. Reason says more, and Code and Signal mean nothing.
	Interrupted bool
	// Leftover counts the processes of the tree that were still there when the
	// main process had ended by itself, and were ended then.
	Leftover int
	// CPUTime is user and system time of the main process, of the processes it
	// waited for, and of the orphans of its tree. With a control group it is that of
	// all its processes.
	CPUTime time.Duration
	// MaxRSS is the largest resident set of any one process, in bytes; 0 when
	// it is not known. With a control group that has the memory controller it is the
	// most that all had together, page cache included: what a limit is compared
	// with. Otherwise the kernel counts the agent's own size at the moment of
	// the fork in, so below that size it is sampled once a second, and a
	// process that is both small and short-lived has no number.
	MaxRSS int64
	// Started and Finished are the times of the agent's clock when the program
	// began to run, and when the last of the tree was gone.
	Started  time.Time
	Finished time.Time
	// Reason is one sentence for people when there is more to tell than Code.
	Reason string
}
