// Package lead is what the leader does: it asks package plan what is to be
// done, proposes it, and tells the workers what was agreed, for as long as its
// term lasts. What it remembers beside the state (timers, queues, who is
// connected) is derived anew at the beginning of each term, so that a new leader
// starts where the old one stopped.
//
// It is one loop. Each step takes what happened since the last one (reports of
// workers, changes of the state, timers), makes of it one list of commands,
// proposes them, and sends what follows from them. Nothing that has an effect
// leaves before its record is agreed: messages are sent when the change of the
// state is seen, never when it is proposed.
package lead

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/peer"
	"github.com/schedd/schedd/server/plan"
)

// Store is what the leader needs of the replicated state.
type Store interface {
	Propose(ctx context.Context, cmds ...state.Command) ([]state.Result, error)
	// ReadIndex fails unless a majority confirms, after it was called, that this
	// primary leads.
	ReadIndex(ctx context.Context) (uint64, error)
	View(f func(*state.State))
	Subscribe(f func([]state.Change)) (cancel func())
}

// Observer counts what the leader did. Its methods must not block.
type Observer interface {
	// Decided tells of one or several occurrences that were decided, and how
	// long after the nominal instant of the last of them.
	Decided(d state.Decided, late time.Duration)
	// Ended tells of a run that ended.
	Ended(p state.Phase)
	// Stepped tells how long one step took.
	Stepped(d time.Duration)
}

// History is what the leader asks of the runs that ended.
type History interface {
	// Held returns up to when it has all that ended: the state may forget that. It
	// must not block.
	Held() time.Time
	// Run returns the run of that id, nil when it has none. The error is
	// [state.ErrLost] when it may be one whose record nobody has any more.
	Run(ctx context.Context, id state.RunID) (*state.Run, error)
}

// Config is what a leader works with. All of it is required.
type Config struct {
	Store    Store
	Gateway  peer.Gateway
	Inbox    *Inbox
	Observer Observer
	Log      *slog.Logger

	// Clock reads the wall clock, by which occurrences are due. It may be set at any
	// time: it is read before each step, at least every second.
	Clock func() time.Time
	// SureClock reads it without what is in doubt: by that the past is forgotten, since
	// it can't be had back when the clock was wrong.
	SureClock func() time.Time
	// History has the runs that the state no longer does.
	History History
	// Bounds limit the runs that have not ended.
	Bounds plan.Bounds
	// Retention bounds what the state keeps of the past.
	Retention plan.Retention
	// OfflineAfter is how long a worker may be without a session before it is
	// given up as offline.
	OfflineAfter time.Duration
}

// Limits of one step.
const (
	// maxSleep bounds the time between two steps: a timer measures elapsed
	// time, while occurrences are due by the wall clock, which may be set.
	maxSleep = time.Second

	// maxDue bounds the triggers that one step decides of, and the runs that it gives away:
	// together they fit in a proposal. So of many that are due at once the first begin while
	// the others are decided, and what workers report meanwhile is heard.
	maxDue = maxProposal / 2

	// maxNote bounds the jobs whose schedules are computed while the state is
	// held.
	maxNote = 500

	// maxProposal is how many commands go into one proposal: as many as are applied in a
	// millisecond or two, for which the state is held.
	maxProposal = 512

	// pruneEvery is how often the state is to forget runs, and trimEvery how often
	// it is to forget some of the ledger, which is more work.
	pruneEvery = time.Minute
	trimEvery  = time.Hour

	// remindEvery is how often it is tried again to have on record what workers can
	// hold attempts to.
	remindEvery = time.Minute
)

// Run leads until ctx, which lasts as long as the term, is done. When a step
// fails it derives everything anew from the state and goes on: what was proposed
// and not answered may or may not have been agreed, and only the state knows.
func Run(ctx context.Context, c Config) {
	c.Log.Info("leading")
	defer c.Log.Info("no longer leading")
	var last mark // outlives what fails, so that no jump of the clock is overlooked
	looking := make(chan struct{}, 1)
	for {
		err := lead(ctx, c, &last, looking)
		if ctx.Err() != nil {
			return
		}
		c.Log.Warn("leading anew", "err", err)
		pause := time.NewTimer(time.Second)
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
	}
}

