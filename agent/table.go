package agent

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/schedd/schedd/agent/crew"
	"github.com/schedd/schedd/agent/journal"
	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/session"
	"github.com/schedd/schedd/agent/spool"
	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
)

// isRunName reports whether an id is one that a run may have: 1 to 64 of a-z, 0-9 and "-".
// An answer about anything else would be refused by the gateway, with the session.
func isRunName(id string) bool {
	const all = "abcdefghijklmnopqrstuvwxyz0123456789-"
	return id != "" && len(id) <= 64 && strings.Trim(id, all) == ""
}

// record is what the table needs of the journal.
type record interface {
	Append(...journal.Record) error
	AppendSoon(...journal.Record) error
	Note(...journal.Record) error
	NoteSoon(...journal.Record) error
	Probe() error
}

// crewSize is how many goroutines are kept for the lives of attempts that are yet to come:
// as many as a worker has at once that starts several hundred a second.
const crewSize = 128

// table owns the attempts of this worker, over any number of sessions. Each
// attempt has one goroutine from its acceptance until it is forgotten, see
// [table.carryOut]; all that sessions call returns at once.
type table struct {
	log     *slog.Logger
	journal record
	spool   *spool.Spool
	runner  runner.Runner
	lasting runner.Lasting // the runner, if what it runs goes on without the agent; else nil
	worker  string         // its id
	boot    string         // the host's boot id, empty when not known
	slots   int

	crew     *crew.Crew     // lives the lives of attempts
	lives    sync.WaitGroup // one for each attempt's goroutine
	stopping chan struct{}  // closed: no new attempts; those that run are ended or left
	closing  chan struct{}  // closed: nobody waits for acknowledgements any more
	changed  chan struct{}  // holds one: an attempt has ended, or was acknowledged
	fulls    atomic.Int64   // how often the disk was seen to be full

	mu       sync.Mutex // guards all below, and every attempt as said there
	stopped  bool       // stopping is closed
	leaving  bool       // what runs is left to the runner; not changed after stopped is set
	attempts map[session.Key]*attempt
	open     int    // attempts that have not ended
	leased   int    // attempts in the table that need a lease, or did
	trouble  string // why no attempts are taken; "": they are
	ailing   string // likewise, for the runner's sake
	refused  tombs
	boxes    map[*session.Outbox]struct{}
}

func newTable(log *slog.Logger, j record, s *spool.Spool, r runner.Runner) *table {
	lasting, _ := r.(runner.Lasting)
	return &table{
		log: log, journal: j, spool: s, runner: r, lasting: lasting,
		crew: crew.New(crewSize), stopping: make(chan struct{}), closing: make(chan struct{}), changed: make(chan struct{}, 1),
		attempts: make(map[session.Key]*attempt), boxes: make(map[*session.Outbox]struct{}),
	}
}

// Handle takes what the leader asks for. It is called by sessions.
func (t *table) Handle(m *agentv1.GatewayMessage) {
	switch body := m.GetBody().(type) {
	case *agentv1.GatewayMessage_Launch:
		t.launch(body.Launch, t.uptime())
	case *agentv1.GatewayMessage_Kill:
		t.kill(body.Kill)
	case *agentv1.GatewayMessage_ResultAck:
		t.ack(body.ResultAck)
	}
}

// launch begins an attempt, or says again what is known of it.
func (t *table) launch(l *agentv1.Launch, now time.Duration) {
	k := keyOf(l.GetKey())
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.soundLocked(k, l.GetFence(), "launch") {
		return
	}
	if a := t.attempts[k]; a != nil {
		t.log.Debug("launch of a known attempt", "run", k.Run, "attempt", k.Attempt, "phase", a.phase)
		t.reportLocked(k)
		return
	}
	a := newAttempt(k, l.GetFence())
	a.launch = l
	a.job = l.GetNamespace() + "/" + l.GetJob()
	a.grace = graceOf(l.GetKillGrace())
	a.deadline = now + within(l.GetStartWithin())
	a.killAfter = within(l.GetKillAfter())
	switch {
	case t.stopped:
		a.refusal = stoppingReason
	case t.troubleLocked() != "":
		a.refusal = t.troubleLocked()
	case t.open >= t.mostOpen():
		a.refusal = "the worker has more attempts than it has slots for"
	}
	t.beginLocked(a, t.carryOut)
}

// stoppingReason is why an agent that stops takes no attempt.
const stoppingReason = "the worker is being stopped"

