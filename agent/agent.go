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
// What runs is the runner's, which is another process: whether the agent is asked
// to stop, crashes or is replaced by another version makes no difference to it. The
// next agent in this data directory finds in its journal what was accepted and has
// no result, and asks the runner. What runs it looks after from there on; what has
// ended meanwhile it tells; of what the runner does not know nobody can say whether
// it was started, so it counts as started: what is left of it is ended, and it is
// INTERRUPTED. So is what ran when the runner died or the host rebooted.
//
// When [Run] is asked to stop, what did not start yet is REFUSED. If there is a
// session the results get some seconds to arrive; if not they are in the journal,
// and the next agent tells them. Logs stay in the spool likewise.
//
// When the runner is stopped, the agent stops too: then what runs is asked to end
// and killed after its job's grace; its outcome is INTERRUPTED, since neither the
// job nor the leader wanted that. Then logs get the same seconds as results, for
// there may be no next agent. Without a runner of its own, as in schedd dev,
// each stop of the agent is such a one.
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
	// lastWords is how long results get to arrive when the worker stops, and logs if
	// the runner stops as well.
	lastWords = 10 * time.Second
	// overtime is what a process gets beyond its grace to be gone after KILL.
	overtime = 15 * time.Second
	// settling is how long a start that is under way may keep an agent from
	// leaving its runner.
	settling = 5 * time.Second
)

// errStopped is what the gateway is told at the end.
var errStopped = errors.New("the worker was stopped")

// Seams are what whoever holds a worker may give it. All may be zero.
type Seams struct {
	// Log gets the story of the worker. Default: it goes nowhere.
	Log *slog.Logger
	// RunnerCommand is a program and its first arguments that serve a runner in
	// a process of its own, as "schedagent runner" does: the agent uses the one
	// that is in its data directory, and starts it if there is none. What runs
	// then goes on without the agent. Default: none. The agent has its processes
	// itself, and they end when it stops.
	RunnerCommand []string
	// Runner starts processes, for tests. Default: see RunnerCommand.
	Runner runner.Runner
	// Dialer connects to a server, for tests. Default: gRPC's own, which honours
	// HTTPS_PROXY.
	Dialer func(ctx context.Context, addr string) (net.Conn, error)
	// Listen makes the listener of direct mode, for tests. Default: TCP.
	Listen func(ctx context.Context, addr string) (net.Listener, error)
	// BootID tells one boot of the host from another, for tests. Default: the
	// kernel's.
	BootID string
	// Fsync has a file of the journal and the spool, or their directory, stay when the
	// power fails, for tests that know what has. Default: the operating system's.
	Fsync func(*os.File) error
	// WriteAt writes to the journal, for tests whose disk fills. Default: the operating
	// system's.
	WriteAt func(f *os.File, p []byte, off int64) (int, error)
	// WriteOut has the disk take a part of a log, without saying that it stays, for tests
	// whose disk hangs. Default: the operating system's.
	WriteOut func(f *os.File, from, to int64, wait bool) error
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
	leave, err := h.openRunner(ctx, c, &s)
	if err != nil {
		return err
	}
	defer leave()
	j, entries, err := journal.OpenOn(journal.Disk{Fsync: s.Fsync, WriteAt: s.WriteAt}, h.path(journalFile), s.Log)
	if err != nil {
		return fmt.Errorf("open the worker's memory: %w", err)
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	logs, err := spool.OpenOn(spool.Disk{Fsync: s.Fsync, WriteOut: s.WriteOut}, h.path(spoolDir), s.Log)
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
	if err := logs.Sweep(); err != nil {
		s.Log.Warn("files of the spool that are nobody's were not removed; the next start tries again", "err", err)
	}
	if t.lasting != nil {
		t.lives.Go(t.watchRunner)
	}
	live(ctx, t, ways, leave)
	s.Log.Info("worker stopped", "worker", t.worker)
	return nil
}

func (s *Seams) fill() {
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	if s.BootID == "" {
		s.BootID = runner.BootID()
	}
	if s.Listen == nil {
		s.Listen = func(ctx context.Context, addr string) (net.Listener, error) {
			return new(net.ListenConfig).Listen(ctx, "tcp", addr)
		}
	}
}

// live keeps sessions until ctx is done or the runner is stopped, and sees what runs
// to its end, or leaves it to the runner, before it ends the last session.
func live(ctx context.Context, t *table, w *ways, leave func()) {
	talk, hangUp := context.WithCancelCause(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { w.run(talk) })
	select {
	case <-ctx.Done():
	case <-t.runnerStops():
	}
	patience := t.stop()
	wait, cancel := context.WithTimeout(talk, patience)
	if !t.awaitEnds(wait) {
		t.log.Error("attempts did not end; stopping without them")
	}
	cancel()
	if w.connected() {
		wait, cancel = context.WithTimeout(talk, lastWords)
		if !t.awaitAcks(wait) {
			t.log.Warn("not all results are on record, or not all output is shipped; the next start sees to it")
		}
		cancel()
	}
	hangUp(errStopped)
	wg.Wait()
	leave()
	t.close()
}
