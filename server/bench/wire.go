package bench

import (
	"context"
	"fmt"
	"sync"
	"time"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/server/bench/fleet"
	"github.com/schedd/schedd/server/bench/measure"
)

// wireFleet is workers at the wire, and what they were given.
type wireFleet struct {
	*fleet.Fleet
	mu     sync.Mutex // guards starts
	starts []measure.Start
}

// newWire starts workers that dial the primaries themselves, and waits until they are
// there.
func newWire(ctx context.Context, c *Cluster, workers, slots int) (*wireFleet, error) {
	w := &wireFleet{}
	var err error
	w.Fleet, err = fleet.Start(ctx, fleet.Config{Servers: c.Local.Servers(), Workers: workers, Slots: slots, Name: "wire", Launched: w.launched})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := w.AwaitOnline(ctx); err != nil {
		w.Stop()
		return nil, err
	}
	return w, nil
}

func (w *wireFleet) launched(m *agentv1.Launch, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := measure.Occurrence{Job: m.GetJob(), Nominal: m.GetScheduledAt().GetSeconds()}
	w.starts = append(w.starts, measure.Start{Occurrence: o, At: at})
}

// take returns what was launched since it was last called.
func (w *wireFleet) take() []measure.Start {
	w.mu.Lock()
	defer w.mu.Unlock()
	starts := w.starts
	w.starts = nil
	return starts
}

// finish waits until so many results are on record, and tells whether they are.
func (w *wireFleet) finish(ctx context.Context, acked int64, deadline time.Time) bool {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	return w.Await(ctx, fmt.Sprintf("%d results are on record", acked), func(f fleet.Counts) bool { return f.Acked >= acked }) == nil
}
