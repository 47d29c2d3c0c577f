package runlog

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
)

// buffers are for one block of a file.
var buffers = sync.Pool{New: func() any { b := make([]byte, maxBlock); return &b }}

// framesAtOnce is how many frames are written at once, at most.
const framesAtOnce = 4

// Append puts data, whose CRC-32C is crc, at offset of k's log, and returns how
// many bytes of the log are known then. It is positional and idempotent: data
// at the end are appended, what is below the end is dropped (the first to come
// is kept), and data beyond the end are not written: the sender goes on from
// known. Append without data only asks for known. Nothing is durable before
// [Store.Sync]; known may fall back after a restart or a failed fsync, but
// never below what Sync acknowledged, while the disk gives back what it stored.
//
// At most [MaxAppend] bytes; more, and what is no key or offset, is
// [ErrInvalid]. [ErrChecksum]: send again. [ErrSealed]: bytes beyond the sealed
// length of a log that is whole here by now: those before are taken, and none of these. Other errors are of the disk: known says how
// much was taken nevertheless, and the rest may be sent again later; among them
// [ErrUnavailable], after a failed fsync.
func (s *Store) Append(k Key, offset int64, data []byte, crc uint32) (known int64, err error) {
	if offset < 0 || len(data) > MaxAppend {
		return 0, fmt.Errorf("append %d bytes at %d to log %v: %w", len(data), offset, k, ErrInvalid)
	}
	pieces, sum := sumPieces(data)
	if sum != crc {
		return 0, fmt.Errorf("append %d bytes at %d to log %v: %w", len(data), offset, k, ErrChecksum)
	}
	a, err := s.begin(k, nil)
	if err != nil {
		return 0, fmt.Errorf("append to log %v: %w", k, err)
	}
	defer s.end(a)

	stop := offset + int64(len(data))
	if err := s.extend(a, offset, data, pieces[:]); err != nil {
		s.fail(err)
		return a.known, fmt.Errorf("append to log %v at %d: %w", k, a.known, err)
	}
	if len(data) > 0 && a.sealed && stop > a.length && a.known == a.length {
		return a.known, fmt.Errorf("append to log %v up to %d, sealed at %d: %w", k, stop, a.length, ErrSealed)
	}
	return a.known, nil
}

// extend puts that part of data at offset in a log that follows what is known, and is not
// beyond its end; pieces are the checksums of all of data. The turn is held.
func (s *Store) extend(a *attempt, offset int64, data []byte, pieces []uint32) error {
	stop := offset + int64(len(data))
	if a.sealed {
		stop = min(stop, a.length)
	}
	follows := func() bool { return offset <= a.known && a.known < stop }
	if !follows() {
		return nil
	}
	// Less may be known of a log whose fsync failed when it has been stored anew.
	if err := s.restore(a); err != nil || !follows() {
		return err
	}
	if some := data[a.known-offset : stop-offset]; len(some) < len(data) {
		others, _ := sumPieces(some)
		data, pieces = some, others[:]
	}
	return s.put(a, data, pieces)
}

// put writes data behind all that is known. pieces are the checksums of what becomes
// frames. The turn is held.
func (s *Store) put(a *attempt, data []byte, pieces []uint32) error {
	h, err := s.writable(a)
	if err != nil {
		return err
	}
	defer s.unpin(a, h)
	seed := seedOf(a.key)
	for some := range slices.Chunk(data, framesAtOnce*maxFrame) {
		var heads [framesAtOnce * frameHeader]byte
		var parts [2 * framesAtOnce][]byte // the data stay where they are
		head, raw, off := heads[:0], parts[:0], a.known
		for piece := range slices.Chunk(some, maxFrame) {
			begin := len(head)
			head = appendHead(head, seed, frame{kind: kindData, off: off, data: piece}, pieces[0])
			raw = append(raw, head[begin:], piece)
			off += int64(len(piece))
			pieces = pieces[1:]
		}
		if err := s.writeEnd(a, h, raw...); err != nil {
			return err
		}
		s.set(func() {
			for piece := range slices.Chunk(some, maxFrame) {
				a.add(len(piece))
			}
			a.broken, a.touched = false, true
			a.tellLocked()
		})
	}
	return nil
}

