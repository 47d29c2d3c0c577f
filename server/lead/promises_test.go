package lead

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/plan"
)

// After an outage of two hours there is much to catch up with, and it is.
func TestCatchUpOfManyJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Second)
		time.Sleep(10 * time.Second)
		for i := range 300 {
			d := &state.Definition{
				Triggers: []*state.Trigger{{ID: "m", Every: &state.Every{Interval: time.Minute}}},
				Policy: &state.Policy{
					Overlap: state.OverlapAllow, MaxConcurrent: 1, CatchUp: state.CatchUpAll, CatchUpWindow: 24 * time.Hour,
					QueueTimeout: 24 * time.Hour, StartWithin: 5 * time.Minute, LostAfter: 3 * time.Minute, Retry: state.Retry{MaxAttempts: 1, Multiplier: 1},
				},
			}
			p.propose(state.PutJob{Key: state.JobKey{Namespace: "default", Name: fmt.Sprint("j", i)}, Definition: d, Effective: time.Now()})
		}
		p.kill()
		time.Sleep(2 * time.Hour)
		p.start()
		time.Sleep(30 * time.Second)
		undecided := 0
		p.store.View(func(s *state.State) {
			for j := range s.Jobs() {
				if now := time.Now(); s.Track(j.UID, "m").DecidedUntil.Before(now.Add(-2 * time.Minute)) {
					undecided++
				}
			}
		})
		if n := p.store.Stats().Entries; n > 20 {
			t.Errorf("it took %d entries", n)
		}
		if undecided > 0 {
			t.Errorf("half a minute after the outage the occurrences of %d jobs of 300 are not decided", undecided)
		}
		p.close()
	})
}

// However many runs ended within an hour, they can be forgotten.
func TestPruneOfManyRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Second)
		time.Sleep(5 * time.Second)
		began := time.Now().UTC().Truncate(time.Second).Add(-100_000 * time.Second)
		d := &state.Definition{Triggers: []*state.Trigger{{ID: "s", Every: &state.Every{Interval: time.Second}, Disabled: true}}, Policy: &state.Policy{MaxConcurrent: 1}}
		p.propose(state.PutJob{Key: jobKey, Definition: d, Effective: began})
		after := began
		for range 70 { // seventy thousand runs that were skipped
			c := state.Decide{Key: jobKey, UID: 2, Version: 1, Trigger: "s", After: after}
			p.store.View(func(s *state.State) { c.UID = s.Job(jobKey).UID })
			for range 1000 {
				after = after.Add(time.Second)
				c.Decisions = append(c.Decisions, state.Decided{
					Decision: state.DecidedSkipped, First: after, Last: after, Count: 1, Digest: state.Mix(after),
					Run: &state.Birth{Phase: state.Skipped, Nominal: after},
				})
			}
			c.Until = after
			p.propose(c)
		}
		n := func() (n int) { p.store.View(func(s *state.State) { n = s.NumRuns() }); return n }
		time.Sleep(10 * time.Minute)
		if got := n(); got > retention.RunsPerJob {
			t.Errorf("%d runs of one job are kept, want %d at most", got, retention.RunsPerJob)
		}
		p.close()
	})
}

// A network break that is longer than start_within, with the worker's Started
// lost in it, does not end what runs.
func TestStartedUnheardIsNotKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Hour)
		p.hand.connect()
		p.define(func(d *state.Definition) { d.Policy.StartWithin = 10 * time.Second })
		p.hand.mu.Lock()
		p.hand.deaf = true
		p.hand.mu.Unlock()
		time.Sleep(61 * time.Second)
		r := p.runs()[0]
		if r.Phase != state.Assigned {
			t.Fatalf("run is %v", r.Phase)
		}
		// The Launch arrives, the process starts, and the connection breaks.
		p.hand.disconnect()
		p.hand.mu.Lock()
		p.hand.deaf = false
		k := &agentv1.AttemptKey{RunId: r.ID.String(), Attempt: 1}
		p.hand.known[name(k)] = &agentv1.AttemptStatus{Key: k, Fence: r.Live().Fence, Phase: agentv1.AttemptPhase_ATTEMPT_PHASE_RUNNING, StartedTime: timestamppb.Now()}
		p.hand.starts[name(k)]++
		p.hand.mu.Unlock()
		time.Sleep(20 * time.Second)
		p.hand.connect()
		time.Sleep(5 * time.Second)
		if r := p.runs()[0]; r.Phase != state.Running || kills(p) > 0 {
			t.Errorf("%d kills of what ran all the time; run is %v because %q", kills(p), r.Phase, r.Reason)
		}
		p.close()
	})
}

// The same when the leader leads anew, with the session in place: it acts only
// after it has heard what runs.
func TestNewLeaderListensBeforeItKills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Hour)
		p.hand.connect()
		p.define(func(d *state.Definition) { d.Policy.StartWithin = 10 * time.Second })
		p.hand.mu.Lock()
		p.hand.deaf = true
		p.hand.mu.Unlock()
		time.Sleep(61 * time.Second)
		r := p.runs()[0]
		p.kill()
		p.hand.mu.Lock()
		p.hand.deaf = false
		k := &agentv1.AttemptKey{RunId: r.ID.String(), Attempt: 1}
		p.hand.known[name(k)] = &agentv1.AttemptStatus{Key: k, Fence: r.Live().Fence, Phase: agentv1.AttemptPhase_ATTEMPT_PHASE_RUNNING, StartedTime: timestamppb.Now()}
		p.hand.starts[name(k)]++
		p.hand.mu.Unlock()
		time.Sleep(20 * time.Second)
		p.start() // its inbox has the session
		time.Sleep(5 * time.Second)
		if r := p.runs()[0]; r.Phase != state.Running || kills(p) > 0 {
			t.Errorf("%d kills of what ran all the time; run is %v because %q", kills(p), r.Phase, r.Reason)
		}
		p.close()
	})
}

