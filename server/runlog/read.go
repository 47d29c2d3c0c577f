package runlog

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// Info is what the store knows of a log. Lengths are in bytes.
type Info struct {
	Known    int64 // what can be read
	Durable  int64 // what was acknowledged by Sync in this life of the process
	Length   int64 // where the log ends, if Sealed
	Sealed   bool
	Complete bool // Sealed, and all of it is known
}

// Stat returns what is known of k's log, and false if that is nothing: no byte
// and no seal, or no way to read it, which is logged. The first Stat of a log
// after a restart reads it through, as the first of all other calls does.
func (s *Store) Stat(k Key) (Info, bool) {
	a, err := s.look(k)
	if err != nil {
		if !errors.Is(err, ErrClosed) && !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrRemoved) {
			s.log.Warn("log cannot be read", "run", k.Run, "attempt", k.Attempt, "err", err)
		}
		return Info{}, false
	}
	defer s.leave(a)
	s.mu.Lock()
	defer s.mu.Unlock()
	return Info{Known: a.known, Durable: a.durable, Length: a.length, Sealed: a.sealed, Complete: a.complete()}, a.exists || a.sealed
}

// look is begin for those who only read: without the turn. It is followed by leave.
func (s *Store) look(k Key) (*attempt, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	a, err := s.hold(k)
	if err != nil {
		s.calls.Done()
		return nil, err
	}
	if err := s.ready(a); err != nil {
		s.leave(a)
		return nil, err
	}
	return a, nil
}

func (s *Store) leave(a *attempt) {
	s.drop(a)
	s.calls.Done()
}

// ready reads the log through if nobody has.
func (s *Store) ready(a *attempt) error {
	s.mu.Lock()
	done := a.done
	s.mu.Unlock()
	if done {
		return nil
	}
	a.turn <- struct{}{}
	defer func() { <-a.turn }()
	if a.gone {
		return ErrRemoved
	}
	return s.load(a)
}

// Read fills p with k's log from off on. It returns less than len(p) only with
// an error: [io.EOF] at the present end, which is no promise that nothing
// follows, or [ErrCorrupt]. A log that the store has nothing of reads as empty,
// as do the many that are.
func (s *Store) Read(k Key, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read log %v at %d: %w", k, off, ErrInvalid)
	}
	a, err := s.look(k)
	if err != nil {
		return 0, fmt.Errorf("read log %v: %w", k, err)
	}
	defer s.leave(a)
	n := 0
	for n < len(p) {
		m, err := s.readBlock(a, p[n:], off+int64(n))
		n += m
		if errors.Is(err, io.EOF) {
			return n, io.EOF
		}
		if err != nil {
			return n, fmt.Errorf("read log %v at %d: %w", k, off+int64(n), err)
		}
	}
	return n, nil
}

// readBlock reads from off on, to the end of its block at most; at least a byte if
// there is no error.
func (s *Store) readBlock(a *attempt, p []byte, off int64) (int, error) {
	s.mu.Lock()
	if off >= a.known || a.gone {
		err := io.EOF
		switch {
		case a.gone:
			err = ErrRemoved
		case a.broken && off < a.length:
			err = ErrCorrupt
		}
		s.mu.Unlock()
		return 0, err
	}
	b, stop := a.find(off)
	s.mu.Unlock()

	h, err := s.take(a)
	if err != nil {
		return 0, err
	}
	defer s.unpin(a, h)
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	raw := (*buf)[:stop-b.pos]
	if _, err := h.file.ReadAt(raw, b.pos); err != nil {
		if errors.Is(err, io.EOF) { // the file is shorter than we made it
			err = ErrCorrupt
		}
		return 0, err
	}
	return extract(p, raw, seedOf(a.key), off)
}

// extract copies what the frames in raw hold from off on.
func extract(p, raw []byte, seed uint32, off int64) (n int, err error) {
	for len(raw) > 0 && n < len(p) {
		f, ok := decodeFrame(raw, seed)
		if !ok || f.kind != kindData || f.off > off {
			return n, ErrCorrupt
		}
		raw = raw[f.size():]
		if skip := off - f.off; skip < int64(len(f.data)) {
			m := copy(p[n:], f.data[skip:])
			n, off = n+m, off+int64(m)
		}
	}
	if n == 0 {
		return 0, ErrCorrupt
	}
	return n, nil
}

// Follow calls f with k's log from off on, in chunks of at most 64 KiB, as they
// become known. It returns nil when the log is complete and f has had all of
// it, and otherwise f's error, the context's, [ErrCorrupt], [ErrRemoved] or
// [ErrClosed]. It waits for a log that does not exist yet, and for bytes of a sealed
// log that are missing yet: if nobody can send them any more, only the caller
// knows. f may not keep chunk, and may be slow: nobody waits for it but Follow.
func (s *Store) Follow(ctx context.Context, k Key, off int64, f func(off int64, chunk []byte) error) error {
	if off < 0 {
		return fmt.Errorf("follow log %v at %d: %w", k, off, ErrInvalid)
	}
	a, err := s.look(k)
	if err != nil {
		return fmt.Errorf("follow log %v: %w", k, err)
	}
	s.calls.Done() // Close must not wait for f
	defer s.drop(a)
	for ctx.Err() == nil {
		s.mu.Lock()
		changed, finished := a.changedLocked(), a.complete() && off >= a.length
		s.mu.Unlock()
		if finished {
			return nil
		}
		n, err := s.pass(a, off, f)
		if err != nil {
			return fmt.Errorf("follow log %v at %d: %w", k, off, err)
		}
		off += int64(n)
		if n > 0 {
			continue
		}
		select {
		case <-changed:
		case <-s.closing:
		case <-ctx.Done():
		}
	}
	return ctx.Err()
}

// pass gives f the next chunk and returns its length, 0 if there is none yet.
func (s *Store) pass(a *attempt, off int64, f func(int64, []byte) error) (int, error) {
	if err := s.enter(); err != nil {
		return 0, err
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	n, err := s.readBlock(a, (*buf)[:maxFrame], off)
	s.calls.Done()
	if errors.Is(err, io.EOF) {
		return 0, nil
	}
	if n == 0 {
		return 0, err
	}
	return n, f(off, (*buf)[:n])
}
