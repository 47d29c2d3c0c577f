package agent

import (
	"errors"
	"sync"
	"time"

	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/spool"
	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
)

const (
	// tellAfter is how long a process runs before the leader is told that it was started, and
	// the agent's log tells it. Of one that ends before both are told, with how it ended.
	tellAfter = 50 * time.Millisecond
	// New output is seen after pollLeast; a log that stays as it is gets looked at
	// less and less often, down to every pollMost.
	pollLeast = 200 * time.Millisecond
	pollMost  = time.Second
	// A log that grows fast is looked at each time that it has grown by pollEach, but not
	// sooner than after pollFlood: what is not seen is not sent, and not written out.
	pollEach  = 4 << 20
	pollFlood = 20 * time.Millisecond
)

// watcher looks after one process while it runs. What may wait for the disk is done beside
// it: a disk that hangs holds up no kill.
type watcher struct {
	*table
	attempt *attempt
	log     *spool.Log
	proc    runner.Process
	told    bool           // the leader hears of its start
	note    bool           // its start is to be put on record
	beside  sync.WaitGroup // one for each that may wait for the disk
	seen    chan sight     // holds one
	why     cause          // why it had to be ended
	pause   time.Duration  // until the next look at its log
	blind   bool           // the last look failed
	full    bool           // it has told that the disk is full

	named bool // its log was given a name of its own; for who looks, one at a time
}

// sight is what a look at a log has shown.
type sight struct {
	size, grown int64
	err         error
	full        bool // the disk is
}

func newWatcher(t *table, a *attempt, proc runner.Process, note bool) *watcher {
	return &watcher{table: t, attempt: a, log: a.log, proc: proc, note: note, seen: make(chan sight, 1), pause: pollLeast}
}

// cause is why the agent ended a process: the first reason it had.
type cause struct {
	outcome agentv1.Outcome
	reason  string
}

func (c *cause) set(outcome agentv1.Outcome, reason string) {
	if c.outcome == agentv1.Outcome_OUTCOME_UNSPECIFIED {
		*c = cause{outcome, reason}
	}
}

// watch waits for the end of the process, and ends it when it has to. It reports
// whether it saw the end; otherwise the process goes on without this agent.
func (w *watcher) watch() bool {
	look := time.NewTimer(tellAfter)
	defer look.Stop()
	stopping := w.stopping
	for {
		select {
		case <-w.proc.Done():
			return true
		case <-w.attempt.poke:
			w.killNow()
		case <-stopping:
			stopping = nil
			if w.mayLeave() {
				return false
			}
			w.stopNow()
		case <-look.C:
			if !w.told && !w.tell() {
				look.Reset(w.pause - tellAfter)
				continue
			}
			w.noteStart()
			w.beside.Go(func() { w.seen <- w.look() })
		case s := <-w.seen:
			w.take(s)
			look.Reset(w.pause)
		}
	}
}

// tell has the leader told of a process that goes on, before its log is looked at, and
// reports whether that is long by then and looked at at once.
func (w *watcher) tell() (long bool) {
	w.told = true
	w.sayLaunched()
	w.report(w.attempt)
	return w.log != nil && w.log.Reaches(pollEach)
}

// sayLaunched tells the operator of a process that goes on. One that was found again was
// told of.
func (w *watcher) sayLaunched() {
	if a := w.attempt; !a.recovered {
		w.table.log.Info("launched", "run", a.key.Run, "attempt", a.key.Attempt, "fence", a.fence, "job", a.job, "pid", w.proc.PID())
	}
}

// noteStart has the start put on record, once. A disk that does not answer holds up
// nothing but the result.
func (w *watcher) noteStart() {
	if w.note {
		w.note = false
		w.beside.Go(func() { w.table.noteStart(w.attempt) })
	}
}

// nameLog has an agent of a former version find the log of a process that goes on, should
// this one crash, and that one be put in its place. Of what is over soon it would find
// nothing that could not be had again.
func (w *watcher) nameLog() {
	if w.named || w.log == nil {
		return
	}
	if err := w.log.Keep(); err != nil {
		return // a full disk, most likely: the next look tries again
	}
	w.named = true
}

// killNow does what the leader asked for.
func (w *watcher) killNow() {
	m := w.killOf(w.attempt)
	a := w.attempt
	w.table.log.Info("killing", "run", a.key.Run, "attempt", a.key.Attempt, "fence", a.fence, "job", a.job, "reason", m.GetReason())
	w.why.set(agentv1.Outcome_OUTCOME_KILLED, m.GetReason())
	w.proc.Kill(graceOf(m.GetGrace()))
}

// mayLeave reports whether the process can outlive the agent.
func (w *watcher) mayLeave() bool {
	return w.isLeaving() && !isClosed(w.proc.Done())
}

// stopNow ends the process since the agent ends, and it can't outlive it: its end
// would be seen by nobody. A runner that is stopped ends it as well.
func (w *watcher) stopNow() {
	w.why.set(agentv1.Outcome_OUTCOME_INTERRUPTED, "the worker was stopped")
	w.proc.Kill(w.attempt.grace)
}

// look looks at the log, as long as the disk takes for that.
func (w *watcher) look() (s sight) {
	if w.log == nil { // it was damaged, and set aside
		return sight{}
	}
	w.nameLog()
	s.size, s.grown, s.err = w.log.Poll()
	s.full = w.diskFull() // also when it is known to be: others have begun since
	return s
}

// take does what is due after a look at the log. What goes wrong is told once.
func (w *watcher) take(s sight) {
	a := w.attempt
	if s.err != nil && !w.blind {
		w.table.log.Warn("log can't be looked at, or not bounded", "run", a.key.Run, "attempt", a.key.Attempt, "job", a.job, "err", s.err)
	}
	w.blind = s.err != nil
	if errors.Is(s.err, spool.ErrUnbounded) {
		w.why.set(agentv1.Outcome_OUTCOME_FAILED, "ended by the worker: its log is over the limit and would fill the disk")
		w.proc.Kill(a.grace)
	}
	w.noteFull(s.full)
	w.pause = nextLook(w.pause, s.grown)
	if s.size > 0 && w.logGrew(a, s.size) {
		w.pause = min(w.pause, pollLeast)
	}
}

// nextLook returns when to look at a log again that has grown by so much in a pause.
func nextLook(pause time.Duration, grown int64) time.Duration {
	if grown == 0 {
		return min(2*pause, pollMost)
	}
	return min(max(time.Duration(float64(pause)*pollEach/float64(grown)), pollFlood), pollLeast)
}

// fullReason is told beside how it ended: to its process the disk that is full
// may have made no difference, while its output is not whole.
const fullReason = "the worker's disk was full while it ran: output may be missing"

// noteFull takes note of a disk that is full, since what is written then is
// lost and nobody but the process is told.
func (w *watcher) noteFull(full bool) {
	if w.full || !full {
		return
	}
	w.full = true
	a := w.attempt
	w.table.log.Warn("disk is full: output of jobs is being lost", "run", a.key.Run, "attempt", a.key.Attempt, "job", a.job)
	w.unfit(errFull)
}

// logGrew takes note of a log's length, and reports whether it is news.
func (t *table) logGrew(a *attempt, size int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if size <= a.logSize {
		return false
	}
	a.logSize = size
	t.logGrewLocked(a.key)
	return true
}

func (t *table) killOf(a *attempt) *agentv1.Kill {
	t.mu.Lock()
	defer t.mu.Unlock()
	return a.killing
}
