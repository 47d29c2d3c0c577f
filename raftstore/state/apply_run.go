package state

import (
	"fmt"
	"slices"
	"time"
)

// replacedNote is why a run is cancelled that another one takes the place of.
const replacedNote = "overlap: replaced by a newer run"

// bear makes a run, and room for it. Making it again changes nothing.
func (s *State) bear(j *Job, id RunID, trigger string, b Birth) *Run {
	if r := s.runs[id]; r != nil {
		return r
	}
	for _, old := range b.Replaces {
		_, _ = s.cancel(Cancel{Run: old, Note: replacedNote}) // it may have ended
	}
	r := &Run{
		ID: id, Job: j.Key, UID: j.UID, Version: j.Version, Trigger: trigger, Nominal: b.Nominal,
		Phase: b.Phase, Reason: b.Reason, Created: s.now, NotBefore: b.NotBefore, Missed: b.Missed,
		Serial: s.nextSerial(),
	}
	if r.Phase.Final() {
		r.Finished = s.now
	} else {
		r.Definition = j.Definition
	}
	s.store(nil, r)
	return r
}

// store replaces old by r, and keeps what is derived from the runs.
func (s *State) store(old, r *Run) {
	s.put(r)
	s.changedRun(r.ID)
	if was, is := old != nil && !old.Phase.Final(), !r.Phase.Final(); was != is {
		s.activate(r, is)
	}
	if old != nil {
		if a := old.Live(); a != nil {
			s.unload(a.Worker, r.ID)
			s.countLive(r.UID, -1)
		}
	}
	if a := r.Live(); a != nil {
		if s.load[a.Worker] == nil {
			s.load[a.Worker] = map[RunID]struct{}{}
		}
		s.load[a.Worker][r.ID] = struct{}{}
		s.countLive(r.UID, 1)
	}
}

// put puts r in the table of runs, and where it was born.
func (s *State) put(r *Run) {
	s.runs[r.ID] = r
	s.most = max(s.most, len(s.runs))
	n, is := s.bornBefore(r.Serial)
	if !is {
		s.born = slices.Insert(s.born, n, birth{serial: r.Serial})
	}
	s.born[n].run = r
	if r.Phase.Final() {
		s.ended = append(s.ended, r)
	}
}

func (s *State) countLive(uid uint64, n int) {
	if a := s.active[uid]; a != nil {
		a.live += n
	}
}

func (s *State) activate(r *Run, is bool) {
	a := s.active[r.UID]
	if a == nil {
		a = &activity{runs: map[RunID]struct{}{}}
		s.active[r.UID] = a
	}
	a.seq++
	if is {
		a.runs[r.ID] = struct{}{}
		s.going++
		return
	}
	delete(a.runs, r.ID)
	s.going--
	if len(a.runs) == 0 && (s.jobs[r.Job] == nil || s.jobs[r.Job].UID != r.UID) {
		delete(s.active, r.UID) // the last run of a job that is gone
	}
}

func (s *State) unload(w WorkerID, id RunID) {
	delete(s.load[w], id)
	if len(s.load[w]) == 0 {
		delete(s.load, w)
	}
}

// end makes r final. It gives up what only an active run needs.
func (s *State) end(r *Run, p Phase, reason string) {
	r.Phase, r.Reason, r.Finished = p, reason, s.now
	r.NotBefore, r.Definition = time.Time{}, nil
}

func (s *State) request(c Request) (*Run, error) {
	if r := s.runs[c.ID]; r != nil {
		return r, nil
	}
	j, err := s.assume(c.Key, c.UID, c.Version, c.Activity)
	if err != nil {
		return nil, err
	}
	r := *s.bear(j, c.ID, c.Trigger, c.Birth)
	if c.RetryOf != (RunID{}) {
		r.RetryOf = c.RetryOf
		s.put(&r)
	}
	return &r, nil
}

// find returns a copy of the run to be changed.
func (s *State) find(what string, id RunID) (*Run, Run, error) {
	old := s.runs[id]
	if old == nil {
		return nil, Run{}, fmt.Errorf("%s run %v: %w", what, id, ErrNotFound)
	}
	return old, *old, nil
}

func (s *State) assign(c Assign) (*Run, error) {
	old, r, err := s.find("assign", c.Run)
	if err != nil {
		return nil, err
	}
	w := s.workers[c.Worker]
	switch {
	case r.Phase != Pending || len(r.Attempts)+1 != c.Attempt:
		return old, fmt.Errorf("assign attempt %d of run %v: it is %v with %d attempts: %w", c.Attempt, c.Run, r.Phase, len(r.Attempts), ErrStale)
	case w == nil || w.Drain != nil || !w.Offline.IsZero():
		return old, fmt.Errorf("assign run %v: worker %s takes none: %w", c.Run, c.Worker, ErrStale)
	case len(s.load[c.Worker]) >= w.Slots():
		return old, fmt.Errorf("assign run %v: worker %s is full: %w", c.Run, c.Worker, ErrStale)
	}
	r.Attempts = append(slices.Clip(r.Attempts), Attempt{
		Number: c.Attempt, Fence: s.nextSerial(), Worker: c.Worker, WorkerName: w.Says.Name, Assigned: s.now,
	})
	r.Phase, r.Reason, r.NotBefore = Assigned, "", time.Time{}
	s.store(old, &r)
	return &r, nil
}

