// Package agent is a worker: it keeps a session with a gateway, and owns the
// attempts that the leader gives it.
//
// The two do not depend on each other. An attempt goes on without a session, and
// a session that ends says nothing about it. What a worker must not forget is in
// its journal before anything is done: an attempt is started at most once, over
// crashes too, and each result is told until the leader has it on record.
//
// It never decides when, where or whether to run a job again: that is the
// leader's work. It starts no process itself but through package runner. It
// dials; only in direct mode, for hosts that can't, it listens.
//
// # The end of a worker
//
// When [Run] is asked to stop, what runs is asked to end and killed after its
// job's grace; its outcome is INTERRUPTED, since neither the job nor the leader
// wanted that. What did not start yet is REFUSED. If there is a session the
// results get some seconds to arrive; if not they are in the journal, and the
// next agent in this data directory tells them. Logs stay in the spool likewise.
//
// After a crash the next agent finds attempts in the journal that were accepted
// and have no result. Whether their processes were started can't be known of
// all, so they count as started: what is left of them is ended, and they are
// INTERRUPTED.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/schedd/schedd/agent/journal"
	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/spool"
	"github.com/schedd/schedd/proto/settings"
	"github.com/schedd/schedd/proto/wire"
)

const (
	// lastWords is how long results get to arrive when the worker stops.
	lastWords = 10 * time.Second
	// overtime is what a process gets beyond its grace to be gone after KILL.
	overtime = 15 * time.Second
)

// errStopped is what the gateway is told at the end.
var errStopped = errors.New("the worker was stopped")

// Seams are what whoever holds a worker may give it. All may be zero.
type Seams struct {
	// Log gets the story of the worker. Default: it goes nowhere.
	Log *slog.Logger
	// Runner starts processes. Default: real ones, on this host.
	Runner runner.Runner
	// Dialer connects to a server, for tests. Default: gRPC's own, which honours
	// HTTPS_PROXY.
	Dialer func(ctx context.Context, addr string) (net.Conn, error)
	// Listen makes the listener of direct mode, for tests. Default: TCP.
	Listen func(ctx context.Context, addr string) (net.Listener, error)
	// BootID tells one boot of the host from another, for tests. Default: the
	// kernel's.
	BootID string
}

// Run is a worker, until ctx is done; then it stops as the package says and
// returns nil. Otherwise it returns what keeps it from working at all: a
// configuration that is wrong, a data directory that is in use ([ErrInUse]) or
// can't be read. That there is no gateway is no such thing.
func Run(ctx context.Context, c Config, s Seams) (err error) {
	if err := c.Validate(); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	s.fill()
	h, err := openHome(c.DataDir, s.Log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	if s.Runner == nil {
		if s.Runner, err = h.localRunner(s.Log); err != nil {
			return err
		}
	}
	j, entries, err := journal.Open(h.path(journalFile), s.Log)
	if err != nil {
		return fmt.Errorf("open the worker's memory: %w", err)
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	logs, err := spool.Open(h.path(spoolDir), s.Log)
	if err != nil {
		return fmt.Errorf("open the worker's logs: %w", err)
	}

	t := newTable(s.Log, j, logs, s.Runner)
	t.worker = wire.WorkerID(h.public())
	t.boot = s.BootID
	t.slots = c.Slots
	ways, err := newWays(ctx, c, s, newSessions(c, s, h, t))
	if err != nil {
		return err
	}
	s.Log.Info("worker starts", "worker", t.worker, "name", c.Name, "data_dir", c.DataDir, "version", settings.Version(), "attempts", len(entries),
		"server", c.Server, "direct_listen", ways.listens())
	t.resume(entries)
	live(ctx, t, ways, s.Log)
	s.Log.Info("worker stopped", "worker", t.worker)
	return nil
}

func (s *Seams) fill() {
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	if s.BootID == "" {
		s.BootID = bootID()
	}
	if s.Listen == nil {
		s.Listen = func(ctx context.Context, addr string) (net.Listener, error) {
			return new(net.ListenConfig).Listen(ctx, "tcp", addr)
		}
	}
}

// live keeps sessions until ctx is done, and ends attempts before it ends the
// last session.
func live(ctx context.Context, t *table, w *ways, log *slog.Logger) {
	talk, hangUp := context.WithCancelCause(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { w.run(talk) })
	<-ctx.Done()

	log.Info("worker stops; waiting for attempts to end")
	t.stop()
	wait, cancel := context.WithTimeout(talk, t.longestGrace()+overtime)
	if !t.awaitEnds(wait) {
		log.Error("attempts did not end; stopping without them")
	}
	cancel()
	if w.connected() {
		wait, cancel = context.WithTimeout(talk, lastWords)
		if !t.awaitAcks(wait) {
			log.Warn("not all results are on record yet; the next start tells them again")
		}
		cancel()
	}
	hangUp(errStopped)
	wg.Wait()
	t.close()
}

// localRunner returns a runner of real processes, with a directory for scripts
// that every user can pass through.
func (h *home) localRunner(log *slog.Logger) (runner.Runner, error) {
	dir := h.path(scriptDir)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("make a directory for scripts: %w", err)
	}
	return runner.New(runner.Options{TempDir: dir, Logger: log}), nil
}
