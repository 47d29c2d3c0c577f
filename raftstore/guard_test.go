package raftstore

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// failing waits until a store has failed, and returns why. Closing it takes no longer
// than usual.
func failing(t *testing.T, s *Store) string {
	t.Helper()
	select {
	case <-s.Failed():
	case <-time.After(time.Minute):
		t.Fatal("it has not failed within a minute")
	}
	if err := s.DiskErr(); err == nil {
		t.Error("it does not say so of its disk")
	}
	if _, err := s.Propose(t.Context(), putWorker(99)); !errors.Is(err, ErrStopped) {
		t.Errorf("a proposal after it has failed: %v", err)
	}
	begin := time.Now()
	if err := s.Close(); err != nil {
		t.Errorf("closing it: %v", err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("closing it took %v", took)
	}
	return s.Err().Error()
}

func says(t *testing.T, got string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(got, w) {
			t.Errorf("it says %q, and should say %q", got, w)
		}
	}
}

// A bit of an entry was flipped while the primary was stopped. It does not start, and
// says what to do; with an empty disk it gets all from the others.
func TestFlippedEntryIsNotStartedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		for i := range 4 {
			propose(t, c.leader(), putWorker(i))
		}
		id := c.other(c.leader()).id
		c.agree()
		c.kill(id)
		if !c.disks[id].Flip(1) {
			t.Fatal("there is no entry")
		}
		_, err := Open(Config{NodeID: id, Memory: c.disks[id], Transport: c.net.Transport(id), Log: quiet()})
		if err == nil {
			t.Fatal("it starts on a damaged log")
		}
		says(t, err.Error(), "the log is damaged: entry", "checksum is wrong", "remove it from the group")
		c.net.Heal()
		c.fresh(id)
		propose(t, c.leader(), putWorker(5))
		c.agree()
	})
}

// The same, of an entry that the snapshot covers: the log is cut there, and goes on.
func TestFlippedEntryBehindASnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory()
		s := alone(t, m)
		for i := range 4 {
			propose(t, s, putWorker(i))
		}
		if err := s.Snapshot(t.Context()); err != nil {
			t.Fatal(err)
		}
		propose(t, s, putWorker(4))
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		m.Flip(2)
		s = alone(t, m)
		if n := numWorkers(s); n != 5 {
			t.Errorf("%d workers, want 5", n)
		}
		if first, _ := m.store.FirstIndex(); first < 3 {
			t.Errorf("the log begins at %d, before the damage", first)
		}
	})
}

// A bit is flipped while the primary runs, before it has applied the entry. It never
// does: it fails, in order.
func TestFlippedEntryIsNotApplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory()
		s := alone(t, m)
		for i := range 4 {
			propose(t, s, putWorker(i))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, Config{NodeID: "a", Memory: m})
		m.Flip(1) // it applies them when it leads
		says(t, failing(t, s), "the log is damaged: entry", "remove it from the group")
		if n := numWorkers(s); n > 2 {
			t.Errorf("%d workers: it went on behind the damage", n)
		}
	})
}

// An fsync of the log fails: nobody knows what is there now, so the primary fails, and
// the others go on.
func TestFailedFsync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		l := c.leader()
		propose(t, l, putWorker(1))
		c.disks[l.id].Fail(syscall.EIO)
		_, err := l.Propose(t.Context(), putWorker(2))
		if err == nil {
			t.Error("what can't be written is agreed")
		}
		says(t, failing(t, l), "writing 1 entries to the log", "input/output error", "check it, then start this primary again")
		delete(c.stores, l.id)
		propose(t, c.leader(), putWorker(3))
		c.disks[l.id].Fail(nil)
		c.start(l.id)
		c.agree()
	})
}

