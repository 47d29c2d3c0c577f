package raftstore

import (
	"errors"
	"fmt"

	"github.com/schedd/schedd/raftstore/state"
)

// check tells why no state can be made of n: what it refers to is missing, or
// there twice.
func check(n *state.Snapshot) error {
	c := checker{n: n, jobs: make(map[uint64]*state.Job, len(n.Jobs)), workers: make(map[state.WorkerID]struct{}, len(n.Workers))}
	for _, step := range []func() error{c.checkJobs, c.checkTracks, c.checkWorkers, c.checkRuns, c.checkActivity, c.checkGroup} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

type checker struct {
	n       *state.Snapshot
	jobs    map[uint64]*state.Job
	workers map[state.WorkerID]struct{}
	active  map[uint64]struct{} // uids of jobs with active runs
}

// once notes k in seen, and fails when it was there.
func once[K comparable](seen map[K]struct{}, what string, k K) error {
	if _, ok := seen[k]; ok {
		return fmt.Errorf("%s %v is there twice", what, k)
	}
	seen[k] = struct{}{}
	return nil
}

func (c *checker) serial(what string, n uint64) error {
	if n == 0 || n > c.n.Serial {
		return fmt.Errorf("%s has the serial number %d, and %d was the last given out", what, n, c.n.Serial)
	}
	return nil
}

func (c *checker) checkJobs() error {
	keys := make(map[state.JobKey]struct{}, len(c.n.Jobs))
	for _, j := range c.n.Jobs {
		if err := once(keys, "job", j.Key); err != nil {
			return err
		}
		if j.UID == 0 {
			return fmt.Errorf("job %v has no uid", j.Key)
		}
		if c.jobs[j.UID] != nil {
			return fmt.Errorf("jobs %v and %v have the same uid %d", j.Key, c.jobs[j.UID].Key, j.UID)
		}
		if j.Definition == nil {
			return fmt.Errorf("job %v has no definition", j.Key)
		}
		c.jobs[j.UID] = j
	}
	return nil
}

// checkTracks sees that there is one track for each trigger, and none else.
func (c *checker) checkTracks() error {
	tracks := make(map[state.TrackKey]struct{}, len(c.n.Tracks))
	for _, k := range c.n.Tracks {
		if err := once(tracks, "track", k.Key); err != nil {
			return err
		}
		if j := c.jobs[k.Key.UID]; j == nil || j.Definition.Trigger(k.Key.Trigger) == nil {
			return fmt.Errorf("track %v is of no trigger", k.Key)
		}
	}
	triggers := 0
	for _, j := range c.n.Jobs {
		triggers += len(j.Definition.Triggers)
	}
	if triggers != len(tracks) {
		return fmt.Errorf("%d triggers have %d tracks", triggers, len(tracks))
	}
	for _, k := range c.n.Past {
		if c.jobs[k.Key.UID] == nil {
			return fmt.Errorf("ended track %v is of no job", k.Key)
		}
		if k.Track.Trigger == nil || k.Track.Trigger.ID != k.Key.Trigger {
			return fmt.Errorf("ended track %v does not have its trigger", k.Key)
		}
	}
	return nil
}

func (c *checker) checkWorkers() error {
	for _, w := range c.n.Workers {
		if err := once(c.workers, "worker", w.ID); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) checkRuns() error {
	ids := make(map[state.RunID]struct{}, len(c.n.Runs))
	c.active = map[uint64]struct{}{}
	before := uint64(0)
	for _, r := range c.n.Runs {
		if err := once(ids, "run", r.ID); err != nil {
			return err
		}
		if err := c.serial("run "+r.ID.String(), r.Serial); err != nil {
			return err
		}
		if r.Serial <= before {
			return fmt.Errorf("run %v is out of order: serial number %d after %d", r.ID, r.Serial, before)
		}
		before = r.Serial
		if r.Phase.Final() {
			continue
		}
		c.active[r.UID] = struct{}{}
		if r.Definition == nil && c.jobs[r.UID] == nil {
			return fmt.Errorf("run %v is active, without a definition or a job that has one", r.ID)
		}
		if err := c.checkLive(r); err != nil {
			return err
		}
	}
	return nil
}

func (c *checker) checkLive(r *state.Run) error {
	if r.Phase == state.Pending {
		return nil
	}
	if len(r.Attempts) == 0 {
		return fmt.Errorf("run %v is %v without an attempt", r.ID, r.Phase)
	}
	if w := r.Live().Worker; !has(c.workers, w) {
		return fmt.Errorf("run %v is on worker %q, which is none", r.ID, w)
	}
	return c.serial("an attempt of run "+r.ID.String(), r.Live().Fence)
}

func (c *checker) checkActivity() error {
	uids := make(map[uint64]struct{}, len(c.n.Activity))
	for _, a := range c.n.Activity {
		if err := once(uids, "activity of the job with uid", a.UID); err != nil {
			return err
		}
		if c.jobs[a.UID] == nil && !has(c.active, a.UID) {
			return fmt.Errorf("activity of uid %d, which is no job", a.UID)
		}
	}
	for uid := range c.active {
		if !has(uids, uid) {
			return fmt.Errorf("no activity of uid %d, which has active runs", uid)
		}
	}
	return nil
}

// checkGroup sees that the small tables hold what their commands let in.
func (c *checker) checkGroup() error {
	standbys, directs := map[string]struct{}{}, map[string]struct{}{}
	for _, id := range c.n.Standbys {
		if err := errors.Join(once(standbys, "standby", id), state.ValidStandby(id)); err != nil {
			return err
		}
	}
	for _, address := range c.n.Directs {
		if err := errors.Join(once(directs, "direct worker", address), state.ValidDirect(address)); err != nil {
			return err
		}
	}
	if len(standbys) > state.MaxTable || len(directs) > state.MaxTable {
		return fmt.Errorf("%d standbys and %d direct workers, of %d allowed", len(standbys), len(directs), state.MaxTable)
	}
	return c.checkJumps()
}

// checkJumps sees that the clock jumped forward, and one time after the other.
func (c *checker) checkJumps() error {
	if n := len(c.n.Jumps); n > state.MaxJumps {
		return fmt.Errorf("%d jumps of the clock, of %d allowed", n, state.MaxJumps)
	}
	var last state.Jump
	for _, j := range c.n.Jumps {
		if err := j.Valid(last); err != nil {
			return err
		}
		last = j
	}
	return nil
}

func has[K comparable](set map[K]struct{}, k K) bool {
	_, ok := set[k]
	return ok
}
