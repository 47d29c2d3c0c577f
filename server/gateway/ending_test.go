package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/server/gateway"
	"github.com/schedd/schedd/server/runlog"
)

// However a session ends, the leader hears once of its end, and people why.
func TestEndings(t *testing.T) {
	for _, test := range []struct {
		name   string
		end    func(t *testing.T, p *primary, w *worker)
		word   string
		code   codes.Code
		logged string
	}{
		{
			"goodbye", func(_ *testing.T, _ *primary, w *worker) { w.say(&agentv1.Goodbye{Reason: "stopping"}) },
			"", codes.OK, `goodbye: \"stopping\"`,
		},
		{"closed without a word", func(t *testing.T, _ *primary, w *worker) {
			if err := w.stream.CloseSend(); err != nil {
				t.Error(err)
			}
		}, "", codes.OK, "without a goodbye"},
		{
			"cut for now", func(_ *testing.T, p *primary, w *worker) { p.Cut(w.id, "of no use", false) },
			"Reject", codes.Unavailable, "of no use",
		},
		{
			"cut for good", func(_ *testing.T, p *primary, w *worker) { p.Cut(w.id, "removed", true) },
			"Reject", codes.PermissionDenied, "removed",
		},
		{"the primary stops", func(t *testing.T, p *primary, _ *worker) {
			if err := p.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}, "Move", codes.Unavailable, "the primary stops"},
	} {
		t.Run(test.name, func(t *testing.T) {
			story(t, func(t *testing.T, p *primary) {
				w := p.connect(t, 1)
				time.Sleep(time.Second)
				test.end(t, p, w)
				last, code := w.expectEnd()
				word := ""
				if last != nil {
					word = kindOf(last)
				}
				if word != test.word || code != test.code {
					t.Errorf("got %v, then %v; want %q, then %v", last, code, test.word, test.code)
				}
				want := fmt.Sprintf("attach %[1]s 0x100000001, detach %[1]s 0x100000001", w.id)
				if got := strings.Join(p.leader.told(), ", "); got != want {
					t.Errorf("the leader was told %q, want %q", got, want)
				}
				if got := p.log.with("worker left", "after=1s"); len(got) != 1 || !strings.Contains(got[0], test.logged) {
					t.Errorf("log lines of the end: %q, want one with %q", got, test.logged)
				}
				if p.Send(w.id, w.hello.GetSessionEpoch(), kill("r")) || len(p.Sessions()) != 0 {
					t.Error("the session is still there")
				}
			})
		})
	}
}

func TestCutTellsWhetherForGood(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		for i, permanent := range []bool{false, true} {
			w := p.connect(t, 1, epoch(uint64(i+1))) // as each session of a worker has
			p.Cut(w.id, "bad \xff bytes", permanent)
			p.Cut("w-nobody", "", true)
			last, _ := w.expectEnd()
			if r := last.GetReject(); r.GetPermanent() != permanent || r.GetReason() != "bad  bytes" {
				t.Errorf("got %v, want a Reject that says permanent: %v", last, permanent)
			}
		}
	})
}

// Before it stops, a primary sends its workers elsewhere, and takes no new ones.
func TestDrainAndClose(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		w := p.connect(t, 1)
		mute := p.dial(t, 2)
		p.Drain(20 * time.Second)
		if got := w.expect("Drain").GetDrain().GetSpread().AsDuration(); got != 20*time.Second {
			t.Errorf("spread %v, want 20 s", got)
		}
		late := p.dial(t, 3)
		late.greet()
		if last, code := late.expectEnd(); last.GetReject() == nil || last.GetReject().GetPermanent() || last.GetReject().GetRetryAfter() != nil || code != codes.Unavailable {
			t.Errorf("a new worker got %v, then %v; want a Reject for now: there are other primaries", last, code)
		}
		w.say(&agentv1.Ping{Seq: 3}) // until it leaves, all is as ever
		w.expect("Pong")

		if err := p.Close(t.Context()); err != nil {
			t.Errorf("close: %v", err)
		}
		for _, w := range []*worker{w, mute, p.dial(t, 4)} {
			if _, code := w.expectEnd(); code != codes.Unavailable {
				t.Errorf("ended with %v, want %v", code, codes.Unavailable)
			}
		}
		if err := p.Close(t.Context()); err != nil {
			t.Errorf("close again: %v", err)
		}
	})
}

// A worker that does not read, and a disk that does not answer, can't keep a
// primary from stopping in time.
func TestCloseInTime(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		w := p.connect(t, 1)
		p.clog(t, w)
		p.logs.hold()
		w.say(output("r", 0, []byte("hello")))
		synctest.Wait()

		began := time.Now()
		if err := p.Close(t.Context()); err != nil {
			t.Errorf("close: %v", err)
		}
		if got := time.Since(began); got > 2*time.Second {
			t.Errorf("closed after %v, want 2 s at most", got)
		}
	})
}

// A stuck system call can't be woken. Close says so in time, and may be called
// again.
func TestCloseGivesUp(t *testing.T) {
	stuck := &stuckLogs{newLogs()}
	story(t, func(t *testing.T, p *primary) {
		stuck.hold()
		w := p.connect(t, 1)
		w.say(output("r", 0, []byte("hello")))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := p.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("close: %v, want %v", err, context.DeadlineExceeded)
		}
		stuck.release()
		if err := p.Close(t.Context()); err != nil {
			t.Errorf("close again: %v", err)
		}
	}, func(c *gateway.Config) { c.Logs = stuck })
}

// stuckLogs can't be told to give up.
type stuckLogs struct{ *logs }

func (l *stuckLogs) Sync(_ context.Context, k runlog.Key) (int64, error) {
	return l.logs.Sync(context.Background(), k) //nolint:contextcheck // that is the point
}
