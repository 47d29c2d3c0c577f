package gateway

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/server/runlog"
)

// Logs takes the output of attempts; [runlog.Store] does. Sessions call it side
// by side, and two sessions of one worker may do so for the same attempt while
// one takes the place of the other.
type Logs interface {
	// Append puts data, whose CRC-32C is crc, at offset of k's log, and returns
	// how many bytes are known then. Below that, data are dropped; beyond, they
	// are not written, which is no error. Without data it only asks.
	Append(k runlog.Key, offset int64, data []byte, crc uint32) (known int64, err error)

	// Sync returns when all that was appended to k's log before is durable, and
	// how much is.
	Sync(ctx context.Context, k runlog.Key) (durable int64, err error)
}

// logErrorEvery is how often a session says that output can't be kept: a full
// disk fails for each chunk.
const logErrorEvery = time.Minute

// maxTogether is how many attempts' output is written at the same time. More wait for
// the next turn; the disk is asked for fewer things at a time in any case.
const maxTogether = 64

// writeLogs writes output to disk until the session ends. What is left then the
// worker sends again. All that gathers for an attempt while the disk is busy
// shares the next fsync. Attempts of one turn are written side by side, and the next turn
// begins when the slowest of them is through.
func (n *session) writeLogs() {
	w := logWriter{session: n, grant: newCredit()}
	for !n.over() {
		if all := n.intake.takeAll(maxTogether); len(all) > 0 {
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

	mu    sync.Mutex // guards what follows
	grant credit
	told  time.Time // when it was last said that output can't be kept
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

// deliver writes output of one attempt and answers for it.
func (w *logWriter) deliver(d delivery) {
	ack, err := w.session.write(d.key, d.chunks)
	if w.over() {
		return // err may only say that the wait for the disk was given up
	}
	if err != nil {
		w.server.counts.logErrors.Add(1)
		ack.Error = sentence(err.Error())
		if w.isNews(time.Now()) {
			w.log.Warn("output not kept, the worker sends it again later", "run", d.key.Run, "attempt", d.key.Attempt, "fence", d.key.Fence, "err", err)
		}
	}
	w.mu.Lock()
	ack.Credit = w.grant.answered(sizeOf(d.chunks), time.Now())
	w.mu.Unlock()
	w.answer(d.key, d.chunks, ack)
}

// isNews reports whether it is time to say again that output can't be kept.
func (w *logWriter) isNews(now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now.Sub(w.told) < logErrorEvery {
		return false
	}
	w.told = now
	return true
}

// sizeOf returns the bytes of output in chunks.
func sizeOf(chunks []chunk) (size int) {
	for _, c := range chunks {
		size += len(c.data)
	}
	return size
}

// write appends chunks to a log in their order and makes them durable. After an
// error those behind would leave a hole, so they are not even tried.
func (n *session) write(key runlog.Key, chunks []chunk) (*agentv1.LogAck, error) {
	ack := &agentv1.LogAck{Key: &agentv1.AttemptKey{RunId: key.Run, Attempt: key.Attempt, Fence: key.Fence}}
	if owns := n.server.config.Owns; owns != nil && !owns(n.stream.Context(), n.Worker, key) {
		return ack, fmt.Errorf("attempt %v was not given to worker %s: its output is not taken", key, n.Worker)
	}
	var failed error
	for _, c := range chunks {
		if c.damaged {
			failed = fmt.Errorf("the %d bytes at offset %d came with another checksum: send them again", len(c.data), c.offset)
			c.offset, c.data, c.crc = 0, nil, 0
		}
		known, err := n.server.config.Logs.Append(key, c.offset, c.data, c.crc)
		ack.Known = known
		if err != nil {
			failed = err
		}
		if failed != nil {
			break
		}
		n.server.counts.logBytes.Add(uint64(len(c.data)))
	}
	durable, err := n.server.config.Logs.Sync(n.stream.Context(), key)
	ack.Durable, ack.Known = durable, max(durable, ack.Known)
	if failed == nil {
		failed = err
	}
	return ack, failed
}

// answer gives the credit of chunks back and acknowledges them, in this order: by
// our count there is never more on its way than by the worker's.
func (n *session) answer(key runlog.Key, chunks []chunk, ack *agentv1.LogAck) {
	n.intake.answered(sizeOf(chunks), ack.GetCredit())
	if !n.out.ack(key, ack) {
		n.end(silent(codes.ResourceExhausted, "acknowledgements for %d attempts wait for the worker, which does not take them", maxAcks))
	}
}
