package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// page is what a hole is aligned to: blocks of a file system are a power of two
// and rarely larger, and where they are, the kernel only zeroes the edges.
const page = 4096

// Log is the output of one attempt. Its methods may be called concurrently;
// they take turns.
type Log struct {
	spool *Spool
	key   Key
	path  string

	// turn is held (by having sent to it) during a call and guards what
	// follows. It is a channel because it is held during I/O.
	turn    chan struct{}
	meta    meta // as it is on the disk
	removed bool

	acked atomic.Int64 // in this life of the agent
}

// Acknowledge tells that the first n bytes of the logical log are safe elsewhere.
// They stay here until Remove, but if they are lost all the same, ReadAt says so.
// It returns at once.
func (l *Log) Acknowledge(n int64) {
	for before := l.acked.Load(); before < n && !l.acked.CompareAndSwap(before, n); {
		before = l.acked.Load()
	}
}

// Path returns the name of the file that the process writes.
func (l *Log) Path() string { return l.path }

// Poll looks at the file and returns how much of the logical log can be shipped:
// its bytes up to size are fixed from now on, and [Log.ReadAt] returns them.
// While the process runs that is at most the first half of the limit.
//
// It also bounds the disk: what is between the head and the tail of a log over
// its limit is given back, so between two calls a file takes no more than its
// limit, what the process writes meanwhile, and two pages. If the file system
// can't do that, the error is [ErrUnbounded] and size is valid. On a sealed log
// Poll cuts off what a process left behind has written since.
func (l *Log) Poll() (size int64, err error) {
	if err := l.enter(); err != nil {
		return 0, err
	}
	defer l.leave()
	if err = l.poll(); err != nil {
		err = fmt.Errorf("poll spool log %q: %w", l.path, err)
	}
	return l.meta.end(), err
}

func (l *Log) poll() error {
	f, size, err := l.open(os.O_RDWR)
	if err != nil {
		return err
	}
	if f == nil {
		return l.look(nil, 0)
	}
	defer func() { _ = f.Close() }() // nothing was written through it
	if l.meta.sealed {
		if size > l.meta.total {
			return f.Truncate(l.meta.total)
		}
		return nil
	}
	if err := l.look(f, size); err != nil {
		return err
	}
	m := l.meta
	perr := l.bound(f, size, &m)
	if n := min(size, m.room()); n > m.mark {
		if sum, whole := fingerprint(f, n); whole { // else it shrinks at this moment; the next call sees that
			m.mark, m.sum = n, sum
		}
	}
	return errors.Join(perr, l.save(m, false))
}

// ReadAt reads the logical log at off, up to what Poll or Seal reported last;
// at that end the error is [io.EOF]. It is [ErrGone] where zeros would stand for
// bytes that were acknowledged.
func (l *Log) ReadAt(p []byte, off int64) (int, error) {
	if err := l.enter(); err != nil {
		return 0, err
	}
	defer l.leave()
	if off < 0 {
		return 0, fmt.Errorf("read spool log %q at %d: %w offset", l.path, off, ErrInvalid)
	}
	want := min(int64(len(p)), max(0, l.meta.end()-off))
	if err := l.read(p[:want], off); err != nil {
		return 0, fmt.Errorf("read spool log %q at %d: %w", l.path, off, err)
	}
	if want < int64(len(p)) {
		return int(want), io.EOF
	}
	return int(want), nil
}

// read fills p with what is at off. All of it is before the end.
func (l *Log) read(p []byte, off int64) error {
	f, _, err := l.open(os.O_RDONLY)
	if err != nil {
		return err
	}
	if f != nil {
		defer func() { _ = f.Close() }()
	}
	for {
		cuts := len(l.meta.cuts)
		gone, err := l.meta.read(f, p, off)
		if err != nil {
			return err
		}
		if gone < max(l.meta.acked, l.acked.Load()) {
			err = ErrGone
		}
		if l.meta.sealed {
			return err
		}
		// Were these still the bytes that were reported? Looking afterwards
		// leaves no gap between the look and the reading.
		size, serr := sizeOf(f)
		if serr != nil {
			return serr
		}
		if err := l.look(f, size); err != nil {
			return err
		}
		if len(l.meta.cuts) == cuts {
			return err
		}
	}
}