// A worker has a say in its own attempts only.
func TestForeignResultIsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Hour)
		p.hand.connect()
		p.define(nil)
		time.Sleep(65 * time.Second)
		r := p.runs()[0]
		k := &agentv1.AttemptKey{RunId: r.ID.String(), Attempt: 1}
		s := p.hand.session()
		s.Worker, s.Epoch = "w-2", 1
		p.inbox.Attach(s)
		p.inbox.Report("w-2", 1, &agentv1.AgentMessage{Body: &agentv1.AgentMessage_Result{Result: &agentv1.Result{
			Key: k, Fence: r.Live().Fence, Outcome: agentv1.Outcome_OUTCOME_SUCCEEDED, FinishedTime: timestamppb.Now(),
		}}})
		time.Sleep(5 * time.Second)
		if r := p.runs()[0]; r.Phase != state.Running {
			t.Errorf("run on worker %s is %v by the word of w-2", r.Attempts[0].Worker, r.Phase)
		}
		p.close()
	})
}

// Nor can another worker make an attempt look as if it ran.
func TestForeignStartIsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Hour)
		p.hand.connect()
		p.define(nil)
		p.hand.set(func() { p.hand.deaf = true }) // so that it is assigned, and does not start
		time.Sleep(62 * time.Second)
		r := p.runs()[0]
		if r.Phase != state.Assigned {
			t.Fatalf("run is %v, want assigned", r.Phase)
		}
		s := p.hand.session()
		s.Worker, s.Epoch = "w-2", 1
		p.inbox.Attach(s)
		p.inbox.Report("w-2", 1, &agentv1.AgentMessage{Body: &agentv1.AgentMessage_Started{Started: &agentv1.Started{
			Key: &agentv1.AttemptKey{RunId: r.ID.String(), Attempt: 1}, Fence: r.Live().Fence, Time: timestamppb.Now(),
		}}})
		time.Sleep(2 * time.Second)
		if r := p.runs()[0]; r.Phase != state.Assigned {
			t.Errorf("run on worker %s is %v by the word of w-2", r.Attempts[0].Worker, r.Phase)
		}
		p.close()
	})
}

type counter struct {
	blind
	mu    sync.Mutex
	ended map[state.Phase]int
}

func (c *counter) Ended(p state.Phase) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended[p]++
}

// A run ends once, however often its end is told.
func TestEndsAreCountedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, 90*time.Second)
		p.stop() // once more, with one who counts
		p.wg.Wait()
		c := &counter{ended: map[state.Phase]int{}}
		ctx, cancel := context.WithCancel(t.Context())
		p.stop = cancel
		p.wg.Go(func() {
			Run(ctx, Config{Store: p.store, Gateway: p.hand, Inbox: p.inbox, Observer: c, Log: slog.New(slog.DiscardHandler), Bounds: plan.DefaultBounds, Retention: retention, Clock: time.Now, SureClock: time.Now, History: &past{}, OfflineAfter: 30 * time.Second})
		})
		time.Sleep(10 * time.Second)
		p.hand.connect()
		p.define(nil)
		time.Sleep(65 * time.Second)
		p.hand.disconnect()
		time.Sleep(3*time.Minute + 10*time.Second)
		p.hand.connect() // with the late result
		time.Sleep(5 * time.Second)
		if r := p.runs()[0]; r.Attempts[0].Late != state.OutcomeSucceeded {
			t.Fatalf("run is %v with %+v", r.Phase, r.Attempts)
		}
		if c.ended[state.Lost] != 1 {
			t.Errorf("one lost run was counted %d times", c.ended[state.Lost])
		}
		p.close()
	})
}

// What a worker says of the time is its own business: a clock that is set to
// 1970, or to nonsense, must not keep the leader from leading.
func TestAbsurdTimeOfAWorker(t *testing.T) {
	for name, when := range map[string]*timestamppb.Timestamp{
		"1970":      {},
		"year 9999": {Seconds: 253402300799},
		"nonsense":  {Seconds: -1 << 60},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPrimary(t, 30*time.Second)
				p.hand.connect()
				p.define(func(d *state.Definition) { d.Policy.Overlap = state.OverlapAllow })
				time.Sleep(65 * time.Second)
				p.hand.mu.Lock()
				if len(p.hand.known) != 1 {
					t.Fatal(len(p.hand.known))
				}
				for _, a := range p.hand.known {
					k := name1(a)
					p.hand.pending[k] = &agentv1.Result{Key: a.GetKey(), Fence: a.GetFence(), Outcome: agentv1.Outcome_OUTCOME_SUCCEEDED, StartedTime: when, FinishedTime: timestamppb.Now()}
					p.hand.known[k] = &agentv1.AttemptStatus{Key: a.GetKey(), Fence: a.GetFence(), Phase: agentv1.AttemptPhase_ATTEMPT_PHASE_ENDED}
					p.hand.report(&agentv1.AgentMessage{Body: &agentv1.AgentMessage_Result{Result: p.hand.pending[k]}})
				}
				p.hand.mu.Unlock()
				time.Sleep(10 * time.Minute)
				ended := 0
				for _, r := range p.runs() {
					if r.Phase.Final() {
						ended++
					}
				}
				if ended < 9 {
					t.Errorf("in eleven minutes %d of %d runs that take half a minute ended: the leader falls over one report, again and again", ended, len(p.runs()))
				}
				p.close()
			})
		})
	}
}

func name1(a *agentv1.AttemptStatus) string { return name(a.GetKey()) }

func kills(p *primary) int {
	_, n, _, _ := p.hand.counts()
	return n
}
