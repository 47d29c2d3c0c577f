package raftstore

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// maxLog is how many bytes the log may have: a start reads all of them, and applies
	// those that came after the snapshot. With the settings of Raft alone it may have as many
	// entries as are written in two minutes, and fifty thousand: some ten gigabytes when
	// each holds a large job. With less, so many snapshots are written under load that it
	// is felt.
	maxLog = 64 << 20

	// shortenAgain is how soon it is tried again to shorten the log, and shortenRest how long
	// it is left alone after that.
	shortenAgain = 30 * time.Second
	shortenRest  = time.Second
)

// boundLog has the log shortened when it has more bytes than it may have, until the
// store is closed.
func (s *Store) boundLog(most int64) {
	ctx, cancel := context.WithCancel(context.Background())
	s.running.Go(func() {
		<-s.stopping
		cancel()
	})
	select {
	case <-s.caughtUp: // else a snapshot would be taken of what is soon another state
	case <-ctx.Done():
	}
	s.disk.size.tell(s.logLimit(most))
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-s.disk.size.over:
			rest := shortenRest
			if err := s.shortenLog(ctx, most); err != nil && ctx.Err() == nil {
				s.log.Warn("the log is larger than it should be, and can't be shortened yet; it is tried again", "bytes", s.disk.size.held(), "err", err)
				rest = shortenAgain
			}
			s.rest(rest)
			s.disk.size.tell(s.logLimit(most))
		}
	}
}

// rest waits, but not for longer than the store is open.
func (s *Store) rest(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.stopping:
	}
}

// logLimit is how many bytes the log may have: as many as the snapshot, if that is large.
// So a large state is not written for each few changes, and the disk holds no more than a few
// times the state.
func (s *Store) logLimit(most int64) int64 {
	all, err := s.disk.snapshots.List()
	if err != nil || len(all) == 0 {
		return most
	}
	return max(most, all[0].Size)
}

// shortenLog takes a snapshot, and has the log keep half of what it may have behind it, for
// others that are a little behind: who is farther gets the snapshot.
func (s *Store) shortenLog(ctx context.Context, most int64) error {
	limit := s.logLimit(most)
	if s.disk.size.held() <= limit {
		return nil
	}
	c := s.raft.ReloadableConfig()
	usual := c.TrailingLogs
	c.TrailingLogs = min(usual, s.disk.size.latest(limit/2))
	if err := s.raft.ReloadConfig(c); err != nil {
		return fmt.Errorf("telling Raft what to keep of the log: %w", err)
	}
	err := s.Snapshot(ctx)
	c.TrailingLogs = usual
	return errors.Join(err, s.raft.ReloadConfig(c))
}
