package server

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/schedd/schedd/server/peer"
)

const (
	// maxSkew is how far the leader's clock may be from those of most primaries. The
	// leader's clock alone says when something is due.
	maxSkew = 2 * time.Second
	// clockEvery is how often the leader looks, and clockLooks how often in a row its
	// clock has to be wrong: one that is being set right takes a moment.
	clockEvery = 5 * time.Second
	clockLooks = 3
	// clockRest is how long it rests after it could not hand the leadership over.
	clockRest = time.Minute
)

// clockWatch hands the leadership over when this primary leads and its clock is
// wrong.
type clockWatch struct {
	self      string
	primaries func() map[string]peer.Primary             // that have a link, by id
	size      func() int                                 // of the group
	voters    func() []string                            // who can lead, by id
	transfer  func(ctx context.Context, id string) error // the leadership
	log       *slog.Logger
}

// run looks until ctx is done, which is as long as a term.
func (c *clockWatch) run(ctx context.Context) {
	again := time.NewTimer(clockEvery)
	defer again.Stop()
	wrong := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
		again.Reset(clockEvery)
		off, right := skew(c.self, c.primaries(), c.size())
		if off.Abs() <= maxSkew {
			wrong = 0
			continue
		}
		if wrong++; wrong < clockLooks {
			continue
		}
		wrong = 0
		c.log.Warn("this primary's clock is not that of most of the group: the leadership is handed over; see to NTP on this host",
			"primary", c.self, "behind", off, "to", right)
		if err := c.handOver(ctx, right); err != nil {
			c.log.Error("a primary with a wrong clock goes on leading, since the leadership could not be handed over; what is due comes early or late",
				"primary", c.self, "behind", off, "err", err)
			again.Reset(clockRest)
		}
	}
}

// errNobodyRight is returned when there is nobody to hand over to.
var errNobodyRight = errors.New("no primary that votes has a clock that is right")

// handOver gives the leadership to the first of these primaries that can lead and takes it.
func (c *clockWatch) handOver(ctx context.Context, right []string) error {
	var failed []error
	voters := c.voters()
	for _, id := range right {
		if !slices.Contains(voters, id) {
			continue
		}
		err := c.transfer(ctx, id)
		if err == nil || ctx.Err() != nil {
			return err
		}
		failed = append(failed, err)
	}
	if len(failed) == 0 {
		return errNobodyRight
	}
	return errors.Join(failed...)
}

// skew returns how far this clock is behind the middle one of all that are known,
// or ahead of it if it is negative, and the primaries whose clocks are near that one, the
// nearest first. It is zero while fewer than three are known, or not most of the group: then
// nobody can tell whose clock is wrong. What the way there and back leaves in doubt
// counts for this clock.
func skew(self string, known map[string]peer.Primary, size int) (behind time.Duration, right []string) {
	offsets := []time.Duration{0} // of this one from itself
	for id, p := range known {
		if id != self {
			offsets = append(offsets, sure(p))
		}
	}
	if len(offsets) < 3 || len(offsets) <= size/2 {
		return 0, nil
	}
	slices.Sort(offsets)
	behind = offsets[len(offsets)/2]
	if below := offsets[(len(offsets)-1)/2]; below.Abs() < behind.Abs() {
		behind = below // of an even number there are two in the middle
	}
	off := func(id string) time.Duration { return (sure(known[id]) - behind).Abs() }
	for id := range known {
		if id != self && off(id) <= maxSkew {
			right = append(right, id)
		}
	}
	slices.SortFunc(right, func(a, b string) int { return cmp.Or(cmp.Compare(off(a), off(b)), cmp.Compare(a, b)) })
	return behind, right
}

// sure is how far a primary's clock is from the leader's at least.
func sure(p peer.Primary) time.Duration {
	doubt := p.RTT / 2
	if p.ClockOffset < 0 {
		return min(0, p.ClockOffset+doubt)
	}
	return max(0, p.ClockOffset-doubt)
}
