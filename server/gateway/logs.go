package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
	"github.com/schedd/schedd/server/runlog"
)

// Logs takes the output of attempts; [runlog.Store] does. Sessions call it side
// by side, and two sessions of one worker may do so for the same attempt while
// one takes the place of the other.
type Logs interface {
	// Append puts data, whose CRC-32C is crc, at offset of k's log, and returns
	// how many bytes are known then. Below that, data are dropped; beyond, they
	// are not written, which is no error. Without data it only asks. It keeps none
	// of data.
	Append(k runlog.Key, offset int64, data []byte, crc uint32) (known int64, err error)

	// Sync returns when all that was appended to k's log before is durable, and
	// how much is.
	Sync(ctx context.Context, k runlog.Key) (durable int64, err error)
}

// logErrorEvery is how often a session says that output can't be kept.
const logErrorEvery = time.Minute

const (
	// maxTogether is how many attempts' output is written, or waits for the disk, at the
	// same time. More wait for their turn; the disk is asked for fewer things at a time
	// in any case.
	maxTogether = 64

	// maxUnsynced is how much output of one worker may wait for the disk, in bytes, and be
	// acknowledged as known already. As much is sent again if this primary is lost.
	maxUnsynced = 16 << 20

	// gatherFor is how long output in bulk gathers before the disk is asked to keep it: an
	// fsync costs the same for a little, and holds up those of the log that starts wait for.
	gatherFor = 10 * time.Millisecond
)

// writeLogs writes output to disk until the session ends. What is left then the
// worker sends again. Attempts of one turn are written side by side, and the next turn
// does not wait until that is durable: all that gathers for an attempt meanwhile shares
// the next fsync. A few lines are synced at once.
func (n *session) writeLogs() {
	w := &logWriter{session: n, grant: newCredit(), pending: make(map[runlog.Key]*pending)}
	defer w.syncs.Wait()
	for !n.over() {
		if all := w.take(); len(all) > 0 {
			w.write(all)
			continue
		}
		select {
		case <-n.ended:
		case <-n.intake.wake:
		}
	}
}

// logWriter writes the output of one session.
type logWriter struct {
	*session
	syncs sync.WaitGroup

	mu       sync.Mutex // guards what follows
	grant    credit
	told     time.Time // when it was last said that output can't be kept
	unsynced int       // bytes that were written and wait for the disk
	pending  map[runlog.Key]*pending
}

// pending is an attempt with output that waits for the disk, or an answer. The lock of
// its writer guards it.
type pending struct {
	key     runlog.Key
	syncing bool  // the disk is at work
	more    bool  // something was written that the sync under way may not cover
	written int   // bytes of that
	open    int   // bytes of which the worker was not told
	owed    bool  // an answer, be it news or not
	failed  error // why output is not kept
	known   int64
	durable int64

	toldKnown, toldDurable int64 // by the last answer
}

// take returns what is to be written now. Output of an attempt that waits for the disk
// gathers meanwhile, as long as the worker has credit left.
func (w *logWriter) take() []delivery {
	w.mu.Lock()
	defer w.mu.Unlock()
	pressed := w.pressedLocked()
	return w.intake.takeAll(maxTogether-len(w.pending), func(k runlog.Key) bool {
		p := w.pending[k]
		return pressed || p == nil || !p.syncing
	})
}

// pressedLocked tells whether the worker has used up half of its credit, and may be told
// what is known before that is durable.
func (w *logWriter) pressedLocked() bool {
	return w.intake.open() >= int(w.grant.granted/2) && w.unsynced < maxUnsynced
}

// write writes output of different attempts, side by side.
func (w *logWriter) write(all []delivery) {
	var others sync.WaitGroup
	for _, d := range all[1:] {
		others.Go(func() { w.deliver(d) })
	}
	w.deliver(all[0])
	others.Wait()
}

