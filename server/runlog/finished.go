package runlog

import (
	"errors"
	"os"
	"time"
)

// Finished returns how long k's log is if its end frame says so: complete and
// durable. Unlike [Store.Stat] it does not read the log through, so it is cheap
// for logs that are not in memory; that one was damaged since is found out by
// who reads it.
func (s *Store) Finished(k Key) (length int64, ok bool) {
	if k.Check() != nil || s.enter() != nil {
		return 0, false
	}
	defer s.calls.Done()
	s.mu.Lock()
	was, seen := s.whole.Get(k)
	a := s.logs[k]
	if a != nil && a.done {
		length, ok = a.known, a.ended
		s.mu.Unlock()
		return length, ok
	}
	s.mu.Unlock()
	path := s.pathOf(k)
	is, err := os.Lstat(path)
	if err != nil {
		s.unreadable(k, err)
		return 0, false
	}
	if seen && was.size == is.Size() && was.written.Equal(is.ModTime()) {
		return was.length, true
	}
	if length, ok = s.endOf(k, path, is.Size()); ok {
		s.mu.Lock()
		s.whole.Put(k, finished{length, is.Size(), is.ModTime()})
		s.mu.Unlock()
	}
	return length, ok
}

// finished is a file that was found to be that of a finished log. As long as it has
// that size, and was written at that time, it is.
type finished struct {
	length  int64 // of the log
	size    int64 // of the file
	written time.Time
}

// endOf looks for the end of a log in a file of that size.
func (s *Store) endOf(k Key, path string, size int64) (length int64, ok bool) {
	f, err := os.Open(path)
	if err != nil {
		s.unreadable(k, err)
		return 0, false
	}
	defer s.closeAll([]*os.File{f})
	return lastEnd(f, size, k)
}

// unreadable tells of a log that can't be looked at, unless there is none.
func (s *Store) unreadable(k Key, err error) {
	if !errors.Is(err, os.ErrNotExist) {
		s.log.Warn("log cannot be read", "run", k.Run, "attempt", k.Attempt, "err", err)
	}
}
