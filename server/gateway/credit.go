package gateway

import (
	"time"

	"github.com/schedd/schedd/proto/wire"
)

const (
	// onTheWay is how long output may take that a worker has on its way to the disk
	// here. It bounds what a control message may wait behind, whatever the line.
	onTheWay = 20 * time.Millisecond
	// rateOver is the least time that a rate is measured over.
	rateOver = 100 * time.Millisecond
	// maxCredit is the most that a worker may have on its way, in bytes. All of that is in
	// memory here while the disk hangs, for each worker that prints.
	maxCredit = 1 << 20
)

// credit is how much output a worker may have on its way: [wire.LogCredit], or more
// when line and disk are so fast that this would take no time. With little on its way
// each little piece costs an fsync.
type credit struct {
	granted int64
	since   time.Time // beginning of the measurement; zero: none has begun
	bytes   int64     // that were dealt with since
}

func newCredit() credit { return credit{granted: wire.LogCredit} }

// answered takes note that n bytes were dealt with, and returns what may be on its way
// from now on. A pause counts as slow: how fast it was before says nothing any more.
func (c *credit) answered(n int, now time.Time) int64 {
	if c.since.IsZero() {
		c.since = now // what came before it has waited for no answer of ours
		return c.granted
	}
	c.bytes += int64(n)
	if took := now.Sub(c.since); took >= rateOver {
		rate := float64(c.bytes) / took.Seconds()
		c.granted = min(max(int64(rate*onTheWay.Seconds()), wire.LogCredit), maxCredit)
		c.since, c.bytes = now, 0
	}
	return c.granted
}
