package session

import (
	"context"
	"hash/crc32"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
)

const (
	// shipTick is how often logs are looked at that wait for something that may
	// never come: an answer that got lost, the end of a pause.
	shipTick = 5 * time.Second
	// askAgain is how long a log is left without an answer before the gateway
	// is asked what it knows of it.
	askAgain = 15 * time.Second
	// A log that the gateway can't keep at present rests for pauseBase, twice
	// as long each time, up to pauseMax.
	pauseBase = 5 * time.Second
	pauseMax  = time.Minute
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// shipper sends what the worker's logs hold and the gateway does not: chunk by
// chunk, a few of one log after a few of another, and never more at a time than the
// gateway gave credit for. Bytes that wait in the buffers of a slow line would
// hold up everything that is said after them.
type shipper struct {
	logs Logs
	box  *Outbox
	log  *slog.Logger
	wake chan struct{} // holds one: an answer came

	mu     sync.Mutex // guards all below, and every track
	credit int64      // bytes that may be on their way
	flight int64      // bytes that are
	tracks map[Key]*track
	turn   []*track // those with something to send, in the order of their turns
}

func newShipper(logs Logs, box *Outbox, credit int64, log *slog.Logger) *shipper {
	if credit <= 0 {
		credit = wire.LogCredit
	}
	return &shipper{
		logs: logs, box: box, log: log, wake: make(chan struct{}, 1),
		credit: credit, tracks: make(map[Key]*track),
	}
}

// run ships until ctx is done.
func (s *shipper) run(ctx context.Context, out chan<- *agentv1.AgentMessage) {
	for _, k := range s.logs.Unshipped() {
		s.look(k)
	}
	tick := time.NewTicker(shipTick)
	defer tick.Stop()
	for {
		for k, ok := s.box.nextLog(); ok; k, ok = s.box.nextLog() {
			s.look(k)
		}
		if some := s.next(time.Now()); len(some) > 0 {
			if !hand(ctx, out, some) {
				return
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-s.box.grown:
		case <-s.wake:
		case <-tick.C:
			s.remind(time.Now())
		}
	}
}

// hand hands messages over one by one, so that what is more urgent goes between them. It
// tells whether all were taken.
func hand(ctx context.Context, out chan<- *agentv1.AgentMessage, some []*agentv1.AgentMessage) bool {
	for _, m := range some {
		select {
		case out <- m:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// look notes how long a log is by now.
func (s *shipper) look(k Key) {
	size, ok := s.logs.LogSize(k)
	fence, fresh := s.logs.LogFence(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !ok {
		s.dropLocked(k)
		return
	}
	t := s.tracks[k]
	if t == nil {
		t = newTrack(k, fence, fresh)
		s.tracks[k] = t
	}
	t.size = size
	s.queueLocked(t)
}

func (s *shipper) dropLocked(k Key) {
	if t := s.tracks[k]; t != nil {
		s.changeLocked(t, func() { t.gone = true })
		delete(s.tracks, k)
	}
}

// changeLocked keeps the sum of what is on its way right while f changes t.
func (s *shipper) changeLocked(t *track, f func()) {
	s.flight -= t.flight()
	f()
	s.flight += t.flight()
}

func (s *shipper) queueLocked(t *track) {
	if !t.queued && t.pressing() {
		t.queued = true
		s.turn = append(s.turn, t)
	}
}

// next returns the next messages to send, none when there is nothing or no credit for
// it. What they carry was read at once.
func (s *shipper) next(now time.Time) []*agentv1.AgentMessage {
	for {
		p, ok := s.pick(now)
		if !ok {
			return nil
		}
		if p.size == 0 {
			return []*agentv1.AgentMessage{logAppend(p, nil)}
		}
		parts := p.buffers()
		n, err := s.logs.ReadLog(p.key, p.offset, parts...)
		if n == 0 {
			s.unreadable(p, err, now)
			continue
		}
		if n < p.size {
			s.shorten(p, n)
		}
		return cut(p, parts, n)
	}
}

// cut makes messages of the first n bytes of a parcel. What fits into one goes in the
// buffer that it is in.
func cut(p parcel, parts [][]byte, n int) (some []*agentv1.AgentMessage) {
	for _, part := range parts {
		part = part[:min(len(part), n)]
		n -= len(part)
		for len(part) > 0 {
			chunk := part
			if len(part) > p.chunk {
				chunk = part[:p.chunk:p.chunk]
			}
			some = append(some, logAppend(p, chunk))
			p.offset += int64(len(chunk))
			part = part[len(chunk):]
		}
	}
	return some
}

func logAppend(p parcel, data []byte) *agentv1.AgentMessage {
	return &agentv1.AgentMessage{Body: &agentv1.AgentMessage_LogAppend{LogAppend: &agentv1.LogAppend{
		Key:    &agentv1.AttemptKey{RunId: p.key.Run, Attempt: p.key.Attempt, Fence: p.fence},
		Offset: p.offset,
		Data:   data,
		Crc32C: crc32.Checksum(data, castagnoli),
	}}}
}

// pick chooses what to send next, and counts it as sent.
func (s *shipper) pick(now time.Time) (parcel, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.turn) > 0 {
		t := s.turn[0]
		if t.gone || !t.pressing() || now.Before(t.notBefore) {
			s.turn = s.turn[1:]
			t.queued = false
			continue
		}
		p, ok := t.parcel(s.credit, s.credit-s.flight)
		if !ok && s.flight > 0 {
			return parcel{}, false // its turn comes when there is credit again
		}
		s.changeLocked(t, func() { t.send(p, now) })
		s.turn = s.turn[1:]
		t.queued = false
		s.queueLocked(t)
		return p, true
	}
	return parcel{}, false
}

// shorten takes back what could not be read of a parcel.
func (s *shipper) shorten(p parcel, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tracks[p.key]; t != nil && t.sent == p.offset+int64(p.size) {
		s.changeLocked(t, func() { t.sent = max(t.known, p.offset+int64(n)) })
		s.queueLocked(t)
	}
}

// unreadable lets a log rest that could not be read, unless it is gone.
func (s *shipper) unreadable(p parcel, err error, now time.Time) {
	_, wanted := s.logs.LogSize(p.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.tracks[p.key]
	switch {
	case t == nil:
	case !wanted:
		s.dropLocked(p.key)
	default:
		s.log.Warn("log can't be read; trying again later", "run", p.key.Run, "attempt", p.key.Attempt, "offset", p.offset, "err", err)
		s.changeLocked(t, func() { t.rest(now) })
	}
}

// acked takes an answer of the gateway. It is called by the receiver.
func (s *shipper) acked(a *agentv1.LogAck, now time.Time) {
	k := keyOf(a.GetKey())
	s.logs.LogDurable(k, a.GetDurable())
	if a.GetRefused() {
		s.logs.LogRefused(k, a.GetKey().GetFence(), a.GetError())
	}
	_, wanted := s.logs.LogSize(k)

	s.mu.Lock()
	defer s.mu.Unlock()
	defer nudge(s.wake)
	if c := a.GetCredit(); c > 0 {
		s.credit = c
	}
	t := s.tracks[k]
	switch {
	case t == nil || now.Before(t.notBefore):
	case !wanted:
		s.dropLocked(k)
	case a.GetError() != "":
		s.log.Warn("gateway can't keep a log at present; trying again later", "run", k.Run, "attempt", k.Attempt, "reason", a.GetError())
		s.changeLocked(t, func() { t.rest(now) })
	default:
		s.changeLocked(t, func() { t.answer(max(0, a.GetKnown()), a.GetDurable(), now) })
		s.queueLocked(t)
	}
}

// remind asks again about all logs that were left without an answer, and wakes
// those that have rested.
func (s *shipper) remind(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tracks {
		s.changeLocked(t, func() { t.remind(now) })
		s.queueLocked(t)
	}
	// What is asked again goes first: its answer may give back the credit that
	// the others wait for.
	slices.SortStableFunc(s.turn, func(a, b *track) int { return a.rank() - b.rank() })
}

// pause returns how long a log rests after some failures in a row.
func pause(failures int) time.Duration {
	d := pauseBase << min(failures-1, 10)
	return wire.Spread(min(d, pauseMax), wire.PingSpread, rand.Float64())
}
