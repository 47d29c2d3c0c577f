package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/schedd/schedd/raftstore"
)

// An fsync of the log fails. The primary ends by itself, in order, and says what to do;
// started again it goes on.
func TestEndsWhenItsDiskFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, c := raftstore.NewMemory(), localConfig(t)
		begin := func() (*Server, chan error, context.CancelFunc) {
			s, err := Open(c, Seams{
				Memory: disk, Listen: newPort, ListenCluster: newPort,
				DialCluster: func(context.Context, string) (net.Conn, error) { return nil, errors.New("nobody is there") },
			})
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- s.Run(ctx) }()
			time.Sleep(10 * time.Second)
			return s, done, stop
		}
		s, done, stop := begin()
		disk.Fail(syscall.EIO)
		if err := s.store.AddServer(t.Context(), raftstore.Server{ID: "b", Address: "b:1"}); err == nil {
			t.Error("what can't be written is agreed")
		}
		select {
		case err := <-done:
			if err == nil || !strings.Contains(err.Error(), "input/output error; nobody knows what is on the disk now: check it, then start this primary again") {
				t.Errorf("it ends with %v", err)
			}
		case <-time.After(time.Minute):
			t.Error("it goes on for a minute")
		}
		stop()
		disk.Fail(nil)
		s, done, stop = begin()
		isReady(t, "started again", s, "")
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// What keeps a primary from starting on its disk is told with what to do about it, once.
func TestWhatToDoAboutADisk(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{&fs.PathError{Op: "open", Path: "raft.db", Err: syscall.EROFS}, "mount it writable"},
		{&fs.PathError{Op: "write", Path: "raft.db", Err: syscall.ENOSPC}, "make room on that disk"},
		{&fs.PathError{Op: "mkdir", Path: "raft", Err: syscall.EACCES}, "--data-dir"},
		{fmt.Errorf("%w; make room on the disk", syscall.ENOSPC), ""},
		{errors.New("the log is damaged"), ""},
	} {
		if got := whatToDo(test.err); test.want == "" && got != "" || !strings.Contains(got, test.want) {
			t.Errorf("%v: %q, want %q", test.err, got, test.want)
		}
	}
}
