package lead

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/peer"
	"github.com/schedd/schedd/server/plan"
)

var jobKey = state.JobKey{Namespace: "default", Name: "j"}

// hand is a worker, at the gateway's side: it does what it is told, as long as
// the test says.
type hand struct {
	t        *testing.T
	inbox    *Inbox
	id       string
	epoch    uint64
	takes    time.Duration // how long an attempt runs
	differ   time.Duration // and how much longer each of the next hundred
	deaf     bool          // what is sent does not arrive
	leaves   bool          // it is about to stop, and takes no attempts
	together bool          // what it starts has ended before it tells
	trouble  string        // why it takes none, as it says
	old      bool          // it keeps no leases
	keeps    *agentv1.Enforcement
	ignore   map[string]bool

	mu      sync.Mutex
	wg      sync.WaitGroup
	known   map[string]*agentv1.AttemptStatus // by run and attempt
	starts  map[string]int
	kills   int
	acks    map[string]int
	unasked map[string]bool            // whose log nobody wants, by the ack
	pending map[string]*agentv1.Result // not acknowledged
	leases  []*agentv1.Lease
	cuts    []string // why its session was to end
}

func name(k *agentv1.AttemptKey) string { return fmt.Sprint(k.GetRunId(), "/", k.GetAttempt()) }

func newHand(t *testing.T, inbox *Inbox, takes time.Duration) *hand {
	return &hand{
		t: t, inbox: inbox, id: "w-1", takes: takes, ignore: map[string]bool{},
		known: map[string]*agentv1.AttemptStatus{}, starts: map[string]int{}, acks: map[string]int{}, unasked: map[string]bool{}, pending: map[string]*agentv1.Result{},
	}
}

func (h *hand) session() peer.Session {
	return peer.Session{Worker: h.id, Epoch: h.epoch, Gateway: "p", Hello: &agentv1.Hello{Name: "hand", Slots: 100, Leases: !h.old, Enforcement: h.keeps}, Connected: time.Now()}
}

// connect begins a session, the inventory first and then what is not
// acknowledged.
func (h *hand) connect() {
	h.mu.Lock()
	h.epoch++
	s := h.session()
	h.mu.Unlock()
	h.inbox.Attach(s)
	h.tell()
}

func (h *hand) disconnect() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.inbox.Detach(h.id, h.epoch)
}

// tell reports what it knows.
func (h *hand) tell() {
	h.mu.Lock()
	defer h.mu.Unlock()
	inv := &agentv1.Inventory{Trouble: h.trouble}
	for _, a := range h.known {
		inv.Attempts = append(inv.Attempts, a)
	}
	h.report(&agentv1.AgentMessage{Body: &agentv1.AgentMessage_Inventory{Inventory: inv}})
	for _, r := range h.pending {
		h.report(&agentv1.AgentMessage{Body: &agentv1.AgentMessage_Result{Result: r}})
	}
}

func (h *hand) report(m *agentv1.AgentMessage) { h.inbox.Report(h.id, h.epoch, m) }

// Send implements peer.Gateway.
func (h *hand) Send(worker string, epoch uint64, m *agentv1.GatewayMessage) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if worker != h.id || epoch != h.epoch {
		return false
	}
	if h.deaf {
		return true
	}
	switch b := m.GetBody().(type) {
	case *agentv1.GatewayMessage_InventoryRequest:
		h.wg.Go(h.tell)
	case *agentv1.GatewayMessage_Launch:
		h.launch(b.Launch)
	case *agentv1.GatewayMessage_Lease:
		h.leases = append(h.leases, b.Lease)
	case *agentv1.GatewayMessage_Kill:
		h.kills++
		if k := name(b.Kill.GetKey()); h.known[k] == nil && h.starts[k] == 0 { // it will not be started any more
			h.known[k] = &agentv1.AttemptStatus{Key: b.Kill.GetKey(), Fence: b.Kill.GetFence(), Phase: agentv1.AttemptPhase_ATTEMPT_PHASE_ACCEPTED}
		}
		h.end(b.Kill.GetKey(), b.Kill.GetFence(), agentv1.Outcome_OUTCOME_KILLED)
	case *agentv1.GatewayMessage_ResultAck:
		k := name(b.ResultAck.GetKey())
		h.acks[k]++
		h.unasked[k] = b.ResultAck.GetUnwanted()
		delete(h.pending, k)
		delete(h.known, k)
	}
	return true
}

