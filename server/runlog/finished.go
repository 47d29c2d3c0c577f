package runlog

import (
	"errors"
	"os"
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
	a, err := s.hold(k)
	if err != nil {
		return 0, false
	}
	defer s.drop(a)
	s.mu.Lock()
	done, ended, known := a.done, a.ended, a.known
	s.mu.Unlock()
	if done {
		return known, ended
	}
	f, err := os.Open(a.path)
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			s.log.Warn("log cannot be read", "run", k.Run, "attempt", k.Attempt, "err", err)
		}
		return 0, false
	}
	defer s.closeAll([]*os.File{f})
	info, err := f.Stat()
	if err != nil {
		return 0, false
	}
	return lastEnd(f, info.Size(), k)
}
