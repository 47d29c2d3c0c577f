package raftstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"github.com/hashicorp/raft"
)

// Memory is a disk for tests: it outlives the stores that are opened on it, one
// after the other, and its power can be cut.
//
// To kill a primary as SIGKILL would, cut it off from all that it talks to
// ([Network.Isolate], its gRPC connections), then Pull, and then Close its store:
// that waits for nothing that could still have an effect, since nothing is
// written any more. Opening another store on the same Memory is the restart.
type Memory struct {
	mu          sync.Mutex // guards what follows
	store       *raft.InmemStore
	snapshots   []memorySnapshot // the oldest first
	session     int              // of the store that may write
	inUse       bool
	beforeWrite func()
	beforeSync  func()
	wet         *wet  // what was written and is not synced; nil: nothing
	failing     error // why nothing can be written; nil: it can
	unsynced    error // why nothing can be synced; nil: it can
}

// NewMemory returns an empty disk.
func NewMemory() *Memory { return &Memory{store: raft.NewInmemStore()} }

// wet are entries that were written and are not synced yet.
type wet struct{ first, last uint64 }

// Pull cuts off the store that is open on m, as SIGKILL does: from now on, nothing of what
// it writes is kept. What it had written is there.
func (m *Memory) Pull() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pull()
}

func (m *Memory) pull() {
	m.session++
	m.inUse = false
	m.wet = nil
}

// Lose is Pull for a host that loses its power: what was written and not synced yet is
// gone, too. It returns how many entries that were.
func (m *Memory) Lose() (entries int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.wet != nil {
		_ = m.store.DeleteRange(m.wet.first, m.wet.last) // in memory it never fails
		entries = int(m.wet.last - m.wet.first + 1)
	}
	m.pull()
	return entries
}

// BeforeWrite has f called before entries are written to the log. A slow disk is
// an f that sleeps; nil ends it.
func (m *Memory) BeforeWrite(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.beforeWrite = f
}

// BeforeSync has f called when entries were written to the log, and before they are
// synced: nobody is told of them yet, and a loss of power takes them. A slow disk is an f
// that sleeps; nil ends it.
func (m *Memory) BeforeSync(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.beforeSync = f
}

// Fail has each write be refused with err, as on a full disk; nil ends it.
func (m *Memory) Fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failing = err; err != nil {
		m.failing = refusal(err)
	}
}

// FailSync has each write be done and its fsync fail with err, so that what is there is
// seen and nobody knows whether it stays; nil ends it.
func (m *Memory) FailSync(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unsynced = err
}

// refusal is the error of a write that was refused, as the log's file gives it.
func refusal(err error) error { return &fs.PathError{Op: "write", Path: raftDBFile, Err: err} }

// Flip changes one bit of an entry of the log that holds a command, the newest but so
// many, as a disk may do. It reports whether there is such an entry.
func (m *Memory) Flip(before int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	last, _ := m.store.LastIndex() // in memory it never fails
	for i := last; i > 0; i-- {
		var l raft.Log
		if m.store.GetLog(i, &l) != nil || l.Type != raft.LogCommand || len(l.Data) == 0 {
			continue
		}
		if before--; before >= 0 {
			continue
		}
		l.Data = bytes.Clone(l.Data)
		l.Data[len(l.Data)/2] ^= 1
		return m.store.StoreLogs([]*raft.Log{&l}) == nil
	}
	return false
}

// open returns the disk for one store.
func (m *Memory) open() (*disk, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.inUse {
		return nil, errors.New("opening the store in memory: another store uses it")
	}
	m.inUse = true
	m.session++
	s := &memorySession{InmemStore: m.store, m: m, number: m.session}
	return &disk{name: "memory", logs: s, stable: s, snapshots: memorySnapshots{s}, closers: []func() error{s.close}}, nil
}

// errPower is what a store sees whose power was cut.
var errPower = errors.New("the power was cut")

// memorySession is the disk as one store has it. It is the log and Raft's own
// values.
type memorySession struct {
	*raft.InmemStore
	m      *Memory
	number int
}

func (s *memorySession) close() error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if s.number == s.m.session {
		s.m.inUse = false
	}
	return nil
}

// write calls f, unless the power was cut.
func (s *memorySession) write(f func() error) error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if s.number != s.m.session {
		return errPower
	}
	if err := f(); err != nil {
		return err
	}
	return s.m.unsynced
}

