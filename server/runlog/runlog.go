package runlog

import (
	"container/list"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
)

const (
	// MaxAppend is the most that one [Store.Append] takes, in bytes.
	MaxAppend = 1 << 20

	maxRun    = 64  // characters of a run's id
	maxOpen   = 256 // files kept open between calls
	maxFsyncs = 8   // fsyncs in flight
	shards    = 256

	// maxFinished is how many finished logs, at least, are remembered to be so, at about
	// 100 bytes each; there may be twice as many. More than primaries keep in memory of
	// runs, which they compare every few minutes.
	maxFinished = 1 << 15
)

// What a caller may want to tell apart. Anything else is an error of the file
// system, wrapped: a full disk is syscall.ENOSPC, and the call may be repeated.
var (
	// ErrInvalid is returned for a request that is wrong in itself: a key that
	// is not one, a negative offset, too many bytes. It must not be repeated.
	ErrInvalid = errors.New("invalid request")
	// ErrChecksum is returned when data are not what their checksum says. They
	// were damaged on their way here: send them again.
	ErrChecksum = errors.New("checksum does not match the data")
	// ErrSealed is returned when a seal contradicts: bytes beyond the sealed
	// length, another length than sealed before, or a seal below what is known.
	// Nothing was changed. Who trusts the bytes here more than the length may
	// seal at [Info].Known.
	ErrSealed = errors.New("contradicts the length of the log")
	// ErrUnavailable is returned when an fsync of the log has failed and it could not
	// yet be stored anew. Nothing more is acknowledged: repeat the call later.
	ErrUnavailable = errors.New("log is not safe on this disk")
	// ErrCorrupt is returned by reads of what was durable once, and cannot be read any
	// more. Appending from [Info].Known on, from another copy, repairs it.
	ErrCorrupt = errors.New("log is damaged on this disk")
	// ErrRemoved is returned to those who were busy with a log while it was removed.
	ErrRemoved = errors.New("log was removed")
	// ErrClosed is returned after [Store.Close].
	ErrClosed = errors.New("run logs are closed")
)

// Key names a log: the output of one attempt of a run. The fence belongs to it,
// since a state that is restored from a snapshot may come to the same attempt of
// the same run again: that is another one, and prints something else.
type Key struct {
	Run     string // [a-z0-9-]{1,64}
	Attempt uint32
	Fence   uint64
}

// String returns the key as it is shown to people.
func (k Key) String() string {
	return k.Run + "." + strconv.FormatUint(uint64(k.Attempt), 10) + "." + strconv.FormatUint(k.Fence, 10)
}

// Check returns [ErrInvalid] unless the key can be the name of a file.
func (k Key) Check() error {
	bad := len(k.Run) == 0 || len(k.Run) > maxRun
	for _, c := range []byte(k.Run) {
		bad = bad || (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-'
	}
	if bad {
		return fmt.Errorf("run id %.80q is not [a-z0-9-]{1,%d}: %w", k.Run, maxRun, ErrInvalid)
	}
	return nil
}

// Store is the logs below one directory. All methods may be called at any time
// from any goroutine; those on different logs do not wait for each other.
type Store struct {
	log     *slog.Logger
	fsync   func(*os.File) error
	maxOpen int
	slots   chan struct{} // one token for each fsync in flight
	closing chan struct{} // closed by Close, for those who follow

	mu     sync.Mutex // guards all below, and all of attempt and handle as said there
	closed bool
	calls  sync.WaitGroup // calls that may touch a file; Add only with mu held and closed false
	logs   map[Key]*attempt
	empty  Recent[struct{}]
	whole  Recent[finished] // files of finished logs that are not in memory
	idle   *list.List       // of *attempt with an open file that nobody uses, latest first
	open   int              // files open, used or idle
	shards [shards]shard

	failures uint64 // writes that the disk did not take, and logs that it did not open
	failed   error  // why it did not take the last of them
}

// Failures returns how often the disk has not taken what was to be written since
// Open, or not let a log be opened for that, and why it did not the last time. What
// counts is whether it grows: a disk that was full has room again at some time, and
// nobody tells. [Store.Probe] finds out.
func (s *Store) Failures() (n uint64, last error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failures, s.failed
}

// fail counts a failure.
func (s *Store) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures++
	s.failed = err
}

// shard is one directory of logs, made with its first.
type shard struct {
	path    string
	created int64         // grows with each new name; 1 stands for those of earlier lives
	synced  int64         // all names up to this one are on disk
	flight  chan struct{} // as in attempt
	named   bool          // its own name was made durable in this life
}

// Open opens the logs below dir, which is made if it is not there. Logs are looked
// at only when they are used, so this does not take longer with more of them.
func Open(dir string, log *slog.Logger) (*Store, error) {
	return OpenOn((*os.File).Sync, dir, log)
}

// OpenOn is Open on a disk of which tests know how long an fsync takes, how it fails, and
// what is there when the power does.
func OpenOn(fsync func(*os.File) error, dir string, log *slog.Logger) (*Store, error) {
	s := &Store{
		log:     log,
		fsync:   fsync,
		maxOpen: maxOpen,
		slots:   make(chan struct{}, maxFsyncs),
		closing: make(chan struct{}),
		logs:    make(map[Key]*attempt),
		empty:   NewRecent[struct{}](1 << 16),
		whole:   NewRecent[finished](maxFinished),
		idle:    list.New(),
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open run logs: %w", err)
	}
	for i := range s.shards {
		s.shards[i] = shard{path: filepath.Join(dir, fmt.Sprintf("%02x", i)), created: 1}
	}
	// Always, not only if dir was made: an earlier process may have been killed
	// just here, and no log is durable in a directory that is not.
	if err := s.fsyncDir(filepath.Dir(dir)); err != nil {
		return nil, fmt.Errorf("open run logs: %w", err)
	}
	return s, nil
}

// shardOf returns the shard of k. All attempts of a run share one.
func (s *Store) shardOf(k Key) *shard {
	return &s.shards[crc32.ChecksumIEEE([]byte(k.Run))%shards]
}

// pathOf returns where the log of k is.
func (s *Store) pathOf(k Key) string { return filepath.Join(s.shardOf(k).path, k.String()+suffix) }

// Close ends the store: followers return [ErrClosed], other calls are waited for,
// files are closed. It syncs nothing; what was not acknowledged is sent again.
func (s *Store) Close() error {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	s.mu.Unlock()
	if first {
		close(s.closing)
	}
	s.calls.Wait()

	s.mu.Lock()
	var files []*os.File
	for _, a := range s.logs {
		files = append(files, s.retireLocked(a)...)
	}
	s.mu.Unlock()
	s.closeAll(files)
	return nil
}

// enter counts a call in, unless the store is closed. Each is followed by
// calls.Done.
func (s *Store) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	s.calls.Add(1)
	return nil
}
