// Package local runs a cluster of real processes on this host, to be harmed or to be
// measured: primaries and workers on loopback, with all that they keep in one directory.
//
// What ends by itself is started again, as systemd would, and is remembered
// ([Cluster.Crashes]). Nothing outlives the process that called [Start], but for
// the runners of workers when that is killed: they end by themselves after five
// minutes.
package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Config is the cluster to run.
type Config struct {
	// Schedd and Agent are the programs, by their paths.
	Schedd, Agent string
	// Dir is an absolute directory for all data and logs, which is there and empty.
	Dir string
	// Primaries and Workers is how many there are.
	Primaries, Workers int
	// Slots is how many runs a worker takes.
	Slots int
	// PrimaryFlags and WorkerFlags are given to each of them besides.
	PrimaryFlags, WorkerFlags []string
}

// Cluster is one that runs.
type Cluster struct {
	config    Config
	servers   []string
	webs      []string
	primaries []*Daemon
	workers   []*Daemon
	runners   []*Runner
}

// Start starts a cluster, and does not wait until it can be used. [Cluster.Stop]
// has to be called, whatever becomes of ctx.
func Start(ctx context.Context, c Config) (*Cluster, error) {
	cl := &Cluster{config: c}
	const addresses = 3 // of the API, the web pages, and for other primaries
	free, err := freeAddresses(ctx, addresses*c.Primaries)
	if err != nil {
		return nil, err
	}
	var join []string
	for i := range c.Primaries {
		cl.servers, cl.webs = append(cl.servers, free[addresses*i]), append(cl.webs, free[addresses*i+1])
		join = append(join, free[addresses*i+2])
	}
	for i := range c.Primaries {
		name := fmt.Sprint("primary-", i+1)
		cl.primaries = append(cl.primaries, cl.daemon(ctx, name, slices.Concat([]string{
			c.Schedd, "serve", "--node-id", name,
			"--data-dir", filepath.Join(c.Dir, name), "--api-addr", cl.servers[i], "--web-addr", cl.webs[i],
			"--cluster-addr", join[i], "--bootstrap-expect", strconv.Itoa(c.Primaries), "--join", strings.Join(join, ","),
		}, c.PrimaryFlags)))
	}
	for i := range c.Workers {
		name := fmt.Sprint("worker-", i+1)
		dir := filepath.Join(c.Dir, name)
		cl.workers = append(cl.workers, cl.daemon(ctx, name, slices.Concat([]string{
			c.Agent, "run", "--name", name,
			"--data-dir", dir, "--server", strings.Join(cl.servers, ","), "--slots", strconv.Itoa(c.Slots),
		}, c.WorkerFlags)))
		cl.runners = append(cl.runners, &Runner{name: name, program: c.Agent, dir: dir})
	}
	for _, d := range slices.Concat(cl.primaries, cl.workers) {
		if err := d.start(); err != nil {
			return nil, errors.Join(err, cl.Stop(ctx))
		}
	}
	return cl, nil
}

// daemon is one of the programs, not started yet.
func (c *Cluster) daemon(ctx context.Context, name string, argv []string) *Daemon {
	return &Daemon{ctx: context.WithoutCancel(ctx), name: name, argv: argv, log: filepath.Join(c.config.Dir, name+".log")}
}

// Servers are the addresses of the API of all primaries.
func (c *Cluster) Servers() []string { return c.servers }

// Webs are the addresses of the pages and metrics of all primaries.
func (c *Cluster) Webs() []string { return c.webs }

// Primaries are the processes of the primaries, in the order of [Cluster.Servers].
func (c *Cluster) Primaries() []*Daemon { return c.primaries }

// Workers are the processes of the workers' agents.
func (c *Cluster) Workers() []*Daemon { return c.workers }

// Runners are what has the processes of the workers' jobs, in the order of
// [Cluster.Workers].
func (c *Cluster) Runners() []*Runner { return c.runners }

// Crashes tells which processes ended by themselves, each in a sentence.
func (c *Cluster) Crashes() []string {
	var all []string
	for _, d := range slices.Concat(c.primaries, c.workers) {
		all = append(all, d.crashed()...)
	}
	return all
}

// goodbye bounds how long all processes may take to end in order.
const goodbye = 30 * time.Second

// Stop ends all processes, in order if they will: workers first, with what they
// run.
func (c *Cluster) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbye)
	defer cancel()
	var wg sync.WaitGroup
	faults := make([]error, len(c.workers))
	for i, d := range c.workers {
		wg.Go(func() {
			d.retire()
			faults[i] = c.runners[i].stop(ctx)
			d.stop(ctx)
		})
	}
	wg.Wait()
	for _, d := range c.primaries {
		wg.Go(func() {
			d.retire()
			d.stop(ctx)
		})
	}
	wg.Wait()
	return errors.Join(faults...)
}

// freeAddresses returns addresses of this host on which nobody listens, and which
// the kernel gives to nobody who dials: a primary that is started again needs the
// same one.
func freeAddresses(ctx context.Context, n int) ([]string, error) {
	const from, to = 10000, 30000
	var free []string
	for at := range to - from {
		port := from + (os.Getpid()*61+at)%(to-from)
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if err != nil {
			continue
		}
		_ = l.Close() // it was a try only
		if free = append(free, address); len(free) == n {
			return free, nil
		}
	}
	return nil, fmt.Errorf("look for %d free ports on 127.0.0.1: %d were found between %d and %d", n, len(free), from, to)
}