// StoreLog implements [raft.LogStore].
func (s *memorySession) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements [raft.LogStore].
func (s *memorySession) StoreLogs(logs []*raft.Log) error {
	s.m.mu.Lock()
	before, sync := s.m.beforeWrite, s.m.beforeSync
	s.m.mu.Unlock()
	if before != nil {
		before()
	}
	err := s.write(func() error {
		if s.m.failing != nil {
			return s.m.failing
		}
		if len(logs) > 0 {
			s.m.wet = &wet{logs[0].Index, logs[len(logs)-1].Index}
		}
		return s.InmemStore.StoreLogs(logs)
	})
	if err != nil {
		return err
	}
	if sync != nil {
		sync()
	}
	return s.write(func() error {
		s.m.wet = nil
		return nil
	})
}

// DeleteRange implements [raft.LogStore].
func (s *memorySession) DeleteRange(from, to uint64) error {
	return s.write(func() error {
		if s.m.failing != nil {
			return s.m.failing
		}
		return s.InmemStore.DeleteRange(from, to)
	})
}

// Set implements [raft.StableStore]. Without power it keeps nothing and says
// nothing: Raft would panic.
func (s *memorySession) Set(key, value []byte) error {
	return s.quietly(func() error { return s.InmemStore.Set(key, value) })
}

// SetUint64 implements [raft.StableStore].
func (s *memorySession) SetUint64(key []byte, value uint64) error {
	return s.quietly(func() error { return s.InmemStore.SetUint64(key, value) })
}

func (s *memorySession) quietly(f func() error) error {
	err := s.write(func() error {
		if s.m.failing != nil {
			return s.m.failing
		}
		return f()
	})
	if errors.Is(err, errPower) {
		return nil
	}
	return err
}

// memorySnapshots implements [raft.SnapshotStore].
type memorySnapshots struct{ *memorySession }

type memorySnapshot struct {
	meta raft.SnapshotMeta
	data []byte
}

// Create implements [raft.SnapshotStore].
func (s memorySnapshots) Create(version raft.SnapshotVersion, index, term uint64,
	group raft.Configuration, groupIndex uint64, _ raft.Transport,
) (raft.SnapshotSink, error) {
	sink := &memorySink{session: s.memorySession}
	sink.meta = raft.SnapshotMeta{
		Version: version, ID: fmt.Sprintf("%d-%d", term, index), Index: index, Term: term,
		Configuration: group, ConfigurationIndex: groupIndex,
	}
	return sink, s.write(func() error { return nil })
}

// List implements [raft.SnapshotStore]: the newest first.
func (s memorySnapshots) List() ([]*raft.SnapshotMeta, error) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	var list []*raft.SnapshotMeta
	for i := range s.m.snapshots {
		meta := s.m.snapshots[len(s.m.snapshots)-1-i].meta
		list = append(list, &meta)
	}
	return list, nil
}

// Open implements [raft.SnapshotStore].
func (s memorySnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	for _, n := range s.m.snapshots {
		if n.meta.ID == id {
			return &n.meta, io.NopCloser(bytes.NewReader(n.data)), nil
		}
	}
	return nil, nil, fmt.Errorf("opening snapshot %s in memory: there is none", id)
}

// memorySink is a snapshot that is being written. It is there once it is closed.
type memorySink struct {
	session *memorySession
	meta    raft.SnapshotMeta
	data    bytes.Buffer
	over    bool
}

func (k *memorySink) Write(p []byte) (int, error) { return k.data.Write(p) }
func (k *memorySink) ID() string                  { return k.meta.ID }

// Cancel implements [raft.SnapshotSink].
func (k *memorySink) Cancel() error {
	k.over = true
	return nil
}

// Close implements [raft.SnapshotSink].
func (k *memorySink) Close() error {
	if k.over {
		return nil
	}
	k.over = true
	k.meta.Size = int64(k.data.Len())
	return k.session.write(func() error {
		m := k.session.m
		m.snapshots = append(m.snapshots, memorySnapshot{k.meta, k.data.Bytes()})
		if n := len(m.snapshots) - keptSnapshots; n > 0 {
			m.snapshots = append([]memorySnapshot(nil), m.snapshots[n:]...)
		}
		return nil
	})
}
