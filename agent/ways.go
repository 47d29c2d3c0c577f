package agent

import (
	"context"
	"fmt"
	"sync"
)

// ways are how this worker comes to its sessions: it dials, it is dialled, or
// both.
type ways struct {
	*sessions
	talker *talker // nil if it does not dial
	direct *direct // nil if it does not listen
}

// newWays listens at once, so that a worker that can't does not start.
func newWays(ctx context.Context, c Config, s Seams, all *sessions) (*ways, error) {
	w := &ways{sessions: all}
	if c.Server != "" {
		w.talker = newTalker(c, s, all)
	}
	if c.DirectListen != "" {
		listener, err := s.Listen(ctx, c.DirectListen)
		if err != nil {
			return nil, fmt.Errorf("listen for primaries: %w; name another address with --direct-listen", err)
		}
		w.direct = &direct{sessions: all, listener: listener}
	}
	return w, nil
}

// listens returns where primaries can dial this worker, or nothing.
func (w *ways) listens() string {
	if w.direct == nil {
		return ""
	}
	return w.direct.listener.Addr().String()
}

// run keeps sessions until ctx is done.
func (w *ways) run(ctx context.Context) {
	var wg sync.WaitGroup
	if w.talker != nil {
		wg.Go(func() { w.talker.run(ctx) })
	}
	if w.direct != nil {
		wg.Go(func() { w.direct.run(ctx) })
	}
	wg.Wait()
}
