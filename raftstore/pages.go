package raftstore

import (
	"fmt"
	"path/filepath"
	"time"
)

// dropEvery is how often the pages of the log leave this process.
const dropEvery = 15 * time.Second

// dropLog has the pages of the log's file leave this process again and again, until the
// store is closed. bbolt reads through a mapping, and what was read once counts as this
// process's memory until somebody else needs the room: after a start that is all of the
// log. What is read often comes back at once.
func (s *Store) dropLog() {
	if s.disk.dir == "" {
		return
	}
	tick := time.NewTicker(dropEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.stopping:
			return
		}
		if err := s.disk.dropLog(); err != nil {
			s.log.Debug("the log's pages were not given back; it is tried again", "err", err)
		}
	}
}

// dropLog has the pages of the log's file leave this process. Only who writes can map it
// anew, and nobody does meanwhile.
func (d *disk) dropLog() error {
	dir, err := filepath.Abs(d.dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return fmt.Errorf("finding the log: %w", err)
	}
	return d.guard.between(func() error { return dropPages(filepath.Join(dir, raftDBFile)) })
}
