package lead

import (
	"time"

	"github.com/schedd/schedd/raftstore/state"
)

// startHeld is how long the start of an attempt waits to be put on record. Nobody waits for
// that: most runs are short, and how they end says when they started, so that one entry of
// the log is enough; and starts of many runs share one. A leader that is gone by then leaves
// it to the next, which asks the workers what they have.
const startHeld = 50 * time.Millisecond

// starts are those that were told, and are not proposed yet.
type starts struct {
	byFence map[uint64]state.Start
	order   []heldStart // as they were told; some of them may be gone
}

type heldStart struct {
	fence uint64
	until time.Time
}

func newStarts() starts { return starts{byFence: map[uint64]state.Start{}} }

// hold takes a start that was told at now.
func (h *starts) hold(c state.Start, now time.Time) {
	if !h.holds(c.Fence) {
		h.byFence[c.Fence] = c
		h.order = append(h.order, heldStart{c.Fence, now.Add(startHeld)})
	}
}

// holds tells whether the start of the attempt with that fence waits.
func (h *starts) holds(fence uint64) bool {
	_, is := h.byFence[fence]
	return is
}

// take takes a start out, if it waits.
func (h *starts) take(fence uint64) (c state.Start, was bool) {
	c, was = h.byFence[fence]
	delete(h.byFence, fence)
	return c, was
}

// next is until when the oldest waits; zero when none does.
func (h *starts) next() time.Time {
	for len(h.order) > 0 && !h.holds(h.order[0].fence) {
		h.order = h.order[1:]
	}
	if len(h.order) == 0 {
		h.order = nil
		return time.Time{}
	}
	return h.order[0].until
}

// due takes out all starts, once the oldest has waited for long enough.
func (h *starts) due(now time.Time) (all []state.Start) {
	if at := h.next(); at.IsZero() || now.Before(at) {
		return nil
	}
	for _, x := range h.order {
		if c, is := h.take(x.fence); is {
			all = append(all, c)
		}
	}
	h.order = nil
	return all
}
