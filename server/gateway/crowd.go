package gateway

import (
	"container/list"

	"google.golang.org/grpc/codes"
)

// crowd is the streams that shake hands. There is a limit to them, and whoever can open
// one can open thousands. So one that has not said who it is has its place only until
// somebody else wants it: a worker's Hello comes right behind its stream. Whoever has
// said it keeps the place, or all work would be done for nothing when ten thousand are
// back at once.
type crowd struct {
	most int
	all  map[*session]*list.Element // in mute; nil once it has said Hello
	mute *list.List                 // of those without a Hello, the oldest first
}

func newCrowd(most int) crowd {
	return crowd{most: most, all: map[*session]*list.Element{}, mute: list.New()}
}

// join gives a stream a place. If none is left it is that of the oldest that is mute, which
// has to go then; ok is false if there is none of these either.
func (c *crowd) join(n *session) (goes *session, ok bool) {
	if len(c.all) >= c.most {
		oldest := c.mute.Front()
		if oldest == nil {
			return nil, false
		}
		goes = oldest.Value.(*session)
		c.leave(goes)
	}
	c.all[n] = c.mute.PushBack(n)
	return goes, true
}

// spoke takes note of a Hello, unless the stream has lost its place.
func (c *crowd) spoke(n *session) {
	if e := c.all[n]; e != nil {
		c.mute.Remove(e)
		c.all[n] = nil
	}
}

// leave gives the place of a stream back, if it still has one.
func (c *crowd) leave(n *session) {
	if e := c.all[n]; e != nil {
		c.mute.Remove(e)
	}
	delete(c.all, n)
}

// crowdedOut is the ending of a stream that had said nothing when its place was wanted.
func crowdedOut(most int) *ending {
	return silent(codes.ResourceExhausted, "no Hello came, and others wait: %d streams are shaking hands here", most)
}
