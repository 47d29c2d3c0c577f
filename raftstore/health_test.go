package raftstore

import (
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A disk is full for a while. The primary says so for as long, and then goes on.
func TestDiskErr(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory()
		s := alone(t, m)
		propose(t, s, putWorker(1))
		if err := s.DiskErr(); err != nil {
			t.Errorf("with a good disk: %v", err)
		}
		m.Fail(syscall.ENOSPC)
		if _, err := s.Propose(t.Context(), putWorker(2)); err == nil {
			t.Error("what can't be written is agreed")
		}
		for range 60 {
			time.Sleep(time.Second)
			if err := s.DiskErr(); !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("with a full disk: %v", err)
			}
		}
		m.Fail(nil)
		awaitLeader(t, s)
		propose(t, s, putWorker(3))
		if err := s.DiskErr(); err != nil {
			t.Errorf("with a good disk again: %v", err)
		}
	})
}

// A follower's disk is full: the others go on, and it has all once there is room.
func TestDiskErrOfAFollower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		l := c.leader()
		f := c.other(l)
		c.disks[f.id].Fail(syscall.ENOSPC)
		propose(t, l, putWorker(1))
		time.Sleep(10 * time.Second)
		if err := f.DiskErr(); !errors.Is(err, syscall.ENOSPC) || l.DiskErr() != nil {
			t.Errorf("the follower says %v, the leader %v", err, l.DiskErr())
		}
		c.disks[f.id].Fail(nil)
		c.agree()
		if err := f.DiskErr(); err != nil {
			t.Errorf("with a good disk again: %v", err)
		}
	})
}
