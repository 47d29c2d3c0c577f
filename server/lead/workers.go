package lead

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/peer"
	"github.com/schedd/schedd/server/plan"
)

// session is a worker's live session, as the leader sees it.
type session struct {
	peer.Session
	synced  bool                               // its inventory is known
	by      time.Time                          // when it has to be; from then on the worker counts as not there
	pages   uint32                             // of the inventory that have come
	has     map[attempt]*agentv1.AttemptStatus // the inventory, as it arrives: phases and starts
	trouble string                             // why it takes no attempts, as the inventory said
	takes   bool                               // it can be given runs, as far as it is up to it
	doubted bool                               // it may have ended with many others
	asks    *agentv1.Ping                      // for leases, before its inventory is known
}

// attempt names an attempt. A state that was restored may come to the same number
// again, and its worker still know the one before.
type attempt struct {
	run    state.RunID
	number int
	fence  uint64
}

// letter is a message to a worker, sent after what it follows from was agreed.
type letter struct {
	worker state.WorkerID
	epoch  uint64
	m      *agentv1.GatewayMessage // nil: its session is to end
	why    string                  // it is to end
}

// removedReason is why the session of a worker ends that is not on record any more.
const removedReason = "the worker was removed; it is a new one when it connects again"

// send puts a message in the step's post. Without a session there is none:
// what it would say is said again when the worker is back.
func (t *term) send(w state.WorkerID, m *agentv1.GatewayMessage) {
	if sess := t.sessions[w]; sess != nil {
		t.letters = append(t.letters, letter{worker: w, epoch: sess.Epoch, m: m})
	}
}

// cut has a worker's session end, if there is one, which the worker is told why.
func (t *term) cut(w state.WorkerID, why string) {
	if sess := t.sessions[w]; sess != nil {
		t.letters = append(t.letters, letter{worker: w, epoch: sess.Epoch, why: why})
	}
}

// deliver hands the post to the gateways.
func (t *term) deliver() {
	for _, l := range t.letters {
		if l.m == nil {
			if sess := t.sessions[l.worker]; sess != nil && sess.Epoch == l.epoch { // not a later one, which is on record
				t.Gateway.Cut(string(l.worker), l.why, false)
			}
			continue
		}
		if !t.Gateway.Send(string(l.worker), l.epoch, l.m) {
			t.Log.Debug("session gone before it was told", "worker", l.worker)
		}
	}
	t.letters = emptied(t.letters)
}

// follow does what follows from a change of the state.
func (t *term) follow(s *state.State, c state.Change, now time.Time) {
	switch {
	case c.Job != (state.JobKey{}):
		t.note(s, c.Job)
	case c.Worker != "":
		t.followWorker(s, c.Worker)
	case c.Group:
		// Of no concern here: whoever keeps the group, or dials, looks for itself.
	default:
		t.followRun(s, c.Run, now)
	}
}

// followWorker does what follows from a change of a worker.
func (t *term) followWorker(s *state.State, id state.WorkerID) {
	w, sess := s.Worker(id), t.sessions[id]
	t.queue.NoteWorker(id, w)
	switch {
	case w == nil:
		t.workers.Remove(id)
		t.queue.SetLeases(id, false)
		delete(t.silent, id)
		t.cut(id, removedReason) // it came back in the moment in which it was removed
	case sess != nil:
		t.enrol(s, sess.Session) // what was not yet agreed when it came has made it something else
	}
}

// note puts a job as it is now on the agenda.
func (t *term) note(s *state.State, k state.JobKey) {
	for _, q := range t.agenda.Note(s, k, t.wall) {
		if reason := q.(state.Quarantine).Reason; reason != "" {
			t.Log.Warn("job can't be scheduled: quarantined", "job", k, "reason", reason)
		} else {
			t.Log.Info("job can be scheduled again", "job", k)
		}
		t.propose(q, nil)
	}
}

