package raftstore

import (
	"errors"
	"fmt"
	"slices"

	"github.com/schedd/schedd/raftstore/state"
)

// Level is how new the commands are that this version can apply: all up to it. It
// grows by one with each version that has a new command, or a new field or value in
// one that there was; then [levelOf] says which they are. A primary stops at what it
// does not know, so nothing of a level is proposed before all have said that they
// are that far.
const Level uint32 = 2

// The levels, by what each was the first to know.
const (
	// firstLevel is that of the first version, which all that there are can apply.
	firstLevel uint32 = 1
	// killAfterLevel has kill_after in the policy of a job. It also has the outcome of
	// an attempt whose lease expired; but that is put on record only of a run of such a
	// job, and who does not know it has stopped at the job before. So it can always be
	// proposed, also by a leader that has not heard of all primaries yet.
	killAfterLevel uint32 = 2
	// jumpsLevel knows jumps of the clock.
	jumpsLevel uint32 = 2
	// limitsLevel knows the limits of jobs, and what workers can hold runs to.
	limitsLevel uint32 = 2
)

// ErrOldPrimary is returned when a primary of the group can't apply what was to be
// proposed, or has not said that it can. Nothing was proposed.
var ErrOldPrimary = errors.New("not all primaries know this yet")

// levelOf returns the level that a primary has to have to apply a command. What is
// not listed is taken to be of the newest, which is safe; a test holds the list to
// what there is.
func levelOf(c state.Command) uint32 {
	switch c := c.(type) {
	case state.PutJob:
		switch {
		case c.Definition == nil:
		case c.Definition.Policy.KillAfter != 0:
			return killAfterLevel
		case c.Definition.Task.Limits != (state.Limits{}):
			return limitsLevel
		}
		return firstLevel
	case state.SetEnforcement:
		return limitsLevel
	case state.ClockJumped:
		return jumpsLevel
	case state.InitCluster, state.DeleteJob, state.PauseJob, state.ResumeJob, state.Quarantine,
		state.Decide, state.Request, state.Assign, state.Start, state.Finish, state.Cancel, state.GiveUp,
		state.PutWorker, state.SetOffline, state.UpdateWorker, state.DrainWorker, state.RemoveWorker,
		state.Prune, state.SetStandby, state.SetDirect:
		return firstLevel
	}
	return Level
}

// knownTo tells that a version of that level does not know one of some commands. This one
// knows them all, as they were read.
func knownTo(level uint32, commands []state.Command) error {
	if level >= Level || !slices.ContainsFunc(commands, func(c state.Command) bool { return levelOf(c) > level }) {
		return nil
	}
	return fmt.Errorf("holds a command %w", errNewer)
}

// admit tells why commands of a level can't be proposed. A primary that does not
// lead leaves that to Raft, which says so better.
func (s *Store) admit(level uint32) error {
	if level <= firstLevel || !s.Leads() {
		return nil
	}
	if level > s.level {
		return fmt.Errorf("%w: this needs level %d, and primary %s, which leads, is of a version that knows those up to %d: upgrade it first, and try again",
			ErrOldPrimary, level, s.id, s.level)
	}
	var known map[string]uint32
	if s.levels != nil {
		known = s.levels()
	}
	return admit(level, s.id, s.servers(), known)
}

// admit is pure. A primary with a vote that has not said what it can apply is taken
// to be of the first version: to be wrong about it would stop it, and without a
// majority all of them. So what is new waits until each has been heard of; what all
// versions know never does. One without a vote counts only once it has said
// something: nobody depends on it, and one that never comes up must not hold up the
// others.
func admit(level uint32, self string, servers []Server, known map[string]uint32) error {
	for _, v := range servers {
		has, said := known[v.ID]
		switch {
		case v.ID == self, has >= level, !said && !v.Voter:
		case !said:
			return fmt.Errorf("%w: this needs level %d, and primary %s has not told its level since this one leads: bring it back, "+
				"or remove it if it is gone for good, and try again", ErrOldPrimary, level, v.ID)
		default:
			return fmt.Errorf("%w: this needs level %d, and primary %s is of a version that knows those up to %d: upgrade it first, and try again",
				ErrOldPrimary, level, v.ID, has)
		}
	}
	return nil
}
