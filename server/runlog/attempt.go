package runlog

import (
	"container/list"
	"errors"
	"fmt"
	"os"
	"strings"
)

const (
	suffix        = ".log"
	suffixSuspect = ".suspect" // empty; as long as it is there the log must be stored anew
	suffixCopy    = ".copy"    // the log, being stored anew
)

// attempt is what is in memory of one log. An attempt that nobody uses is kept
// only while its file is open, or while it knows what its file does not say.
type attempt struct {
	key   Key
	path  string
	shard *shard

	// turn is held (by having sent to it) by whoever opens, writes or replaces
	// the file. It is a channel, not a mutex, since it is held across I/O.
	turn chan struct{}

	// Guarded by Store.mu. The fields of filed and layout change only with the
	// turn held, too: who has it may read them without the lock.
	filed
	layout
	refs    int           // callers who use the attempt
	touched bool          // written or synced: durable and the layout are worth keeping
	suspect error         // why the log must be stored anew; nil: it need not
	file    *handle       // nil: not open
	durable int64         // all bytes below were acknowledged, or will be by the next Sync
	changed chan struct{} // closed at the next change; nil: nobody waits
	flight  chan struct{} // closed when the Sync that is at work has ended; nil: none is
}

// filed is what became of the file in this life of the process.
type filed struct {
	done   bool // the file was looked for and read through
	exists bool // there is a file
	gone   bool // removed; the attempt is in no map any more
	junk   bool // the file goes on behind the layout: cut before writing
	broken bool // an end frame says that there was more: not torn, but damaged
	unsafe bool // an earlier process saw an fsync fail

	sealed bool
	length int64 // where the log ends, if sealed

	name int64 // of shard.created: durable only when the shard is synced up to it
}

// handle is an open file. It is closed when it is retired and nobody uses it.
type handle struct {
	file    *os.File
	users   int           // guarded by Store.mu
	idle    *list.Element // guarded by Store.mu; in Store.idle while there are no users
	retired bool          // guarded by Store.mu
}

// complete tells whether the log is sealed and all there. Called with Store.mu or
// the turn held.
func (a *attempt) complete() bool { return a.sealed && a.known == a.length }

// changedLocked returns a channel that is closed at the next change.
func (a *attempt) changedLocked() <-chan struct{} {
	if a.changed == nil {
		a.changed = make(chan struct{})
	}
	return a.changed
}

// tellLocked wakes all who wait for a change.
func (a *attempt) tellLocked() {
	if a.changed != nil {
		close(a.changed)
		a.changed = nil
	}
}

// hold returns the attempt of k and keeps it in memory until [Store.drop].
func (s *Store) hold(k Key) (*attempt, error) {
	if err := k.Check(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.logs[k]
	if a == nil {
		a = &attempt{key: k, shard: s.shardOf(k), turn: make(chan struct{}, 1), path: s.pathOf(k)}
		s.logs[k] = a
	}
	a.refs++
	return a, nil
}

func (s *Store) drop(a *attempt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.refs--
	s.forgetLocked(a)
}

// forgetLocked drops an attempt that nobody uses and that holds nothing which its
// file, or the set of empty logs, does not hold as well.
func (s *Store) forgetLocked(a *attempt) {
	switch {
	case a.refs > 0 || a.file != nil || s.logs[a.key] != a:
	case a.sealed && a.length > 0 && !a.ended:
	case a.exists && !a.ended && a.touched:
	default:
		delete(s.logs, a.key)
	}
}

// begin counts a call in and returns k's attempt with its turn held, read from
// disk if it was not in memory. done (may be nil) ends the wait for the turn.
// If there is no error, it is followed by end.
func (s *Store) begin(k Key, done <-chan struct{}) (*attempt, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	for {
		a, err := s.hold(k)
		if err != nil {
			s.calls.Done()
			return nil, err
		}
		select {
		case a.turn <- struct{}{}:
		case <-done:
			s.drop(a)
			s.calls.Done()
			return nil, errWaiting
		}
		if a.gone { // removed while we waited; another attempt may be in its place
			<-a.turn
			s.drop(a)
			continue
		}
		if err := s.load(a); err != nil {
			s.end(a)
			return nil, err
		}
		return a, nil
	}
}

// errWaiting is replaced by the context's error.
var errWaiting = errors.New("gave up waiting for the log")

// end gives the turn back and counts the call out.
func (s *Store) end(a *attempt) {
	<-a.turn
	s.drop(a)
	s.calls.Done()
}

// load reads the attempt's file through, once. The turn is held.
func (s *Store) load(a *attempt) error {
	if a.done {
		return nil
	}
	f, err := os.OpenFile(a.path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		s.mu.Lock()
		defer s.mu.Unlock()
		a.done, a.sealed = true, s.empty.Has(a.key)
		return nil
	}
	if err != nil {
		s.fail(err)
		return fmt.Errorf("read log %v: %w", a.key, err)
	}
	l, found, err := examine(f, a)
	if err != nil {
		s.fail(err)
		s.closeAll([]*os.File{f})
		return fmt.Errorf("read log %v: %w", a.key, err)
	}
	if found.junk {
		s.log.Warn("log has a torn or damaged tail, the sender has to send it again",
			"run", a.key.Run, "attempt", a.key.Attempt, "offset", l.known, "damaged", found.broken)
	}
	s.mu.Lock()
	a.layout, a.filed = l, found
	if l.ended {
		a.durable = l.known // or there were no end frame
	}
	if found.unsafe {
		a.suspect = errors.New("an fsync failed before a restart")
	}
	if l.known == 0 && !a.sealed {
		a.sealed = s.empty.Has(a.key) // bytes would say otherwise, and are believed
	}
	h, victims := s.adoptLocked(a, f)
	s.mu.Unlock()
	s.closeAll(victims)
	s.unpin(a, h)
	return nil
}

// examine reads a log's file through.
func examine(f *os.File, a *attempt) (layout, filed, error) {
	l, err := scan(f, seedOf(a.key), nil)
	if err != nil {
		return l, filed{}, err
	}
	info, err := f.Stat()
	if err != nil {
		return l, filed{}, err
	}
	found := filed{done: true, exists: true, name: 1}
	if l.ended {
		found.sealed, found.length = true, l.known
		found.junk = info.Size() > l.end+frameHeader
		return l, found, nil
	}
	found.junk = info.Size() > l.end
	if length, ok := lastEnd(f, info.Size(), a.key); ok && length > l.known {
		found.broken, found.sealed, found.length = true, true, length
	}
	_, err = os.Lstat(a.beside(suffixSuspect))
	found.unsafe = err == nil
	return l, found, nil
}

// lastEnd looks for an end frame in the last bytes of a file whose frames could
// not be followed so far: such a file was whole once.
func lastEnd(f *os.File, size int64, k Key) (length int64, ok bool) {
	raw := make([]byte, frameHeader)
	if size < frameHeader {
		return 0, false
	}
	if _, err := f.ReadAt(raw, size-frameHeader); err != nil {
		return 0, false
	}
	fr, ok := decodeFrame(raw, seedOf(k))
	return fr.off, ok && fr.kind == kindEnd
}

// beside returns the path of a file that belongs to the log.
func (a *attempt) beside(ending string) string { return strings.TrimSuffix(a.path, suffix) + ending }
