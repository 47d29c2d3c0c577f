package lead

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/peer"
)

// many is how many jobs are due at once: more than are decided in one step.
const many = 1280

// defineMany defines jobs that are all due at each full minute, and waits until shortly
// before one.
func (p *primary) defineMany(n int, edit func(*state.Definition)) {
	for i := range n {
		p.defineAs(state.JobKey{Namespace: "default", Name: fmt.Sprint("j-", i)}, edit)
	}
	time.Sleep(time.Until(time.Now().Truncate(time.Minute).Add(time.Minute - time.Second)))
	synctest.Wait()
}

// Of many that are due at once, the first begin when one entry is agreed, and not when all
// are decided.
func TestFirstOfManyBeginWhileOthersAreDecided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Hour)
		defer p.close()
		p.hand.connect()
		p.defineMany(many, nil)
		p.slow.Store(int64(10 * time.Millisecond)) // for each entry
		time.Sleep(time.Second + 15*time.Millisecond)
		synctest.Wait()
		if n, _, _, _ := p.hand.counts(); n != 100 {
			t.Errorf("%d attempts have begun when one entry was agreed, want as many as there are slots, 100", n)
		}
		time.Sleep(50 * time.Millisecond)
		synctest.Wait()
		if n := len(p.runs()); n != many {
			t.Errorf("%d runs are decided when six entries were agreed, want all %d", n, many)
		}
	})
}

// What is due and does not fit in one entry waits for no company.
func TestMoreThanOneEntryIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Hour)
		defer p.close()
		p.hand.connect()
		p.defineMany(many, func(d *state.Definition) { d.Triggers[0].Jitter = 50 * time.Second })
		p.slow.Store(int64(100 * time.Microsecond))
		time.Sleep(time.Second + company)
		synctest.Wait()
		if n := len(p.runs()); n != many {
			t.Errorf("%d runs are decided %v after they were due, want all %d", n, company, many)
		}
	})
}

// What trickles in shares entries, and who asks does not wait for that.
func TestTrickleSharesEntries(t *testing.T) {
	asking(t, 100*time.Millisecond, overlap(state.OverlapAllow), func(t *testing.T, p *primary) {
		for i := range 100 { // each of them ends at another millisecond
			asked := time.Now()
			if a, err := p.ask(fmt.Sprint(i)); err != nil || a.Err != nil {
				t.Fatalf("%+v, %v", a, err)
			}
			if d := time.Since(asked); d != 0 {
				t.Errorf("the answer came after %v", d)
			}
			synctest.Wait()
			if n, _, _, _ := p.hand.counts(); n != i+1 {
				t.Fatalf("%d attempts were started, want %d: at once", n, i+1)
			}
			time.Sleep(time.Millisecond)
		}
		before := p.store.Stats()
		time.Sleep(200 * time.Millisecond)
		after := p.store.Stats()
		if n := after.Entries - before.Entries; n < 5 || n > 15 {
			t.Errorf("%d entries for a hundred runs that have ended within 100 ms, want about one in %v", n, company)
		}
		for _, r := range p.runs() {
			if r.Phase != state.Succeeded {
				t.Errorf("run %v is %v", r.ID, r.Phase)
			}
		}
	})
}

