package bench

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/schedd/schedd/server/bench/balancer"
	"github.com/schedd/schedd/server/bench/fleet"
	"github.com/schedd/schedd/server/bench/report"
)

var workers = Scenario{
	Name: "workers",
	What: "what one primary needs for 10,000 workers that have nothing to do, each with a session over TLS",
	Run:  runWorkers,
}

// How many sessions there are, how many of them are opened at the same time in the
// beginning, and how many runs each worker takes.
const (
	manySessions = 10_000
	fewSessions  = 100
	opening      = 16
	wireSlots    = 4
)

// comingTime bounds how long all of them may take to come.
const comingTime = 5 * time.Minute

func runWorkers(ctx context.Context, l *Lab, r *report.Result) (err error) {
	n := Pick(l, manySessions, fewSessions)
	c, err := l.Start(ctx, Setup{Primaries: 1})
	if err != nil {
		return err
	}
	pid := c.Local.Primaries()[0].PID()
	empty, err := UsageOf(pid)
	if err != nil {
		return err
	}
	begin := time.Now()
	b, err := newBehind(ctx, c, n, nil)
	if err != nil {
		return err
	}
	defer b.stop()
	came := time.Since(begin)
	opened, err := UsageOf(pid)
	if err != nil {
		return err
	}
	l.Say("%d sessions are there after %v; now they have nothing to do", n, came.Round(time.Second))
	idle, err := b.idle(ctx, pid, Pick(l, 20*time.Second, time.Second), Pick(l, time.Minute, 2*time.Second))
	if err != nil {
		return err
	}
	r.Add("memory of the primary", Megabytes(idle.resident), "MB")
	r.Add("sessions", float64(n), "")
	r.Add("processor", 100*idle.primary, "% of a core")
	r.Add("each session", float64(idle.resident-empty.Resident)/float64(n)/1e3, "kB")
	r.Add("peak", Megabytes(idle.peak), "MB")
	r.Add("processor for opening a session", microseconds(opened.Processor-empty.Processor)/float64(n), "us")
	r.Add("all there after", came.Seconds(), "s")
	r.Add("processor of the workers at the wire and of the balancer", 100*idle.own, "% of a core")
	r.Add("sessions that ended meanwhile", float64(b.Counts().Opened)-float64(n), "")
	noteTLS(r)
	return c.crashed()
}

// noteTLS says where TLS ends.
func noteTLS(r *report.Result) {
	r.Note("The API has no TLS of its own: it ends in a balancer that is part of the benchmark, in the same process as the workers. Each session has a TCP connection of its own from there to the primary.")
}

// behind is workers at the wire behind a balancer in which their TLS ends.
type behind struct {
	*fleet.Fleet
	balancer *balancer.Balancer
}

// newBehind lets n workers come through a balancer, and returns when all are there.
func newBehind(ctx context.Context, c *Cluster, n int, watch *arrivals) (*behind, error) {
	if err := openFiles(n); err != nil { // one for each connection of the balancer
		return nil, err
	}
	server, client, err := balancer.NewTLS(time.Now())
	if err != nil {
		return nil, err
	}
	b := &behind{balancer: balancer.New(c.Local.Servers(), server, nil)} //nolint:contextcheck // it lives until Close
	config := fleet.Config{Servers: []string{"127.0.0.1"}, Workers: n, Slots: wireSlots, Name: "behind", TLS: client, Opening: opening, Dial: b.balancer.Dial}
	if watch != nil {
		config.Launched = watch.launched
	}
	if b.Fleet, err = fleet.Start(ctx, config); err != nil {
		b.balancer.Close()
		return nil, err
	}
	within, cancel := context.WithTimeout(ctx, comingTime)
	defer cancel()
	if err := b.AwaitOnline(within); err != nil {
		b.stop()
		return nil, err
	}
	return b, nil
}

func (b *behind) stop() {
	b.Stop()
	b.balancer.Close()
}

// idleness is what sessions cost that have nothing to do.
type idleness struct {
	primary, own   float64 // processors that were used
	resident, peak int64   // memory of the primary, in bytes
}

// idle lets the primary be for a while, and then looks at what it uses for a span.
func (b *behind) idle(ctx context.Context, pid int, after, span time.Duration) (i idleness, err error) {
	if !rest(ctx, after) {
		return i, ctx.Err()
	}
	begin, before, ownBefore, err := usages(pid)
	if err != nil {
		return i, err
	}
	if !rest(ctx, span) {
		return i, ctx.Err()
	}
	end, now, own, err := usages(pid)
	if err != nil {
		return i, err
	}
	share := func(from, to Usage) float64 {
		return (to.Processor - from.Processor).Seconds() / end.Sub(begin).Seconds()
	}
	return idleness{primary: share(before, now), own: share(ownBefore, own), resident: now.Resident, peak: now.Peak}, nil
}

// usages is what a process and this one have used up to now.
func usages(pid int) (at time.Time, other, own Usage, err error) {
	other, err = UsageOf(pid)
	own, failed := UsageOf(os.Getpid())
	return time.Now(), other, own, errors.Join(err, failed)
}