// launch starts an attempt that it does not know. The caller holds mu.
func (h *hand) launch(l *agentv1.Launch) {
	k := name(l.GetKey())
	if h.known[k] != nil || h.starts[k] > 0 {
		return
	}
	if h.leaves {
		h.known[k] = &agentv1.AttemptStatus{Key: l.GetKey(), Fence: l.GetFence(), Phase: agentv1.AttemptPhase_ATTEMPT_PHASE_ACCEPTED}
		h.end(l.GetKey(), l.GetFence(), agentv1.Outcome_OUTCOME_REFUSED)
		return
	}
	h.starts[k]++
	if h.together {
		h.runAtOnce(l)
		return
	}
	h.known[k] = &agentv1.AttemptStatus{Key: l.GetKey(), Fence: l.GetFence(), Phase: agentv1.AttemptPhase_ATTEMPT_PHASE_RUNNING, StartedTime: timestamppb.Now()}
	h.report(&agentv1.AgentMessage{Body: &agentv1.AgentMessage_Started{Started: &agentv1.Started{Key: l.GetKey(), Fence: l.GetFence(), Time: timestamppb.Now()}}})
	takes := h.takes + time.Duration(len(h.starts)%100)*h.differ
	h.wg.Go(func() {
		time.Sleep(takes)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.end(l.GetKey(), l.GetFence(), agentv1.Outcome_OUTCOME_SUCCEEDED)
	})
}

// end ends an attempt that runs. The caller holds mu.
func (h *hand) end(key *agentv1.AttemptKey, fence uint64, o agentv1.Outcome) {
	k := name(key)
	if a := h.known[k]; a == nil || a.GetPhase() == agentv1.AttemptPhase_ATTEMPT_PHASE_ENDED {
		return
	}
	h.known[k] = &agentv1.AttemptStatus{Key: key, Fence: fence, Phase: agentv1.AttemptPhase_ATTEMPT_PHASE_ENDED}
	h.pending[k] = &agentv1.Result{Key: key, Fence: fence, Outcome: o, FinishedTime: timestamppb.Now()}
	h.report(&agentv1.AgentMessage{Body: &agentv1.AgentMessage_Result{Result: h.pending[k]}})
}

// Sessions implements peer.Gateway.
func (h *hand) Sessions() []peer.Session { return nil }

// Cut implements peer.Gateway.
func (h *hand) Cut(worker, reason string, _ bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if worker == h.id {
		h.cuts = append(h.cuts, reason)
	}
}

// primary is a leader over a disk that outlives it.
type primary struct {
	t     *testing.T
	disk  *raftstore.Memory
	store *raftstore.Store
	inbox *Inbox
	hand  *hand
	past  past
	keep  plan.Retention
	mixed atomic.Bool  // the group has a primary that knows nothing of enforcement
	slow  atomic.Int64 // how long it takes to agree on anything, in nanoseconds
	halts atomic.Int64 // for how long it stands still after that
	stop  context.CancelFunc
	wg    sync.WaitGroup
}

// mixed is the store of a group that is being upgraded, or is slow.
type mixed struct {
	*raftstore.Store
	old         *atomic.Bool
	slow, halts *atomic.Int64
}

func (m mixed) Propose(ctx context.Context, cmds ...state.Command) ([]state.Result, error) {
	for _, c := range cmds {
		if _, new := c.(state.SetEnforcement); new && m.old.Load() {
			return nil, raftstore.ErrOldPrimary
		}
	}
	time.Sleep(time.Duration(m.slow.Load()))
	results, err := m.Store.Propose(ctx, cmds...)
	time.Sleep(time.Duration(m.halts.Load()))
	return results, err
}

type blind struct{}

// retention keeps a day of runs, and few.
var retention = plan.Retention{
	RunsPerJob: 100, Runs: 20_000, RunAge: 24 * time.Hour, LostAge: 30 * 24 * time.Hour, MostRuns: 200_000, LedgerAge: 400 * 24 * time.Hour,
}

