package runlog

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Sync returns when all that was known of k's log at the call is on disk: the
// bytes, and the name of the file. It returns how much is durable, which may be
// more. Those who sync the same log share an fsync, those who sync new logs of
// one directory share that of the directory, and at most 8 are in flight; with
// none in flight one starts at once.
//
// The context ends the wait for others, not an fsync that has begun. After any
// error only what durable says is acknowledged. [ErrUnavailable]: an fsync
// failed, here or earlier, see the package's documentation; sync again later,
// and look at what Append answers in case bytes were lost.
func (s *Store) Sync(ctx context.Context, k Key) (durable int64, err error) {
	a, err := s.begin(k, ctx.Done())
	if err != nil {
		return 0, fmt.Errorf("sync log %v: %w", k, orDone(ctx, err))
	}
	if err = s.restore(a); err == nil {
		target := a.known
		<-a.turn // who appends need not wait for the disk
		err = s.syncLog(ctx, a, target)
		a.turn <- struct{}{}
	}
	defer s.end(a)
	if err == nil {
		s.finish(a)
	}
	s.mu.Lock()
	durable = a.durable
	s.mu.Unlock()
	if err != nil {
		return durable, fmt.Errorf("sync log %v: %w", k, orDone(ctx, err))
	}
	return durable, nil
}

func orDone(ctx context.Context, err error) error {
	if errors.Is(err, errWaiting) {
		return ctx.Err()
	}
	return err
}

// syncLog returns when a is durable up to target.
func (s *Store) syncLog(ctx context.Context, a *attempt, target int64) error {
	reached := func() (bool, error) {
		switch {
		case a.durable >= target:
			return true, nil
		case a.gone:
			return false, ErrRemoved
		case a.suspect != nil:
			return false, fmt.Errorf("%w: %w", ErrUnavailable, a.suspect)
		case a.known < target:
			return false, fmt.Errorf("%w: bytes from %d on were lost, send them again", ErrUnavailable, a.known)
		}
		return false, nil
	}
	return s.share(ctx, &a.flight, reached, func() error { return s.fsyncLog(ctx, a) })
}

// share calls work until reached says so, but one caller at a time works, and the
// others wait for what that brings. flight is where they meet; it and reached
// are guarded by Store.mu.
func (s *Store) share(ctx context.Context, flight *chan struct{}, reached func() (bool, error), work func() error) error {
	for {
		s.mu.Lock()
		if ok, err := reached(); ok || err != nil {
			s.mu.Unlock()
			return err
		}
		if others := *flight; others != nil {
			s.mu.Unlock()
			select {
			case <-others:
				continue
			case <-ctx.Done():
				return errWaiting
			}
		}
		mine := make(chan struct{})
		*flight = mine
		s.mu.Unlock()

		err := work()
		s.set(func() { *flight = nil })
		close(mine)
		if err != nil {
			return err
		}
	}
}

// fsyncLog makes durable what is known when it gets to work.
func (s *Store) fsyncLog(ctx context.Context, a *attempt) error {
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return errWaiting
	}
	h, err := s.take(a)
	if err != nil {
		<-s.slots
		return err
	}
	s.mu.Lock()
	known, name := a.known, a.name
	a.touched = true
	s.mu.Unlock()
	err = s.fsync(h.file)
	s.unpin(a, h)
	<-s.slots
	if err != nil {
		s.distrust(a, err)
		s.fail(err)
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if err := s.syncShard(ctx, a.shard, name); err != nil {
		if !errors.Is(err, errWaiting) {
			s.fail(err)
		}
		return err
	}
	// The file cannot have been stored anew meanwhile: that needs a failed fsync
	// first, and this was the only one at work.
	s.set(func() { a.durable = max(a.durable, known) })
	return nil
}

// syncShard returns when all names in sh up to target are durable.
func (s *Store) syncShard(ctx context.Context, sh *shard, target int64) error {
	reached := func() (bool, error) { return sh.synced >= target, nil }
	return s.share(ctx, &sh.flight, reached, func() error {
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			return errWaiting
		}
		defer func() { <-s.slots }()
		return s.fsyncShard(sh)
	})
}