// An fsync fails for want of room, as on a disk that promises more than it has. What it was
// for is seen in the log, and nobody knows whether it stays: that is no full disk but the
// end, for an entry and for a vote.
func TestFailedFsyncForWantOfRoom(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS} {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t)
			l := c.leader()
			propose(t, l, putWorker(1))
			c.disks[l.id].FailSync(errno)
			if _, err := l.Propose(t.Context(), putWorker(2)); err == nil {
				t.Error("what can't be synced is agreed")
			}
			says(t, failing(t, l), "writing 1 entries to the log", errno.Error(), "check it, then start this primary again")
			delete(c.stores, l.id)
			f := c.leader()
			propose(t, f, putWorker(3))
			c.disks[l.id].FailSync(nil)
			c.start(l.id)
			c.agree()

			v := c.other(c.leader())
			c.disks[v.id].FailSync(errno)
			c.kill(c.leader().id)
			c.net.Heal()
			says(t, failing(t, v), errno.Error(), "check it, then start this primary again")
		})
	}
}

// The term, or a vote, can't be written. Raft would panic; the primary fails in order.
func TestFailedVote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		l := c.leader()
		propose(t, l, putWorker(1))
		f := c.other(l)
		c.disks[f.id].Fail(syscall.EIO)
		c.kill(l.id)
		c.net.Heal()
		says(t, failing(t, f), "input/output error", "check it, then start this primary again")
	})
}

// There is no room for the term: the primary waits for it, and closes all the same.
func TestNoRoomForTheTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		l := c.leader()
		propose(t, l, putWorker(1))
		for id := range c.stores {
			if id != l.id {
				c.disks[id].Fail(syscall.EROFS)
			}
		}
		c.kill(l.id)
		c.net.Heal()
		time.Sleep(time.Minute)
		delete(c.stores, l.id)
		for id, s := range c.stores {
			if s.Err() != nil || s.Status().Role == "leader" {
				t.Errorf("%s: %v, role %s", id, s.Err(), s.Status().Role)
			}
		}
		var stuck *Store // who stood for the election; the other has nothing to write
		for _, s := range c.stores {
			if errors.Is(s.DiskErr(), syscall.EROFS) {
				stuck = s
			}
		}
		if stuck == nil {
			t.Fatal("nobody says of its disk that it is read-only")
		}
		begin := time.Now()
		if err := stuck.Close(); err != nil || time.Since(begin) > 5*time.Second {
			t.Errorf("closing %s: %v, after %v", stuck.id, err, time.Since(begin))
		}
		for id := range c.disks {
			c.disks[id].Fail(nil)
		}
		c.start(stuck.id)
		propose(t, c.leader(), putWorker(2))
		c.start(l.id)
		c.agree()
	})
}

// Without room there is no start, and what to do is said.
func TestNoRoomToStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory()
		m.Fail(syscall.ENOSPC)
		_, err := Open(Config{NodeID: "a", Memory: m, Log: quiet()})
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("err = %v", err)
		}
		says(t, err.Error(), "make room on the disk, then start this primary again")
		if strings.Contains(err.Error(), "damaged") {
			t.Errorf("it takes a full disk for a damaged one: %v", err)
		}
	})
}

// The leader's disk hangs without an error. The others go on with another leader; when
// it answers, what it wrote too late is gone, and all agree.
func TestHungDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		l := c.leader()
		propose(t, l, putWorker(1))
		answers := make(chan struct{})
		c.disks[l.id].BeforeWrite(func() { <-answers })
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		if _, err := l.Propose(ctx, putWorker(2)); err == nil {
			t.Error("what was not written is agreed")
		}
		if err := l.DiskErr(); !errors.Is(err, errHung) {
			close(answers)
			t.Fatalf("it says of its disk: %v", err)
		}
		delete(c.stores, l.id)
		for i := range 5 {
			propose(t, c.leader(), putWorker(3+i))
		}
		time.Sleep(time.Minute)
		if err := l.DiskErr(); !errors.Is(err, errHung) {
			t.Errorf("after a minute it says of its disk: %v", err)
		}
		c.disks[l.id].BeforeWrite(nil)
		close(answers)
		c.stores[l.id] = l
		propose(t, c.leader(), putWorker(9))
		c.agree()
		if err := l.DiskErr(); err != nil {
			t.Errorf("once it answers it says of its disk: %v", err)
		}
		c.kill(l.id)
		c.restart(l.id)
		c.agree()
		if n := numWorkers(c.stores[l.id]); n > 8 {
			t.Errorf("%d workers", n)
		}
	})
}

