package raftstore

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// hungAfter is how long a write may take before the disk counts as hung. It is
	// more than the worst that a disk which is only busy takes; a leader decides
	// nothing meanwhile.
	hungAfter = 10 * time.Second
	// roomAgain is how often a value that there was no room for is written again.
	roomAgain = time.Second
)

// whatToDo is what an operator does about data that are not as they were written.
const whatToDo = "do not start this primary on these data again: remove it from the group, and let it join with an empty data directory; " +
	"one that is alone is restored from a backup (docs/operating-a-cluster.md, Damaged data)"

var (
	// errHung is what a write gets that the disk does not answer.
	errHung = fmt.Errorf("the disk has not answered for more than %v", hungAfter)

	// errUnreadable is what bbolt makes no sense of, or the disk does not give.
	errUnreadable = errors.New("it can't be read")

	// errDamagedLog is a log, or one of Raft's own values, that is not as it was written.
	errDamagedLog = errors.New("the log is damaged")
)

// guard stands between Raft and the disk. Raft knows two answers to a disk that fails:
// to try again for ever, and to panic. Those do for a log that has no room for an
// entry, and for nothing else, so what fails is judged here:
//
//   - A write is refused for want of room, or since the disk was made read-only: nothing
//     of it counts. An entry is refused; a leader then steps down, and a follower is sent it again. The term and
//     the vote wait until there is room: without them this primary can't take part.
//   - A write that does not come back is refused after [hungAfter], so that a leader
//     steps down, and others go on. What it wrote in the end is taken back before
//     anything else is written, since Raft counts on its not being there.
//   - Anything else is the end: after an fsync that failed nobody knows what is on the
//     disk, and what is damaged must not be applied. The store fails, which says so in
//     [Store.Err], and the goroutine of Raft that asked ends there, as it can't be
//     given an answer that is true.
type guard struct {
	logs   raft.LogStore
	stable raft.StableStore
	health *health

	// turn is held (by having sent to it) by whoever writes, until the disk has
	// answered. It is a channel since it is held during I/O.
	turn chan struct{}

	// writes are entries for the goroutine that writes them. It is kept, since a new one
	// would have its stack moved several times on the way down to the disk.
	writes chan writing

	// cut is set when entries at the end were deleted, until others are in their place.
	// Raft believes that the former are there until it is told of the latter, so what
	// can't be written then can't be tried again.
	cut atomic.Bool

	opened   atomic.Bool   // the store is open: waiting for room is better than not to start
	ended    atomic.Bool   // a goroutine of Raft was ended
	panicked atomic.Bool   // bbolt may have left its locks as they were
	fault    atomic.Value  // of faulted: the first that is the end
	onFail   func(error)   // told of it; set before the store is open
	onWrite  func()        // told that the log was written, or could not be; likewise
	stopping chan struct{} // closed when the store is closed
}

func newGuard(logs raft.LogStore, stable raft.StableStore, h *health) *guard {
	g := &guard{
		logs: sealedLogs{logs}, stable: sealedStable{stable}, health: h,
		turn: make(chan struct{}, 1), writes: make(chan writing), onFail: func(error) {}, onWrite: func() {}, stopping: make(chan struct{}),
	}
	go func() {
		for w := range g.writes {
			g.write(w)
		}
	}()
	return g
}

// err tells why this is the end; nil while it is not.
func (g *guard) err() error {
	f, _ := g.fault.Load().(faulted)
	return f.err
}

// faulted is an error in an [atomic.Value], which holds one type only.
type faulted struct{ err error }

// fail is the end. It returns the first reason that there was.
func (g *guard) fail(err error) error {
	if g.fault.CompareAndSwap(nil, faulted{err}) {
		_ = g.health.note(err)
		g.onFail(err)
	}
	return g.err()
}

// end ends the goroutine of Raft that asks for what can't be had. It returns nothing.
func (g *guard) end() error {
	g.ended.Store(true)
	runtime.Goexit()
	return nil
}

