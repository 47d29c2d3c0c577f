package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// probeNames are of no log: what an attempt needs is a file, and one for its sidecar.
var probeNames = []string{"probe-log", "probe-meta"}

// Probe makes the files of a log of nobody's, writes and syncs them, removes them, and
// returns why that fails. There may be one call at a time.
func (s *Spool) Probe() error {
	err := s.clearProbe() // of what one left that was killed, or could not remove it
	for _, name := range probeNames {
		if err == nil {
			err = s.fill(filepath.Join(s.dir, name))
		}
	}
	if err = errors.Join(err, s.clearProbe()); err == nil {
		err = s.syncDir()
	}
	if err != nil {
		return fmt.Errorf("probe the spool: %w", err)
	}
	return nil
}

func (s *Spool) clearProbe() (err error) {
	for _, name := range probeNames {
		if rerr := os.Remove(filepath.Join(s.dir, name)); !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}

// fill makes a file of half of what has to be free, and syncs it.
func (s *Spool) fill(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, fullBelow/2))
	if err == nil {
		err = s.disk.Fsync(f)
	}
	return errors.Join(err, f.Close())
}
