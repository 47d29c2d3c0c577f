package lead

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/schedd/schedd/raftstore/state"
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
		if n := after.Entries - before.Entries; n < 10 || n > 25 {
			t.Errorf("%d entries for a hundred runs that have ended within 100 ms, want about one in %v", n, company)
		}
		for _, r := range p.runs() {
			if r.Phase != state.Succeeded {
				t.Errorf("run %v is %v", r.ID, r.Phase)
			}
		}
	})
}

// The first report after a pause is taken at once, and so are all while a run waits for
// what they may make free.
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
		if took := time.Since(began); took > 10*7*time.Millisecond+company {
			t.Errorf("ten runs of 7ms, one after the other, took %v", took)
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
