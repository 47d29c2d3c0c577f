package remote

import (
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/schedd/schedd/agent/journal"
	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
)

// pad is a memory that tells what was done to it.
type pad struct {
	mu   sync.Mutex
	done []string
}

func (p *pad) Note(recs ...journal.Record) error {
	for _, r := range recs {
		p.add(r.Kind.String())
	}
	return nil
}

func (p *pad) Sync() error {
	p.add("sync")
	return nil
}

func (p *pad) Probe() error { return nil }
func (p *pad) Close() error { return nil }

func (p *pad) add(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = append(p.done, what)
}

// all returns what was done so far.
func (p *pad) all() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.done)
}

// An end is written down before it is told, and synced when the agent has not taken it
// over in time. What is over and forgotten by then costs no fsync, and the start of what
// is short no record.
func TestWhatIsWrittenDown(t *testing.T) {
	for _, c := range []struct {
		name     string
		runs     time.Duration
		forgets  time.Duration // after its end; 0: never
		told     []string      // what is written when it is told
		inTheEnd []string
	}{
		{"short and forgotten", noteAfter / 2, noteAfter / 2, []string{"accepted", "exited"}, []string{"accepted", "exited", "acked"}},
		{"short and not forgotten", noteAfter / 2, 0, []string{"accepted", "exited"}, []string{"accepted", "exited", "sync"}},
		{"long and forgotten", time.Hour, noteAfter / 2, []string{"accepted", "exited"}, []string{"accepted", "exited", "acked"}},
		{"long and forgotten late", time.Hour, 2 * noteAfter, []string{"accepted", "exited"}, []string{"accepted", "exited", "sync", "acked"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := fakerunner.New(func(runner.Spec) fakerunner.Behaviour { return fakerunner.Behaviour{Duration: c.runs} })
				defer fake.Close()
				p, log := new(pad), slog.New(slog.DiscardHandler)
				k := newKeeper(log, fake, &book{log: log, journal: p})
				w, err := k.take(1, 0)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := k.start(asker{life: 1}, runner.Spec{ID: "a/1"}); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				if c.runs > noteAfter {
					time.Sleep(noteAfter)
					synctest.Wait()
					if !slices.Equal(p.all(), []string{"accepted"}) {
						t.Errorf("of what goes on is written %q", p.all())
					}
				}
				time.Sleep(time.Until(began.Add(c.runs)))
				synctest.Wait()
				if news := k.news(w); len(news) == 0 || news[0].GetAttempt().GetExit() == nil || !slices.Equal(p.all(), c.told) {
					t.Errorf("told %v when %q was written, want %q", news, p.all(), c.told)
				}
				if c.forgets > 0 {
					time.Sleep(c.forgets)
					synctest.Wait()
					k.forget([]string{"a/1"})
				}
				time.Sleep(time.Minute)
				k.rest()
				if !slices.Equal(p.all(), c.inTheEnd) {
					t.Errorf("in the end %q was done, want %q", p.all(), c.inTheEnd)
				}
			})
		})
	}
}
