package server

import (
	"context"
	"errors"
	"time"

	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/runlog"
)

// sweepEvery is how often logs of forgotten runs are removed.
const sweepEvery = time.Hour

// keepLogs tells the run logs what the state knows: how long a log is, once its
// attempt has ended, and which runs are forgotten. Each primary does that with
// what it has.
func (s *Server) keepLogs(ctx context.Context) {
	feed := raftstore.NewFeed(s.store)
	defer feed.Close()
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	ended := map[runlog.Key]int64{} // lengths that the run logs have not been told
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-feed.Wake():
			changed, _ := feed.Take()
			s.findEnded(changed, ended)
			err = s.sealLogs(ctx, ended)
		case <-sweep.C:
			err = s.sweepLogs()
		}
		if err != nil {
			s.log.Error("run logs not kept in order; trying again with the next change", "err", err)
		}
	}
}

// findEnded adds the lengths of logs whose attempts have ended by their worker's
// word. What it does not see, after a restart, is sealed when somebody reads it.
func (s *Server) findEnded(changed []state.Change, ended map[runlog.Key]int64) {
	s.store.View(func(st *state.State) {
		for _, c := range changed {
			r := st.Run(c.Run)
			if r == nil {
				continue
			}
			for i := range r.Attempts {
				if a := &r.Attempts[i]; a.Reported() {
					ended[runlog.Key{Run: r.ID.String(), Attempt: uint32(a.Number)}] = a.LogBytes
				}
			}
		}
	})
}

// sealLogs tells how long logs are, and takes out those that it could.
//
// A log may be whole and not known to be durable when its seal comes: this
// primary was killed after it told the worker that it has all, and before it
// wrote the end. Nobody will append to it any more, so it is synced here.
func (s *Server) sealLogs(ctx context.Context, ended map[runlog.Key]int64) error {
	var errs []error
	for k, n := range ended {
		err := s.replica.Seal(k, n)
		if i, _ := s.logs.Stat(k); err == nil && i.Complete && i.Durable < i.Length {
			_, err = s.logs.Sync(ctx, k)
		}
		if err != nil && !errors.Is(err, runlog.ErrSealed) { // sealed otherwise: it stays so
			errs = append(errs, err)
			continue
		}
		delete(ended, k)
	}
	return errors.Join(errs...)
}

// sweepLogs removes the logs of runs that are forgotten.
func (s *Server) sweepLogs() error {
	var gone []runlog.Key
	for k, err := range s.replica.Keys() {
		if err != nil {
			return err
		}
		id, err := state.ParseRunID(k.Run)
		known := false
		s.store.View(func(st *state.State) { known = err == nil && st.Run(id) != nil })
		if !known {
			gone = append(gone, k)
		}
	}
	return s.replica.Remove(gone...)
}

// endedLogs walks over the logs of attempts that have ended by their worker's
// word, and how long they are.
func (s *Server) endedLogs(yield func(k runlog.Key, length int64) bool) {
	type ended struct {
		key    runlog.Key
		length int64
	}
	var all []ended
	s.store.View(func(st *state.State) {
		for r := range st.RunsByBirth() {
			for i := range r.Attempts {
				if a := &r.Attempts[i]; a.Reported() && a.LogBytes > 0 {
					all = append(all, ended{runlog.Key{Run: r.ID.String(), Attempt: uint32(a.Number)}, a.LogBytes})
				}
			}
		}
	})
	for _, e := range all {
		if !yield(e.key, e.length) {
			return
		}
	}
}