// lead takes one step after the other until one fails or ctx is done.
func lead(ctx context.Context, c Config, last *mark, looking chan struct{}) error {
	t := newTerm(c, last, looking)
	defer t.feed.Close()
	defer c.Inbox.end()
	defer func() { turnAway(t.wanted) }()
	now := time.Now()
	t.wall = c.wall()
	if err := t.recordJump(ctx, now); err != nil {
		return err
	}
	t.begin(now)

	timer, rest := time.NewTimer(0), time.NewTimer(0)
	defer timer.Stop()
	defer rest.Stop()
	for {
		var nudge, asked <-chan struct{} = c.Inbox.nudge, c.Inbox.asked
		if wait := t.patience(time.Now()); wait > 0 {
			nudge = t.early()
			rest.Reset(wait)
		}
		if wait := t.awaitAskers(time.Now()); wait > 0 {
			asked = nil
			rest.Reset(wait)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-rest.C:
			continue
		case <-nudge:
		case <-asked:
		case t.old.found = <-t.old.looked:
		case <-t.feed.Wake():
		case <-timer.C:
		}
		if t.awaitAskers(time.Now()) == 0 {
			t.wanted = append(t.wanted, c.Inbox.takeAsks()...)
		}
		began := time.Now()
		t.open = t.opensAt(began)
		// What was told was told before this step began by the clock: a worker that
		// is given up some time after now has been silent for all of that.
		var said []item
		if t.open {
			said = c.Inbox.take()
			began = time.Now()
		}
		t.wall = c.wall()
		next, err := t.step(ctx, said, began)
		if err != nil {
			return err
		}
		clear(said) // its room is used again
		c.Observer.Stepped(time.Since(began))
		timer.Reset(min(max(time.Until(next), 0), maxSleep))
	}
}

// term is what the leader knows beside the state.
type term struct {
	Config
	feed  *raftstore.Feed // what changes in the state
	again []state.Change  // what has to be looked at though it didn't change

	agenda  *plan.Agenda
	queue   *plan.Queue
	runs    *plan.Timers[state.RunID]    // when to look at a run again
	workers *plan.Timers[state.WorkerID] // when to give a silent worker up, a session without an inventory, or let one that rests go on
	prune   time.Time                    // when to forget runs next
	crowd   int                          // or with how many that have ended
	held    time.Time                    // up to when the history had all when they were to be forgotten last
	trim    time.Time                    // when to forget some of the ledger next
	remind  time.Time                    // when to look whose enforcement is not on record
	knows   bool                         // all primaries can apply what says it

	sessions map[state.WorkerID]*session
	silent   map[state.WorkerID]time.Time       // since when it is not known what a worker has
	active   *plan.Table[state.RunID, sighting] // runs seen that had not ended
	strays   map[state.RunID]stray              // that may go on until their runs change
	leases
	old    olds
	starts starts           // that are not on record yet
	wanted []*asked         // runs by hand that nothing is decided on yet
	waves  map[string]*wave // of sessions that end, by gateway

	pace
	last  *mark // of the step before, in this term or before it had to begin anew
	ahead bool  // it was told that the state's clock is

	// Of the present step.
	wall      time.Time     // what the wall clock shows
	heard     bool          // all that was told before it began
	outlook   *plan.Outlook // on what its commands will have changed
	commands  []command
	proposing []command       // those that it has proposed
	told      map[uint64]bool // by fence: of which attempts something new was told
	letters   []letter
}

func newTerm(c Config, last *mark, looking chan struct{}) *term {
	return &term{
		Config: c, feed: raftstore.NewFeed(c.Store),
		agenda: plan.NewAgenda(), queue: plan.NewQueue(), runs: plan.NewTimers[state.RunID](), workers: plan.NewTimers[state.WorkerID](),
		sessions: map[state.WorkerID]*session{}, silent: map[state.WorkerID]time.Time{},
		active: plan.NewTable[state.RunID, sighting](), strays: map[state.RunID]stray{}, leases: newLeases(), last: last, starts: newStarts(), waves: map[string]*wave{}, told: map[uint64]bool{}, old: newOlds(looking),
	}
}

