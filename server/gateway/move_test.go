package gateway_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
	"github.com/schedd/schedd/server/gateway"
)

// The worker has a newer session on another primary: this one ends, and an older
// word about one that is gone does nothing.
func TestSupersede(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		w := p.connect(t, 1, epoch(3))
		p.Supersede(w.id, 2, "long gone", false)
		w.say(&agentv1.Ping{Seq: 1})
		w.expect("Pong")
		p.Supersede(w.id, 3, "there is a newer one", false)
		last, code := w.expectEnd()
		if last.GetMove().GetReason() != "there is a newer one" || code != codes.Aborted {
			t.Errorf("the worker was told %v, and the stream ended with %v", last, code)
		}

		clone := p.connect(t, 2, epoch(3))
		p.Supersede(clone.id, 3, "duplicate identity: it is on p2", true)
		last, code = clone.expectEnd()
		if r := last.GetReject(); r == nil || r.GetPermanent() || r.GetRetryAfter().AsDuration() != wire.PingInterval || code != codes.Aborted {
			t.Errorf("the clone was told %v, and the stream ended with %v", last, code)
		}
		if s := p.Stats(); s.Superseded != 1 || s.Duplicates != 1 || len(p.log.with("two agents have the same key", "it is on p2")) != 1 {
			t.Errorf("counted %+v, and the log does not tell", s)
		}
	})
}

// Some workers are asked to go elsewhere, one after the other, and are served
// until they have. Those that have just come are left alone.
func TestShed(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		old := []*worker{p.connect(t, 1), p.connect(t, 2), p.connect(t, 3), p.connect(t, 4)}
		asked := make(map[*worker]time.Duration) // after how long
		var mu sync.Mutex
		var begun time.Time
		done := make(chan struct{})
		defer close(done)
		live := func(w *worker) {
			for {
				m, err := w.hear()
				if err != nil {
					return
				}
				mu.Lock()
				if m.GetMove() != nil {
					asked[w] = time.Since(begun)
				}
				mu.Unlock()
			}
		}
		alive := func(w *worker) {
			ping := time.NewTicker(wire.PingInterval)
			defer ping.Stop()
			for {
				select {
				case <-done:
					return
				case <-ping.C:
					w.say(&agentv1.Ping{})
				}
			}
		}
		for _, w := range old {
			go live(w)
			go alive(w)
		}
		time.Sleep(time.Minute)
		young := p.connect(t, 5)
		go live(young)
		go alive(young)
		begun = time.Now()
		p.Shed(3)
		time.Sleep(90 * time.Second)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		var late time.Duration
		for _, d := range asked {
			late = max(late, d)
		}
		if _, ok := asked[young]; ok || len(asked) != 3 || late < 30*time.Second || late > time.Minute {
			t.Errorf("%d were asked, the last after %v, one that has just come: %v", len(asked), late, ok)
		}
		if n := len(p.Sessions()); n != 5 {
			t.Errorf("%d sessions are left, want all: none of them went", n)
		}
	})
}

// Whoever waits for the last worker to leave is told when it has, and no later
// than it wants to wait.
func TestAwaitEmpty(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		p.AwaitEmpty(t.Context())
		w := p.connect(t, 1)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		begun := time.Now()
		p.AwaitEmpty(ctx)
		if d := time.Since(begun); d != 5*time.Second {
			t.Errorf("it waited %v for a worker that stays", d)
		}
		go func() {
			time.Sleep(3 * time.Second)
			w.say(&agentv1.Goodbye{Reason: "asked to"})
		}()
		begun = time.Now()
		p.AwaitEmpty(t.Context())
		if d := time.Since(begun); d != 3*time.Second {
			t.Errorf("it waited %v for a worker that left after 3 s", d)
		}
	})
}

// A primary that does not reach the leader sends all its workers elsewhere, soon,
// and takes no others.
func TestEvacuate(t *testing.T) {
	why := ""
	story(t, func(t *testing.T, p *primary) {
		w := p.connect(t, 1)
		why = "this primary does not reach the leader"
		if n := p.Evacuate(5*time.Second, why); n != 1 {
			t.Errorf("%d workers were asked, want 1", n)
		}
		begun := time.Now()
		if m := w.expect("Move"); m.GetMove().GetReason() != why || time.Since(begun) > 5*time.Second {
			t.Errorf("after %v the worker is told %v", time.Since(begun), m)
		}
		if n := p.Evacuate(5*time.Second, why); n != 0 || len(p.Sessions()) != 1 {
			t.Errorf("%d workers were asked again, and %d sessions are left", n, len(p.Sessions()))
		}
		late := p.dial(t, 2)
		late.greet()
		last, code := late.expectEnd()
		if r := last.GetReject(); r.GetReason() != why || r.GetPermanent() || r.GetRetryAfter().AsDuration() != 0 || code != codes.Unavailable {
			t.Errorf("one that comes is told %v, then %v", last, code)
		}
	}, func(c *gateway.Config) { c.Refuse = func() string { return why } })
}