// past is a history of some runs, which has all that ended unless it lags.
type past struct {
	mu   sync.Mutex
	runs map[state.RunID]*state.Run
	lags bool
	err  error
	asks int           // how often it was asked up to when it has all
	hang chan struct{} // nobody is answered before this is closed; nil: at once
}

func (p *past) Held() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asks++
	if p.lags {
		return time.Time{}
	}
	return time.Now().Add(time.Hour)
}

// Run heeds no context: a disk that hangs does not, either.
func (p *past) Run(_ context.Context, id state.RunID) (*state.Run, error) {
	p.mu.Lock()
	hang := p.hang
	p.mu.Unlock()
	if hang != nil {
		<-hang
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.runs[id], p.err
}

func (p *past) set(f func(p *past)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p)
}

func (blind) Decided(state.Decided, time.Duration) {}
func (blind) Ended(state.Phase)                    {}
func (blind) Stepped(time.Duration)                {}

func newPrimary(t *testing.T, takes time.Duration) *primary {
	p := &primary{t: t, disk: raftstore.NewMemory(), inbox: NewInbox(), keep: retention}
	p.hand = newHand(t, p.inbox, takes)
	p.start()
	return p
}

// start starts the primary, on what its last life left on disk.
func (p *primary) start() {
	p.t.Helper()
	log := slog.New(slog.DiscardHandler)
	var err error
	p.store, err = raftstore.Open(raftstore.Config{NodeID: "p", Memory: p.disk, Log: log, HeartbeatTimeout: 250 * time.Millisecond})
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(p.t.Context())
	p.stop = cancel
	c := Config{Store: mixed{p.store, &p.mixed, &p.slow, &p.halts}, Gateway: p.hand, Inbox: p.inbox, Observer: blind{}, Log: log, Bounds: plan.DefaultBounds, Retention: p.keep, Clock: time.Now, SureClock: time.Now, History: &p.past, OfflineAfter: 30 * time.Second}
	p.wg.Go(func() {
		_ = p.store.Lead(ctx, func(ctx context.Context) error {
			Run(ctx, c)
			return nil
		})
	})
}

// kill ends the primary as SIGKILL does.
func (p *primary) kill() {
	p.disk.Pull()
	p.stop()
	_ = p.store.Close()
	p.wg.Wait()
}

func (p *primary) close() {
	p.stop()
	if err := p.store.Close(); err != nil {
		p.t.Error(err)
	}
	p.wg.Wait()
	p.hand.wg.Wait()
}

func (p *primary) propose(cmds ...state.Command) {
	p.t.Helper()
	for {
		rs, err := p.store.Propose(p.t.Context(), cmds...)
		if err != nil {
			time.Sleep(100 * time.Millisecond) // not leading yet
			continue
		}
		for _, r := range rs {
			if r.Err != nil {
				p.t.Fatal(r.Err)
			}
		}
		return
	}
}

func (p *primary) define(edit func(*state.Definition)) {
	p.t.Helper()
	p.defineAs(jobKey, edit)
}

func (p *primary) defineAs(k state.JobKey, edit func(*state.Definition)) {
	p.t.Helper()
	d := &state.Definition{
		Triggers: []*state.Trigger{{ID: "m", Every: &state.Every{Interval: time.Minute}}},
		Task:     state.Task{Argv: []string{"true"}},
		Policy: &state.Policy{
			MaxConcurrent: 1, CatchUpWindow: time.Hour, KillGrace: 10 * time.Second, QueueTimeout: time.Hour,
			StartWithin: 5 * time.Minute, LostAfter: 3 * time.Minute, Retry: state.Retry{MaxAttempts: 1, Multiplier: 1},
		},
	}
	if edit != nil {
		edit(d)
	}
	p.propose(state.PutJob{Key: k, Definition: d, Effective: time.Now()})
}

// runs returns all runs, oldest first.
func (p *primary) runs() (rs []*state.Run) {
	p.store.View(func(s *state.State) {
		for r := range s.RunsByBirth() {
			rs = append(rs, r)
		}
	})
	return rs
}

