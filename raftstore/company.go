package raftstore

import "time"

// company is who else proposes. To write an entry costs nearly the same for eight callers
// as for one, and callers who do one thing after the other are back a moment after they
// were answered: if nobody waited for them, half of them would always miss the entry that
// the other half is in. So the disk is left idle for them, but no longer than it takes to
// write an entry: that is what there is to save, and all that is lost when nobody comes.
//
// It only decides. The queue's lock guards it.
type company struct {
	flying int           // proposals that were taken, and not answered
	back   int           // that were answered since the last entry was taken, and nobody has proposed in their place
	took   time.Time     // when that was
	write  time.Duration // how long the disk was busy with the last one
}

const (
	// enoughCompany is with how many commands an entry waits for no more.
	enoughCompany = 8
	// fewOthers is how many are not waited for: the leader's own loop may be one of them, which
	// takes its time.
	fewOthers = 1
	// longestWait bounds the wait where the disk is slow.
	longestWait = 2 * time.Millisecond
)

// taken takes note that an entry is made of n proposals.
func (c *company) taken(n int, now time.Time) { c.flying, c.back, c.took = c.flying+n, 0, now }

// written takes note that the disk is done with it.
func (c *company) written(now time.Time) { c.write = now.Sub(c.took) }

// answered takes note of n proposals that were answered.
func (c *company) answered(n int) { c.flying, c.back = c.flying-n, c.back+n }

// joined takes note that somebody proposes.
func (c *company) joined() { c.back = max(0, c.back-1) }

// expected is how many are about to propose.
func (c *company) expected() int { return c.flying + c.back }

// patience is how long those who wait now are kept waiting, at most.
func (c *company) patience() time.Duration {
	if c.expected() <= fewOthers {
		return 0
	}
	return min(c.write, longestWait)
}