// writable is reach, but the file is made if there is none. The turn is held.
func (s *Store) writable(a *attempt) (*handle, error) {
	if a.exists {
		return s.reach(a)
	}
	const flags = os.O_RDWR | os.O_CREATE | os.O_TRUNC
	f, err := os.OpenFile(a.path, flags, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		if err := os.Mkdir(a.shard.path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
		f, err = os.OpenFile(a.path, flags, 0o600)
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	a.shard.created++
	a.exists, a.touched, a.name = true, true, a.shard.created
	h, victims := s.adoptLocked(a, f)
	s.mu.Unlock()
	s.closeAll(victims)
	return h, nil
}

// writeEnd writes raw behind the last good frame, one part after the other, and leaves
// nothing else there. The turn is held.
func (s *Store) writeEnd(a *attempt, h *handle, raw ...[]byte) error {
	if a.junk {
		if err := h.file.Truncate(a.end); err != nil {
			return err
		}
		s.set(func() { a.junk = false })
	}
	if err := writeParts(h.file, raw, a.end); err != nil {
		if h.file.Truncate(a.end) != nil {
			s.set(func() { a.junk = true })
		}
		return err
	}
	return nil
}

// set runs f with the lock held.
func (s *Store) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// Seal tells that k's log ends at length, as the worker said with its result.
// Bytes may be missing yet; the log is complete when all are known. Telling it
// again changes nothing, another length is [ErrSealed], as is one below what is
// known. The seal survives a restart only when the log is complete and durable
// (see the package's documentation). Sealing an attempt that printed nothing
// costs no file and no I/O.
func (s *Store) Seal(k Key, length int64) error {
	if err := k.Check(); err != nil || length < 0 {
		return fmt.Errorf("seal log %v at %d: %w", k, length, errors.Join(err, ErrInvalid))
	}
	if length == 0 && s.sealUnread(k) {
		return nil
	}
	a, err := s.begin(k, nil)
	if err != nil {
		return fmt.Errorf("seal log %v: %w", k, err)
	}
	defer s.end(a)
	if a.sealed && a.length != length || a.known > length {
		return fmt.Errorf("seal log %v at %d, sealed is %v at %d, known is %d: %w", k, length, a.sealed, a.length, a.known, ErrSealed)
	}
	s.set(func() {
		if !a.sealed {
			a.sealed, a.length = true, length
			a.tellLocked()
		}
		if length == 0 {
			s.empty.Put(k, struct{}{})
		}
	})
	s.finish(a)
	return nil
}

// sealUnread remembers that k has no log, unless the attempt is in use. Whether a
// file says otherwise is found out when somebody looks, and then the file is
// believed.
func (s *Store) sealUnread(k Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.logs[k]; s.closed || a != nil && a.done {
		return false
	}
	s.empty.Put(k, struct{}{})
	return true
}

// finish writes the end frame of a log that is complete and durable. If it
// fails nothing is lost: the seal is in memory, and told again after a restart.
// The turn is held.
func (s *Store) finish(a *attempt) {
	s.mu.Lock()
	due := a.exists && !a.gone && !a.ended && a.complete() && a.durable == a.length && a.suspect == nil
	s.mu.Unlock()
	if !due {
		return
	}
	h, err := s.reach(a)
	if err == nil {
		err = s.writeEnd(a, h, appendHead(nil, seedOf(a.key), frame{kind: kindEnd, off: a.length}, 0))
		s.unpin(a, h)
	}
	if err != nil {
		s.log.Warn("writing the end of a log, the seal is kept in memory", "run", a.key.Run, "attempt", a.key.Attempt, "err", err)
		return
	}
	s.set(func() { a.ended = true })
}