// fsyncShard makes durable all names there are in sh when it is called.
func (s *Store) fsyncShard(sh *shard) error {
	s.mu.Lock()
	created, named := sh.created, sh.named
	s.mu.Unlock()
	if err := s.fsyncDir(sh.path); err != nil {
		return err
	}
	if !named { // whoever made the shard may have died since, or not have come so far
		if err := s.fsyncDir(filepath.Dir(sh.path)); err != nil {
			return err
		}
	}
	s.set(func() { sh.synced, sh.named = max(sh.synced, created), true })
	return nil
}

func (s *Store) fsyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer s.closeAll([]*os.File{d})
	return s.fsync(d)
}

// distrust remembers, in memory and for the next process in a file, that a failed
// fsync may have lost bytes which still can be read.
func (s *Store) distrust(a *attempt, cause error) {
	s.mu.Lock()
	a.suspect = cause
	gone := a.gone
	s.mu.Unlock()
	if gone {
		return
	}
	f, err := os.OpenFile(a.beside(suffixSuspect), os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		s.log.Warn("an fsync failed, and a restarted process will not know it",
			"run", a.key.Run, "attempt", a.key.Attempt, "err", err)
	}
}

// restore stores a suspect log anew: its good frames are copied to a file that
// no fsync has failed on, which takes its place when it is durable. The turn is
// held. It takes no slot: who has a slot may be waiting for the turn.
func (s *Store) restore(a *attempt) error {
	s.mu.Lock()
	cause := a.suspect
	s.mu.Unlock()
	if cause == nil {
		return nil
	}
	f, l, err := s.copyLog(a)
	if err != nil {
		return fmt.Errorf("%w: %w; storing it anew: %w", ErrUnavailable, cause, err)
	}
	s.mu.Lock()
	lost := a.durable - l.known
	a.layout, a.suspect, a.junk, a.durable = l, nil, false, l.known
	victims := s.retireLocked(a)
	h, more := s.adoptLocked(a, f)
	a.tellLocked()
	s.mu.Unlock()
	s.closeAll(append(victims, more...))
	s.unpin(a, h)
	if lost > 0 {
		s.log.Error("the disk has lost bytes of a log that were durable",
			"run", a.key.Run, "attempt", a.key.Attempt, "offset", l.known, "lost", lost)
	}
	return nil
}

// copyLog puts a copy of a's good frames in the place of the file, durably.
func (s *Store) copyLog(a *attempt) (f *os.File, l layout, err error) {
	from, err := os.Open(a.path)
	if err != nil {
		return nil, l, err
	}
	defer s.closeAll([]*os.File{from})
	path := a.beside(suffixCopy)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, l, err
	}
	// Exclusively: a copy on which an fsync failed is no better than the log.
	f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, l, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if l, err = copyFrames(f, from, seedOf(a.key)); err != nil {
		return nil, l, errors.Join(err, os.Remove(path)) // room is what may be missing
	}
	if err = s.fsync(f); err != nil {
		return nil, l, err
	}
	if err = os.Rename(path, a.path); err != nil {
		return nil, l, err
	}
	if err = s.fsyncShard(a.shard); err != nil {
		return nil, l, err
	}
	if err := os.Remove(a.beside(suffixSuspect)); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.log.Warn("a log was stored anew, and will be again after a restart", "run", a.key.Run, "attempt", a.key.Attempt, "err", err)
	}
	return f, l, nil
}

// copyFrames copies the good frames of a file.
func copyFrames(to io.Writer, from io.Reader, seed uint32) (layout, error) {
	w := bufio.NewWriterSize(to, maxBlock)
	l, err := scan(from, seed, func(raw []byte) error {
		_, err := w.Write(raw)
		return err
	})
	return l, errors.Join(err, w.Flush())
}
