package gateway

import (
	"errors"
	"hash/crc32"
	"sync"

	"github.com/schedd/schedd/proto/wire"
	"github.com/schedd/schedd/server/runlog"
)

const (
	// maxChunks is how many chunks may wait, however small. It is above what one
	// worker has attempts, which after a break it asks about all at once.
	maxChunks = 1 << 14

	// maxMerged bounds a chunk that others were added to, and leastBulk is from how many bytes
	// on output is no longer added to another: to copy it costs more than to write it alone.
	maxMerged = 64 << 10
	leastBulk = wire.LogChunk
)

var (
	errCredit = errors.New("more output than its credit allows")
	errChunks = errors.New("more chunks of output than can wait")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// chunk is output at its place in a log. One without data asks what is known.
type chunk struct {
	offset  int64
	data    []byte
	crc     uint32
	damaged bool // came with another checksum: answered, never written. Bulk is looked at when it is
}

// intake holds output on its way to disk. Attempts take turns, so that one that
// floods does not hold up the others. All methods may be called from any
// goroutine, and none blocks.
type intake struct {
	wake chan struct{} // holds a token when there may be something to take

	mu         sync.Mutex
	order      []runlog.Key // attempts with chunks waiting; whose turn it is first
	waiting    map[runlog.Key][]chunk
	chunks     int // in waiting
	unanswered int // bytes put and not answered
	credit     int // the most that the worker ever was granted
}

// mostLocked is how much output of one worker may wait here. A worker may
// send its credit's worth; the other half is for one that was told to go
// back in its log while that was on its way, and rightly sends
// it anew before the old is answered.
func (q *intake) mostLocked() int { return 2 * q.credit }

func newIntake() *intake {
	return &intake{wake: make(chan struct{}, 1), waiting: make(map[runlog.Key][]chunk), credit: wire.LogCredit}
}

// put adds a chunk. It keeps the data. An error says that the worker sent more
// than it may.
func (q *intake) put(k runlog.Key, c chunk) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.unanswered+len(c.data) > q.mostLocked() {
		return errCredit
	}
	ahead := q.waiting[k]
	if !merge(ahead, c) {
		if q.chunks >= maxChunks {
			return errChunks
		}
		q.chunks++
		if ahead == nil {
			q.order = append(q.order, k)
		}
		q.waiting[k] = append(ahead, c)
	}
	q.unanswered += len(c.data)
	signal(q.wake)
	return nil
}

// merge makes c a part of the last of the chunks ahead of it, if it goes on where
// that one ends and is small. A job that prints many small pieces fills the disk's queue with
// few large ones. Should the one ahead turn out to be damaged, the checksum of both still
// says so.
func merge(ahead []chunk, c chunk) bool {
	if len(ahead) == 0 {
		return false
	}
	if len(c.data) == 0 && !c.damaged {
		return true // it asks for an answer, and those ahead get one
	}
	last := &ahead[len(ahead)-1]
	if last.damaged || c.damaged || len(c.data) >= leastBulk || c.offset != last.offset+int64(len(last.data)) || len(last.data)+len(c.data) > maxMerged {
		return false
	}
	if size := len(last.data) + len(c.data); size > cap(last.data) {
		last.data = append(make([]byte, 0, min(2*size, maxMerged)), last.data...)
	}
	last.data = append(last.data, c.data...)
	last.crc = crc32.Update(last.crc, castagnoli, c.data)
	return true
}

// delivery is output of one attempt.
type delivery struct {
	key    runlog.Key
	chunks []chunk
}

// takeAll removes and returns all chunks of up to most attempts, those whose turn it
// is, of those that are ready. When they are dealt with, their bytes are given to
// answered. It holds the lock throughout: an attempt that is put to again in between
// would be there twice.
func (q *intake) takeAll(most int, ready func(runlog.Key) bool) (all []delivery) {
	q.mu.Lock()
	defer q.mu.Unlock()
	var later []runlog.Key
	for len(all) < most {
		k, ok := pop(&q.order)
		if !ok {
			break
		}
		if !ready(k) {
			later = append(later, k)
			continue
		}
		all = append(all, delivery{k, q.waiting[k]})
		q.chunks -= len(q.waiting[k])
		delete(q.waiting, k)
	}
	q.order = append(later, q.order...)
	return all
}

// open returns how many bytes were put and not answered.
func (q *intake) open() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.unanswered
}

// answered gives credit for n bytes back, to a worker that is granted so much in all.
func (q *intake) answered(n int, credit int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.unanswered -= n
	q.credit = max(q.credit, int(credit))
}
