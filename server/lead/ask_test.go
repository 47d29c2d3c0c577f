package lead

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/plan"
)

// asking tells a story of a job that runs by hand only, and a worker that is connected.
func asking(t *testing.T, takes time.Duration, edit func(*state.Definition), tell func(t *testing.T, p *primary)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, takes)
		defer p.close()
		p.hand.connect()
		p.define(func(d *state.Definition) {
			d.Triggers = nil
			edit(d)
		})
		synctest.Wait()
		tell(t, p)
	})
}

func overlap(o state.Overlap) func(*state.Definition) {
	return func(d *state.Definition) { d.Policy.Overlap = o }
}

func (p *primary) ask(name string) (Answer, error) {
	return p.inbox.Ask(p.t.Context(), plan.Ask{Job: jobKey, Name: name})
}

// A run that is asked for costs one entry until it is launched.
func TestAskCostsOneEntry(t *testing.T) {
	asking(t, time.Hour, overlap(state.OverlapSkip), func(t *testing.T, p *primary) {
		p.hand.set(func() { p.hand.deaf = true })
		before := p.store.Stats()
		a, err := p.ask("x")
		if err != nil || a.Err != nil || !a.Agreed || a.Run.Phase != state.Pending {
			t.Fatalf("%+v, %v", a, err)
		}
		synctest.Wait()
		launched := p.store.Stats()
		if n, c := launched.Entries-before.Entries, launched.Commands-before.Commands; n != 1 || c != 2 {
			t.Errorf("%d entries with %d commands, want one to make it and to give it away", n, c)
		}
		if r := p.runs()[0]; r.Phase != state.Assigned || r.ID != a.Run.ID {
			t.Errorf("run %+v, want it to be its worker's", r)
		}
	})
}

// However many ask for one job at once, while its runs end, nobody is refused, and each
// has a run.
func TestManyAskForOneJob(t *testing.T) {
	for _, o := range []state.Overlap{state.OverlapAllow, state.OverlapQueue, state.OverlapReplace} {
		asking(t, 7*time.Millisecond, overlap(o), func(t *testing.T, p *primary) {
			p.slow.Store(int64(10 * time.Millisecond))
			var callers sync.WaitGroup
			for caller := range 8 {
				callers.Go(func() {
					for i := range 10 {
						if a, err := p.ask(fmt.Sprint(caller, "/", i)); err != nil || a.Err != nil {
							t.Errorf("overlap %v: %+v, %v", o, a, err)
						}
					}
				})
			}
			callers.Wait()
			time.Sleep(time.Minute)
			if n := len(p.runs()); n != 80 {
				t.Errorf("overlap %v: %d runs, want 80", o, n)
			}
			for _, r := range p.runs() {
				if r.Phase != state.Succeeded && (o != state.OverlapReplace || r.Phase != state.Cancelled) {
					t.Errorf("overlap %v: run %v is %v", o, r.ID, r.Phase)
				}
			}
			p.hand.startedOnce()
		})
	}
}

// Of those who ask at once for a job that runs once at a time, one is first.
func TestOneOfManyIsFirst(t *testing.T) {
	asking(t, time.Hour, overlap(state.OverlapSkip), func(t *testing.T, p *primary) {
		p.slow.Store(int64(10 * time.Millisecond))
		var callers sync.WaitGroup
		var mu sync.Mutex
		var runs, refused int
		for i := range 20 {
			callers.Go(func() {
				a, err := p.ask(fmt.Sprint(i))
				mu.Lock()
				defer mu.Unlock()
				var forbidden *plan.OverlapError
				switch {
				case err == nil && a.Err == nil && a.Agreed:
					runs++
				case err == nil && errors.As(a.Err, &forbidden) && !a.Agreed:
					refused++
				default:
					t.Errorf("%+v, %v", a, err)
				}
			})
		}
		callers.Wait()
		if runs != 1 || refused != 19 {
			t.Errorf("%d runs and %d refused, want one", runs, refused)
		}
	})
}

// What is asked for twice by one name is one run, also at once, and there is nothing to
// agree on once it is there.
func TestAskTwice(t *testing.T) {
	asking(t, time.Hour, overlap(state.OverlapSkip), func(t *testing.T, p *primary) {
		p.slow.Store(int64(10 * time.Millisecond))
		var callers sync.WaitGroup
		for range 3 {
			callers.Go(func() {
				if a, err := p.ask("once"); err != nil || a.Err != nil || a.Run == nil {
					t.Errorf("%+v, %v", a, err)
				}
			})
		}
		callers.Wait()
		a, err := p.ask("once")
		if err != nil || a.Err != nil || a.Agreed || len(p.runs()) != 1 || a.Run.ID != p.runs()[0].ID {
			t.Errorf("%+v, %v; there are %d runs", a, err, len(p.runs()))
		}
	})
}

// What changes the job while a run of it is being agreed on has it decided anew.
func TestAskIsDecidedAnew(t *testing.T) {
	asking(t, time.Hour, overlap(state.OverlapSkip), func(t *testing.T, p *primary) {
		p.slow.Store(int64(10 * time.Millisecond))
		var caller sync.WaitGroup
		caller.Go(func() {
			if a, err := p.ask("x"); err != nil || a.Err != nil || a.Run.Version != 2 {
				t.Errorf("%+v, %v; want a run of the new version", a, err)
			}
		})
		time.Sleep(5 * time.Millisecond)
		p.define(func(d *state.Definition) { d.Triggers, d.Description = nil, "another" })
		caller.Wait()
	})
}

// Who asks a primary that does not lead is told so at once, and who waits for the answer of
// one that ends its term learns whether anything may have come of it.
func TestAskWhoDoesNotLead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, time.Hour)
		p.define(func(d *state.Definition) { d.Triggers = nil })
		synctest.Wait()
		p.slow.Store(int64(time.Minute))
		errs := make(chan error, 2)
		for i := range 2 { // the second one is not heard before the first is answered
			go func() {
				_, err := p.ask(fmt.Sprint(i))
				errs <- err
			}()
			time.Sleep(time.Second)
		}
		p.stop()
		p.wg.Wait()
		var unknown, untouched int
		for range 2 {
			switch err := <-errs; {
			case errors.Is(err, raftstore.ErrUnknown):
				unknown++
			case errors.Is(err, raftstore.ErrNotLeader):
				untouched++
			default:
				t.Error(err)
			}
		}
		if unknown != 1 || untouched != 1 {
			t.Errorf("%d unknown, %d untouched, want one each", unknown, untouched)
		}
		if _, err := p.ask("late"); !errors.Is(err, raftstore.ErrNotLeader) {
			t.Errorf("after the term: %v", err)
		}
		p.close()
	})
}

// Who has gone gets no run that nobody has decided on.
func TestAskAndGo(t *testing.T) {
	asking(t, time.Hour, overlap(state.OverlapAllow), func(t *testing.T, p *primary) {
		p.slow.Store(int64(time.Second))
		var callers sync.WaitGroup
		callers.Go(func() {
			if _, err := p.ask("stays"); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(100 * time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := p.inbox.Ask(ctx, plan.Ask{Job: jobKey, Name: "goes"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		callers.Wait()
		time.Sleep(time.Minute)
		if n := len(p.runs()); n != 1 {
			t.Errorf("%d runs, want that of who stayed", n)
		}
	})
}
