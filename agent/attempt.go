package agent

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/schedd/schedd/agent/journal"
	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/session"
	"github.com/schedd/schedd/agent/spool"
	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
)

// logLimit is for a launch that names none, in bytes.
const logLimit = 64 << 20

// attempt is one attempt, from when this worker hears of it until it may be
// forgotten.
type attempt struct {
	key      session.Key
	fence    uint64
	job      string          // namespace/name; empty when not known
	launch   *agentv1.Launch // nil unless it was launched in this life
	deadline time.Duration   // to start, by the runner's clock
	refusal  string          // why it must not even be accepted
	grace    time.Duration   // between TERM and KILL when it is ended for the worker's sake
	poke     chan struct{}   // holds one: killing was set
	released chan struct{}   // closed when it may be forgotten

	killAfter time.Duration // how long it may go on without a lease; 0: it needs none
	granted   chan struct{} // closed when it has the first one in this life

	// For its own goroutine.
	recovered bool   // begun in a former life; set before the goroutine starts
	volatile  bool   // not in the journal; set before the result
	exitKept  bool   // the result is in the journal
	file      string // of the spool, reserved for its log, which has not been created
	fulls     int64  // how often the disk had been full, in this life, before it started

	// Guarded by table.mu.
	phase    agentv1.AttemptPhase
	killing  *agentv1.Kill
	started  *agentv1.Started
	result   *agentv1.Result // never changed once it is set
	acked    bool
	unwanted bool       // nobody waits for its log
	refused  string     // why the primaries never take its log; "": they do
	log      *spool.Log // nil without one
	logSize  int64      // that can be shipped; final when there is a result
	durable  int64      // of these
	read     bool       // some of it may have been shipped
	gone     bool       // released is closed

	wants    bool          // a lease is asked for: it is on record
	leaseEnd time.Duration // by the runner's clock; 0 before granted is closed
}

func newAttempt(k session.Key, fence uint64) *attempt {
	return &attempt{
		key: k, fence: fence, phase: agentv1.AttemptPhase_ATTEMPT_PHASE_ACCEPTED,
		poke: make(chan struct{}, 1), released: make(chan struct{}), granted: make(chan struct{}),
	}
}

// logLimit is how long its log may become, in bytes.
func (a *attempt) logLimit() int64 {
	limit := a.launch.GetLogLimitBytes()
	if limit <= 0 {
		limit = logLimit
	}
	return min(max(limit, spool.MinLimit), longestLog)
}

func (a *attempt) protoKey() *agentv1.AttemptKey {
	return &agentv1.AttemptKey{RunId: a.key.Run, Attempt: a.key.Attempt}
}

func (a *attempt) id() string {
	return a.key.Run + "/" + strconv.FormatUint(uint64(a.key.Attempt), 10)
}

func (a *attempt) startedBy(proc runner.Process) *agentv1.Started {
	return &agentv1.Started{Key: a.protoKey(), Fence: a.fence, Time: stamp(proc.Started()), Pid: int64(proc.PID())}
}

func (a *attempt) startedTime() *timestamppb.Timestamp { return a.started.GetTime() }

// askKillLocked has the attempt's goroutine end it. The reason of the first one
// stands, the grace of each counts.
func (a *attempt) askKillLocked(m *agentv1.Kill) {
	if a.killing != nil {
		m = &agentv1.Kill{Key: m.GetKey(), Fence: m.GetFence(), Grace: m.GetGrace(), Reason: a.killing.GetReason()}
	}
	a.killing = m
	wake(a.poke)
}

// releaseLocked lets the attempt be forgotten when the leader has its result and
// nobody needs this copy of its log.
func (a *attempt) releaseLocked() {
	if a.gone || a.result == nil || !a.acked || a.shippingLocked() {
		return
	}
	a.gone = true
	close(a.released)
}

// shippingLocked reports whether there is, or will be, a log that is needed.
func (a *attempt) shippingLocked() bool {
	if a.log == nil || a.unwanted || a.refused != "" {
		return false
	}
	return a.result == nil || a.durable < a.logSize
}

