package raftstore

import (
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

const (
	// stretchBytes is how exactly it is known where in the log its bytes are: what lies
	// closer together than that is counted together.
	stretchBytes = 1 << 20

	// entryBytes is about what an entry takes on the disk beside what is in it.
	entryBytes = 64
)

// logSize is how many bytes of entries the log holds, and where. Raft counts entries, of
// which one may have a hundred bytes, and one a million.
type logSize struct {
	over chan struct{} // holds a token when there is more than the limit

	mu        sync.Mutex // guards what follows
	stretches []stretch  // in the order of the log
	bytes     int64      // of all of them
	limit     int64      // 0: none
}

// stretch is neighbouring entries.
type stretch struct {
	first, last uint64
	bytes       int64
}

func newLogSize() *logSize { return &logSize{over: make(chan struct{}, 1)} }

// sizeOf is how much an entry takes.
func sizeOf(l *raft.Log) int64 { return int64(len(l.Data)+len(l.Extensions)) + entryBytes }

// found takes note of an entry that was there, before all that are known.
func (z *logSize) found(l *raft.Log) {
	z.mu.Lock()
	defer z.mu.Unlock()
	n := sizeOf(l)
	z.bytes += n
	if len(z.stretches) > 0 {
		if s := &z.stretches[0]; l.Index+1 == s.first && s.bytes < stretchBytes {
			s.first, s.bytes = l.Index, s.bytes+n
			return
		}
	}
	z.stretches = append([]stretch{{l.Index, l.Index, n}}, z.stretches...)
}

// wrote takes note of entries that were written behind all that are known, or in the
// place of the last ones.
func (z *logSize) wrote(logs []*raft.Log) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, l := range logs {
		z.cutLocked(l.Index, ^uint64(0))
		n := sizeOf(l)
		z.bytes += n
		if k := len(z.stretches); k > 0 && z.stretches[k-1].last+1 == l.Index && z.stretches[k-1].bytes < stretchBytes {
			z.stretches[k-1].last, z.stretches[k-1].bytes = l.Index, z.stretches[k-1].bytes+n
			continue
		}
		z.stretches = append(z.stretches, stretch{l.Index, l.Index, n})
	}
	z.tellLocked()
}

// cut takes note of entries that were deleted.
func (z *logSize) cut(from, to uint64) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.cutLocked(from, to)
}

// cutLocked counts a stretch of which a part goes by how many of its entries stay. Only
// the beginning or the end of the log is ever deleted.
func (z *logSize) cutLocked(from, to uint64) {
	if k := len(z.stretches); k == 0 || from > z.stretches[k-1].last || to < z.stretches[0].first {
		return
	}
	kept := make([]stretch, 0, len(z.stretches))
	z.bytes = 0
	for _, s := range z.stretches {
		whole := s.last - s.first + 1
		switch {
		case from > s.last || to < s.first:
		case from > s.first:
			s.last = from - 1
		case to < s.last:
			s.first = to + 1
		default:
			continue
		}
		s.bytes = int64(float64(s.bytes) * float64(s.last-s.first+1) / float64(whole))
		z.bytes += s.bytes
		kept = append(kept, s)
	}
	z.stretches = kept
}

// held returns how many bytes there are.
func (z *logSize) held() int64 {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.bytes
}

// tell has who waits for it told when there are more bytes than that.
func (z *logSize) tell(limit int64) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.limit = limit
	z.tellLocked()
}

func (z *logSize) tellLocked() {
	if z.limit == 0 || z.bytes <= z.limit {
		return
	}
	select {
	case z.over <- struct{}{}:
	default: // it has been told
	}
}

// latest returns how many of the last entries have no more bytes than that together.
func (z *logSize) latest(bytes int64) (entries uint64) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, s := range slices.Backward(z.stretches) {
		if bytes -= s.bytes; bytes < 0 {
			break
		}
		entries = z.stretches[len(z.stretches)-1].last - s.first + 1
	}
	return entries
}

// sizedLogs is a log whose size is known.
type sizedLogs struct {
	raft.LogStore
	size *logSize
}

// StoreLog implements [raft.LogStore].
func (s sizedLogs) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements [raft.LogStore].
func (s sizedLogs) StoreLogs(logs []*raft.Log) error {
	if err := s.LogStore.StoreLogs(logs); err != nil {
		return err
	}
	s.size.wrote(logs)
	return nil
}

// DeleteRange implements [raft.LogStore].
func (s sizedLogs) DeleteRange(from, to uint64) error {
	if err := s.LogStore.DeleteRange(from, to); err != nil {
		return err
	}
	s.size.cut(from, to)
	return nil
}