func (p *primary) verify(nominal int64) {
	p.t.Helper()
	p.store.View(func(s *state.State) {
		vs, err := plan.Verify(s, jobKey, time.Time{}, time.Time{})
		if err != nil {
			p.t.Fatal(err)
		}
		if len(vs[0].Differences) > 0 || vs[0].Nominal != nominal {
			p.t.Errorf("%d occurrences with differences %+v, want %d with none", vs[0].Nominal, vs[0].Differences, nominal)
		}
	})
}

// counts returns how many attempts were started, killed and acknowledged, and
// how many results are not.
func (h *hand) counts() (starts, kills, acks, pending int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.starts), h.kills, len(h.acks), len(h.pending)
}

// set changes the hand.
func (h *hand) set(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

func (h *hand) startedOnce() {
	h.t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	for k, n := range h.starts {
		if n != 1 {
			h.t.Errorf("attempt %s was started %d times", k, n)
		}
	}
}

// An hour of a job each minute, the primary killed every seven minutes and away
// for twenty seconds: each minute is a run, and each run was started once.
func TestAnHourWithKills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, 10*time.Second)
		p.hand.connect()
		time.Sleep(30 * time.Second) // between two minutes
		p.define(nil)
		for range 8 {
			time.Sleep(7*time.Minute - 20*time.Second)
			p.kill()
			time.Sleep(20 * time.Second)
			p.start()
		}
		time.Sleep(4*time.Minute + 5*time.Second)
		p.verify(60)
		for _, r := range p.runs()[:59] {
			if r.Phase != state.Succeeded {
				t.Errorf("run of %v: %v because %q", r.Nominal, r.Phase, r.Reason)
			}
		}
		if n, _, _, _ := p.hand.counts(); n != 60 {
			t.Errorf("%d attempts were started, want 60", n)
		}
		p.hand.startedOnce()
		p.close()
	})
}

// A Launch that gets lost is sent again, and one that comes twice starts once.
func TestLaunchIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Second)
		p.hand.connect()
		p.define(nil)
		p.hand.set(func() { p.hand.deaf = true })
		time.Sleep(61 * time.Second)
		if r := p.runs()[0]; r.Phase != state.Assigned {
			t.Fatalf("run is %v, want assigned", r.Phase)
		}
		p.hand.set(func() { p.hand.deaf = false })
		time.Sleep(15 * time.Second)
		if r := p.runs()[0]; r.Phase != state.Succeeded {
			t.Errorf("run is %v, want succeeded", r.Phase)
		}
		p.hand.startedOnce()
		p.close()
	})
}

// A worker that is away for less than lost_after finds its run as it left it;
// one that is away for longer finds it lost, and its result is kept as a late
// one.
func TestSilentWorker(t *testing.T) {
	for _, tt := range []struct {
		away time.Duration
		want state.Phase
		late state.Outcome
	}{
		{2 * time.Minute, state.Succeeded, state.Unfinished},
		{4 * time.Minute, state.Lost, state.OutcomeSucceeded},
	} {
		t.Run(tt.away.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPrimary(t, 90*time.Second)
				p.hand.connect()
				p.define(nil)
				time.Sleep(65 * time.Second)
				p.hand.disconnect()
				time.Sleep(31 * time.Second)
				p.store.View(func(s *state.State) {
					if s.Worker("w-1").Offline.IsZero() {
						t.Error("after 31 s the worker is not offline")
					}
				})
				if r := p.runs()[0]; r.Phase != state.Running {
					t.Errorf("run is %v while its worker is away, want running", r.Phase)
				}
				time.Sleep(tt.away - 31*time.Second)
				p.hand.connect()
				time.Sleep(5 * time.Second)
				r := p.runs()[0]
				if r.Phase != tt.want || r.Attempts[0].Late != tt.late {
					t.Errorf("run is %v with late result %v, want %v with %v", r.Phase, r.Attempts[0].Late, tt.want, tt.late)
				}
				if _, _, _, n := p.hand.counts(); n > 0 {
					t.Error("the result was not acknowledged")
				}
				p.close()
			})
		})
	}
}

