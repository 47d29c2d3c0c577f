package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/schedd/schedd/server/local"
)

// Lab is what a scenario works with.
type Lab struct {
	// Quick asks for small sizes and short spans.
	Quick bool
	// Dir is an absolute directory of its own, removed afterwards.
	Dir string
	// Baselines are shared by all scenarios of a run.
	*Baselines

	config   Config
	name     string // of the scenario
	say      *teller
	clusters []*Cluster
}

// Setup is a cluster that a scenario needs.
type Setup struct {
	Primaries, Workers int
	// Slots is how many runs a worker takes at once.
	Slots int
	// PrimaryFlags and WorkerFlags are given to each of them besides.
	PrimaryFlags, WorkerFlags []string
}

// Say tells people what happens.
func (l *Lab) Say(format string, args ...any) { l.say.say(l.name+": "+format, args...) }

// Pick returns usual, or quick when all is to be small and short.
func Pick[T any](l *Lab, usual, quick T) T {
	if l.Quick {
		return quick
	}
	return usual
}

// Start starts a cluster, and returns when it has a leader and all its workers. It is
// stopped when the scenario is over. Where the cluster to be measured runs already, it
// is that one, as it is.
func (l *Lab) Start(ctx context.Context, s Setup) (*Cluster, error) {
	c := &Cluster{}
	l.clusters = append(l.clusters, c)
	servers := l.config.Servers
	if len(servers) == 0 {
		dir := filepath.Join(l.Dir, fmt.Sprint("cluster-", len(l.clusters)))
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, fmt.Errorf("make a directory for a cluster: %w", err)
		}
		own, err := local.Start(ctx, local.Config{
			Schedd: l.config.Schedd, Agent: l.config.Agent, Dir: dir, Primaries: s.Primaries, Workers: s.Workers, Slots: s.Slots,
			PrimaryFlags: s.PrimaryFlags, WorkerFlags: s.WorkerFlags,
		})
		if err != nil {
			return nil, fmt.Errorf("start a cluster: %w", err)
		}
		c.Local, servers = own, own.Servers()
	}
	if err := c.dial(servers); err != nil {
		return nil, err
	}
	if err := c.ready(ctx, s.Workers); err != nil {
		return nil, fmt.Errorf("wait for a cluster of %d primaries and %d workers: %w", s.Primaries, s.Workers, err)
	}
	return c, nil
}

// Stop ends a cluster before the scenario is over. Its data stay.
func (l *Lab) Stop(ctx context.Context, c *Cluster) error { return c.stop(ctx) }

// stop ends all clusters.
func (l *Lab) stop(ctx context.Context) error {
	var err error
	for _, c := range l.clusters {
		err = errors.Join(err, c.stop(ctx))
	}
	return err
}

// effectsDir is where processes write down that they began.
func (l *Lab) effectsDir() string {
	if l.config.Effects != "" {
		return filepath.Join(l.config.Effects, filepath.Base(filepath.Dir(l.Dir))+"-"+l.name)
	}
	return filepath.Join(l.Dir, "effects")
}

// effects makes that directory. Whoever their user is, they may write there.
func (l *Lab) effects() (string, error) {
	dir := l.effectsDir()
	const anybody = 0o777 | os.ModeSticky
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.Chmod(dir, anybody)); err != nil {
		return "", fmt.Errorf("make a directory for what processes write down: %w", err)
	}
	return dir, nil
}

// crashed tells of processes of the cluster that ended by themselves.
func (c *Cluster) crashed() error {
	if c.Local == nil {
		return nil
	}
	if all := c.Local.Crashes(); len(all) > 0 {
		return errors.New(strings.Join(all, "; "))
	}
	return nil
}

// rest waits, and tells whether ctx goes on.
func rest(ctx context.Context, d time.Duration) bool { return until(ctx, time.Now().Add(d)) }

// until waits for a moment, and tells whether ctx goes on.
func until(ctx context.Context, at time.Time) bool {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