// mostOpen bounds the attempts that have not ended. It is above the number of
// slots, which the leader keeps: attempts that it has given up still end here
// while their successors begin.
func (t *table) mostOpen() int { return 2*t.slots + 64 }

// kill ends an attempt, or keeps one that is not known from ever starting.
func (t *table) kill(m *agentv1.Kill) {
	k := keyOf(m.GetKey())
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.soundLocked(k, m.GetFence(), "kill") {
		return
	}
	a := t.attempts[k]
	switch {
	case a == nil:
		a = newAttempt(k, m.GetFence())
		a.killing = m
		t.beginLocked(a, t.prevent)
	case a.result != nil:
		t.reportLocked(k) // it was sent before the result arrived
	default:
		a.askKillLocked(m)
	}
}

// ack takes note that a result is on record.
func (t *table) ack(m *agentv1.ResultAck) {
	k := keyOf(m.GetKey())
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.attempts[k]
	if a == nil || a.fence != m.GetFence() || a.result == nil {
		t.log.Debug("acknowledgement of an attempt that has no such result", "run", k.Run, "attempt", k.Attempt)
		return
	}
	a.acked = true
	a.unwanted = a.unwanted || m.GetUnwanted()
	a.releaseLocked()
	wake(t.changed)
}

// soundLocked reports whether a request names an attempt that may be dealt with.
func (t *table) soundLocked(k session.Key, fence uint64, what string) bool {
	if k.Attempt == 0 || !isRunName(k.Run) {
		t.log.Warn("ignored a request that names no attempt", "request", what, "run", k.Run, "attempt", k.Attempt)
		return false
	}
	if t.refused.has(k, fence) {
		t.log.Info("ignored a request for an attempt that was refused before", "request", what, "run", k.Run, "attempt", k.Attempt)
		return false
	}
	if a := t.attempts[k]; a != nil && a.fence != fence {
		t.log.Warn("ignored a request with another fence", "request", what, "run", k.Run, "attempt", k.Attempt, "fence", fence, "known", a.fence)
		return false
	}
	return true
}

// beginLocked puts an attempt into the table and lets it live.
func (t *table) beginLocked(a *attempt, life func(*attempt)) {
	t.attempts[a.key] = a
	if a.result == nil {
		t.open++
	}
	if a.killAfter > 0 {
		t.leased++
	}
	t.lives.Add(1)
	t.crew.Go(func() { defer t.lives.Done(); life(a) })
}

// forget takes an attempt out of the table.
func (t *table) forget(a *attempt) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a.result == nil {
		t.open--
	}
	if a.killAfter > 0 {
		t.leased--
	}
	if a.volatile {
		t.refused.add(a.key, a.fence)
	}
	delete(t.attempts, a.key)
	wake(t.changed)
}

// report has the leader told of an attempt.
func (t *table) report(a *attempt) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reportLocked(a.key)
}

func (t *table) reportLocked(k session.Key) {
	for box := range t.boxes {
		box.Report(k)
	}
}

func (t *table) logGrewLocked(k session.Key) {
	for box := range t.boxes {
		box.LogGrew(k)
	}
}

// Watch has a session's outbox told of every change, until stop.
func (t *table) Watch(box *session.Outbox) (stop func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.boxes[box] = struct{}{}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.boxes, box)
	}
}

// Inventory returns the attempts whose end the leader does not know, by fence.
func (t *table) Inventory() []*agentv1.AttemptStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []*agentv1.AttemptStatus
	for _, a := range t.attempts {
		if !a.acked {
			list = append(list, &agentv1.AttemptStatus{
				Key: a.protoKey(), Fence: a.fence, Phase: a.phase, StartedTime: a.startedTime(),
			})
		}
	}
	slices.SortFunc(list, func(a, b *agentv1.AttemptStatus) int {
		return cmp.Or(cmp.Compare(a.GetFence(), b.GetFence()), cmp.Compare(a.GetKey().GetRunId(), b.GetKey().GetRunId()))
	})
	return list
}

// Message returns what there is to say of an attempt now.
func (t *table) Message(k session.Key) *agentv1.AgentMessage {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.attempts[k]
	switch {
	case a == nil || a.acked:
		return nil
	case a.result != nil:
		return &agentv1.AgentMessage{Body: &agentv1.AgentMessage_Result{Result: a.result}}
	case a.started != nil && !a.recovered:
		return &agentv1.AgentMessage{Body: &agentv1.AgentMessage_Started{Started: a.started}}
	}
	return nil
}

