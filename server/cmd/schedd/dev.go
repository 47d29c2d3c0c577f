package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/schedd/schedd/agent"
	"github.com/schedd/schedd/proto/settings"
	"github.com/schedd/schedd/server"
)

const devSummary = `schedd dev [--data-dir DIR] [--demo]

Everything in one process on this machine, to try things out: one primary and
one worker, until SIGINT or SIGTERM. Without --data-dir all is forgotten then.`

// devOptions are the settings of dev.
type devOptions struct {
	dataDir, apiAddr, webAddr string
	demo                      bool
	log                       logOptions
}

func devFlags() (*devOptions, *flag.FlagSet) {
	o, c := &devOptions{}, server.DefaultConfig()
	fs := flag.NewFlagSet("schedd dev", flag.ContinueOnError)
	fs.StringVar(&o.dataDir, "data-dir", "", "`directory` to keep everything in; without it a temporary one is removed at exit")
	fs.StringVar(&o.apiAddr, "api-addr", c.APIAddr, "`address` of the gRPC API")
	fs.StringVar(&o.webAddr, "web-addr", c.WebAddr, "`address` of /metrics, /healthz and /readyz")
	fs.BoolVar(&o.demo, "demo", false, "define a few jobs worth looking at")
	o.log.flags(fs, slog.LevelWarn) // the greeting is to stay in sight
	return o, fs
}

// runDev is the command dev.
func runDev(ctx context.Context, args []string, out, logs io.Writer) (err error) {
	o, fs := devFlags()
	if err := settings.Parse(fs, args, envPrefix, allFlags()...); err != nil {
		if errors.Is(err, settings.ErrHelp) {
			return settings.Usage(fs, out, envPrefix, devSummary)
		}
		return err
	}
	log, err := settings.Logger(logs, o.log.level, o.log.format)
	if err != nil {
		return err
	}
	where := o.dataDir
	if where == "" {
		if o.dataDir, err = os.MkdirTemp("", "schedd-dev-"); err != nil {
			return fmt.Errorf("make a temporary data directory: %w; give one with --data-dir", err)
		}
		where = o.dataDir + ", removed at exit"
		defer func() { err = errors.Join(err, os.RemoveAll(o.dataDir)) }()
	}
	s, err := o.open(log) //nolint:contextcheck // opening waits for nobody
	if err != nil {
		return err
	}
	return o.live(ctx, s, log, func() error { return greet(out, s, where, o.demo) })
}

func (o *devOptions) open(log *slog.Logger) (*server.Server, error) {
	c := server.DefaultConfig()
	c.NodeID, c.DataDir, c.APIAddr, c.WebAddr = "dev", filepath.Join(o.dataDir, "primary"), o.apiAddr, o.webAddr
	c.Cluster.Addr = "" // alone for ever
	if err := c.Validate(); err != nil {
		return nil, settings.Errorf("%w", err)
	}
	return server.Open(c, server.Seams{Log: log})
}

// live runs primary and worker until ctx is done. The worker stops first, so
// that its last results arrive.
func (o *devOptions) live(ctx context.Context, s *server.Server, log *slog.Logger, ready func() error) error {
	primary, stopPrimary := context.WithCancel(context.WithoutCancel(ctx))
	defer stopPrimary()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.Run(primary) })
	g.Go(func() error {
		defer stopPrimary()
		c := agent.DefaultConfig()
		c.Server, c.DataDir, c.Name = s.APIAddr(), filepath.Join(o.dataDir, "worker"), "dev"
		c.Labels = map[string]string{"zone": "here"}
		return agent.Run(ctx, c, agent.Seams{Log: log})
	})
	g.Go(func() error {
		if o.demo {
			if err := defineDemo(ctx, s.APIAddr()); err != nil && ctx.Err() == nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil // stopped before it began
		default:
			return ready()
		}
	})
	return g.Wait()
}

// greet tells where everything is, and what to try next.
func greet(out io.Writer, s *server.Server, where string, demo bool) error {
	job := "hello"
	if !demo {
		job = "NAME"
	}
	call := "grpcurl -plaintext " + s.APIAddr()
	_, err := fmt.Fprintf(out, `
schedd dev: one primary and one worker, all in %[1]s
  API       %[2]s  (gRPC, reflected)
  metrics   http://%[3]s/metrics

Try next, in another terminal (where there is no grpcurl, "make bin/grpcurl"
builds it into ./bin):
  %[4]s list
  %[4]s schedd.v1.WorkerService/ListWorkers
  %[4]s schedd.v1.JobService/ListJobs
  grpcurl -plaintext -d '{"name":"%[5]s"}' %[2]s schedd.v1.JobService/RunJob
  grpcurl -plaintext -d '{"filter":"job=%[5]s"}' %[2]s schedd.v1.RunService/ListRuns
  grpcurl -plaintext -d '{"run_id":"ID","follow":true}' %[2]s schedd.v1.RunService/ReadLog
  grpcurl -plaintext -d '{"name":"%[5]s"}' %[2]s schedd.v1.JobService/VerifyLedger
Output is bytes, which JSON shows as base64; with jq, pipe ReadLog into
  jq -r '.data // empty' | base64 -d

--log-level info shows what happens here. Stop with Ctrl-C.

`, where, s.APIAddr(), s.WebAddr(), call, job)
	return err
}