// A lost run that is to be tried again gets another attempt with a greater
// fence, and when the worker of the first one is back, that one is killed.
func TestLostAttemptIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Hour)
		p.hand.connect()
		p.define(func(d *state.Definition) {
			d.Policy.OnLost = state.OnLostRetry
			d.Triggers = []*state.Trigger{{ID: "once", At: time.Now().Add(time.Minute)}}
		})
		time.Sleep(65 * time.Second)
		p.hand.disconnect()
		time.Sleep(4 * time.Minute)
		if r := p.runs()[0]; r.Phase != state.Pending {
			t.Fatalf("run is %v because %q, want pending", r.Phase, r.Reason)
		}
		p.hand.connect()
		time.Sleep(30 * time.Second)
		r := p.runs()[0]
		if len(r.Attempts) != 2 || r.Attempts[1].Fence <= r.Attempts[0].Fence || r.Phase != state.Running {
			t.Fatalf("run is %v with attempts %+v", r.Phase, r.Attempts)
		}
		if _, kills, _, _ := p.hand.counts(); r.Attempts[0].Late != state.OutcomeCancelled && kills == 0 {
			t.Error("the first attempt still runs beside the second")
		}
		p.hand.startedOnce()
		p.close()
	})
}

// The link was made while a worker told its inventory, so that its first page was
// dropped. What was on it is not taken for forgotten.
func TestInventoryFromItsMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Hour)
		p.hand.connect()
		p.define(func(d *state.Definition) {
			d.Triggers = []*state.Trigger{{ID: "once", At: time.Now().Add(time.Minute)}}
		})
		time.Sleep(65 * time.Second)
		p.hand.disconnect()
		p.hand.mu.Lock()
		p.hand.epoch++
		s := p.hand.session()
		p.hand.mu.Unlock()
		p.hand.inbox.Attach(s)
		p.hand.report(&agentv1.AgentMessage{Body: &agentv1.AgentMessage_Inventory{Inventory: &agentv1.Inventory{Page: 1}}})
		time.Sleep(5 * time.Second)
		if r := p.runs()[0]; r.Phase != state.Running {
			t.Errorf("the run is %v because %q, want running", r.Phase, r.Reason)
		}
		p.hand.tell()
		time.Sleep(5 * time.Second)
		if r := p.runs()[0]; r.Phase != state.Running || len(r.Attempts) != 1 {
			t.Errorf("the run is %v because %q, with %d attempts", r.Phase, r.Reason, len(r.Attempts))
		}
		p.hand.startedOnce()
		p.close()
	})
}

// A result is acknowledged only after it is on disk: killed in between, the
// worker says it again.
func TestResultSurvivesKillBeforeCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		p := newPrimary(t, 10*time.Second)
		p.hand.connect()
		p.define(nil)
		time.Sleep(time.Until(began.Add(69 * time.Second))) // runs, and is about to end
		p.disk.BeforeWrite(func() { time.Sleep(3 * time.Second) })
		time.Sleep(2 * time.Second) // the result is being written
		if _, _, n, _ := p.hand.counts(); n != 0 {
			t.Fatalf("%d results acknowledged before they were written", n)
		}
		p.kill()
		p.disk.BeforeWrite(nil)
		p.start()
		time.Sleep(10 * time.Second)
		if r := p.runs()[0]; r.Phase != state.Succeeded {
			t.Errorf("run is %v because %q, want succeeded", r.Phase, r.Reason)
		}
		if _, _, n, _ := p.hand.counts(); n != 1 {
			t.Errorf("%d results acknowledged, want 1", n)
		}
		p.hand.startedOnce()
		p.close()
	})
}

// A worker that is about to stop refuses what it is given. The run goes back to
// the queue, without having used up its one attempt, and is not thrown at that
// worker again and again.
func TestRefusedRunWaitsForAnotherTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Second)
		p.hand.connect()
		p.define(nil)
		p.hand.set(func() { p.hand.leaves = true })
		time.Sleep(65 * time.Second)
		r := p.runs()[0]
		if r.Phase != state.Pending || len(r.Attempts) != 1 {
			t.Fatalf("run is %v with %d attempts, want pending with 1", r.Phase, len(r.Attempts))
		}
		p.hand.disconnect()
		time.Sleep(20 * time.Second)
		p.hand.set(func() { p.hand.leaves = false })
		p.hand.connect()
		time.Sleep(5 * time.Second)
		if r := p.runs()[0]; r.Phase != state.Succeeded || len(r.Attempts) != 2 {
			t.Errorf("run is %v with %d attempts because %q, want succeeded with 2", r.Phase, len(r.Attempts), r.Reason)
		}
		p.close()
	})
}

