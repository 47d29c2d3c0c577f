package session

import (
	"time"

	"github.com/schedd/schedd/proto/wire"
)

// questionCost is what a question counts for, in bytes of credit: a worker that
// comes back with ten thousand logs must not ask for all at once.
const questionCost = 512

// A log is read, and sent, in parcels of half the credit, from leastParcel to mostParcel: to
// open it, and to see that it is still the same, costs more than to read a chunk, and the
// gateway has a parcel synced at once. The other half is for the next log, or parcel.
const (
	leastParcel = 64 << 10
	mostParcel  = 512 << 10
)

// track is how far one log has come in one session. The session begins by asking
// what the gateway knows, unless that can be nothing; from there bytes go out in order,
// several chunks at a time, and answers come in order.
type track struct {
	key   Key
	fence uint64
	size  int64 // of the log, when last looked at

	ask     bool  // a question is to be sent
	asked   bool  // a question is on its way
	settled bool  // known is what the gateway said
	known   int64 // bytes that the gateway has, without a hole
	sent    int64 // bytes up to here were sent; never below known
	durable int64

	stepped   bool      // stepped back, and no progress since
	heard     time.Time // when something was last sent or answered
	failures  int       // in a row
	notBefore time.Time // it rests until then

	queued bool // waits for its turn
	gone   bool
}

// newTrack begins with a question. To ask for a fresh log is to wait for an answer that is
// known; should it be wrong the gateway drops what it has already.
func newTrack(k Key, fence uint64, fresh bool) *track {
	return &track{key: k, fence: fence, ask: !fresh, settled: fresh}
}

// parcel is what to send: a piece of a log, or, with size 0, a question.
type parcel struct {
	key    Key
	fence  uint64
	offset int64
	size   int
	chunk  int // the most of it that goes in one message
}

// buffers returns where to read it to. Large chunks have one each, which is used again when
// it was sent.
func (p parcel) buffers() (parts [][]byte) {
	if p.chunk <= wire.LogChunk {
		return [][]byte{make([]byte, p.size)}
	}
	for left := p.size; left > 0; left -= p.chunk {
		parts = append(parts, wire.OutputBuffer(min(left, p.chunk)))
	}
	return parts
}

// pressing reports whether there is something to send.
func (t *track) pressing() bool {
	return t.ask || t.settled && t.size > t.sent
}

// waiting reports whether an answer is to come.
func (t *track) waiting() bool {
	return t.asked || t.settled && t.durable < t.sent
}

// flight is what is on its way, in bytes of credit.
func (t *track) flight() int64 {
	if t.gone {
		return 0
	}
	n := t.sent - t.known
	if t.asked {
		n += questionCost
	}
	return n
}

// parcel returns what to send next with so much credit, and whether it is worth the room
// that is left of it. A small piece of a long log is not, it would be small for ever. When
// nothing else is on its way it goes out anyway, or a small credit would stop all. A
// question about what was sent needs no room: it may be what is missing.
func (t *track) parcel(credit, room int64) (parcel, bool) {
	if t.ask {
		return parcel{key: t.key, fence: t.fence, offset: t.sent}, t.settled || room >= questionCost
	}
	most := min(max(credit/2, leastParcel), mostParcel)
	left := t.size - t.sent
	n := min(left, most, max(room, 1))
	return parcel{t.key, t.fence, t.sent, int(n), wire.ChunkFor(credit)}, room > 0 && (n == left || n >= most/2)
}

// send counts p as sent.
func (t *track) send(p parcel, now time.Time) {
	t.heard = now
	if p.size == 0 {
		t.ask, t.asked = false, true
		return
	}
	t.sent += int64(p.size)
}

// answer takes what the gateway knows. Answers come for pieces, for questions,
// and once more when bytes are durable, and do not say which.
//
// The first one of a session says where to begin. Later ones that show less than
// before, or no progress at all although more was sent, tell of a hole: a piece
// did not arrive, or was lost behind the gateway. Then it goes on from what is
// known; the same news again, from pieces that were on their way, changes
// nothing until there was progress or the next question.
func (t *track) answer(known, durable int64, now time.Time) {
	t.heard = now
	question := t.asked
	t.asked = false
	progress := known > t.known || durable > t.durable
	t.durable = max(t.durable, durable)
	switch {
	case !t.settled, known < t.known:
		t.settled = true
		t.known, t.sent = known, known
	case known > t.known:
		t.known, t.sent = known, max(t.sent, known)
		t.stepped, t.failures = false, 0
	case !progress && t.sent > known && (question || !t.stepped):
		t.sent = known
		t.stepped = true
	}
}

// remind has the question asked, again if need be, when no answer has come for
// too long.
func (t *track) remind(now time.Time) {
	if t.waiting() && now.Sub(t.heard) >= askAgain {
		t.ask, t.asked = true, false
	}
}

// rank is 0 for a log with a question that needs no room.
func (t *track) rank() int {
	if t.ask && t.settled {
		return 0
	}
	return 1
}

// rest lets the log rest, and begins anew with a question after that.
func (t *track) rest(now time.Time) {
	t.failures++
	t.notBefore = now.Add(pause(t.failures))
	t.ask, t.asked, t.settled = true, false, false
	t.sent = t.known
}