// slowLogs are a log whose writes wait, and a disk that may have no room.
type slowLogs struct {
	*raft.InmemStore
	wait atomic.Pointer[chan struct{}]
	err  error
}

func (s *slowLogs) StoreLogs(logs []*raft.Log) error {
	if c := s.wait.Load(); c != nil {
		<-*c
	}
	if s.err != nil {
		return s.err
	}
	return s.InmemStore.StoreLogs(logs)
}

func logsOf(term uint64, indices ...uint64) (logs []*raft.Log) {
	for _, i := range indices {
		logs = append(logs, &raft.Log{Index: i, Term: term, Data: []byte{byte(i)}})
	}
	return logs
}

// What was refused since it took too long is not there afterwards, whatever the disk
// did with it, and nothing is written before it is gone.
func TestLateWriteIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &slowLogs{InmemStore: raft.NewInmemStore()}
		g := newGuard(d, d, &health{})
		if err := g.StoreLogs(logsOf(1, 1, 2)); err != nil {
			t.Fatal(err)
		}
		answers := make(chan struct{})
		d.wait.Store(&answers)
		if err := g.StoreLogs(logsOf(1, 3, 4, 5)); !errors.Is(err, errHung) {
			t.Fatalf("err = %v", err)
		}
		if err := g.StoreLogs(logsOf(2, 3)); !errors.Is(err, errHung) {
			t.Fatalf("the next one: %v", err)
		}
		voted := make(chan error, 1)
		go func() { voted <- g.SetUint64([]byte("CurrentTerm"), 2) }()
		d.wait.Store(nil)
		close(answers)
		if err := <-voted; err != nil {
			t.Error(err)
		}
		if last, _ := g.LastIndex(); last != 2 {
			t.Errorf("the log ends at %d, want 2", last)
		}
		if err := errors.Join(g.StoreLogs(logsOf(2, 3)), g.health.get(), g.err()); err != nil {
			t.Error(err)
		}
		if last, _ := g.LastIndex(); last != 3 {
			t.Errorf("the log ends at %d, want 3", last)
		}
		if err := g.close(); err != nil {
			t.Error(err)
		}
	})
}

// Entries that nobody had agreed on were deleted, and there is no room for those that
// take their place. Raft goes on believing that the former are there, so this is the
// end.
func TestNoRoomAfterACut(t *testing.T) {
	d := &slowLogs{InmemStore: raft.NewInmemStore()}
	g := newGuard(d, d, &health{})
	if err := errors.Join(g.StoreLogs(logsOf(1, 1, 2, 3)), g.DeleteRange(2, 3)); err != nil {
		t.Fatal(err)
	}
	d.err = refusal(syscall.ENOSPC)
	if err := g.StoreLogs(logsOf(2, 2)); !errors.Is(err, syscall.ENOSPC) || g.err() == nil {
		t.Errorf("err = %v, and it goes on", err)
	}
	says(t, g.err().Error(), "make room on the disk, then start this primary again")

	synctest.Test(t, func(t *testing.T) { // a disk that does not answer is no better
		d := &slowLogs{InmemStore: raft.NewInmemStore()}
		g := newGuard(d, d, &health{})
		if err := errors.Join(g.StoreLogs(logsOf(1, 1, 2, 3)), g.DeleteRange(2, 3)); err != nil {
			t.Fatal(err)
		}
		answers := make(chan struct{})
		d.wait.Store(&answers)
		if err := g.StoreLogs(logsOf(2, 2)); !errors.Is(err, errHung) || g.err() == nil {
			t.Errorf("err = %v, and it goes on", err)
		}
		close(answers)
		if err := g.close(); err != nil {
			t.Error(err)
		}
	})

	g = newGuard(d, d, &health{}) // at its other end it is no harm
	d.err = nil
	if err := errors.Join(g.StoreLogs(logsOf(2, 2, 3, 4)), g.DeleteRange(1, 2)); err != nil {
		t.Fatal(err)
	}
	d.err = refusal(syscall.ENOSPC)
	if err := g.StoreLogs(logsOf(2, 5)); !errors.Is(err, syscall.ENOSPC) || g.err() != nil {
		t.Errorf("err = %v, and it fails: %v", err, g.err())
	}
}
