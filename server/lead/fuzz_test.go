package lead

import (
	"context"
	"encoding/binary"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/peer"
	"github.com/schedd/schedd/server/plan"
)

// logless is a store without a log: a real state, and the rules of one.
type logless struct {
	*state.State
	tell func([]state.Change)
}

func (l *logless) Propose(_ context.Context, commands ...state.Command) ([]state.Result, error) {
	results := l.Apply(l.Index()+1, state.Entry{Now: time.Now().Round(0), Commands: commands})
	if changes := l.TakeChanges(); len(changes) > 0 {
		l.tell(changes)
	}
	return results, nil
}

func (l *logless) ReadIndex(context.Context) (uint64, error) { return l.Index(), nil }
func (l *logless) View(f func(*state.State))                 { f(l.State) }

func (l *logless) Subscribe(f func([]state.Change)) (cancel func()) {
	l.tell = f
	return func() {}
}

// post sees that all that workers are told can be sent.
type post struct {
	bad  atomic.Value
	cuts []string // why sessions were to end
}

func (p *post) Send(_ string, _ uint64, m *agentv1.GatewayMessage) bool {
	if _, err := proto.Marshal(m); err != nil {
		p.bad.Store(err)
	}
	return true
}

func (*post) Sessions() []peer.Session { return nil }

func (p *post) Cut(worker, reason string, _ bool) { p.cuts = append(p.cuts, worker+": "+reason) }

// said writes what a worker says, each message behind its length.
func said(messages ...*agentv1.AgentMessage) (b []byte) {
	for _, m := range messages {
		one, err := proto.Marshal(m)
		if err != nil {
			panic(err) // ours can be encoded
		}
		b = append(binary.AppendUvarint(b, uint64(len(one))), one...)
	}
	return b
}

// heardFrom reads what said wrote, and whatever else it is given.
func heardFrom(b []byte) (messages []*agentv1.AgentMessage) {
	for len(b) > 0 {
		size, n := binary.Uvarint(b)
		if n <= 0 {
			break
		}
		size = min(size, uint64(len(b)-n))
		m := new(agentv1.AgentMessage)
		if proto.Unmarshal(b[n:n+int(size)], m) != nil {
			break
		}
		messages = append(messages, m)
		b = b[n+int(size):]
	}
	return messages
}

