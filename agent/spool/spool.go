// Package spool is the output of attempts on the worker's disk.
//
// Each attempt has one file, which the job's process has as its standard output
// and error. Nobody stands between the process and the file, so that neither a
// slow network nor a restart of the agent ever holds up a job. What this package
// adds is the reading side: the logical log, which is what is shipped to the
// primaries by offset, and the bound on what a file may take of the disk.
//
// The file of an attempt that printed nothing is that of a later one, if nobody else has it
// open. A file that was reserved so has no name of its own until something is seen in it:
// whoever reserved it has on record whose it is.
//
// It never looks into the bytes: there are no lines, no encoding and no end
// mark. It never opens a file for a process, which is the runner's work, and
// never sends one anywhere. It holds no file open between calls, but for one that the disk
// is told to take.
//
// # The logical log
//
// A log of no more than its limit is the file, byte for byte. Of a longer one it
// is the first half of the limit, a line that says how much is left out, and the
// last half. Which it will be is known only when the process has ended, so until
// then no more than the first half can be shipped; the rest follows at
// [Log.Seal].
//
// A byte that [Log.Poll] has reported never changes and never moves. That is
// the process's doing too: it owns the file, and may truncate it (a shell's
// "> /dev/stdout" does) or write over it. When the file is shorter than what was
// reported, or the last bytes reported are not there any more, the logical log
// keeps its length, a line says what happened, and what the file holds now
// follows. The bytes before the line that had not been read by then are gone:
// they read as zeros, the only way in which a reported byte can change. Never so
// those that were acknowledged: somebody has them, and zeros in their place would
// be another log ([ErrGone]). A crash of the host may have the same effect, since
// a file is synced only when it is sealed. What can't be noticed is a process that writes over the middle of what
// was reported and leaves its end alone. After eight such events the first half
// counts as full, so that the lines have a bound too.
package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// MinLimit is the lowest limit of a log, in bytes.
const MinLimit = 64 << 10

var (
	// ErrExists is returned by [Spool.Create] for a key that has a log.
	ErrExists = errors.New("log exists")

	// ErrInvalid is returned by [Spool.Create] for a key or a limit that can't
	// be used.
	ErrInvalid = errors.New("invalid")

	// ErrRemoved is returned by calls on a log after [Log.Remove].
	ErrRemoved = errors.New("log was removed")

	// ErrGone is returned by [Log.ReadParts] for bytes that were acknowledged, and
	// are not in the file any more.
	ErrGone = errors.New("bytes that were acknowledged are gone here; whoever has them has to say so")

	// ErrUnbounded is returned by [Log.Poll] when the log is over its limit
	// and the file system can't give back a part of a file. The disk will fill
	// up unless the process is killed.
	ErrUnbounded = errors.New("log grows without bound: the file system can't punch holes")
)

// Spool is the directory. Its methods may be called concurrently.
type Spool struct {
	dir   string
	log   *slog.Logger
	punch func(f *os.File, from, to int64) error
	disk  Disk
	outs  chan struct{} // one token for each file that the disk takes a step of

	syncing chan struct{} // held, by having sent to it, by who syncs the directory
	setting chan struct{} // likewise, by who sets a log aside

	mu     sync.Mutex   // guards what follows
	logs   map[Key]*Log // nil while it is being made
	flight *flight      // the next sync of the directory; nil while nobody waits for it
	spares spares
}

// Open opens the spool in dir, which is made if it isn't there, and finds the
// logs that are in it, sealed or not, also those of a former version. A log with a
// sidecar that is damaged, or missing where only it has the limit, is set aside under a
// name ending in ".damaged", and logged.
func Open(dir string, log *slog.Logger) (*Spool, error) {
	return OpenOn(Disk{}, dir, log)
}

// Disk is the one that a spool is on, for tests that know what it does. What is nil is the
// operating system's.
type Disk struct {
	// Fsync has a file, or the directory, stay when the power fails.
	Fsync func(*os.File) error
	// WriteOut has the disk take a part of a file, and with wait returns when it has. It
	// stays when the power fails only after an Fsync.
	WriteOut func(f *os.File, from, to int64, wait bool) error
	// Statfs says how much room there is.
	Statfs func(dir string, st *unix.Statfs_t) error
}

