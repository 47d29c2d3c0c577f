// Package journal is what a worker must not forget about its attempts when it
// crashes: that it accepted one, started it, how it ended, and that the leader
// has that on record.
//
// It is one append-only file. Each record carries a checksum and is on the disk
// (fsync) before [Journal.Append] returns; calls that come at the same time
// share an fsync, and what is in no hurry waits a little to share one
// ([Journal.AppendSoon]). What only has to outlive the process is written and not synced
// ([Journal.Note]). The journal checks the order of an attempt's life, and so is
// the one place that stops an attempt from being started twice.
//
// It never interprets a payload, starts nothing, and never decides what becomes
// of an attempt: that is its caller's work. It expects to be the only one that
// has the file open; whoever owns the worker's data directory sees to that.
//
// # Damage
//
// Only what is not synced can be torn by a crash. What is behind the last whole record
// is taken for that, and cut off: no record tells otherwise. Zeros there are room for more
// records, as long as they are no more than that. Before a whole record
// reading goes on behind the damage: the checksum of a record covers its place in the
// file, so what is found there is a record that was written there and not bytes that
// look like one. Stopping instead would forget attempts that are certainly known.
//
// Every record tells up to where the file was synced when it was written. So [Open] can
// tell that damage before that is a loss of acknowledged records (a bad disk, somebody's
// editor). What was lost can't be known, but the records behind tell the highest fence
// accepted before them, and every unknown attempt up to that fence is refused
// from then on ([ErrUncertain]). Damage behind that may be a torn write that nobody relies
// on, or a later loss: nothing is refused for it, but the records behind it count, since
// they may have been acknowledged. To take an attempt for accepted that never was is
// the safe side: it is not accepted again.
package journal

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/schedd/schedd/agent/gather"
)

// Limits of what may be appended.
const (
	MaxRun     = 255     // bytes of Key.Run
	MaxPayload = 4 << 20 // bytes of one payload
	maxBatch   = 16 << 20
)

// Tombstones is how many acknowledged attempts are remembered, so that a launch
// that arrives late is recognised. It is a count and not an age, since a wall
// clock that jumps must not make the worker forget.
const Tombstones = 10_000

// Errors of [Journal.Append]. Nothing of the call was written, unless the error
// is none of these.
var (
	// ErrExists is returned when the record is there already: most important,
	// Accepted for an attempt that was accepted before, acknowledged or not.
	// The attempt must not be started again.
	ErrExists = errors.New("already in the journal")

	// ErrOrder is returned for a step that can't follow what is known: Started
	// or Exited without Accepted, Started after Exited, Acked without Exited,
	// anything after Acked.
	ErrOrder = errors.New("out of order")

	// ErrFence is returned when a record names another fence than the Accepted
	// of its attempt; for Accepted itself together with ErrExists, and only when it
	// is the newer one: the leader's state is one that was restored.
	ErrFence = errors.New("another fence than accepted")

	// ErrUncertain is returned for Accepted when the journal was damaged and
	// this attempt may be among what was lost. It must not be started; it
	// should be reported as lost.
	ErrUncertain = errors.New("may have been accepted before: the journal was damaged")

	// ErrInvalid is returned for a record that can't be written: no or a too
	// long run, attempt 0, an unknown kind, a payload over [MaxPayload].
	ErrInvalid = errors.New("invalid record")

	// ErrClosed is returned after [Journal.Close].
	ErrClosed = errors.New("journal is closed")

	// ErrVersion is returned by [Open] for a file that a newer version wrote.
	// The file is left as it is.
	ErrVersion = errors.New("journal was written by a newer version")
)

// Key names one attempt.
type Key struct {
	Run     string
	Attempt uint32 // counts from 1
}

// Kind is a step in the life of an attempt.
type Kind uint8

// The steps, in their order. Started is left out for an attempt that could not
// be started.
const (
	Accepted Kind = iota + 1 // the launch is known; the process may be started from now on
	Started                  // the process runs, or ran
	Exited                   // the result is known
	Acked                    // the leader has the result; the attempt is forgotten but for a tombstone
)

// floor is written by the journal itself: its fence is the one up to which
// unknown attempts are refused. It also ends every rewritten file, so that
// nothing before it can be taken for a torn write.
const floor Kind = 255