// followRun does what follows from a change of a run.
func (t *term) followRun(s *state.State, id state.RunID, now time.Time) {
	t.queue.NoteRun()
	t.lookAtStray(s, id)
	r := s.Run(id)
	if r != nil {
		t.forgetEnded(r)
	}
	if r != nil && !r.Phase.Final() {
		if r.Phase == state.Pending && len(r.Attempts) > 0 {
			t.makeRoom(s, r) // it has left its worker
		}
		t.see(s, r, t.mark(s, now))
		t.look(s, r, now)
		return
	}
	t.runs.Remove(id)
	if r == nil {
		t.active.Delete(id)
		return // forgotten; it had ended before
	}
	t.queue.Forget(id, r.UID)
	t.makeRoom(s, r)
	_, was := t.active.Get(id)
	t.active.Delete(id)
	if was || len(r.Attempts) == 0 { // not for what comes after the end
		t.Observer.Ended(r.Phase)
		tell := t.Log.Info
		if len(r.Attempts) == 0 || r.Phase == state.Succeeded {
			tell = t.Log.Debug // each second, and of each job, if need be
		}
		tell("run ended", "job", r.Job, "run", r.ID, "phase", r.Phase, "reason", r.Reason)
	}
}

// makeRoom lets runs go that waited for one of their job to end.
func (t *term) makeRoom(s *state.State, r *state.Run) {
	room := 1
	if j := s.Job(r.Job); j != nil && j.UID == r.UID {
		room = max(room, j.Definition.Policy.MaxConcurrent-s.NumLive(r.UID))
	}
	t.queue.Release(r.UID, room)
}

// look asks what to do about a run that has not ended, and does it. One of which its
// worker has told something new in this step is not as the state has it: it is looked at
// when that is agreed. By the clock alone, what has begun in time would be too late to
// start, and what has failed would be cancelled instead of timed out. Nor is any judged before
// all is heard that was told: then it is for [term.overdue] to look again.
func (t *term) look(s *state.State, r *state.Run, now time.Time) {
	if live := r.Live(); live != nil && (t.told[live.Fence] || t.starts.holds(live.Fence)) {
		t.runs.Set(r.ID, now.Add(maxSleep)) // in case it can't be agreed
		return
	}
	m := t.mark(s, now)
	if _, known := t.active.Get(r.ID); !known {
		t.see(s, r, m)
	}
	waits := r // its place among others is by the instants that are on record, as theirs is
	r = t.moved(r, m)
	var silent, absent time.Time
	live := r.Live()
	if live != nil {
		if sess := t.sessions[live.Worker]; sess != nil && !sess.synced && now.Before(sess.by) {
			return // reconcile looks, when it is known what runs there, or disown
		}
		silent, absent = m.asShown(t.silent[live.Worker]), m.asShown(t.absent(live))
	}
	l := plan.Check(r, silent, absent, m.shown)
	if l.Command != nil && !t.heard {
		t.runs.Set(r.ID, now)
		return
	}
	if l.Command != nil {
		t.outlook.Note(l.Command)
		t.propose(l.Command, nil)
	}
	if l.Queue {
		t.queue.Add(waits)
	}
	if l.Launch && t.canStart(live.Worker, r) {
		t.send(live.Worker, launch(r, m.shown))
	}
	if l.Kill {
		t.send(live.Worker, kill(r))
	}
	if l.Next.IsZero() {
		t.runs.Remove(r.ID)
		return
	}
	t.runs.Set(r.ID, now.Add(l.Next.Sub(m.shown)))
}

// expect takes note of an attempt that its worker has something new to tell of, before
// anything else that was said in this step is judged: a worker that is back says first what
// it has, and may have begun with it since.
func (t *term) expect(s *state.State, i item) {
	var key *agentv1.AttemptKey
	var fence uint64
	switch b := i.report.GetBody().(type) {
	case *agentv1.AgentMessage_Started:
		key, fence = b.Started.GetKey(), b.Started.GetFence()
	case *agentv1.AgentMessage_Result:
		key, fence = b.Result.GetKey(), b.Result.GetFence()
	default:
		return
	}
	id, err := state.ParseRunID(key.GetRunId())
	if err != nil {
		return
	}
	if r := s.Run(id); r != nil {
		if live := r.Live(); live != nil && live.Fence == fence && live.Worker == i.worker {
			t.told[fence] = true
		}
	}
}