// begin derives everything from the state and from who is connected.
func (t *term) begin(now time.Time) {
	sessions := t.Inbox.begin()
	t.prune, t.trim, t.remind = now.Add(pruneEvery), now.Add(pruneEvery), now.Add(remindEvery)
	var jobs []state.JobKey
	t.Store.View(func(s *state.State) {
		t.outlook = plan.NewOutlook(s, t.Bounds)
		if s.ClusterID() == "" {
			t.propose(state.InitCluster{ClusterID: rand.Text()}, nil)
		}
		for _, w := range s.Workers() {
			t.queue.NoteWorker(w.ID, w)
			t.fallSilent(s, w.ID, now)
		}
		for _, sess := range sessions {
			t.attach(s, sess, now)
			t.send(state.WorkerID(sess.Worker), inventoryRequest)
		}
		t.crowd = crowdAfter(numEnded(s))
		if numEnded(s) > t.Retention.Runs { // as the leader before had no time to have them forgotten
			t.prune = now.Add(crowdAgain)
		}
		jobs = make([]state.JobKey, 0, s.NumJobs())
		for j := range s.Jobs() {
			jobs = append(jobs, j.Key)
		}
		for r := range s.RunsByBirth() {
			if !r.Phase.Final() {
				t.see(s, r, t.mark(s, now))
				t.look(s, r, now)
			}
		}
	})
	for some := range slices.Chunk(jobs, maxNote) {
		t.Store.View(func(s *state.State) {
			for _, k := range some {
				t.note(s, k)
			}
		})
	}
}

// step does all there is to do at now, after what was said before, and returns when to
// step again.
func (t *term) step(ctx context.Context, said []item, now time.Time) (next time.Time, err error) {
	changed, all := t.feed.Take()
	changed = append(changed, t.again...)
	t.again = nil
	if all {
		return now, errRestored
	}
	if err := t.recordJump(ctx, now); err != nil {
		return now, err
	}
	t.heard = false
	t.Store.View(func(s *state.State) {
		t.outlook = plan.NewOutlook(s, t.Bounds)
		t.tellAhead(s)
		for _, i := range said {
			t.expect(s, i)
		}
		for _, c := range changed {
			t.follow(s, c, now)
		}
		for _, i := range said {
			t.hear(s, i, now)
		}
		t.heard = t.open
		t.ackOld(s, now)
		t.due(s, now)
	})
	t.lookUp(ctx, now)
	t.deliver() // what follows from what is agreed need not wait for what is yet to be
	agreed, err := t.agree(ctx)
	if err != nil {
		return now, err
	}
	t.deliver() // leases may take a while
	t.grant(ctx, agreed, now)
	t.deliver()
	return t.next(now), nil
}

// recordJump has it agreed that the clock has jumped, before anything is judged by what it
// shows now: whoever leads next, at whatever moment, then knows both.
func (t *term) recordJump(ctx context.Context, now time.Time) error {
	var here mark
	t.Store.View(func(s *state.State) { here = t.mark(s, now) })
	if j, ok := t.last.jump(here); ok {
		t.Log.Warn("this primary's clock was set forward, or its host was suspended", "by", j.Is.Sub(j.Was), "to", j.Is)
		t.propose(j, nil)
		if _, err := t.agree(ctx); err != nil {
			return err
		}
	}
	*t.last = here
	return nil
}

// errRestored is returned when the state was replaced under the leader.
var errRestored = errors.New("the state was restored from a snapshot")

// due plans what the clock asks for.
func (t *term) due(s *state.State, now time.Time) {
	here := t.mark(s, now)
	if t.heard {
		t.occur(s, here)
		t.overdue(s, now)
	}
	if !now.Before(t.prune) || numEnded(s) >= t.crowd {
		t.forget(s, now)
	}
	if !now.Before(t.trim) {
		t.trim = now.Add(trimEvery)
		t.propose(plan.PruneLedger(t.Retention, t.SureClock()), nil)
	}
	if !now.Before(t.remind) {
		t.remind = now.Add(remindEvery)
		t.remindEnforcement(s)
	}
	t.request(s, here)
	t.subside(now)
	for _, c := range t.queue.Place(s, maxDue) {
		a := c.(state.Assign)
		if t.runs.Due(a.Run, now) { // it may have waited for too long: overdue judges, and has it wait again if not
			t.queue.NoteRun()
			continue
		}
		t.propose(a, t.assigned(a, now))
	}
	if t.queue.Waiting() {
		t.busy = t.queue.LeastBusy(s)
	}
}