// Whatever a worker says of attempts, its own and others': the leader goes on, has no say of
// it in another worker's attempts, leaves what has ended as it was, and keeps of all of it no
// more than it may take.
func FuzzReports(f *testing.F) {
	w := newTrial(f)
	own, other := w.live("w-1"), w.live("w-2")
	started := func(k *agentv1.AttemptKey, fence uint64) *agentv1.AgentMessage {
		return &agentv1.AgentMessage{Body: &agentv1.AgentMessage_Started{Started: &agentv1.Started{Key: k, Fence: fence, Time: timestamppb.Now()}}}
	}
	result := func(k *agentv1.AttemptKey, fence uint64, o agentv1.Outcome) *agentv1.AgentMessage {
		return &agentv1.AgentMessage{Body: &agentv1.AgentMessage_Result{Result: &agentv1.Result{
			Key: k, Fence: fence, Outcome: o, Reason: string(make([]byte, 3000)), ExitCode: -1 << 31, LogBytes: -1,
			FinishedTime: &timestamppb.Timestamp{Seconds: 1 << 62, Nanos: -1},
		}}}
	}
	page := func(n uint32, more bool, all ...*agentv1.AttemptStatus) *agentv1.AgentMessage {
		return &agentv1.AgentMessage{Body: &agentv1.AgentMessage_Inventory{Inventory: &agentv1.Inventory{Page: n, More: more, Attempts: all, Trouble: "no room"}}}
	}
	has := func(r *state.Run, p agentv1.AttemptPhase) *agentv1.AttemptStatus {
		return &agentv1.AttemptStatus{Key: keyOf(r), Fence: r.Live().Fence, Phase: p}
	}
	ping := &agentv1.AgentMessage{Body: &agentv1.AgentMessage_Ping{Ping: &agentv1.Ping{Seq: 1, Fences: []uint64{own.Live().Fence, other.Live().Fence, 0}}}}
	f.Add(said(page(0, false, has(own, agentv1.AttemptPhase_ATTEMPT_PHASE_RUNNING)), result(keyOf(own), own.Live().Fence, agentv1.Outcome_OUTCOME_FAILED)))
	f.Add(said(page(0, true), page(1, false), started(keyOf(own), own.Live().Fence), ping, page(0, false)))
	f.Add(said(page(0, false, has(other, agentv1.AttemptPhase_ATTEMPT_PHASE_RUNNING)), started(keyOf(other), other.Live().Fence), result(keyOf(other), other.Live().Fence, agentv1.Outcome_OUTCOME_SUCCEEDED)))
	f.Add(said(result(keyOf(own), own.Live().Fence, agentv1.Outcome_OUTCOME_REFUSED), result(keyOf(own), own.Live().Fence, 99), result(keyOf(own), 0, 1)))
	f.Add(said(page(0, true, &agentv1.AttemptStatus{Key: &agentv1.AttemptKey{RunId: "none"}}), page(7, true), &agentv1.AgentMessage{}))
	f.Add([]byte("nothing of the kind"))
	f.Fuzz(func(t *testing.T, messages []byte) {
		w := newTrial(t)
		done, foreign := w.done(), w.Run(w.live("w-2").ID)
		for _, m := range heardFrom(messages) {
			w.inbox.Report("w-1", 1, m)
			if _, err := w.term.step(t.Context(), w.inbox.take(), time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		if w.Run(done.ID) != done {
			t.Fatalf("a run that had ended is %+v, and was %+v", w.Run(done.ID), done)
		}
		if w.Run(foreign.ID) != foreign {
			t.Fatalf("a run of another worker is %+v, and was %+v", w.Run(foreign.ID), foreign)
		}
		for r := range w.RunsByBirth() {
			record, err := raftstore.EncodeRun(r)
			if err != nil || len(record) > 100_000 {
				t.Fatalf("run %v takes %d bytes: %v", r.ID, len(record), err)
			}
		}
		if err := w.post.bad.Load(); err != nil {
			t.Fatalf("what workers are told can't be sent: %v", err)
		}
	})
}

// trial is a leader with two workers, each of which has a run, and a run that has ended.
type trial struct {
	*logless
	term  *term
	inbox *Inbox
	post  post
}

func newTrial(t testing.TB) *trial {
	w := &trial{logless: &logless{State: state.New()}, inbox: NewInbox()}
	c := Config{
		Store: w.logless, Gateway: &w.post, Inbox: w.inbox, Observer: blind{}, Log: slog.New(slog.DiscardHandler), Bounds: plan.DefaultBounds,
		Retention: retention, Clock: time.Now, SureClock: time.Now, History: &past{}, OfflineAfter: 30 * time.Second,
	}
	w.term = newTerm(c, &mark{}, make(chan struct{}, 1))
	w.term.begin(time.Now())
	for _, id := range []string{"w-1", "w-2"} {
		w.inbox.Attach(peer.Session{Worker: id, Epoch: 1, Gateway: "p", Hello: &agentv1.Hello{Name: id, Slots: 1, Leases: true}, Connected: time.Now()})
		w.inbox.Report(id, 1, &agentv1.AgentMessage{Body: &agentv1.AgentMessage_Inventory{Inventory: &agentv1.Inventory{}}})
	}
	d := &state.Definition{Task: state.Task{Argv: []string{"true"}}, Policy: &state.Policy{
		Overlap: state.OverlapAllow, MaxConcurrent: 1, QueueTimeout: time.Hour, StartWithin: time.Hour, LostAfter: time.Hour,
		Retry: state.Retry{MaxAttempts: 100, Multiplier: 1},
	}}
	w.do(t, state.PutJob{Key: jobKey, Definition: d, UID: 1})
	for _, id := range []string{"ends", "a", "b"} {
		w.do(t, state.Request{Key: jobKey, UID: 1, Version: 1, Activity: w.Activity(1), ID: state.RequestRunID(1, id), Birth: state.Birth{Nominal: time.Now().Round(0)}})
		if id == "ends" {
			w.do(t, state.GiveUp{Run: state.RequestRunID(1, id), Phase: state.Failed, Reason: "so"})
		}
	}
	for range 3 { // workers are heard, inventories known, runs given away
		if _, err := w.term.step(t.Context(), w.inbox.take(), time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func (w *trial) do(t testing.TB, c state.Command) {
	t.Helper()
	if results, err := w.Propose(t.Context(), c); err != nil || results[0].Err != nil {
		t.Fatal(err, results[0].Err)
	}
}

// live returns the run that a worker has.
func (w *trial) live(id state.WorkerID) *state.Run { return w.RunsOn(id)[0] }

// done returns the run that has ended.
func (w *trial) done() *state.Run { return w.Run(state.RequestRunID(1, "ends")) }

// A worker that says without end that it has more attempts is not listened to for ever: what
// it says is kept up to a bound, its session ends, and it counts as silent.
func TestEndlessInventory(t *testing.T) {
	w := newTrial(t)
	for n := range uint32(maxInventory/1000 + 50) {
		i := &agentv1.Inventory{Page: n, More: true}
		for k := range uint32(1000) {
			id := state.RequestRunID(uint64(n), string(rune(k)))
			i.Attempts = append(i.Attempts, &agentv1.AttemptStatus{Key: &agentv1.AttemptKey{RunId: id.String(), Attempt: k + 1}, Fence: uint64(k)})
		}
		w.inbox.Report("w-1", 1, &agentv1.AgentMessage{Body: &agentv1.AgentMessage_Inventory{Inventory: i}})
		if _, err := w.term.step(t.Context(), w.inbox.take(), time.Now()); err != nil {
			t.Fatal(err)
		}
		if kept := len(w.term.sessions["w-1"].has); kept > maxInventory {
			t.Fatalf("after page %d it keeps %d attempts, of %d that a worker may have", n, kept, maxInventory)
		}
	}
	if want := []string{"w-1: " + errMaxInventory.Error()}; !slices.Equal(w.post.cuts, want) {
		t.Errorf("sessions were ended: %q, want %q", w.post.cuts, want)
	}
	if r := w.live("w-1"); r.Phase != state.Assigned || w.term.silent["w-1"].IsZero() {
		t.Errorf("the run that it was given is %v, and it is silent since %v", r.Phase, w.term.silent["w-1"])
	}
}
