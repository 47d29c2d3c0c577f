package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"sync"

	"github.com/schedd/schedd/proto/settings"
	"github.com/schedd/schedd/server"
)

const serveSummary = `schedd serve [--config FILE] [flags]

Be a primary, until SIGTERM or SIGINT. A second signal stops at once.`

// options are the settings of serve.
type options struct {
	server.Config
	publicURL string
	log       logOptions
}

// logOptions are the settings of a log.
type logOptions struct {
	level  slog.Level
	format string
}

func (l *logOptions) flags(fs *flag.FlagSet, level slog.Level) {
	fs.TextVar(&l.level, "log-level", level, "least `level` to log: debug, info, warn, error")
	fs.StringVar(&l.format, "log-format", "text", "`format` of the log: text, or json for machines")
}

// serveFlags returns the defaults, and the flags that change them.
func serveFlags() (*options, *flag.FlagSet) {
	o := &options{Config: server.DefaultConfig()}
	fs := flag.NewFlagSet("schedd serve", flag.ContinueOnError)
	fs.String("config", "", "`file` in YAML with any of these settings")
	fs.StringVar(&o.NodeID, "node-id", o.NodeID, "`name` of this primary in the cluster; stays the same for the life of its data")
	fs.StringVar(&o.DataDir, "data-dir", o.DataDir, "`directory` of the Raft log, snapshots, history and run logs; one primary may use it at a time")
	fs.StringVar(&o.APIAddr, "api-addr", o.APIAddr, "`address` of the gRPC API, for people, scripts and workers")
	fs.StringVar(&o.Cluster.Addr, "cluster-addr", o.Cluster.Addr, "`address` for other primaries; never behind a load balancer")
	fs.StringVar(&o.Cluster.Advertise, "cluster-advertise", "", "`address` that other primaries dial (default: the cluster address)")
	fs.StringVar(&o.WebAddr, "web-addr", o.WebAddr, "`address` of /metrics, /healthz and /readyz")
	fs.StringVar(&o.publicURL, "public-url", "", "base `url` of links in notifications; not used yet")
	fs.IntVar(&o.Active.Runs, "active-runs", o.Active.Runs, "`number` of runs of all jobs that may wait or run; the leader's counts")
	fs.IntVar(&o.Active.RunsPerJob, "active-runs-per-job", o.Active.RunsPerJob, "`number` of runs of each job that may wait or run")
	fs.IntVar(&o.Hot.Runs, "hot-runs", o.Hot.Runs, "`number` of finished runs in memory, of all jobs; the leader's counts")
	fs.IntVar(&o.Hot.RunsPerJob, "hot-runs-per-job", o.Hot.RunsPerJob, "`number` of finished runs in memory of each job, and of as many that never ran")
	fs.DurationVar(&o.Hot.RunAge, "hot-age", o.Hot.RunAge, "`time` for which a finished run is in memory")
	fs.IntVar(&o.History.Runs, "history-runs", o.History.Runs, "`number` of finished runs on this primary's disk, of all jobs")
	fs.IntVar(&o.History.RunsPerJob, "history-runs-per-job", o.History.RunsPerJob, "`number` of finished runs on disk of each job, and of as many that never ran")
	fs.DurationVar(&o.History.Age, "history-age", o.History.Age, "`time` for which a finished run, and its output, is on disk")
	fs.IntVar(&o.Cluster.BootstrapExpect, "bootstrap-expect", o.Cluster.BootstrapExpect, "`number` of primaries that form the first group; 1 with --join: join a group that there is")
	fs.StringVar(&o.Cluster.Join, "join", "", "cluster `addresses` of the other primaries, separated by commas; may name this one too")
	fs.StringVar(&o.Cluster.Key, "cluster-key", "", "`file` of the cluster's key, the same on all primaries; schedd keygen makes one")
	fs.BoolVar(&o.Insecure, "insecure", o.Insecure, "allow addresses that others can reach, without TLS and authentication where there is no key")
	o.log.flags(fs, slog.LevelInfo)
	return o, fs
}

// runServe is the command serve.
func runServe(ctx context.Context, args []string, out, logs io.Writer) error {
	o, fs := serveFlags()
	if err := settings.Parse(fs, args, envPrefix, allFlags()...); err != nil {
		if errors.Is(err, settings.ErrHelp) {
			return settings.Usage(fs, out, envPrefix, serveSummary)
		}
		return err
	}
	log, err := settings.Logger(logs, o.log.level, o.log.format)
	if err != nil {
		return err
	}
	if err := o.Validate(); err != nil {
		return settings.Errorf("%w", err)
	}
	s, err := server.Open(o.Config, server.Seams{Log: log}) //nolint:contextcheck // opening waits for nobody
	if err != nil {
		return err
	}
	var resting sync.WaitGroup
	defer resting.Wait()
	until, stop := context.WithCancel(ctx)
	defer stop()
	resting.Go(func() { giveBack(until) })
	resting.Go(func() { keepPace(until) })
	resting.Go(func() { giveBackProgram(until) })
	return s.Run(ctx)
}