// deliver writes output of one attempt and has it made durable, which is when it is
// answered. Only a worker that is short of credit is told at once what is known: how fast
// it may send depends on the line then, and not on the disk.
func (w *logWriter) deliver(d delivery) {
	size, owns := sizeOf(d.chunks), w.owns(d.key)
	known, err := int64(0), error(nil)
	if owns {
		known, err = w.session.write(d.key, d.chunks)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over() {
		return // they may only say that the wait was given up
	}
	if !owns {
		err = fmt.Errorf("attempt %v was not given to worker %s: its output is not taken", d.key, w.Worker)
		w.answerLocked(&pending{key: d.key, open: size, failed: err})
		return
	}
	p := w.pending[d.key]
	if p == nil {
		p = &pending{key: d.key}
		w.pending[d.key] = p
		w.syncs.Go(func() { w.sync(p) })
	}
	p.owed = p.owed || known <= p.known // it asks, or has to go back
	p.known, p.failed = known, cmp.Or(p.failed, err)
	p.more, p.written, p.open = true, p.written+size, p.open+size
	w.unsynced += size
	if p.failed == nil && w.pressedLocked() {
		w.answerLocked(p)
	}
}

// sync makes durable what was written of an attempt, and what is written meanwhile, and
// answers for it.
func (w *logWriter) sync(p *pending) {
	for w.gather(p) {
		size := w.beginSync(p)
		durable, err := w.server.config.Logs.Sync(w.stream.Context(), p.key)
		if w.over() {
			return // err may only say that the wait for the disk was given up
		}
		w.mu.Lock()
		w.unsynced -= size
		p.syncing = false
		p.durable, p.failed = durable, cmp.Or(p.failed, err)
		p.known = max(p.known, durable)
		// An answer without news would say that what came since has left a hole.
		if p.owed || p.failed != nil || p.known != p.toldKnown || p.durable != p.toldDurable {
			w.answerLocked(p)
		}
		w.mu.Unlock()
		signal(w.intake.wake) // less waits for the disk
	}
}

// gather waits while more of an attempt's output may come that can share an fsync, and
// tells whether there is any to sync. If not, the attempt waits for the disk no more.
func (w *logWriter) gather(p *pending) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.more && p.written >= wire.LogChunk {
		w.mu.Unlock()
		w.rest(gatherFor)
		w.mu.Lock()
	}
	if !p.more {
		delete(w.pending, p.key)
		signal(w.intake.wake) // what has gathered may be taken
	}
	return p.more
}

// rest waits, unless the session ends.
func (w *logWriter) rest(d time.Duration) {
	over := time.NewTimer(d)
	defer over.Stop()
	select {
	case <-over.C:
	case <-w.ended:
	}
}

// beginSync returns how many bytes the sync covers that begins now.
func (w *logWriter) beginSync(p *pending) (size int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	size = p.written
	p.syncing, p.more, p.written = true, false, 0
	return size
}

// answerLocked tells the worker how far an attempt is, and gives credit back.
func (w *logWriter) answerLocked(p *pending) {
	now := time.Now()
	ack := &agentv1.LogAck{
		Key:   &agentv1.AttemptKey{RunId: p.key.Run, Attempt: p.key.Attempt, Fence: p.key.Fence},
		Known: p.known, Durable: p.durable, Credit: w.grant.answered(p.open, now),
	}
	if p.failed != nil {
		w.server.counts.logErrors.Add(1)
		ack.Error = sentence(p.failed.Error())
		ack.Refused = errors.Is(p.failed, runlog.ErrSealed) // what is on record of the attempt stays
		w.tellLocked(p, now)
	}
	w.answer(p.key, p.open, ack)
	p.open, p.owed, p.failed = 0, false, nil
	p.toldKnown, p.toldDurable = p.known, p.durable
}

// tellLocked says that output is not kept: now and then, since a full disk fails for each
// chunk.
func (w *logWriter) tellLocked(p *pending, now time.Time) {
	if now.Sub(w.told) < logErrorEvery {
		return
	}
	w.told = now
	log := w.log.With("run", p.key.Run, "attempt", p.key.Attempt, "fence", p.key.Fence, "err", p.failed)
	if errors.Is(p.failed, runlog.ErrSealed) {
		log.Warn("output refused, it is not of the log that is on record")
		return
	}
	log.Warn("output not kept, the worker sends it again later")
}

// sizeOf returns the bytes of output in chunks.
func sizeOf(chunks []chunk) (size int) {
	for _, c := range chunks {
		size += len(c.data)
	}
	return size
}

// owns tells whether an attempt was given to this worker.
func (n *session) owns(k runlog.Key) bool {
	owns := n.server.config.Owns
	return owns == nil || owns(n.stream.Context(), n.Worker, k)
}

// write appends chunks to a log in their order, and returns how much is known. After an
// error those behind would leave a hole, so they are not even tried.
func (n *session) write(key runlog.Key, chunks []chunk) (known int64, err error) {
	for _, c := range chunks {
		if !c.damaged {
			known, err = n.server.config.Logs.Append(key, c.offset, c.data, c.crc)
		}
		if c.damaged || errors.Is(err, runlog.ErrChecksum) {
			known, err = n.server.config.Logs.Append(key, 0, nil, 0)
			err = cmp.Or(err, fmt.Errorf("the %d bytes at offset %d came with another checksum: send them again", len(c.data), c.offset))
		}
		if err != nil {
			return known, err
		}
		n.server.counts.logBytes.Add(uint64(len(c.data)))
		wire.ReuseOutput(c.data)
	}
	return known, nil
}

// answer gives the credit of so many bytes back and acknowledges them, in this order: by
// our count there is never more on its way than by the worker's.
func (n *session) answer(key runlog.Key, size int, ack *agentv1.LogAck) {
	n.intake.answered(size, ack.GetCredit())
	if !n.out.ack(key, ack) {
		n.end(silent(codes.ResourceExhausted, "acknowledgements for %d attempts wait for the worker, which does not take them", maxAcks))
	}
}
