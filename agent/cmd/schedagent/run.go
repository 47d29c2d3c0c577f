package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"

	"github.com/schedd/schedd/agent"
	"github.com/schedd/schedd/proto/settings"
)

const overview = `schedagent is a worker of schedd: it dials out to the primaries and runs what they ask for.
On a host that can be reached and can't dial out, it listens instead: see run --direct-listen.

Commands:
  run       be a worker; run --help lists its settings
  stop      end a worker's jobs, its runner and its agent
  runner    be the part of a worker that has the jobs' processes; run starts it
  version   say which version this is
`

const runSummary = `schedagent run [--config FILE] [flags]

Be a worker, until SIGTERM or SIGINT. Jobs are the children of another process, its
runner, and go on without it; the next agent in the data directory finds them again.
A second signal stops at once. To end the jobs as well: schedagent stop. In a
container, as process 1, the agent has the jobs' processes itself: it asks them to
end, tells how they did, and ends after them.`

// envPrefix begins the names of our environment variables.
const envPrefix = "SCHEDAGENT"

// options are the settings of run.
type options struct {
	agent.Config
	joinToken settings.Secret
	logLevel  slog.Level
	logFormat string
}

// newOptions returns the defaults, and the flags that change them.
func newOptions() (*options, *flag.FlagSet) {
	o := &options{Config: agent.DefaultConfig()}
	fs := flag.NewFlagSet("schedagent run", flag.ContinueOnError)
	fs.String("config", "", "`file` in YAML with any of these settings")
	fs.StringVar(&o.Server, "server", o.Server, "`address` of the load balancer, or of the primaries, separated by commas")
	fs.StringVar(&o.DataDir, "data-dir", o.DataDir, "`directory` of the identity, the journal and the spool; one agent may use it at a time")
	fs.StringVar(&o.Policy, "policy", "", "`file` that says which users and programs jobs may be here; no primary can widen it")
	fs.StringVar(&o.Cgroup, "cgroup", o.Cgroup, "`where` jobs get control groups (cgroup v2), by which limits are kept: auto, the one that was delegated to the runner; none; or a directory")
	fs.BoolVar(&o.InProcess, "in-process", o.InProcess, "have jobs' processes without a runner: they end when the agent stops; for containers, where it is process 1")
	fs.BoolVar(&o.StartRunner, "start-runner", o.StartRunner, "start the runner, which has the jobs' processes, when there is none; without it something else does")
	fs.StringVar(&o.RunnerDir, "runner-dir", "", "data `directory` of a runner that another user started with --agent-user; needs --start-runner=false")
	fs.StringVar(&o.Name, "name", o.Name, "`name` that people see; workers differ by id, so two may share one")
	fs.Var((*labels)(&o.Labels), "labels", "what jobs select workers by, a `list` such as zone=eu,gpu")
	fs.IntVar(&o.Slots, "slots", o.Slots, "`number` of runs at the same time")
	fs.StringVar(&o.AdvertiseHostname, "advertise-hostname", "", "host `name` to show to people, instead of what is detected; nobody dials it")
	fs.StringVar(&o.AdvertiseIP, "advertise-ip", "", "`address` to show to people, instead of what is detected; nobody dials it")
	fs.StringVar(&o.DirectListen, "direct-listen", "", "`address` to listen on in direct mode, for primaries that dial this worker; it dials out as well only if --server is given")
	fs.Var(&o.joinToken, "join-token", "`token` to enrol with, or the file that holds it; not available yet")
	fs.BoolVar(&o.Insecure, "insecure", o.Insecure, "talk to other hosts without TLS and authentication")
	fs.TextVar(&o.logLevel, "log-level", slog.LevelInfo, "least `level` to log: debug, info, warn, error")
	fs.StringVar(&o.logFormat, "log-format", "text", "`format` of the log: text, or json for machines")
	return o, fs
}

// check finds what no single setting can tell.
func (o *options) check() error {
	if o.joinToken != "" {
		return settings.Errorf("--join-token is not available yet; leave it out, workers join without enrolment")
	}
	if err := o.Validate(); err != nil {
		return settings.Errorf("%w", err)
	}
	return nil
}

// parse reads the settings. A worker that listens does not dial a server that
// nobody named.
func (o *options) parse(fs *flag.FlagSet, args []string) error {
	if err := settings.Parse(fs, args, envPrefix, allFlags()...); err != nil {
		return err
	}
	named := false
	fs.Visit(func(f *flag.Flag) { named = named || f.Name == "server" })
	if o.DirectListen != "" && !named {
		o.Server = ""
	}
	return o.check()
}

// runWorker is the command run.
func runWorker(ctx context.Context, args []string, out, logs io.Writer) error {
	o, fs := newOptions()
	err := o.parse(fs, args)
	if errors.Is(err, settings.ErrHelp) {
		return settings.Usage(fs, out, envPrefix, runSummary)
	}
	if err != nil {
		return err
	}
	log, err := settings.Logger(logs, o.logLevel, o.logFormat)
	if err != nil {
		return err
	}
	if o.Insecure {
		log.Warn("INSECURE: no TLS and no authentication of the gateway; whoever is on the way, or can reach --direct-listen, can run programs here")
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program, to start the runner with: %w", err)
	}
	if !o.InProcess {
		leaveProcessors()
	}
	return agent.Run(ctx, o.Config, agent.Seams{Log: log, RunnerCommand: []string{self, "runner"}})
}

// leaveProcessors leaves half of them to the jobs, unless GOMAXPROCS says otherwise. An
// agent hands on more than it computes: with fewer it wakes fewer threads that find nothing
// to do, which is a tenth of what a run costs it. Whoever starts processes keeps all: each
// fork holds one until its program runs.
func leaveProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)/2))
	}
}

// printVersion is the command version.
func printVersion(args []string, out io.Writer) error {
	if len(args) > 0 {
		return settings.Errorf("version takes no arguments, got %q", args[0])
	}
	_, err := fmt.Fprintln(out, "schedagent", settings.Version())
	return err
}

// labels is a flag that reads and shows labels.
type labels map[string]string

// Set takes key=value or key alone, separated by commas.
func (l *labels) Set(text string) error {
	parsed, err := agent.ParseLabels(text)
	if err != nil {
		return err
	}
	*l = parsed
	return nil
}

// String returns what Set takes.
func (l *labels) String() string {
	if l == nil {
		return ""
	}
	return agent.FormatLabels(*l)
}