// Seal is called when the process has ended: it syncs the file and fixes the
// logical log for good. length is that of the logical log; dropped is how many
// bytes were left out in its middle, 0 when it is whole. What a process left
// behind writes to the file afterwards is no part of it.
//
// It is idempotent. After an error the log isn't sealed and Seal may be called
// again; a second fsync that succeeds then doesn't prove that the first one's
// bytes are on the disk, only that they can be read and shipped now.
func (l *Log) Seal() (length, dropped int64, err error) {
	if err := l.enter(); err != nil {
		return 0, 0, err
	}
	defer l.leave()
	if !l.meta.sealed {
		if err := l.seal(); err != nil {
			return 0, 0, fmt.Errorf("seal spool log %q: %w", l.path, err)
		}
	}
	_, dropped = l.meta.tail()
	return l.meta.end(), dropped, nil
}

func (l *Log) seal() error {
	f, size, err := l.open(os.O_RDWR)
	if err != nil {
		return err
	}
	if f != nil {
		defer func() { _ = f.Close() }()
		if err := f.Sync(); err != nil {
			return err
		}
	}
	if err := l.look(f, size); err != nil {
		return err
	}
	m := l.meta
	m.sealed, m.total, m.mark, m.sum = true, size, 0, 0
	if len(m.cuts) > 0 {
		m.acked = max(m.acked, l.acked.Load())
	}
	if err := l.save(m, true); err != nil {
		return err
	}
	if f != nil {
		// It won't grow any more, so nothing is unbounded if this fails.
		_ = l.bound(f, size, &m)
	}
	return nil
}

// Remove deletes the log, when the result is acknowledged and the log durable,
// or when the attempt never started. The disk space is free at once, even if a
// process left behind has the file open.
func (l *Log) Remove() error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.leave()
	// The sidecar goes last: alone it is removed at the next start, while a file
	// alone would be set aside for somebody to look at.
	for _, step := range []func() error{
		func() error { return os.Truncate(l.path, 0) },
		func() error { return os.Remove(l.path) },
		func() error { return os.Remove(l.metaPath()) },
	} {
		if err := step(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove spool log %q: %w", l.path, err)
		}
	}
	l.removed = true
	l.spool.forget(l.key)
	return nil
}

// look compares the file with what was reported of it, and if that isn't there
// any more closes this part of the log. f may be nil, with size 0: then the file
// is gone, which is as good as empty.
func (l *Log) look(f *os.File, size int64) error {
	m := l.meta
	if m.sealed {
		return nil
	}
	same := size >= m.mark
	if same && m.mark > 0 {
		sum, whole := fingerprint(f, m.mark)
		same = whole && sum == m.sum
	}
	if !same {
		m.cut()
		m.acked = max(m.acked, l.acked.Load())
		return l.save(m, true)
	}
	// What comes after a truncation to within the hole comes after the hole,
	// and where there is data again there is no hole.
	if data := firstData(f, m); data < m.hole/page*page {
		m.hole = data
	}
	if m.hole = min(m.hole, size); m.hole <= m.room() {
		m.hole = 0
	}
	return l.save(m, false)
}

// firstData returns where the data begins behind the start of m's hole.
func firstData(f *os.File, m meta) int64 {
	if f == nil || m.hole == 0 {
		return m.hole
	}
	if off, ok := seekData(f, holeStart(m)); ok {
		return off
	}
	return m.hole // none behind it, or the file system can't tell
}

func holeStart(m meta) int64 { return (m.room() + page - 1) / page * page }

// bound punches a hole in the middle of a file that is too long.
func (l *Log) bound(f *os.File, size int64, m *meta) error {
	from := max(holeStart(*m), m.hole/page*page)
	to := (size - m.tailLimit()) / page * page
	if to <= from {
		return nil
	}
	if err := l.spool.punch(f, from, to); err != nil {
		return fmt.Errorf("punch a hole from %d to %d: %w", from, to, err)
	}
	m.hole = to
	return nil
}

// open opens the file; without one f is nil. It can't be a link to another: the
// directory is ours.
func (l *Log) open(flag int) (f *os.File, size int64, err error) {
	f, err = os.OpenFile(l.path, flag|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	if size, err = sizeOf(f); err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, size, nil
}

func sizeOf(f *os.File) (int64, error) {
	if f == nil {
		return 0, nil
	}
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// create makes sidecar and file, in this order, so that one that was
// interrupted is known by its missing file.
func (l *Log) create() error {
	if err := createMeta(l.metaPath(), l.meta); err != nil {
		return err
	}
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return errors.Join(err, os.Remove(l.metaPath()))
	}
	if err := errors.Join(f.Close(), syncDir(filepath.Dir(l.path))); err != nil {
		return errors.Join(err, os.Remove(l.path), os.Remove(l.metaPath()))
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (l *Log) enter() error {
	l.turn <- struct{}{}
	if l.removed {
		l.leave()
		return fmt.Errorf("spool log %q: %w", l.path, ErrRemoved)
	}
	return nil
}

func (l *Log) leave() { <-l.turn }