// carryOut is the life of an attempt: accepted, started, watched, ended, known to
// the leader, forgotten. It is the only place that starts one.
func (t *table) carryOut(a *attempt) {
	known, result := t.accept(a)
	if known {
		t.spool.Discard(a.file)
		t.forget(a)
		return
	}
	if result == nil {
		result = t.start(a)
	}
	t.spool.Discard(a.file)
	t.conclude(a, result)
}

// conclude is the rest of the life of an attempt that has a result. One without is
// left to the runner, and to the next agent.
func (t *table) conclude(a *attempt, result *agentv1.Result) {
	if result == nil {
		t.leave(a)
		return
	}
	t.end(a, result)
	t.bury(a)
}

// accept puts the attempt on record before anything is done for it. It reports
// whether the attempt was known already, and acknowledged; otherwise a result
// says why it can't be accepted. One that was known by an older fence gets a result,
// too: the leader asks for it in a state that was restored, and would wait for ever.
func (t *table) accept(a *attempt) (known bool, result *agentv1.Result) {
	if a.refusal != "" {
		a.volatile = true
		return false, t.declined(a, a.refusal)
	}
	if t.diskFull() {
		a.volatile = true
		return false, t.declined(a, t.unfit(errFull))
	}
	a.file = t.spool.Reserve()
	err := t.appendRecord(t.acceptedRecord(a))
	switch {
	case err == nil:
		return false, nil
	case errors.Is(err, journal.ErrFence):
		a.volatile = true
		return false, t.newResult(a, agentv1.Outcome_OUTCOME_INTERRUPTED, fmt.Sprintf("this worker has carried out attempt %d of this run before; "+
			"the primaries have gone back to a state that does not know it, and it is not done again here", a.key.Attempt))
	case errors.Is(err, journal.ErrExists):
		t.log.Info("ignored a launch of an attempt that has ended before", "run", a.key.Run, "attempt", a.key.Attempt, "fence", a.fence)
		return true, nil
	}
	t.log.Error("attempt can't be put on record, so it is not started", "run", a.key.Run, "attempt", a.key.Attempt, "err", err)
	a.volatile = true
	if errors.Is(err, journal.ErrUncertain) {
		return false, t.newResult(a, agentv1.Outcome_OUTCOME_INTERRUPTED, "the worker's journal was damaged, and this attempt may have run before that")
	}
	return false, t.declined(a, t.unfit(err))
}

// prevent is the life of an attempt that is known only because it is to be
// killed: it never starts, even if its launch arrives later.
func (t *table) prevent(a *attempt) {
	result := t.notStarted(a, joined("killed before it was launched", t.killOf(a).GetReason()))
	exited, err := a.exitedRecord(result)
	if err == nil {
		err = t.appendRecord(t.acceptedRecord(a), exited)
	}
	if errors.Is(err, journal.ErrExists) && !errors.Is(err, journal.ErrFence) {
		t.log.Info("ignored a kill of an attempt that has ended before", "run", a.key.Run, "attempt", a.key.Attempt, "fence", a.fence)
		t.forget(a)
		return
	}
	if err != nil {
		t.log.Error("attempt can't be put on record as killed", "run", a.key.Run, "attempt", a.key.Attempt, "err", err)
		a.volatile = true
	}
	a.exitKept = err == nil
	t.conclude(a, result)
}

