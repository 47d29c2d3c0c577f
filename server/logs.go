package server

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/runlog"
)

// sweepEvery is how often logs of forgotten runs are removed.
const sweepEvery = time.Hour

// keepLogs tells the run logs what the state knows: how long a log is, once its
// attempt has ended, and which runs are forgotten.
func keepLogs(ctx context.Context, store *raftstore.Store, logs *runlog.Store, log *slog.Logger) {
	feed := raftstore.NewFeed(store)
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
			findEnded(store, changed, ended)
			err = sealLogs(ctx, logs, ended)
		case <-sweep.C:
			err = sweepLogs(store, logs)
		}
		if err != nil {
			log.Error("run logs not kept in order; trying again with the next change", "err", err)
		}
	}
}

// findEnded adds the lengths of logs whose attempts have ended by their worker's
// word. What it does not see, after a restart, is sealed when somebody reads it.
func findEnded(store *raftstore.Store, changed []state.Change, ended map[runlog.Key]int64) {
	store.View(func(s *state.State) {
		for _, c := range changed {
			r := s.Run(c.Run)
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
func sealLogs(ctx context.Context, logs *runlog.Store, ended map[runlog.Key]int64) error {
	var errs []error
	for k, n := range ended {
		err := logs.Seal(k, n)
		if i, _ := logs.Stat(k); err == nil && i.Complete && i.Durable < i.Length {
			_, err = logs.Sync(ctx, k)
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
func sweepLogs(store *raftstore.Store, logs *runlog.Store) error {
	var gone []runlog.Key
	for k, err := range logs.Keys() {
		if err != nil {
			return err
		}
		id, err := state.ParseRunID(k.Run)
		known := false
		store.View(func(s *state.State) { known = err == nil && s.Run(id) != nil })
		if !known {
			gone = append(gone, k)
		}
	}
	return logs.Remove(gone...)
}
