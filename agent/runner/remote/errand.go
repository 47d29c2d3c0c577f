package remote

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	runnerv1 "github.com/schedd/schedd/proto/schedd/runner/v1"
)

// run carries errands to the runner: kills, and what it may forget. What does not
// arrive is sent again over the next link.
func (r *Runner) run(ctx context.Context) {
	for {
		select {
		case <-r.errands:
		case <-ctx.Done():
			return
		}
		if l := r.linked(); l != nil {
			r.sendKills(ctx, l)
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