// A worker that says that it takes no attempts is given none, by the next leader neither,
// until it says that it does.
func TestWorkerInTroubleIsGivenNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, 10*time.Second)
		defer p.close()
		p.hand.set(func() { p.hand.trouble = "the disk is full" })
		p.hand.connect()
		p.define(nil)
		time.Sleep(5*time.Minute + 30*time.Second)
		if starts, _, _, _ := p.hand.counts(); starts != 0 {
			t.Errorf("%d attempts were given to a worker that takes none", starts)
		}
		if got := p.inbox.Trouble("w-1"); got != "the disk is full" {
			t.Errorf("people are told %q", got)
		}
		p.kill() // the next leader has to be told as well
		p.start()
		p.hand.connect()
		time.Sleep(2 * time.Minute)
		if starts, _, _, _ := p.hand.counts(); starts != 0 {
			t.Errorf("%d attempts were given to it by the next leader", starts)
		}
		p.hand.set(func() { p.hand.trouble = "" })
		p.hand.tell()
		time.Sleep(time.Minute)
		if starts, _, _, _ := p.hand.counts(); starts == 0 {
			t.Error("it takes attempts again, and is given none")
		}
		if got := p.inbox.Trouble("w-1"); got != "" {
			t.Errorf("people are told %q", got)
		}
		p.hand.startedOnce()
	})
}

// Cancelled while it runs, a run is killed and ends as cancelled; and what the
// worker forgot, though it ran, is lost.
func TestCancelAndForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Hour)
		p.hand.connect()
		p.define(func(d *state.Definition) { d.Policy.Overlap = state.OverlapAllow })
		time.Sleep(125 * time.Second)
		rs := p.runs()
		p.propose(state.Cancel{Run: rs[0].ID, Note: "no longer needed"})
		time.Sleep(time.Second)
		if r := p.runs()[0]; r.Phase != state.Cancelled || r.Reason != "no longer needed" {
			t.Errorf("run is %v because %q, want cancelled", r.Phase, r.Reason)
		}
		p.hand.disconnect()
		p.hand.set(func() { clear(p.hand.known) })
		p.hand.connect()
		time.Sleep(time.Second)
		if r := p.runs()[1]; r.Phase != state.Lost {
			t.Errorf("run is %v because %q, want lost", r.Phase, r.Reason)
		}
		p.close()
	})
}

// Workers say what they can hold runs to while a primary is too old to keep that on
// record. It is on record soon after the upgrade, though none of them comes anew.
func TestEnforcementOfARollingUpgrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Minute)
		p.mixed.Store(true)
		time.Sleep(5 * time.Second)
		p.hand.keeps = &agentv1.Enforcement{Memory: agentv1.Means_MEANS_CGROUP_V2}
		const others = 20
		for i := range others {
			p.inbox.Attach(peer.Session{Worker: fmt.Sprint("other-", i), Epoch: 1, Gateway: "p", Hello: &agentv1.Hello{Enforcement: p.hand.keeps}})
		}
		p.hand.connect()
		time.Sleep(5 * time.Minute)
		kept := func() (n int) {
			p.store.View(func(s *state.State) {
				for _, w := range s.Workers() {
					if w.Enforcement.Memory == state.MeansCgroupV2 {
						n++
					}
				}
			})
			return n
		}
		if n := kept(); n != 0 {
			t.Errorf("%d are on record before the upgrade", n)
		}
		p.mixed.Store(false)
		time.Sleep(remindEvery + 2*maxSleep)
		if n := kept(); n != others+1 {
			t.Errorf("%d are on record after the upgrade, want %d", n, others+1)
		}
		p.close()
	})
}
