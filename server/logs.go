package server

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/peer"
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
	abreast := s.uplink.CaughtUp()
	ended := map[runlog.Key]int64{} // lengths that the run logs have not been told
	gone := map[runlog.Key]bool{}   // logs of no attempt, by the last sweep
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-feed.Wake():
			changed, all := feed.Take()
			if all { // what others know by the log, this primary knows by a snapshot
				s.replica.KnownChanged()
			}
			s.findEnded(changed, ended)
			err = s.sealLogs(ctx, ended)
		case <-abreast: // before, it did not know of all logs
			abreast = nil
			s.replica.KnownChanged()
			s.abreast.Store(true)
		case <-sweep.C:
			gone, err = s.sweepLogs(ctx, gone)
		}
		if err != nil {
			s.log.Error("run logs not kept in order; trying again with the next change", "err", err)
		}
	}
}

// condition returns how this primary is: of the logs that there are, it says
// nothing before it knows of all.
func (s *Server) condition() (is peer.Condition) {
	is.Failing = s.output.trouble() != nil
	if s.abreast.Load() && s.history.Missing() == "" {
		is.LogsMissing, is.LogsAmong = s.replica.Missing()
	}
	return is
}

// logKey names the log of an attempt.
func logKey(r *state.Run, a *state.Attempt) runlog.Key {
	return runlog.Key{Run: r.ID.String(), Attempt: uint32(a.Number), Fence: a.Fence}
}

// attemptOf returns the attempt of a run whose log that is; nil when there is none, or
// no run.
func attemptOf(r *state.Run, k runlog.Key) *state.Attempt {
	if r == nil {
		return nil
	}
	a := r.Fenced(k.Fence)
	if a == nil || a.Number != int(k.Attempt) {
		return nil
	}
	return a
}

// findEnded adds the lengths of logs whose attempts have ended by their worker's
// word. What it does not see, after a restart, is sealed when somebody reads it, and so
// are logs of attempts that printed nothing: there is nothing to keep of them.
func (s *Server) findEnded(changed []state.Change, ended map[runlog.Key]int64) {
	s.store.View(func(st *state.State) {
		for _, c := range changed {
			r := st.Run(c.Run)
			if r == nil {
				continue
			}
			for i := range r.Attempts {
				if a := &r.Attempts[i]; a.Reported() && a.LogBytes > 0 {
					ended[logKey(r, a)] = a.LogBytes
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

// sweepBatch is how many logs are looked up at a time, in the state and in the history.
const sweepBatch = 500

// sweepLogs removes the logs of attempts that are forgotten, with their run or by
// a state that was restored: those that were so at the last sweep too, which it was
// given, and only while there is a link to the leader, and the history is whole.
// Output comes from other primaries sooner than the record of its run does, and one
// that was cut off, or stood still, knows nothing of younger runs.
func (s *Server) sweepLogs(ctx context.Context, before map[runlog.Key]bool) (gone map[runlog.Key]bool, err error) {
	gone = map[runlog.Key]bool{}
	if linked, since := s.uplink.Linked(); !linked || since < sweepEvery/2 || s.history.Missing() != "" {
		return gone, nil
	}
	var remove, some []runlog.Key
	look := func() error {
		forgotten, err := s.forgotten(ctx, some)
		some = some[:0]
		for _, k := range forgotten {
			if before[k] {
				remove = append(remove, k)
			} else {
				gone[k] = true
			}
		}
		return err
	}
	for k, err := range s.replica.Keys() {
		if err != nil {
			return gone, err
		}
		if some = append(some, k); len(some) == sweepBatch {
			if err := look(); err != nil {
				return gone, err
			}
		}
	}
	if err := look(); err != nil {
		return gone, err
	}
	return gone, s.replica.Remove(remove...)
}

// forgotten returns those of some logs whose attempt is neither in the state nor in the
// history, where runs go from there. What may belong to a run whose record was lost is
// not: the output may be all that is left of it, and a copy of the history may be put in
// place.
func (s *Server) forgotten(ctx context.Context, keys []runlog.Key) (gone []runlog.Key, err error) {
	var elsewhere []runlog.Key
	var past []state.RunID
	s.store.View(func(st *state.State) {
		for _, k := range keys {
			id, err := state.ParseRunID(k.Run)
			switch r := st.Run(id); {
			case err != nil:
				gone = append(gone, k) // the log of no run
			case r == nil:
				elsewhere, past = append(elsewhere, k), append(past, id)
			case attemptOf(r, k) == nil:
				gone = append(gone, k)
			}
		}
	})
	known, err := s.history.Runs(ctx, past)
	if err != nil {
		return nil, err
	}
	for i, k := range elsewhere {
		r := known[past[i]]
		if attemptOf(r, k) == nil && (r != nil || !s.history.MayLack(k.Fence)) {
			gone = append(gone, k)
		}
	}
	return gone, nil
}

// knownLogs returns the logs of all attempts in the state, and where they end: -1 while
// their worker has not told. With all, those in the history follow.
func (s *Server) knownLogs(all bool) iter.Seq2[runlog.Key, int64] {
	return func(yield func(k runlog.Key, length int64) bool) {
		var runs []*state.Run
		s.store.View(func(st *state.State) {
			for r := range st.RunsByBirth() {
				if len(r.Attempts) > 0 {
					runs = append(runs, r)
				}
			}
		})
		for _, r := range runs {
			for i := range r.Attempts {
				if !tellOutput(raftstore.OutputOf(r.ID, &r.Attempts[i]), yield) {
					return
				}
			}
		}
		if !all {
			return
		}
		err := s.history.Outputs(context.Background(), func(outputs []raftstore.Output) bool {
			for _, o := range outputs {
				if !tellOutput(o, yield) {
					return false
				}
			}
			return true
		})
		if err != nil {
			s.log.Warn("the logs of older runs are compared later", "err", err)
		}
	}
}

// tellOutput calls yield with the log of an attempt, if it may have one, and returns
// whether to go on.
func tellOutput(o raftstore.Output, yield func(k runlog.Key, length int64) bool) bool {
	return o.Bytes == 0 || yield(runlog.Key{Run: o.Run.String(), Attempt: uint32(o.Attempt), Fence: o.Fence}, o.Bytes)
}