// OpenOn is Open on a disk of which tests know how long it takes, and what is there when
// the power fails.
func OpenOn(disk Disk, dir string, log *slog.Logger) (*Spool, error) {
	if disk.Fsync == nil {
		disk.Fsync = (*os.File).Sync
	}
	if disk.WriteOut == nil {
		disk.WriteOut = writeOut
	}
	if disk.Statfs == nil {
		disk.Statfs = unix.Statfs
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make spool directory %q: %w", dir, err)
	}
	found, err := openSpares(dir + "-spares")
	if err != nil {
		return nil, err
	}
	s := &Spool{dir: dir, log: log, punch: punch, disk: disk, outs: make(chan struct{}, outsAtOnce), syncing: make(chan struct{}, 1), setting: make(chan struct{}, 1), logs: map[Key]*Log{}, spares: found}
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read spool directory %q: %w", dir, err)
	}
	for _, n := range names {
		if err := s.find(n); err != nil {
			return nil, fmt.Errorf("open %q of the spool: %w", n.Name(), err)
		}
	}
	return s, nil
}

// find takes in a log, or sees to what an interrupted call left behind.
func (s *Spool) find(n fs.DirEntry) error {
	k, limit, kind := parseName(n.Name())
	path := filepath.Join(s.dir, n.Name())
	switch {
	case !n.Type().IsRegular():
		return nil
	case kind == logSuffix:
		l := s.newLog(k, limit)
		l.path = path // it stays where it is: its runner may be about to open it by that name
		return s.findLog(l)
	case slices.Contains(probeNames, n.Name()):
		_ = os.Remove(path) // if that fails, so does the next probe, which says so
	case kind == metaSuffix && s.logs[k] != nil: // names are in order: it comes after its log
		return nil
	case kind == metaSuffix, kind == tempSuffix:
		if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) { // it may have been set aside just now
			return err
		}
	}
	return nil
}

// findLog takes in a log with what its sidecar says, if it has one.
func (s *Spool) findLog(l *Log) error {
	m, err := loadMeta(l.metaPath())
	missing := errors.Is(err, fs.ErrNotExist)
	switch {
	case errors.Is(err, errDamaged):
		s.log.Error("spool log set aside: its sidecar is damaged", "path", l.path, "run", l.key.Run, "attempt", l.key.Attempt)
		return errors.Join(os.Rename(l.metaPath(), l.metaPath()+".damaged"), os.Rename(l.path, l.path+".damaged"))
	case missing && l.meta.limit == 0: // a former version's, whose sidecar had the limit
		s.log.Error("spool log set aside: its sidecar is missing", "path", l.path, "run", l.key.Run, "attempt", l.key.Attempt)
		return os.Rename(l.path, l.path+".damaged")
	case missing:
	case err != nil:
		return err
	default:
		l.meta, l.kept = m, true
	}
	s.logs[l.key] = l
	return nil
}

// Create makes the empty file of k, with mode 0600, and returns its log; file is the one
// that was reserved for it, or "". limit is the job's log_limit_bytes, at least [MinLimit].
// The caller gives [Log.Path] to the runner, which opens it with O_APPEND for the process.
func (s *Spool) Create(k Key, limit int64, file string) (*Log, error) {
	err := errors.Join(k.check(), checkLimit(limit))
	if err == nil && !s.reserve(k) {
		err = ErrExists
	}
	if err != nil {
		return nil, fmt.Errorf("create spool log of run %.150q attempt %d: %w", k.Run, k.Attempt, err)
	}
	l := s.newLog(k, limit)
	if err := l.create(file); err != nil {
		s.forget(k)
		return nil, fmt.Errorf("create spool log of run %q attempt %d: %w", k.Run, k.Attempt, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logs[k] = l
	return l, nil
}

// Get returns the log of k, if there is one.
func (s *Spool) Get(k Key) (*Log, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.logs[k]
	return l, l != nil
}

// Usage returns the bytes of disk that all files of the spool take, also those
// set aside. It asks the file system about each, so call it every few seconds
// and not for every write.
func (s *Spool) Usage() (bytes int64) {
	names, err := os.ReadDir(s.dir)
	if err != nil {
		s.log.Warn("spool usage not known", "path", s.dir, "err", err)
	}
	for _, n := range names {
		var st unix.Stat_t
		if unix.Lstat(filepath.Join(s.dir, n.Name()), &st) == nil { // else: removed meanwhile
			bytes += st.Blocks * 512
		}
	}
	return bytes
}

func (s *Spool) reserve(k Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.logs[k]; there {
		return false
	}
	s.logs[k] = nil
	return true
}

func (s *Spool) forget(k Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.logs, k)
}