// hear does what follows from what a gateway told.
func (t *term) hear(s *state.State, i item, now time.Time) {
	switch {
	case i.attach != nil:
		t.attach(s, *i.attach, now)
	case i.detach != "":
		if sess := t.sessions[i.detach]; sess != nil && sess.Epoch == i.epoch {
			delete(t.sessions, i.detach)
			t.sessionEnded(sess.Gateway, now)
			t.fallSilent(s, i.detach, now)
		}
	default:
		if sess := t.sessions[i.worker]; sess != nil && sess.Epoch == i.epoch {
			t.report(s, sess, i.report, now)
		}
	}
}

// attach begins a session. The worker is given nothing before its inventory is
// known, and counts as silent until then.
func (t *term) attach(s *state.State, p peer.Session, now time.Time) {
	w := state.WorkerID(p.Worker)
	t.sessions[w] = &session{Session: p, by: now.Add(syncWithin), has: map[attempt]*agentv1.AttemptStatus{}}
	t.queue.SetLive(w, false)
	t.queue.SetLeases(w, p.Hello.GetLeases())
	t.workers.Set(w, now.Add(syncWithin))
	t.noteSilence(w, now)
	t.enrol(s, p)
	t.setEnforcement(s, p)
}

// enrol has a worker on record as it says it is. Of one that is back as it was, there is
// nothing to write: ten thousand may be back at once.
func (t *term) enrol(s *state.State, p peer.Session) {
	c := state.PutWorker{ID: state.WorkerID(p.Worker), PublicKey: p.Hello.GetPublicKey(), Says: info(p.Hello)}
	if !s.Knows(c) {
		t.propose(c, nil)
	}
}

// setEnforcement has on record what a worker can hold attempts to, and reports whether
// it was something else. It is a command of its own: while a primary is too old for it,
// workers have to come and go all the same.
func (t *term) setEnforcement(s *state.State, p peer.Session) (changed bool) {
	was := state.Enforcement{}
	if x := s.Worker(state.WorkerID(p.Worker)); x != nil {
		was = x.Enforcement
	}
	is := enforcement(p.Hello.GetEnforcement())
	if is == was {
		return false
	}
	t.propose(state.SetEnforcement{ID: state.WorkerID(p.Worker), Enforcement: is}, func(state.Result) {
		if !t.knows {
			t.knows, t.remind = true, time.Time{} // for all that were left out before
		}
	})
	return true
}

// remindEnforcement proposes again what was left undone while a primary was too old
// for it. Until it is known that none is any more, that is tried with one worker.
func (t *term) remindEnforcement(s *state.State) {
	for _, sess := range t.sessions {
		if t.setEnforcement(s, sess.Session) && !t.knows {
			return
		}
	}
}

// noteSilence takes note that it is not known what a worker has, if it was until now.
func (t *term) noteSilence(w state.WorkerID, now time.Time) {
	if _, is := t.silent[w]; !is {
		t.silent[w] = now
	}
}

// fallSilent begins to wait for a worker that has no session.
func (t *term) fallSilent(s *state.State, w state.WorkerID, now time.Time) {
	t.noteSilence(w, now)
	t.queue.SetLive(w, false)
	if x := s.Worker(w); x != nil && x.Offline.IsZero() {
		t.workers.Set(w, now.Add(t.OfflineAfter))
	}
	for _, r := range s.RunsOn(w) {
		t.look(s, r, now)
	}
}

// report does what follows from what a worker said.
func (t *term) report(s *state.State, sess *session, m *agentv1.AgentMessage, now time.Time) {
	switch b := m.GetBody().(type) {
	case *agentv1.AgentMessage_Inventory:
		switch whole, err := t.takePage(sess, b.Inventory); {
		case err != nil:
			t.disown(s, sess, err.Error(), now)
		case whole:
			t.reconcile(s, sess, now)
			sess.has = map[attempt]*agentv1.AttemptStatus{}
		}
	case *agentv1.AgentMessage_Started:
		id, err := state.ParseRunID(b.Started.GetKey().GetRunId())
		if r := s.Run(id); err == nil && r != nil && t.owns(state.WorkerID(sess.Worker), r, b.Started.GetFence()) {
			t.begins(r, b.Started.GetFence(), b.Started.GetTime(), now)
		}
	case *agentv1.AgentMessage_Result:
		t.result(s, sess, b.Result, now)
	case *agentv1.AgentMessage_Ping:
		t.ping(sess, b.Ping)
	}
}