// edit returns a copy of r whose attempts may be changed.
func (r *Run) edit() Run {
	c := *r
	c.Attempts = append([]Attempt(nil), r.Attempts...)
	return c
}

func (s *State) start(c Start) (*Run, error) {
	old, _, err := s.find("start", c.Run)
	if err != nil {
		return nil, err
	}
	live := old.Live()
	switch {
	case live == nil || live.Fence != c.Fence:
		return old, fmt.Errorf("start run %v with fence %d: %w", c.Run, c.Fence, ErrFence)
	case old.Phase == Running:
		return old, nil // said twice
	}
	r := old.edit()
	r.Phase = Running
	r.Live().Started = c.Time
	s.store(old, &r)
	return &r, nil
}

// finish records how an attempt ended. What comes for an attempt that was given
// up is kept beside it and changes nothing else.
func (s *State) finish(c Finish) (*Run, error) {
	old, _, err := s.find("finish", c.Run)
	if err != nil {
		return nil, err
	}
	r := old.edit()
	a := r.Fenced(c.Fence)
	if a == nil {
		return old, fmt.Errorf("finish run %v with fence %d: %w", c.Run, c.Fence, ErrFence)
	}
	if live := r.Live(); live == nil || live.Fence != c.Fence {
		if a.Outcome == OutcomeLost && a.Late == Unfinished && c.Attempt.Outcome != OutcomeLost {
			a.Late, a.LogBytes, a.LogDropped = c.Attempt.Outcome, c.Attempt.LogBytes, c.Attempt.LogDropped
			s.store(old, &r)
			return &r, nil
		}
		return old, nil // said twice
	}
	a.Outcome = c.Attempt.Outcome
	a.result(c.Attempt)
	if c.Phase.Final() {
		s.end(&r, c.Phase, c.Reason)
	} else {
		r.Phase, r.Reason, r.NotBefore = Pending, c.Reason, c.NotBefore
	}
	s.store(old, &r)
	return &r, nil
}

// result takes over what the worker said of an attempt, save the outcome.
func (a *Attempt) result(b Attempt) {
	if !b.Started.IsZero() {
		a.Started = b.Started
	}
	a.Finished, a.ExitCode, a.Signal, a.Reason = b.Finished, b.ExitCode, b.Signal, b.Reason
	a.LogBytes, a.LogDropped, a.CPUTime, a.MaxRSS = b.LogBytes, b.LogDropped, b.CPUTime, b.MaxRSS
}

func (s *State) cancel(c Cancel) (*Run, error) {
	old, r, err := s.find("cancel", c.Run)
	if err != nil {
		return nil, err
	}
	switch {
	case r.Phase.Final():
		return old, fmt.Errorf("cancel run %v: it is %v: %w", c.Run, r.Phase, ErrFinal)
	case !r.CancelTime.IsZero():
		return old, nil
	}
	r.CancelTime, r.CancelNote = s.now, c.Note
	if r.Phase == Pending {
		s.end(&r, Cancelled, c.Note)
	}
	s.store(old, &r)
	return &r, nil
}

func (s *State) giveUp(c GiveUp) (*Run, error) {
	old, r, err := s.find("give up", c.Run)
	if err != nil {
		return nil, err
	}
	if r.Phase != Pending {
		return old, fmt.Errorf("give up run %v: it is %v: %w", c.Run, r.Phase, ErrStale)
	}
	s.end(&r, c.Phase, c.Reason)
	s.store(old, &r)
	return &r, nil
}

func (s *State) prune(c Prune) error {
	for _, id := range c.Runs {
		if r := s.runs[id]; r != nil && r.Phase.Final() {
			delete(s.runs, id)
			if n, is := s.bornBefore(r.Serial); is {
				s.born[n].run = nil
			}
			s.pruned++
			s.changedRun(id)
		}
	}
	if s.pruned > 1000 && s.pruned > len(s.born)/2 {
		s.tighten()
	}
	if c.LedgerBefore.IsZero() {
		return nil
	}
	for k, t := range s.tracks {
		s.tracks[k] = t.trim(c.LedgerBefore)
	}
	for uid, p := range s.past {
		s.past[uid] = s.prunePast(uid, p, c.LedgerBefore)
	}
	return nil
}

// prunePast forgets the ended tracks before a horizon, save the latest of each
// trigger that is not in force: it says from when a definition of that trigger
// may count again, even by a clock that has gone back behind the horizon.
func (s *State) prunePast(uid uint64, past []*Track, horizon time.Time) []*Track {
	kept := make([]*Track, 0, len(past))
	later := map[string]bool{} // triggers with a track after the one looked at
	for _, t := range slices.Backward(past) {
		id := t.Trigger.ID
		if !t.Ended.Before(horizon) || !later[id] && s.tracks[TrackKey{uid, id}] == nil {
			kept = append(kept, t.trim(horizon))
		}
		later[id] = true
	}
	slices.Reverse(kept)
	return kept
}
