package remote

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	runnerv1 "github.com/schedd/schedd/proto/schedd/runner/v1"
)

// run carries errands to the runner: kills, leases, and what it may forget. What does
// not arrive is sent again over the next link.
func (r *Runner) run(ctx context.Context) {
	for {
		select {
		case <-r.errands:
		case <-ctx.Done():
			return
		}
		if l := r.linked(); l != nil {
			r.sendKills(ctx, l)
			r.sendLeases(ctx, l)
			r.sendForgotten(ctx, l)
		}
	}
}

func (r *Runner) linked() *link {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.link
}

func (r *Runner) sendKills(ctx context.Context, l *link) {
	for _, k := range r.killsFor(l) {
		if _, err := l.client.Kill(ctx, &runnerv1.KillRequest{Id: k.p.id, Grace: durationpb.New(max(0, time.Until(k.at)))}); err != nil {
			r.o.Log.Warn("the runner did not hear of a kill; it is told again when it is there", "attempt", k.p.id, "err", err)
			return
		}
		r.mu.Lock()
		k.p.sentTo, k.p.sentAt = l, k.at
		r.mu.Unlock()
	}
}

// killing is what is asked of a process.
type killing struct {
	p  *process
	at time.Time // for SIGKILL
}

// killsFor returns the kills that l has not carried.
func (r *Runner) killsFor(l *link) (all []killing) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.processes {
		if !p.killAt.IsZero() && !p.isOver() && (p.sentTo != l || p.killAt.Before(p.sentAt)) {
			all = append(all, killing{p, p.killAt})
		}
	}
	return all
}

// Uptime implements runner.Runner. Agent and runner are on one host, and so have one
// clock. It is false when the runner is too old to watch leases.
func (r *Runner) Uptime() (time.Duration, bool) {
	now, ok := r.o.Uptime()
	l := r.linked()
	return now, ok && (l == nil || l.revision >= leaseRevision)
}

// Renew implements runner.Runner. What is not there by the end of the lease comes
// too late: the runner goes by its own clock.
func (r *Runner) Renew(ends map[string]time.Duration) {
	r.keepLeases(ends)
	wake(r.errands)
}

// keepLeases keeps ends of leases until the runner has been told.
func (r *Runner) keepLeases(ends map[string]time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, end := range ends {
		r.renewed[id] = max(end, r.renewed[id])
	}
}

func (r *Runner) sendLeases(ctx context.Context, l *link) {
	r.mu.Lock()
	ends := r.renewed
	r.renewed = make(map[string]time.Duration)
	r.mu.Unlock()
	if len(ends) == 0 || l.revision < leaseRevision {
		return
	}
	if _, err := l.client.Renew(ctx, showLeases(ends)); err != nil {
		r.o.Log.Warn("the runner did not hear of leases; it is told again when it is there", "attempts", len(ends), "err", err)
		r.keepLeases(ends) // for the next link
	}
}

func (r *Runner) sendForgotten(ctx context.Context, l *link) {
	r.mu.Lock()
	var ids []string
	for id := range r.forgotten {
		ids = append(ids, id)
	}
	r.mu.Unlock()
	if len(ids) == 0 {
		return
	}
	if _, err := l.client.Forget(ctx, &runnerv1.ForgetRequest{Ids: ids}); err != nil {
		return // over the next link
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		delete(r.forgotten, id)
	}
}