// begins takes note that an attempt has begun, which is put on record soon.
func (t *term) begins(r *state.Run, fence uint64, at *timestamppb.Timestamp, now time.Time) {
	if r.Phase == state.Assigned {
		t.starts.hold(state.Start{Run: r.ID, Fence: fence, Time: instant(at)}, now)
	}
}

// noteTrouble takes note of why a worker takes no attempts.
func (t *term) noteTrouble(sess *session, trouble string) {
	switch {
	case trouble != "" && sess.trouble == "":
		t.Log.Warn("a worker takes no attempts, and is given none until it does", "worker", sess.Worker, "name", sess.Hello.GetName(), "reason", trouble)
	case trouble == "" && sess.trouble != "":
		t.Log.Info("a worker takes attempts again", "worker", sess.Worker, "name", sess.Hello.GetName())
	}
	sess.trouble = trouble
}

// owns tells whether the attempt with that fence is a worker's own: nobody has a
// say in another's.
func (t *term) owns(w state.WorkerID, r *state.Run, fence uint64) bool {
	a := r.Fenced(fence)
	if a != nil && a.Worker != w {
		t.Log.Warn("a worker reports of another's attempt, which is ignored", "worker", w, "run", r.ID, "attempt", a.Number, "of", a.Worker)
		return false
	}
	return true
}

// result records how an attempt ended. The worker may forget it only after that
// is agreed.
func (t *term) result(s *state.State, sess *session, m *agentv1.Result, now time.Time) {
	w := state.WorkerID(sess.Worker)
	id, err := state.ParseRunID(m.GetKey().GetRunId())
	r := s.Run(id)
	if err != nil || r == nil {
		t.old.wait(oldResult{oldKey{w, m.GetKey().GetRunId(), m.GetKey().GetAttempt(), m.GetFence()}, id, now})
		return
	}
	if !t.owns(w, r, m.GetFence()) {
		return
	}
	if m.GetOutcome() == agentv1.Outcome_OUTCOME_REFUSED {
		t.rest(w, sess, now)
	}
	unwanted := r.Fenced(m.GetFence()) == nil // of a state that was replaced by an older one
	here := t.mark(s, now)
	ended := plan.Ended(t.moved(r, here), m.GetFence(), attemptOf(m), here.shown)
	t.strayEnded(id, m.GetFence())
	t.outlook.Note(ended)
	t.queue.Expect(s, ended, here.shown)
	if c, held := t.starts.take(m.GetFence()); held && ended.Attempt.Started.IsZero() {
		t.propose(c, nil) // else the end says when it started, too
	}
	t.propose(ended, func(state.Result) { t.send(w, resultAck(m, unwanted)) })
}

// restTime is how long a worker that refused an attempt is given none.
const restTime = 10 * time.Second

// rest gives a worker nothing for a while, after which it is asked what it has.
func (t *term) rest(w state.WorkerID, sess *session, now time.Time) {
	t.takes(w, sess, false)
	if sess.synced { // else it is given nothing anyway
		t.workers.Set(w, now.Add(restTime))
	}
}

// reconcile compares what should run on a worker with what it says runs there.
func (t *term) reconcile(s *state.State, sess *session, now time.Time) {
	w := state.WorkerID(sess.Worker)
	t.sync(w, sess)
	t.takes(w, sess, sess.trouble == "")
	t.forgetStrays(w)
	for _, r := range s.RunsOn(w) {
		key := attempt{r.ID, r.Live().Number, r.Live().Fence}
		has := sess.has[key]
		delete(sess.has, key)
		if has != nil {
			delete(t.missing, key.fence)
		}
		switch {
		case has == nil && (t.begun(r) || t.starts.holds(key.fence)):
			if t.absent(r.Live()).IsZero() {
				t.missing[key.fence] = now
			}
		case has.GetPhase() == agentv1.AttemptPhase_ATTEMPT_PHASE_RUNNING && r.Phase == state.Assigned:
			t.begins(r, key.fence, has.GetStartedTime(), now)
		}
		t.look(s, r, now)
	}
	for key, has := range sess.has {
		if has.GetPhase() != agentv1.AttemptPhase_ATTEMPT_PHASE_ENDED {
			t.endStray(s, w, key)
		}
	}
}
