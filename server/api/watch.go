package api

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"google.golang.org/grpc"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore/state"
)

// watchPage is how many runs are looked up at a time while somebody watches.
const watchPage = 500

// WatchRuns sends the matching runs, the newest first, then the synced marker,
// and then each run that matches whenever it has changed. A run that matched and
// no longer does is sent once more, as it is then, so that a watcher of active
// runs sees them end. That a run is no longer kept is not told, and neither is
// it when only the reason of a waiting run changes.
//
// A slow watcher gets the latest state of each run and skips those in between;
// what waits for it is bounded by the number of runs.
func (s runService) WatchRuns(req *schedv1.WatchRunsRequest, stream grpc.ServerStreamingServer[schedv1.WatchRunsResponse]) error {
	c := request()
	f := readFilter(c.in("filter"), req.GetFilter(), runFields, nil)
	if err := c.err(); err != nil {
		return err
	}
	w := &watcher{Server: s.Server, filter: f, send: stream.Send, nudge: make(chan struct{}, 1), changed: map[state.RunID]struct{}{}}
	if len(f) > 0 {
		w.matching = map[state.RunID]struct{}{}
	}
	cancel := s.Store.Subscribe(w.note)
	defer cancel()
	ctx, end := s.untilClose(stream.Context())
	defer end()
	if err := w.all(ctx, !req.GetChangesOnly()); err != nil {
		return err
	}
	if err := stream.Send(&schedv1.WatchRunsResponse{Synced: true}); err != nil {
		return err
	}
	return w.follow(ctx)
}

// watcher is one call of WatchRuns.
type watcher struct {
	*Server
	filter   filter[*state.Run]
	matching map[state.RunID]struct{} // runs that match, as was last seen; nil: all do
	send     func(*schedv1.WatchRunsResponse) error
	nudge    chan struct{} // something changed; holds at most one

	mu       sync.Mutex // guards the following
	changed  map[state.RunID]struct{}
	restored bool // everything may have changed
}

// note takes note of what changed.
func (w *watcher) note(changes []state.Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if changes == nil {
		w.restored = true
	}
	for _, c := range changes {
		if c.Run != (state.RunID{}) {
			w.changed[c.Run] = struct{}{}
		}
	}
	if w.restored || len(w.changed) > 0 {
		select {
		case w.nudge <- struct{}{}:
		default: // it has been told already
		}
	}
}

// take returns what changed since it was last called.
func (w *watcher) take() (changed []state.RunID, restored bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	changed = make([]state.RunID, 0, len(w.changed))
	for id := range w.changed {
		changed = append(changed, id)
	}
	restored = w.restored
	w.changed, w.restored = map[state.RunID]struct{}{}, false
	return changed, restored
}

// all goes through all runs that match, and sends them if it is to.
func (w *watcher) all(ctx context.Context, send bool) error {
	if !send && w.matching == nil {
		return nil // nothing to remember
	}
	scan := runScan{filter: w.filter, most: watchPage}
	for !scan.done {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		for _, g := range w.scan(&scan) {
			if w.matching != nil {
				w.matching[g.run.ID] = struct{}{}
			}
			if !send {
				continue
			}
			if err := w.send(&schedv1.WatchRunsResponse{Run: w.showMany(g)}); err != nil {
				return err
			}
		}
	}
	return nil
}

// follow sends what changes until ctx ends.
func (w *watcher) follow(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-w.nudge:
		}
		changed, restored := w.take()
		if restored {
			if err := w.all(ctx, true); err != nil {
				return err
			}
		}
		for ids := range slices.Chunk(changed, watchPage) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			for _, g := range w.look(ids) {
				if err := w.send(&schedv1.WatchRunsResponse{Run: w.showMany(g)}); err != nil {
					return err
				}
			}
		}
	}
}

// look returns those of the runs that the watcher is to see, the oldest first.
func (w *watcher) look(ids []state.RunID) []glance {
	var seen []glance
	w.Store.View(func(st *state.State) {
		l := look(st, w.wallClock())
		for _, id := range ids {
			r := st.Run(id)
			if r == nil {
				delete(w.matching, id)
				continue
			}
			if w.wants(r) {
				seen = append(seen, l.at(r))
			}
		}
	})
	slices.SortFunc(seen, func(a, b glance) int { return cmp.Compare(a.run.Serial, b.run.Serial) })
	return seen
}

// wants reports whether the watcher is to see a run that changed.
func (w *watcher) wants(r *state.Run) bool {
	if w.matching == nil {
		return true
	}
	_, matched := w.matching[r.ID]
	if w.filter.matches(r) {
		w.matching[r.ID] = struct{}{}
		return true
	}
	delete(w.matching, r.ID)
	return matched
}