func (k Kind) String() string {
	switch k {
	case Accepted:
		return "accepted"
	case Started:
		return "started"
	case Exited:
		return "exited"
	case Acked:
		return "acked"
	case floor:
		return "floor"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Record is one step of one attempt.
type Record struct {
	Kind    Kind
	Key     Key
	Fence   uint64
	Time    time.Time // wall clock, to the nanosecond, read back in UTC
	Payload []byte    // the caller's: the launch, the process, the result
}

// Entry is what is known of one attempt that is not yet acknowledged. Its
// records are shared with the journal: read them, never change them.
type Entry struct {
	Key   Key
	Fence uint64

	// Nil is a step not taken. Accepted is nil only when damage or a torn write took
	// it; such an attempt was accepted and must not be started.
	Accepted, Started, Exited *Record
}

// Journal is an open journal. Its methods may be called concurrently.
type Journal struct {
	path string
	disk disk
	log  *slog.Logger

	// turn is held (by having sent to it) by the one call that writes, and
	// guards all down to the mutex. It is a channel because it is held during
	// I/O, and because a call can wait for it and for its own result at once.
	turn       chan struct{}
	file       file
	size       int64 // of the file, up to its last record
	length     int64 // of the file, with the room behind that
	step       int64 // how much room is made at a time; 0: none
	synced     int64 // how much of it a crash of the host leaves
	table      *table
	failed     error // the first error that ended it; never reset
	compacting bool
	since      []*Record // appended since the running compaction began
	compactMin int64     // smaller files are left alone
	notBefore  int64     // size below which a failed compaction isn't tried again

	wg sync.WaitGroup // the compaction

	mu      sync.Mutex // guards what follows
	queue   []*request
	patient []*request // that wait for company, and are not in queue yet
	idle    []*request // likewise, and wait for no fsync
	rhythm  gather.Rhythm
	notes   gather.Rhythm // of those that may be idle
	closed  bool
}

// request is one Append that waits for its turn.
type request struct {
	recs []*Record
	size int
	need need
	err  error      // why it was refused
	done chan error // holds one
}

// need is how sure records have to be when their call returns.
type need int

const (
	noted      need = iota // written
	synced                 // on the disk
	syncedSoon             // likewise, and it may take a little longer
	notedSoon              // written, and that may take a little longer
)

func (r *request) isSynced() bool { return r.need == synced || r.need == syncedSoon }

// Append writes recs and returns when they are on the disk. It takes all or
// none of them; only a crash in between may leave some. Records that
// are refused say why ([ErrExists], [ErrOrder], [ErrFence], [ErrUncertain],
// [ErrInvalid], [ErrClosed]).
//
// A full disk (ENOSPC, EDQUOT), or one that was made read-only (EROFS), refuses this
// call and leaves what was there intact: a later call tries again. Any other error of the disk ends the
// journal: that error is returned by this and every later Append, since after a
// failed fsync nobody knows what is on the disk, and the worker must accept no
// more work until it is opened again.
func (j *Journal) Append(recs ...Record) error {
	if len(recs) == 0 {
		return nil
	}
	return j.add(recs, synced)
}

// AppendSoon is Append for records that nobody is waiting for: while others come in quick
// succession it waits for some of them, [gather.Longest] at most, so that they share an
// fsync. The next Append or Sync takes along all that wait.
func (j *Journal) AppendSoon(recs ...Record) error {
	if len(recs) == 0 {
		return nil
	}
	return j.add(recs, syncedSoon)
}

// Note is Append for records that need not outlive a crash of the host: it returns
// when they are written, and does not wait for the disk. The next Append or Sync makes
// them durable. It may fail as Append does.
func (j *Journal) Note(recs ...Record) error {
	if len(recs) == 0 {
		return nil
	}
	return j.add(recs, noted)
}

// NoteSoon is Note for records that nobody is waiting for: while others come in quick
// succession it waits for some of them, [gather.Longest] at most, so that they share a write.
// The next call that waits for an fsync takes along all that wait.
func (j *Journal) NoteSoon(recs ...Record) error {
	if len(recs) == 0 {
		return nil
	}
	return j.add(recs, notedSoon)
}

// Sync returns when all that was noted before is on the disk.
func (j *Journal) Sync() error { return j.add(nil, synced) }

func (j *Journal) add(recs []Record, n need) error {
	r, err := newRequest(recs)
	if err != nil {
		return err
	}
	r.need = n
	waits, err := j.enqueue(r, time.Now())
	if err != nil {
		return err
	}
	if waits {
		timer := time.NewTimer(gather.Longest)
		defer timer.Stop()
		select {
		case err := <-r.done:
			return err
		case <-timer.C:
			j.hurry(n)
		}
	}
	runtime.Gosched() // who is about to append as well does it first, and shares the fsync
	for {
		select {
		case err := <-r.done:
			return err
		case j.turn <- struct{}{}: // nobody writes: this call does, for all that wait
			j.commit()
			<-j.turn
		}
	}
}

// Close waits for the calls under way, syncs and closes the file. The journal can't
// be used after it; a second Close does nothing.
func (j *Journal) Close() error {
	j.mu.Lock()
	again := j.closed
	j.closed = true
	j.hurryLocked()
	j.mu.Unlock()
	if again {
		return nil
	}
	j.turn <- struct{}{}
	j.commit() // nothing is queued after this
	<-j.turn
	j.wg.Wait()
	j.turn <- struct{}{}
	defer func() { <-j.turn }()
	var err error
	if j.failed == nil {
		err = j.flush(nil, true)
		_ = j.file.Truncate(j.size) // else the next life finds room
	}
	if cerr := j.file.Close(); cerr != nil {
		err = errors.Join(err, fmt.Errorf("close journal %q: %w", j.path, cerr))
	}
	return err
}

func newRequest(recs []Record) (*request, error) {
	r := &request{recs: make([]*Record, len(recs)), done: make(chan error, 1)}
	for i, rec := range recs {
		if err := rec.valid(); err != nil {
			return nil, err
		}
		rec.Time = rec.Time.UTC().Round(0)
		rec.Payload = append([]byte(nil), rec.Payload...) // ours: it may be written again by a compaction
		r.recs[i] = &rec
		r.size += frameSize(&rec)
	}
	if r.size > maxBatch {
		return nil, fmt.Errorf("append %d records of %d bytes, more than %d at once: %w", len(recs), r.size, maxBatch, ErrInvalid)
	}
	return r, nil
}

func (r *Record) valid() error {
	switch {
	case r.Kind < Accepted || r.Kind > Acked:
		return fmt.Errorf("append record of %v: %w", r.Kind, ErrInvalid)
	case r.Key.Run == "" || len(r.Key.Run) > MaxRun || r.Key.Attempt == 0:
		return fmt.Errorf("append record of run %.40q attempt %d: %w", r.Key.Run, r.Key.Attempt, ErrInvalid)
	case len(r.Payload) > MaxPayload:
		return fmt.Errorf("append %v of run %q with a payload of %d bytes: %w", r.Kind, r.Key.Run, len(r.Payload), ErrInvalid)
	}
	return nil
}

// enqueue has a request wait for its turn, or, if it reports that, for company first.
// One that waits for an fsync takes along who waits for company.
func (j *Journal) enqueue(r *request, now time.Time) (waits bool, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return false, ErrClosed
	}
	if r.need == noted {
		j.queue = append(j.queue, r)
		return false, nil
	}
	if r.need == notedSoon {
		j.idle = append(j.idle, r)
		if j.notes.Busy(now) && len(j.idle) < gather.Enough {
			return true, nil
		}
		j.rouseLocked()
		return false, nil
	}
	j.patient = append(j.patient, r)
	if j.rhythm.Busy(now) && r.need == syncedSoon && len(j.patient) < gather.Enough {
		return true, nil
	}
	j.hurryLocked()
	return false, nil
}

// hurry has those wait for their turn who have waited long enough for company.
func (j *Journal) hurry(n need) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if n == notedSoon {
		j.rouseLocked()
		return
	}
	j.hurryLocked()
}

func (j *Journal) hurryLocked() {
	j.queue = append(j.queue, j.patient...)
	j.patient = nil
	j.rouseLocked()
}

// rouseLocked is hurryLocked for those alone that wait for no fsync.
func (j *Journal) rouseLocked() {
	j.queue = append(j.queue, j.idle...)
	j.idle = nil
}

// dequeue takes what may go into one batch. Those who wait for company have found it if that
// is going to be synced.
func (j *Journal) dequeue() []*request {
	j.mu.Lock()
	defer j.mu.Unlock()
	if slices.ContainsFunc(j.queue, (*request).isSynced) {
		j.hurryLocked()
	}
	n, size := 0, 0
	for n < len(j.queue) && (n == 0 || size+j.queue[n].size <= maxBatch) {
		size += j.queue[n].size
		n++
	}
	batch := j.queue[:n:n]
	j.queue = j.queue[n:]
	if len(j.queue) == 0 {
		j.queue = nil
	}
	return batch
}