// stop takes no new attempts. Those that run are left to a runner that lasts;
// without one, or when that is being stopped itself, they are ended. It returns how
// long that may take.
func (t *table) stop() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.stopped {
		t.leaving = t.lasting != nil && !isClosed(t.lasting.Stopping())
		t.stopped = true
		close(t.stopping)
	}
	if t.leaving {
		t.log.Info("worker stops; what runs goes on without it", "attempts", t.open)
		return settling
	}
	t.log.Info("worker stops; waiting for attempts to end", "attempts", t.open)
	return t.longestGraceLocked() + overtime
}

// runnerStops returns what is closed when the runner is stopped; nil when it is only
// stopped with the agent.
func (t *table) runnerStops() <-chan struct{} {
	if t.lasting == nil {
		return nil
	}
	return t.lasting.Stopping()
}

// isLeaving reports whether what runs is left to the runner.
func (t *table) isLeaving() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.leaving
}

// leave takes note that an attempt goes on without this agent.
func (t *table) leave(a *attempt) {
	t.log.Info("left to the runner", "run", a.key.Run, "attempt", a.key.Attempt, "fence", a.fence, "job", a.job)
	if a.log != nil {
		if err := a.log.Keep(); err != nil {
			t.log.Warn("log was not given a name; the next agent finds it if it is of this version or a later one", "run", a.key.Run, "attempt", a.key.Attempt, "err", err)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open--
	wake(t.changed)
}

// close ends all goroutines of the table. It is called after stop, when no
// session is left. What is not acknowledged stays in the journal. An attempt that did not
// end is not waited for any longer: its start hangs, or its process in the kernel.
func (t *table) close() {
	close(t.closing)
	t.crew.Dismiss()
	t.mu.Lock()
	stuck := t.open > 0
	t.mu.Unlock()
	if !stuck {
		t.lives.Wait()
		return
	}
	gone := make(chan struct{})
	go func() { // until the kernel lets them go
		t.lives.Wait()
		close(gone)
	}()
	late := time.NewTimer(settling)
	defer late.Stop()
	select {
	case <-gone:
	case <-late.C:
	}
}

// awaitEnds waits until all attempts have ended or are left.
func (t *table) awaitEnds(ctx context.Context) bool {
	return t.await(ctx, func() bool { return t.open == 0 })
}

// awaitAcks waits until all results are on record; and, unless the runner lasts and
// with it what runs, until nobody needs the logs here any more: there may be no next
// agent to ship them.
func (t *table) awaitAcks(ctx context.Context) bool {
	return t.await(ctx, func() bool {
		for a := range maps.Values(t.attempts) {
			if a.result != nil && (!a.acked || !t.leaving && a.shippingLocked()) {
				return false
			}
		}
		return true
	})
}

// await waits until cond, called with the lock held, holds. There is at most one
// call at a time.
func (t *table) await(ctx context.Context, cond func() bool) bool {
	for {
		t.mu.Lock()
		ok := cond()
		t.mu.Unlock()
		if ok {
			return true
		}
		select {
		case <-t.changed:
		case <-ctx.Done():
			return false
		}
	}
}

// longestGraceLocked returns how long the slowest of the running attempts may take
// to end when it is asked to.
func (t *table) longestGraceLocked() time.Duration {
	var longest time.Duration
	for _, a := range t.attempts {
		if a.result == nil {
			longest = max(longest, a.grace)
		}
	}
	return longest
}

// tombs remembers the last attempts that were refused without a journal, so
// that a launch of one that arrives late is recognised. It is as long as the
// journal's memory.
type tombs struct {
	known map[session.Key]uint64 // the newest fence
	order []session.Key
}

// has tells whether the attempt of that fence, or of a newer one, was refused.
func (g *tombs) has(k session.Key, fence uint64) bool {
	newest, known := g.known[k]
	return known && fence <= newest
}

func (g *tombs) add(k session.Key, fence uint64) {
	if g.known == nil {
		g.known = make(map[session.Key]uint64)
	}
	newest, known := g.known[k]
	g.known[k] = max(newest, fence)
	if known {
		return // it keeps its place
	}
	g.order = append(g.order, k)
	if len(g.order) > journal.Tombstones {
		delete(g.known, g.order[0])
		g.order = g.order[1:]
	}
}

func keyOf(k *agentv1.AttemptKey) session.Key {
	return session.Key{Run: k.GetRunId(), Attempt: k.GetAttempt()}
}

// wake leaves word in a channel that holds one, unless there is some already.
func wake(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