// Runs that their jitter spreads over a second, each due at another instant of it, share entries
// as well, and none of them begins before it is due, or much later.
func TestJitterSharesEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, jitter = 1000, time.Second
		p := newPrimary(t, 2*time.Millisecond)
		defer p.close()
		p.hand.connect()
		p.defineMany(n, func(d *state.Definition) { d.Triggers[0].Jitter = jitter })
		time.Sleep(time.Second)
		synctest.Wait()
		due := map[state.RunID]time.Time{}
		for _, r := range p.runs() {
			if due[r.ID] = r.NotBefore; r.NotBefore.IsZero() { // it has been given away
				due[r.ID] = r.Nominal
			}
		}
		if len(due) != n {
			t.Fatalf("%d runs are decided, want %d", len(due), n)
		}
		before := p.store.Stats()
		time.Sleep(jitter + time.Second)
		synctest.Wait()
		after := p.store.Stats()
		most := uint64(jitter/company) + 10
		if got := after.Entries - before.Entries; got > most {
			t.Errorf("%d entries for %d runs within %v, want %d: about one in %v", got, n, jitter, most, company)
		}
		for _, r := range p.runs() {
			if r.Phase != state.Succeeded {
				t.Fatalf("run %v is %v", r.ID, r.Phase)
			}
			if late := r.Attempts[0].Started.Sub(due[r.ID]); late < 0 || late > company {
				t.Errorf("run %v began %v after it was due, want %v at most", r.ID, late, company)
			}
		}
	})
}

// The first report after a pause is taken at once, and so are all of a worker that has few runs
// while others wait for what these may make free.
func TestReportsThatDoNotWait(t *testing.T) {
	asking(t, 7*time.Millisecond, overlap(state.OverlapQueue), func(t *testing.T, p *primary) {
		began := time.Now()
		for i := range 10 {
			if a, err := p.ask(fmt.Sprint(i)); err != nil || a.Err != nil {
				t.Fatalf("%+v, %v", a, err)
			}
		}
		for p.runs()[9].Phase != state.Succeeded {
			time.Sleep(time.Millisecond)
			synctest.Wait()
		}
		if took := time.Since(began); took > 10*7*time.Millisecond+slotCompany {
			t.Errorf("ten runs of 7ms, one after the other, took %v", took)
		}
	})
}

// While runs wait for a slot, and many of these are taken, what has ended waits for others, but
// for no more of them than an eighth of what runs, and no longer than anything does.
func TestEndsGatherWhileRunsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Hour)
		defer p.close()
		const slots, shortest, longest = 100, 20 * time.Millisecond, 40 * time.Millisecond
		p.hand.takes, p.hand.differ = shortest, (longest-shortest)/slots+time.Microsecond
		p.hand.connect()
		p.defineMany(many, nil)
		time.Sleep(time.Second - time.Nanosecond)
		synctest.Wait()
		before := p.store.Stats()
		begun, n := time.Now(), 0
		for n < many {
			time.Sleep(time.Millisecond)
			synctest.Wait()
			n, _, _, _ = p.hand.counts()
		}
		after := p.store.Stats()
		if took, most := time.Since(begun), many/slots*((shortest+longest)/2+slotCompany); took > most {
			t.Errorf("the last has begun after %v, want %v: a slot waits for its next run for %v at most", took, most, slotCompany)
		}
		if n, most := after.Entries-before.Entries, uint64(many/(slots/share)+many/maxDue+slots/share); n > most {
			t.Errorf("%d entries for %d runs of which %d run at once, want %d: one for an eighth of these", n, many, slots, most)
		}
	})
}

// Entries that take nothing of what waits, such as those that give away what another primary has
// put on record, do not keep it waiting: there may be one each millisecond.
func TestEntriesThatTakeNothing(t *testing.T) {
	const first = 30 * time.Millisecond
	asking(t, first, overlap(state.OverlapAllow), func(t *testing.T, p *primary) {
		asked := time.Now()
		if a, err := p.ask("first"); err != nil || a.Err != nil {
			t.Fatalf("%+v, %v", a, err)
		}
		synctest.Wait()
		p.hand.set(func() { p.hand.takes = time.Hour })
		const every = 1100 * time.Microsecond // so that none is asked for in the moment of an entry
		time.Sleep(every / 2)
		n := 0
		for ; time.Since(asked) <= first+company; n++ {
			p.requestRun(jobKey, fmt.Sprint(n))
			synctest.Wait()
			if begun, _, _, _ := p.hand.counts(); begun != 1+n+1 {
				t.Fatalf("%d attempts have begun, want each at once, and so %d", begun, 1+n+1)
			}
			time.Sleep(every)
		}
		synctest.Wait()
		if r := p.runs()[0]; r.Phase != state.Succeeded {
			t.Errorf("a run that has ended %v ago is %v", time.Since(asked)-first, r.Phase)
		}
	})
}