// decided returns what to do with the answer to a command that decides
// occurrences.
func (t *term) decided(c state.Command) func(state.Result) {
	d, ok := c.(state.Decide)
	if !ok {
		return nil
	}
	return func(r state.Result) {
		if r.Err != nil {
			// Something else changed the job first: look at it anew.
			t.again = append(t.again, state.Change{Job: d.Key})
			return
		}
		for _, x := range d.Decisions {
			t.Observer.Decided(x, t.wall.Sub(x.Last))
			t.Log.Debug("decided", "job", d.Key, "trigger", d.Trigger, "nominal", x.Last, "count", x.Count, "reason", x.Reason)
		}
	}
}

// assigned returns what to do with the answer to an assignment: one that is
// refused leaves its run to be looked at again.
func (t *term) assigned(c state.Assign, now time.Time) func(state.Result) {
	return func(r state.Result) {
		if r.Err != nil {
			t.queue.Refused(c.Run)
			t.runs.Set(c.Run, now)
		}
	}
}

// propose adds a command to the step's.
func (t *term) propose(c state.Command, done func(state.Result)) {
	t.commands = append(t.commands, command{Command: c, done: done})
}

// agree proposes the step's commands, in their order. When some can't be put in
// the log, because they are too large together or one of them is what can't be
// written down, it tries with half of them, and in the end without that one:
// whatever a worker or a job is made of, the others go on. It reports whether anything
// was agreed.
func (t *term) agree(ctx context.Context) (agreed bool, err error) {
	cmds := t.commands
	t.commands, t.proposing = emptied(t.proposing), cmds
	if len(cmds) > 0 {
		t.proposed = time.Now()
		if t.open { // others may come each millisecond
			t.taken = t.proposed
		}
	}
	clear(t.told)
	n := maxProposal
	for len(cmds) > 0 {
		if ctx.Err() != nil {
			fail(cmds, raftstore.ErrNotLeader)
			return false, ctx.Err()
		}
		n = min(n, len(cmds))
		results, err := t.Store.Propose(ctx, bare(cmds[:n])...)
		switch {
		case err == nil:
			for i, r := range results {
				if cmds[i].done != nil {
					cmds[i].done(r)
				}
			}
			cmds, n, agreed = cmds[n:], min(2*n, maxProposal), true
		case ctx.Err() != nil, errors.Is(err, raftstore.ErrNotLeader), errors.Is(err, raftstore.ErrUnknown), errors.Is(err, raftstore.ErrStopped):
			fail(cmds[:n], err)
			fail(cmds[n:], raftstore.ErrNotLeader)
			return false, err
		case n > 1:
			n /= 2
		case errors.Is(err, raftstore.ErrOldPrimary):
			t.Log.Warn("this is left undone until all primaries can apply it", "command", fmt.Sprintf("%T", cmds[0].Command), "err", err)
			fail(cmds[:1], err)
			cmds, n = cmds[1:], maxProposal
		default:
			t.Log.Error("this can't be put on record, and is left out; please report it", "command", fmt.Sprintf("%T", cmds[0].Command), "err", err)
			fail(cmds[:1], err)
			cmds, n = cmds[1:], maxProposal
		}
	}
	t.wrote(t.proposing, time.Now())
	return agreed, nil
}

// next returns when to step again.
func (t *term) next(now time.Time) time.Time {
	if len(t.again) > 0 || len(t.wanted) > 0 {
		return now
	}
	next := now.Add(maxSleep)
	if due := t.agenda.Next(); !due.IsZero() && due.Sub(t.wall) < maxSleep {
		next = t.opens(now.Add(due.Sub(t.wall)))
	}
	for _, at := range [...]time.Time{t.opens(t.runs.Next()), t.opens(t.workers.Next()), t.prune, t.trim, t.remind, t.nextGrant(), t.opens(t.starts.next()), t.subsides(), t.old.due} {
		if !at.IsZero() && at.Before(next) {
			next = at
		}
	}
	return next
}