// start starts the process if it still may, and returns the result when it has
// ended; nil when it goes on without this agent.
func (t *table) start(a *attempt) *agentv1.Result {
	t.awaitLease(a)
	if r := t.obstacle(a, t.uptime()); r != nil {
		return r
	}
	log, err := t.spool.Create(spool.Key(a.key), a.logLimit(), a.file)
	if err != nil {
		return t.declined(a, t.unfit(fmt.Errorf("a log for an attempt: %w", err)))
	}
	a.file, a.fulls = "", t.fulls.Load()
	proc, err := t.runner.Start(t.spec(a, log.Path()))
	if errors.Is(err, runner.ErrLeft) {
		return nil
	}
	if err != nil {
		if rerr := log.Remove(); rerr != nil {
			t.log.Warn("spool log was not removed", "run", a.key.Run, "attempt", a.key.Attempt, "err", rerr)
		}
		if errors.Is(err, runner.ErrNoLeases) || errors.Is(err, runner.ErrUnenforced) {
			return t.declined(a, err.Error()) // the leader had heard otherwise; it has other workers
		}
		if errors.Is(err, runner.ErrUnable) {
			return t.declined(a, t.unable(err))
		}
		return t.notStarted(a, err.Error())
	}
	t.running(a, log, proc)
	t.renew(a)
	return t.follow(a, proc, true)
}

// follow looks after a process until it has ended, and returns the result; nil when
// it goes on without this agent. With note set its start is put on record, unless it has
// ended by the first look at its log: an attempt that was accepted is taken for one that
// may have started.
func (t *table) follow(a *attempt, proc runner.Process, note bool) *agentv1.Result {
	w := newWatcher(t, a, proc, note)
	defer w.beside.Wait()
	if !w.watch() {
		return nil
	}
	w.beside.Wait()
	w.noteFull(t.diskFull())
	r := t.ended(a, a.log, proc.Exit(), w.why)
	if t.fulls.Load() > a.fulls {
		r.Reason = joined(fullReason, r.GetReason())
	}
	return r
}

// obstacle returns the result of an accepted attempt that must not start; nil
// when it may.
func (t *table) obstacle(a *attempt, now time.Duration) *agentv1.Result {
	t.mu.Lock()
	killing, stopped, asked := a.killing, t.stopped, a.wants
	t.mu.Unlock()
	switch {
	case killing != nil:
		return t.notStarted(a, joined("killed before it started", killing.GetReason()))
	case stopped:
		return t.declined(a, stoppingReason)
	case a.killAfter > 0 && !t.canLease():
		return t.declined(a, runner.ErrNoLeases.Error())
	case now >= a.deadline && asked && t.leaseOf(a) == 0:
		return t.notStarted(a, fmt.Sprintf("it needs a lease (kill_after), and the leader gave none within %v of the launch", a.launch.GetStartWithin().AsDuration()))
	case now >= a.deadline:
		return t.notStarted(a, fmt.Sprintf("it had to start within %v of the launch, which is over", a.launch.GetStartWithin().AsDuration()))
	case a.killAfter > 0 && t.leaseOf(a) == 0:
		// Its runner kept none when the first was to be asked for, and was replaced since. A
		// runner that is told of no end, of whatever version, would never end it.
		return t.declined(a, "it needs a lease (kill_after), and has no lease: its worker's runner kept none until a moment ago")
	}
	return nil
}

func (t *table) spec(a *attempt, output string) runner.Spec {
	task := a.launch.GetTask()
	return runner.Spec{
		ID:          a.id(),
		Argv:        task.GetArgv(),
		Script:      task.GetScript(),
		Interpreter: task.GetInterpreter(),
		Env:         environment(a.launch, t.worker),
		Dir:         task.GetWorkingDir(),
		User:        task.GetUser(),
		Stdin:       task.GetStdin(),
		Output:      output,
		Timeout:     within(a.launch.GetTimeout()),
		LeaseEnd:    t.leaseOf(a),
		KillGrace:   a.grace,
		Limits:      limits(task.GetLimits()),
		Deadline:    a.deadline,
	}
}

func limits(l *agentv1.Limits) runner.Limits {
	return runner.Limits{Memory: l.GetMemoryBytes(), CPUMillis: l.GetCpuMillis(), PIDs: l.GetPids()}
}

// running takes note that the process runs. The leader and the operator are told of it a
// moment later, by who watches it.
func (t *table) running(a *attempt, log *spool.Log, proc runner.Process) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a.phase = agentv1.AttemptPhase_ATTEMPT_PHASE_RUNNING
	a.started = a.startedBy(proc)
	a.log = log
}
