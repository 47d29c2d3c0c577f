package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
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

	// turn is held (by having sent to it) during a call and guards what
	// follows. It is a channel because it is held during I/O.
	turn     chan struct{}
	path     string
	borrowed string // the name that its file has among the spares; "" when it has its own
	meta     meta   // as it is on the disk
	kept     bool   // meta has a sidecar; without one the name of the file says all that it does
	removed  bool
	begun    int64 // bytes of the file that the disk was told to take while it grows
	seen     int64 // how long the file was when it was polled last

	acked atomic.Int64 // in this life of the agent
}

// Acknowledge tells that the first n bytes of the logical log are safe elsewhere.
// They stay here until Remove, but if they are lost all the same, ReadParts says so.
// It returns at once.
func (l *Log) Acknowledge(n int64) {
	for before := l.acked.Load(); before < n && !l.acked.CompareAndSwap(before, n); {
		before = l.acked.Load()
	}
}

// Path returns the name of the file that the process writes, for whoever opens it before
// anything is in it: then it may get another.
func (l *Log) Path() string {
	l.turn <- struct{}{}
	defer l.leave()
	return l.path
}

// Poll looks at the file and returns how much of the logical log can be shipped:
// its bytes up to size are fixed from now on, and [Log.ReadParts] returns them.
// While the process runs that is at most the first half of the limit. grown is how much
// longer the file is than at the last call, also behind that.
//
// It also bounds the disk: what is between the head and the tail of a log over
// its limit is given back, so between two calls a file takes no more than its
// limit, what the process writes meanwhile, and two pages. If the file system
// can't do that, the error is [ErrUnbounded] and size is valid. On a sealed log
// Poll cuts off what a process left behind has written since.
func (l *Log) Poll() (size, grown int64, err error) {
	if err := l.enter(); err != nil {
		return 0, 0, err
	}
	defer l.leave()
	before := l.seen
	if err = l.poll(); err != nil {
		err = fmt.Errorf("poll spool log %q: %w", l.path, err)
	}
	return l.meta.end(), max(0, l.seen-before), err
}

// Reaches tells whether the file has n bytes by now. It waits for nobody: while somebody
// else is at the log it says no.
func (l *Log) Reaches(n int64) bool {
	select {
	case l.turn <- struct{}{}:
		defer l.leave()
	default:
		return false
	}
	st, err := os.Lstat(l.path)
	return err == nil && st.Size() >= n
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
	l.seen = size
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
	err = errors.Join(perr, l.save(m, false))
	l.writeEarly(size) // by the name that it has now
	return err
}

// ReadParts reads the logical log at off into one part after the other, up to what Poll or
// Seal reported last; at that end the error is [io.EOF]. It is [ErrGone] where zeros would
// stand for bytes that were acknowledged.
func (l *Log) ReadParts(off int64, parts ...[]byte) (n int, err error) {
	if err := l.enter(); err != nil {
		return 0, err
	}
	defer l.leave()
	if off < 0 {
		return 0, fmt.Errorf("read spool log %q at %d: %w offset", l.path, off, ErrInvalid)
	}
	left := max(0, l.meta.end()-off)
	there := make([][]byte, 0, len(parts))
	for _, p := range parts {
		if int64(len(p)) > left {
			p, err = p[:left], io.EOF
		}
		there, n, left = append(there, p), n+len(p), left-int64(len(p))
	}
	if err := l.read(there, off); err != nil {
		return 0, fmt.Errorf("read spool log %q at %d: %w", l.path, off, err)
	}
	return n, err
}