// during calls f in a goroutine of its own, which Raft may end by a panic, or the guard
// as it ends Raft's.
func (g *guard) during(f func() error) error {
	done := make(chan error, 1)
	go func() {
		defer close(done) // also by Goexit, and then it is empty
		defer func() {
			if p := recover(); p != nil {
				done <- fmt.Errorf("%w: %v; %s", errDamagedLog, p, whatToDo)
			}
		}()
		done <- f()
	}()
	if err := <-done; err != nil || g.err() == nil {
		return err
	}
	return g.err()
}

// try calls f, which touches the disk, and makes an error of what bbolt does when it
// can't: it panics where a page makes no sense, and touching one that the disk does not
// give faults, since the file is mapped into memory.
func (g *guard) try(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			g.panicked.Store(true)
			err = fmt.Errorf("%w: %v", errUnreadable, p)
		}
	}()
	return f()
}

// noRoom tells whether an error says that a write was refused, and may be done later.
// bbolt writes pages where nobody looks, syncs, and only then the page that leads to them,
// of which one has been in that place since the file was made, and syncs again: a write
// that is refused has changed nothing that is read. It is told from an fsync by what the
// system calls it, whatever the errno: after an fsync that failed, the kernel shows what it
// did not write, and another fsync may succeed without it.
func noRoom(err error) bool {
	at, ok := errors.AsType[*fs.PathError](err)
	return ok && at.Op == "write" && (errors.Is(at, syscall.ENOSPC) || errors.Is(at, syscall.EDQUOT) || errors.Is(at, syscall.EROFS))
}

// between calls f while nothing is written, unless the store is closed before.
func (g *guard) between(f func() error) error {
	select {
	case g.turn <- struct{}{}:
	case <-g.stopping:
		return nil
	}
	defer func() { <-g.turn }()
	return f()
}

// judge returns what a write is to be answered: nothing was wrong, it can be tried
// again, or it is the end.
func (g *guard) judge(what string, err error) error {
	switch {
	case err == nil:
		return g.health.note(nil)
	case noRoom(err) && !g.cut.Load():
		return g.health.note(fmt.Errorf("%s: %w", what, err))
	case noRoom(err):
		return g.fail(fmt.Errorf("%s: %w; make room on the disk, then start this primary again", what, err))
	case errors.Is(err, errPower):
		return err
	case errors.Is(err, errAltered), errors.Is(err, errUnreadable):
		return g.fail(fmt.Errorf("%w: %s: %w; %s", errDamagedLog, what, err, whatToDo))
	}
	return g.fail(fmt.Errorf("%s: %w; nobody knows what is on the disk now: check it, then start this primary again", what, err))
}

// close waits for a write that nobody waits for any more. Nothing is written after that,
// since it keeps the turn.
func (g *guard) close() error {
	g.turn <- struct{}{}
	close(g.writes)
	return nil
}