// Many who ask, each at another moment, share entries, and nobody waits for those who do not
// come any more.
func TestAskersShareEntries(t *testing.T) {
	const callers, rounds, write = 32, 20, 3 * time.Millisecond
	asking(t, 5*time.Millisecond, overlap(state.OverlapAllow), func(t *testing.T, p *primary) {
		p.slow.Store(int64(write))
		before := p.store.Stats()
		var all sync.WaitGroup
		for caller := range callers {
			all.Go(func() {
				for i := range rounds {
					asked := time.Now()
					if a, err := p.ask(fmt.Sprint(caller, "/", i)); err != nil || a.Err != nil {
						t.Errorf("%+v, %v", a, err)
					}
					if d := time.Since(asked); d > write+longestWait+write {
						t.Errorf("an answer came after %v, want the writing of an entry, a wait for others, and the writing of its own", d)
					}
					time.Sleep(20*time.Millisecond + time.Duration(caller)*317*time.Microsecond)
				}
			})
		}
		all.Wait()
		after := p.store.Stats()
		if each := float64(after.Entries-before.Entries) / (callers * rounds); each > 0.2 {
			t.Errorf("%.2f entries for each run, want five askers and more to share one", each)
		}
		for i := range 3 {
			asked := time.Now()
			if a, err := p.ask(fmt.Sprint("alone", i)); err != nil || a.Err != nil {
				t.Fatalf("%+v, %v", a, err)
			}
			if d := time.Since(asked); d > write {
				t.Errorf("who asks alone is answered after %v, want %v", d, write)
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
}

// What is to be put on record while askers wait for others waits as long as they do, and
// nobody looks for it again and again meanwhile: time would stand still.
func TestStartsAmongAskers(t *testing.T) {
	const callers, rounds, write = 32, 20, 3 * time.Millisecond
	asking(t, startHeld+10*time.Millisecond, overlap(state.OverlapAllow), func(t *testing.T, p *primary) {
		p.slow.Store(int64(write))
		var all sync.WaitGroup
		for caller := range callers {
			all.Go(func() {
				for i := range rounds {
					if a, err := p.ask(fmt.Sprint(caller, "/", i)); err != nil || a.Err != nil {
						t.Errorf("%+v, %v", a, err)
					}
					time.Sleep(20*time.Millisecond + time.Duration(caller)*317*time.Microsecond)
				}
			})
		}
		all.Wait()
		time.Sleep(time.Second)
		for _, r := range p.runs() {
			if r.Phase != state.Succeeded || r.Attempts[0].Started.IsZero() {
				t.Fatalf("run %+v, want it to have succeeded, with when it started", r)
			}
		}
	})
}

// A worker that is back a moment before it would be given up is not, though what it says has to
// wait for company, and whatever the leader looks at meanwhile.
func TestWhoIsBackInTimeIsHeard(t *testing.T) {
	const lostAfter = 3 * time.Minute
	cancel := func(p *primary, r state.RunID) { p.propose(state.Cancel{Run: r}) }
	for name, c := range map[string]struct {
		onLost    state.OnLost
		away      time.Duration
		meanwhile func(*primary, state.RunID)
		want      state.Phase
	}{
		"another job is defined": {state.OnLostFail, lostAfter, func(p *primary, _ state.RunID) {
			p.defineAs(state.JobKey{Namespace: "default", Name: "meanwhile"}, nil)
		}, state.Running},
		"its run is cancelled":                      {state.OnLostFail, lostAfter, cancel, state.Cancelled},
		"its run, which waits for it, is cancelled": {state.OnLostWait, time.Hour, cancel, state.Cancelled},
	} {
		t.Run(name, func(t *testing.T) {
			asking(t, 24*time.Hour, func(d *state.Definition) {
				d.Policy.Overlap, d.Policy.LostAfter, d.Policy.OnLost = state.OverlapAllow, lostAfter, c.onLost
			}, func(t *testing.T, p *primary) {
				first, err := p.ask("first")
				if err != nil || first.Err != nil {
					t.Fatalf("%+v, %v", first, err)
				}
				time.Sleep(time.Second)
				synctest.Wait()
				p.hand.disconnect()
				time.Sleep(c.away - 2*time.Millisecond)
				if a, err := p.ask("second"); err != nil || a.Err != nil { // with an entry of the log
					t.Fatalf("%+v, %v", a, err)
				}
				time.Sleep(time.Millisecond)
				p.hand.connect()
				time.Sleep(2 * time.Millisecond)
				c.meanwhile(p, first.Run.ID)
				time.Sleep(time.Second)
				synctest.Wait()
				r := p.runs()[0]
				if a := r.Attempts[0]; r.Phase != c.want || a.Outcome == state.OutcomeLost {
					t.Errorf("it is %v (%s), want %v", r.Phase, a.Reason, c.want)
				}
			})
		})
	}
}

// A run whose queue_timeout is over is not given away in the moment until that is judged.
func TestNothingIsGivenAwayTooLate(t *testing.T) {
	const patience = time.Second
	asking(t, patience-2*time.Millisecond, func(d *state.Definition) {
		d.Policy.Overlap, d.Policy.QueueTimeout = state.OverlapQueue, patience
	}, func(t *testing.T, p *primary) {
		for _, name := range []string{"first", "second"} {
			if a, err := p.ask(name); err != nil || a.Err != nil {
				t.Fatalf("%+v, %v", a, err)
			}
		}
		synctest.Wait()
		p.slow.Store(int64(3 * time.Millisecond)) // the end of the first is on record a millisecond after that
		time.Sleep(2 * patience)
		synctest.Wait()
		first, second := p.runs()[0], p.runs()[1]
		if first.Phase != state.Succeeded {
			t.Errorf("the first is %v", first.Phase)
		}
		if second.Phase != state.TimedOut || len(second.Attempts) > 0 {
			t.Errorf("the second is %v with %d attempts, want that its time to wait was over", second.Phase, len(second.Attempts))
		}
	})
}

// Whoever waits for ends is told when so many are there, also if they were before, and not of
// those that somebody has taken, or that were told in another term.
func TestEndsAreAwaited(t *testing.T) {
	b := NewInbox()
	b.Attach(peer.Session{Worker: "w", Epoch: 1})
	ends := func(n int) {
		for range n {
			b.Report("w", 1, &agentv1.AgentMessage{Body: &agentv1.AgentMessage_Result{Result: &agentv1.Result{}}})
			b.Report("w", 1, &agentv1.AgentMessage{Body: &agentv1.AgentMessage_Started{Started: &agentv1.Started{}}})
		}
	}
	told := func(step string, c <-chan struct{}, want bool) {
		t.Helper()
		select {
		case <-c:
			if !want {
				t.Errorf("%s: it is told", step)
			}
		default:
			if want {
				t.Errorf("%s: it is not told", step)
			}
		}
	}
	await := func(step string, n int, want bool) <-chan struct{} {
		t.Helper()
		if there := b.ended() >= n; there != want {
			t.Errorf("%s: that %d have ended is %v, want %v", step, n, there, want)
		}
		c := b.await(n)
		told(step, c, want)
		return c
	}
	ends(3)
	await("nobody leads", 1, false)
	b.begin()
	c := await("at first", 3, false)
	ends(2)
	told("two of three", c, false)
	ends(1)
	told("three", c, true)
	await("three are there", 3, true)
	c = await("a fourth is waited for", 4, false)
	told("three of four", c, false)
	ends(1)
	b.take()
	told("they were taken", c, false)
	await("none is there", 1, false)
	ends(2)
	b.end()
	b.begin()
	await("the next term", 1, false)
}
