package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/schedd/schedd/agent"
	"github.com/schedd/schedd/proto/settings"
)

const runnerSummary = `schedagent runner [flags]

Be the runner of a worker: the part that has the jobs' processes, and that they
survive the agent with. "schedagent run" starts one if there is none, so this is
for who wants it looked after otherwise (systemd, with --start-runner=false for
the agent).

On SIGTERM or SIGINT what runs is asked to end, and killed after its job's grace.
A second signal stops at once, and leaves what runs to the next runner, which
ends it.`

// runnerOptions are the settings of runner.
type runnerOptions struct {
	agent.RunnerConfig
	logLevel  slog.Level
	logFormat string
}

func newRunnerOptions() (*runnerOptions, *flag.FlagSet) {
	o := &runnerOptions{}
	fs := flag.NewFlagSet("schedagent runner", flag.ContinueOnError)
	fs.StringVar(&o.DataDir, "data-dir", agent.DefaultConfig().DataDir, "`directory` of the agent")
	fs.StringVar(&o.Policy, "policy", "", "`file` that says which users and programs jobs may be here; no primary can widen it")
	fs.StringVar(&o.Cgroup, "cgroup", agent.CgroupAuto, "`where` jobs get control groups (cgroup v2), by which limits are kept: auto, the one that was delegated to the runner; none; or a directory")
	fs.StringVar(&o.AgentUser, "agent-user", "", "`name` of the agent's user, if that is another: this has to be root then, and to have a policy that says users")
	fs.DurationVar(&o.IdleExit, "idle-exit", 0, "end after so `long` without an agent and without anything that runs; 0 is never")
	fs.TextVar(&o.logLevel, "log-level", slog.LevelInfo, "least `level` to log: debug, info, warn, error")
	fs.StringVar(&o.logFormat, "log-format", "text", "`format` of the log: text, or json for machines")
	return o, fs
}

// beRunner is the command runner.
func beRunner(ctx context.Context, args []string, out, logs io.Writer) error {
	o, fs := newRunnerOptions()
	err := settings.Parse(fs, args, envPrefix, allFlags()...)
	if errors.Is(err, settings.ErrHelp) {
		return settings.Usage(fs, out, envPrefix, runnerSummary)
	}
	if err != nil {
		return err
	}
	if err := o.Validate(); err != nil {
		return settings.Errorf("%w", err)
	}
	log, err := settings.Logger(logs, o.logLevel, o.logFormat)
	if err != nil {
		return err
	}
	// Whoever reads the log may go: that must not end what runs. Caught, and not
	// ignored, since children would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE, syscall.SIGHUP)
	return agent.ServeRunner(ctx, o.RunnerConfig, log)
}

const stopSummary = `schedagent stop [--data-dir DIR]

Stop a worker with all that it runs: each job is asked to end, and killed after its
grace; its runner ends, and so does its agent, if there is one. Stopping the agent
alone, by SIGTERM, lets jobs go on. If something starts the agent again when it ends,
as systemd does, stop it there first.

It returns when nothing runs any more.`

func newStopFlags() (dataDir *string, fs *flag.FlagSet) {
	fs = flag.NewFlagSet("schedagent stop", flag.ContinueOnError)
	return fs.String("data-dir", agent.DefaultConfig().DataDir, "`directory` of the runner, which is the agent's if the runner has none of its own"), fs
}

// stopWorker is the command stop.
func stopWorker(ctx context.Context, args []string, out io.Writer) error {
	dataDir, fs := newStopFlags()
	err := settings.Parse(fs, args, envPrefix, allFlags()...)
	if errors.Is(err, settings.ErrHelp) {
		return settings.Usage(fs, out, envPrefix, stopSummary)
	}
	if err != nil {
		return err
	}
	n, err := agent.StopRunner(ctx, *dataDir)
	if errors.Is(err, agent.ErrNoRunner) {
		_, err = fmt.Fprintln(out, "nothing to stop: there is no runner in", *dataDir)
		return err
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "stopped; %d attempts were running\n", n)
	return err
}

// allFlags are the flags of all commands: one environment serves them all.
func allFlags() []*flag.FlagSet {
	_, run := newOptions()
	_, runner := newRunnerOptions()
	_, stop := newStopFlags()
	return []*flag.FlagSet{run, runner, stop}
}
