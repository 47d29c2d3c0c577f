package state

import (
	"fmt"
	"reflect"
	"slices"
	"time"
)

// maxPast bounds how many ended tracks a job keeps.
const maxPast = 100

func (s *State) putJob(c PutJob) (*Job, error) {
	old := s.jobs[c.Key]
	if err := expect(old, c.Key, c.Expected); err != nil {
		return old, err
	}
	if old != nil && reflect.DeepEqual(old.Definition, c.Definition) {
		return old, nil
	}
	j := &Job{Key: c.Key, Created: s.now}
	if old != nil {
		*j = *old
	} else {
		j.UID = s.nextSerial()
		if c.UID != 0 {
			j.UID = c.UID
		}
		if s.taken(j.UID) {
			return nil, fmt.Errorf("job %v: the uid %d is another's: %w", c.Key, j.UID, ErrStale)
		}
	}
	j.Version++
	j.Updated, j.Definition, j.Quarantine = s.now, c.Definition, ""
	if old != nil {
		if err := s.endTracks(old, c.Definition, c.Effective); err != nil {
			return old, err
		}
	}
	for _, t := range j.Definition.Triggers {
		k := TrackKey{j.UID, t.ID}
		if tr := s.tracks[k]; tr != nil {
			u := *tr
			u.Trigger = t // equal, and lets go of the old definition
			s.tracks[k] = &u
			continue
		}
		since := s.since(k, c.Effective)
		s.tracks[k] = &Track{Trigger: t, Version: j.Version, Since: since, DecidedUntil: since}
	}
	s.jobs[c.Key] = j
	s.uids[j.UID] = struct{}{}
	s.changedJob(c.Key)
	return j, nil
}

// taken tells whether another job has that uid. It is drawn at random, so this
// is for who draws badly.
func (s *State) taken(uid uint64) bool {
	_, is := s.uids[uid]
	return is || s.active[uid] != nil
}

// expect checks that the job is at the version that the caller expects.
func expect(j *Job, k JobKey, want *uint64) error {
	var have uint64
	if j != nil {
		have = j.Version
	}
	if want != nil && *want != have {
		return fmt.Errorf("job %v is at version %d, not %d: %w", k, have, *want, ErrVersion)
	}
	return nil
}

// endTracks ends the tracks of j's triggers that next no longer has, or has
// otherwise (nil: all), and checks first that they have been decided.
func (s *State) endTracks(j *Job, next *Definition, at time.Time) error {
	var ended []TrackKey
	for _, t := range j.Definition.Triggers {
		if next != nil {
			if u := next.Trigger(t.ID); u != nil && t.Equal(u) {
				continue
			}
		}
		k := TrackKey{j.UID, t.ID}
		if s.tracks[k].DecidedUntil.Before(at) {
			return fmt.Errorf("trigger %q of job %v is decided until %v only: %w", t.ID, j.Key, s.tracks[k].DecidedUntil, ErrStale)
		}
		ended = append(ended, k)
	}
	for _, k := range ended {
		t := *s.tracks[k]
		t.Ended = t.DecidedUntil // not before at, and what follows begins there
		delete(s.tracks, k)
		if p := append(s.past[j.UID], &t); len(p) > maxPast {
			s.past[j.UID] = append([]*Track(nil), p[1:]...)
		} else {
			s.past[j.UID] = p
		}
	}
	return nil
}

// since returns from when a trigger's new definition counts: at, or later when
// an old definition has been decided beyond that, by a leader whose clock was
// ahead. Otherwise an occurrence that both name would be decided twice.
func (s *State) since(k TrackKey, at time.Time) time.Time {
	for _, t := range slices.Backward(s.past[k.UID]) {
		if t.Trigger.ID == k.Trigger && t.Ended.After(at) {
			return t.Ended
		}
	}
	return at
}