// StoreLog implements [raft.LogStore].
func (g *guard) StoreLog(l *raft.Log) error { return g.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements [raft.LogStore].
func (g *guard) StoreLogs(logs []*raft.Log) error {
	defer g.onWrite()
	if err := g.err(); err != nil {
		return err
	}
	what := fmt.Sprintf("writing %d entries to the log", len(logs))
	patience := time.NewTimer(hungAfter)
	defer patience.Stop()
	select {
	case g.turn <- struct{}{}:
	case <-patience.C: // of another one's write
		return g.hung(what)
	}
	w := writing{logs, make(chan error), make(chan struct{})}
	g.writes <- w
	select {
	case err := <-w.written:
		return err
	case <-patience.C:
		close(w.gone)
		return g.hung(what)
	}
}

// hung returns what is answered in place of a disk that does not answer.
func (g *guard) hung(what string) error {
	if g.cut.Load() {
		return g.fail(fmt.Errorf("%s in the place of others: %w; check the disk, then start this primary again", what, errHung))
	}
	return g.health.note(fmt.Errorf("%s: %w", what, errHung))
}

// writing is entries on their way to the disk.
type writing struct {
	logs    []*raft.Log
	written chan error    // takes the answer
	gone    chan struct{} // closed when nobody waits for that any more
}

// write writes entries, and gives back the turn. When whoever asked has gone, it takes
// them back.
func (g *guard) write(w writing) {
	defer func() { <-g.turn }()
	err := g.judge(fmt.Sprintf("writing %d entries to the log", len(w.logs)), g.try(func() error { return g.logs.StoreLogs(w.logs) }))
	if err == nil {
		g.cut.Store(false)
	}
	select {
	case w.written <- err:
		return
	case <-w.gone:
	}
	if err == nil {
		from, to := w.logs[0].Index, w.logs[len(w.logs)-1].Index
		_ = g.judge("taking back what was written too late", g.try(func() error { return g.logs.DeleteRange(from, to) })) // it is noted
	}
}

// GetLog implements [raft.LogStore].
func (g *guard) GetLog(index uint64, l *raft.Log) error {
	err := g.try(func() error { return g.logs.GetLog(index, l) })
	if err == nil || errors.Is(err, raft.ErrLogNotFound) || errors.Is(err, errPower) {
		return err
	}
	_ = g.fail(fmt.Errorf("%w: entry %d: %w; %s", errDamagedLog, index, err, whatToDo))
	return g.end()
}

// FirstIndex implements [raft.LogStore].
func (g *guard) FirstIndex() (n uint64, err error) {
	err = g.try(func() (err error) { n, err = g.logs.FirstIndex(); return err })
	return n, err
}

// LastIndex implements [raft.LogStore].
func (g *guard) LastIndex() (n uint64, err error) {
	err = g.try(func() (err error) { n, err = g.logs.LastIndex(); return err })
	return n, err
}

// DeleteRange implements [raft.LogStore].
func (g *guard) DeleteRange(from, to uint64) error {
	if err := g.err(); err != nil {
		return err
	}
	g.turn <- struct{}{}
	defer func() { <-g.turn }()
	defer g.health.begin()()
	last, err := g.LastIndex()
	if err == nil {
		err = g.try(func() error { return g.logs.DeleteRange(from, to) })
	}
	if err := g.judge(fmt.Sprintf("deleting entries %d to %d of the log", from, to), err); err != nil {
		return err
	}
	if to >= last {
		g.cut.Store(true)
	}
	return nil
}

// Get implements [raft.StableStore].
func (g *guard) Get(key []byte) (value []byte, err error) {
	err = g.try(func() (err error) { value, err = g.stable.Get(key); return err })
	return value, g.judgeValue(err)
}

// GetUint64 implements [raft.StableStore].
func (g *guard) GetUint64(key []byte) (n uint64, err error) {
	err = g.try(func() (err error) { n, err = g.stable.GetUint64(key); return err })
	return n, g.judgeValue(err)
}

func (g *guard) judgeValue(err error) error {
	if !errors.Is(err, errAltered) && !errors.Is(err, errUnreadable) {
		return err
	}
	return g.fail(fmt.Errorf("%w: %w; %s", errDamagedLog, err, whatToDo))
}

// SetUint64 implements [raft.StableStore].
func (g *guard) SetUint64(key []byte, n uint64) error {
	return g.set(key, func() error { return g.stable.SetUint64(key, n) })
}

// Set implements [raft.StableStore].
func (g *guard) Set(key, value []byte) error {
	return g.set(key, func() error { return g.stable.Set(key, value) })
}

// set has a value written before it returns. Raft can't be told that it is not: it
// would panic.
func (g *guard) set(key []byte, write func() error) error {
	for g.err() == nil {
		err := g.setOnce(fmt.Sprintf("writing %s", key), write)
		if err == nil {
			return nil
		}
		if noRoom(err) && !g.opened.Load() {
			_ = g.fail(fmt.Errorf("%w; make room on the disk, then start this primary again", err))
		}
		if g.err() == nil && !g.awaitRoom() {
			break
		}
	}
	return g.end()
}

// awaitRoom waits before a value is written again; false when the store is closed.
func (g *guard) awaitRoom() bool {
	again := time.NewTimer(roomAgain)
	defer again.Stop()
	select {
	case <-again.C:
		return true
	case <-g.stopping:
		return false
	}
}

func (g *guard) setOnce(what string, write func() error) error {
	g.turn <- struct{}{}
	defer func() { <-g.turn }()
	defer g.health.begin()()
	err := g.try(write)
	if noRoom(err) { // also where entries were cut off: it is only told when there is room
		return g.health.note(fmt.Errorf("%s: %w", what, err))
	}
	return g.judge(what, err)
}