// read fills parts with what is at off. All of it is before the end.
func (l *Log) read(parts [][]byte, off int64) error {
	f, _, err := l.open(os.O_RDONLY)
	if err != nil {
		return err
	}
	if f != nil {
		defer func() { _ = f.Close() }()
	}
	for {
		cuts := len(l.meta.cuts)
		gone, err := l.meta.readParts(f, parts, off)
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
//
// A log that is the file, byte for byte, and never was shipped in part has no record
// of its seal: whoever keeps its length tells it the next life by [Log.Resume].
func (l *Log) Seal() (length, dropped int64, err error) {
	if err := l.settle(); err != nil {
		return 0, 0, fmt.Errorf("write spool log %q to the disk: %w", l.Path(), err)
	}
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
	if l.isUntouched() {
		l.meta.sealed = true
		return nil
	}
	f, size, err := l.open(os.O_RDWR)
	if err != nil {
		return err
	}
	if f != nil {
		defer func() { _ = f.Close() }()
	}
	if size > 0 { // an empty one is worth nothing after a crash of the host
		// On a disk that is full it may have to do without a name: it is on record whose it is.
		_ = l.nameOwn()
		if err := errors.Join(l.spool.writeAll(f, size, l.meta), l.spool.disk.Fsync(f), l.syncName()); err != nil {
			return err
		}
	}
	if err := l.look(f, size); err != nil {
		return err
	}
	m := l.meta
	m.sealed, m.total, m.mark, m.sum = true, size, 0, 0
	if !l.kept && size <= m.limit {
		l.meta = m
		return nil
	}
	if len(m.cuts) > 0 {
		m.acked = max(m.acked, l.acked.Load())
	}
	if f != nil {
		// It won't grow any more, so nothing is unbounded if this fails. It comes first
		// since what it gives back may be the only room for a sidecar.
		_ = l.bound(f, size, &m)
	}
	return l.save(m, true)
}

// isUntouched reports whether nothing was ever seen in the log, and nothing is there now:
// then there is nothing to sync, to compare or to write down.
func (l *Log) isUntouched() bool {
	var st unix.Stat_t
	return !l.kept && l.meta.mark == 0 && unix.Lstat(l.path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == 0
}

// Resume tells what [Log.Seal] said of the log's length in a former life, after
// which that was put on record. A log with a sidecar knows it. It touches no file.
func (l *Log) Resume(length int64) {
	l.turn <- struct{}{}
	defer l.leave()
	if !l.kept && !l.meta.sealed {
		l.meta.sealed, l.meta.total = true, length
	}
}

// Keep has the next life find the log, of whatever version it is and whatever it has on
// record. It is called when the process has the file open, and the agent leaves it.
func (l *Log) Keep() error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.leave()
	return l.nameOwn()
}

// Remove deletes the log, when the result is acknowledged and the log durable,
// or when the attempt never started. The disk space is free at once, even if a
// process left behind has the file open.
func (l *Log) Remove() error { return l.end(l.remove) }

// Release is Remove for a log of an attempt whose end is on record: only then nobody takes
// its file for this attempt's when it is another one's.
func (l *Log) Release() error { return l.end(l.release) }

func (l *Log) end(how func() error) error {
	if err := l.enter(); err != nil {
		return err
	}
	defer l.leave()
	if err := how(); err != nil {
		return fmt.Errorf("remove spool log %q: %w", l.path, err)
	}
	l.removed = true
	l.spool.forget(l.key)
	return nil
}

func (l *Log) release() error {
	if !l.kept && l.meta.sealed && l.meta.total == 0 && l.spare() {
		return nil
	}
	return l.remove()
}

// remove deletes file and sidecar, in this order: a sidecar alone is removed at the next
// start, while a file alone is a log of which nothing was shipped.
func (l *Log) remove() error {
	st, err := os.Lstat(l.path)
	if err == nil && st.Size() > 0 {
		err = os.Truncate(l.path, 0)
	}
	if err == nil {
		err = os.Remove(l.path)
	}
	if l.kept && (err == nil || errors.Is(err, fs.ErrNotExist)) {
		err = os.Remove(l.metaPath())
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
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
// directory is ours. Package os would ask for it to be in its poller, which takes no such
// file, with as many calls as all else that is done here.
func (l *Log) open(flag int) (f *os.File, size int64, err error) { return openOwn(l.path, flag) }

// openOwn is open for a file by its name.
func openOwn(path string, flag int) (f *os.File, size int64, err error) {
	fd, err := unix.Open(path, flag|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	for errors.Is(err, unix.EINTR) {
		fd, err = unix.Open(path, flag|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	f = os.NewFile(uintptr(fd), path)
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

// create makes the file, which is empty, unless the one that was reserved is there. It is
// not synced: a process that has written nothing yet leaves nothing behind when the host
// crashes.
func (l *Log) create(reserved string) error {
	var st unix.Stat_t
	if reserved != "" && unix.Lstat(l.spool.spareAt(reserved), &st) == nil {
		l.borrow(reserved)
		return nil
	}
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
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
