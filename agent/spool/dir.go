package spool

import (
	"errors"
	"os"
)

// flight is one sync of the directory, which all take who wait for it to begin.
type flight struct {
	done chan struct{}
	err  error // written before done is closed
}

// syncDir returns when all names that were there at the call are on the disk.
func (s *Spool) syncDir() error {
	s.mu.Lock()
	f, first := s.flight, s.flight == nil
	if first {
		f = &flight{done: make(chan struct{})}
		s.flight = f
	}
	s.mu.Unlock()
	if first {
		s.syncing <- struct{}{}
		s.mu.Lock()
		s.flight = nil // who comes from now on may be too late for this one
		s.mu.Unlock()
		f.err = s.fsyncDir(s.dir)
		<-s.syncing
		close(f.done)
	}
	<-f.done
	return f.err
}

func (s *Spool) fsyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(s.disk.Fsync(d), d.Close())
}

// syncName returns when the name that the file of a log has is on the disk. One that is
// borrowed may have been another's, in the spool itself.
func (l *Log) syncName() error {
	err := l.spool.syncDir()
	if l.borrowed != "" {
		err = errors.Join(err, l.spool.fsyncDir(l.spool.spares.dir))
	}
	return err
}