func (s *State) deleteJob(c DeleteJob) (*Job, error) {
	j := s.jobs[c.Key]
	if j == nil {
		return nil, fmt.Errorf("job %v: %w", c.Key, ErrNotFound)
	}
	if err := expect(j, c.Key, c.Expected); err != nil {
		return j, err
	}
	if err := s.endTracks(j, nil, c.Effective); err != nil {
		return j, err
	}
	delete(s.past, j.UID)
	delete(s.jobs, c.Key)
	delete(s.uids, j.UID)
	if a := s.active[j.UID]; a != nil && len(a.runs) == 0 {
		delete(s.active, j.UID)
	}
	s.changedJob(c.Key)
	return j, nil
}

func (s *State) pauseJob(c PauseJob) (*Job, error) {
	return s.editJob(c.Key, c.Effective, func(j *Job) {
		p := &Pause{Note: c.Note, Since: c.Effective, Until: c.Until}
		if j.Pause != nil {
			p.Since = j.Pause.Since
		}
		j.Pause = p
	})
}

func (s *State) resumeJob(c ResumeJob) (*Job, error) {
	if j := s.jobs[c.Key]; j != nil && !c.Until.IsZero() && (j.Pause == nil || !j.Pause.Until.Equal(c.Until)) {
		return j, fmt.Errorf("resume job %v: the pause until %v is no longer: %w", c.Key, c.Until, ErrStale)
	}
	return s.editJob(c.Key, c.Effective, func(j *Job) { j.Pause = nil })
}

// editJob changes what decides occurrences but is not the definition. What came
// due before must have been decided by what held then.
func (s *State) editJob(k JobKey, at time.Time, edit func(*Job)) (*Job, error) {
	old := s.jobs[k]
	if old == nil {
		return nil, fmt.Errorf("job %v: %w", k, ErrNotFound)
	}
	for i := range old.Definition.Triggers {
		t := s.tracks[TrackKey{old.UID, old.Definition.Triggers[i].ID}]
		if t.DecidedUntil.Before(at) {
			return old, fmt.Errorf("trigger %q of job %v is decided until %v only: %w", t.Trigger.ID, k, t.DecidedUntil, ErrStale)
		}
	}
	j := *old
	edit(&j)
	s.jobs[k] = &j
	s.changedJob(k)
	return &j, nil
}

func (s *State) quarantine(c Quarantine) (*Job, error) {
	old := s.jobs[c.Key]
	if old == nil || old.UID != c.UID || old.Version != c.Version {
		return old, fmt.Errorf("quarantine %v version %d: %w", c.Key, c.Version, ErrStale)
	}
	if old.Quarantine == c.Reason {
		return old, nil
	}
	j := *old
	j.Quarantine = c.Reason
	s.jobs[c.Key] = &j
	s.changedJob(c.Key)
	return &j, nil
}

// decide records what becomes of a trigger's occurrences in (After, Until].
func (s *State) decide(c Decide) error {
	j, err := s.assume(c.Key, c.UID, c.Version, c.Activity)
	if err != nil {
		return err
	}
	k := TrackKey{c.UID, c.Trigger}
	t := s.tracks[k]
	if t == nil || !t.DecidedUntil.Equal(c.After) || c.Until.Before(c.After) {
		return fmt.Errorf("decide %v trigger %q after %v: %w", c.Key, c.Trigger, c.After, ErrStale)
	}
	u := *t
	u.DecidedUntil = c.Until
	for _, d := range c.Decisions {
		u.record(Span{First: d.First, Last: d.Last, Count: d.Count, Digest: d.Digest, Decision: d.Decision, Reason: d.Reason, Version: c.Version})
		if d.Run != nil {
			s.bear(j, OccurrenceRunID(c.UID, c.Trigger, d.Run.Nominal), c.Trigger, *d.Run)
		}
	}
	s.tracks[k] = &u
	return nil
}

// assume returns the job when it is as the leader assumed.
func (s *State) assume(k JobKey, uid, version, seq uint64) (*Job, error) {
	j := s.jobs[k]
	if j == nil {
		return nil, fmt.Errorf("job %v: %w", k, ErrNotFound)
	}
	if j.UID != uid || j.Version != version || s.Activity(uid) != seq {
		return j, fmt.Errorf("job %v changed meanwhile: %w", k, ErrStale)
	}
	return j, nil
}
