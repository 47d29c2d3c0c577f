//go:build e2e && linux

package natlab_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/schedd/schedd/agent"
	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

const (
	// crowd is how many workers come back at once.
	crowd = 1000
	// outage is how long the load balancer is away.
	outage = 5 * time.Second
)

// A thousand workers lose their load balancer at the same moment. They come back
// spread over time, and all of them do.
func crowdReconnects(t *testing.T, l *lab) {
	quiet.Lock()
	defer quiet.Unlock()
	c := l.gather(t)
	defer c.dismiss()
	before := c.present(t, l, nil)

	l.balancer.stop(t)
	pass(t, outage)
	back := time.Now()
	l.balancer.start(t)
	now := c.present(t, l, before)
	var waits []time.Duration
	gateways := map[string]int{}
	for _, w := range now {
		waits = append(waits, w.GetConnectedTime().AsTime().Sub(back))
		gateways[w.GetGateway()]++
	}
	measured(t, "%d workers back after a load balancer's outage of %v: p10 %v, p50 %v, p90 %v, all %v; at %v; %d tries failed",
		crowd, outage, percentile(waits, 10), percentile(waits, 50), percentile(waits, 90), percentile(waits, 100), gateways, c.log.failed.Load())
	if spread := percentile(waits, 90) - percentile(waits, 10); spread < time.Second {
		t.Errorf("most of the workers are back within %v of each other", spread)
	}
	if n := c.log.refused.Load(); n > 0 {
		t.Errorf("%d were refused for good", n)
	}
	l.online(t, l.a, 0)
	l.online(t, l.b, 0)
}

// throng is many workers in one process, which start no processes.
type throng struct {
	quit context.CancelFunc
	wg   sync.WaitGroup
	fake *fakerunner.Fake
	log  *tally
}

// gather starts them in a private network.
func (l *lab) gather(t *testing.T) *throng {
	t.Helper()
	// So many journals would keep a disk busy.
	dir, err := os.MkdirTemp("/dev/shm", "natlab") //nolint:usetesting // it would be on disk
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ctx, quit := context.WithCancel(context.WithoutCancel(t.Context()))
	c := &throng{quit: quit, fake: fakerunner.New(func(runner.Spec) fakerunner.Behaviour { return fakerunner.Behaviour{} }), log: &tally{}}
	for n := range crowd {
		config := agent.DefaultConfig()
		config.Server, config.DataDir = balancerAddr, filepath.Join(dir, fmt.Sprint(n))
		config.Name, config.Slots, config.Insecure = fmt.Sprint("sim", n), 1, true
		config.Labels = map[string]string{"lab": "crowd"}
		config.AdvertiseHostname, config.AdvertiseIP = hostname, privateIP
		seams := agent.Seams{Log: slog.New(c.log), Runner: c.fake, Dialer: l.spare.host.dial}
		c.wg.Go(func() {
			if err := agent.Run(ctx, config, seams); err != nil {
				t.Errorf("a simulated worker: %v", err)
			}
		})
	}
	return c
}

// dismiss ends them.
func (c *throng) dismiss() {
	c.quit()
	c.wg.Wait()
	c.fake.Close()
}

// present waits until all are online, each in a session after the one before.
func (c *throng) present(t *testing.T, l *lab, before map[string]*schedv1.Worker) (all map[string]*schedv1.Worker) {
	t.Helper()
	await(t, "all simulated workers are online", func() (bool, any) {
		all = map[string]*schedv1.Worker{}
		l.ask(t, "list the simulated workers", func(ctx context.Context, p *primary) error {
			for token := ""; ; {
				resp, err := p.workers.ListWorkers(ctx, &schedv1.ListWorkersRequest{
					Filter: "labels.lab=crowd,phase=WORKER_PHASE_ONLINE", PageSize: 1000, PageToken: token,
				})
				if err != nil {
					return err
				}
				for _, w := range resp.GetWorkers() {
					if w.GetConnectedTime() != nil && w.GetSessionEpoch() > before[w.GetId()].GetSessionEpoch() {
						all[w.GetId()] = w
					}
				}
				if token = resp.GetNextPageToken(); token == "" {
					return nil
				}
			}
		})
		return len(all) == crowd, fmt.Sprint(len(all), " are")
	})
	return all
}

// tally counts what many workers complain of.
type tally struct{ failed, refused atomic.Int64 }

func (c *tally) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

func (c *tally) Handle(_ context.Context, r slog.Record) error {
	switch r.Message {
	case "no session; trying again":
		c.failed.Add(1)
	case "THE GATEWAY DOES NOT WANT THIS WORKER; have an administrator look at it":
		c.refused.Add(1)
	}
	return nil
}

func (c *tally) WithAttrs([]slog.Attr) slog.Handler { return c }
func (c *tally) WithGroup(string) slog.Handler      { return c }
