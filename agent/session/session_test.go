package session

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
)

// canned is a stream whose other end says what was prepared, and then whatever
// is put into more, until the context ends or more is closed.
type canned struct {
	over <-chan struct{} // of the stream's context
	more chan *agentv1.GatewayMessage
	said chan *agentv1.AgentMessage
}

func newCanned(messages ...*agentv1.GatewayMessage) *canned {
	c := &canned{more: make(chan *agentv1.GatewayMessage, 100), said: make(chan *agentv1.AgentMessage, 10_000)}
	for _, m := range messages {
		c.more <- m
	}
	return c
}

func (c *canned) connect(ctx context.Context) (Stream, error) {
	c.over = ctx.Done()
	return c, nil
}

func (c *canned) Send(m *agentv1.AgentMessage) error {
	select {
	case <-c.over:
		return io.EOF
	default:
		c.said <- m
		return nil
	}
}

func (c *canned) Recv() (*agentv1.GatewayMessage, error) {
	select {
	case m, ok := <-c.more:
		if !ok {
			return nil, io.EOF
		}
		return m, nil
	case <-c.over:
		return nil, context.Canceled
	}
}

func (c *canned) CloseSend() error {
	close(c.more) // the other end hangs up too
	return nil
}

func challenge(size int) *agentv1.GatewayMessage {
	return &agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Challenge{Challenge: &agentv1.Challenge{Nonce: make([]byte, size)}}}
}

func welcome(w *agentv1.Welcome) *agentv1.GatewayMessage {
	return &agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Welcome{Welcome: w}}
}

func reject(r *agentv1.Reject) *agentv1.GatewayMessage {
	return &agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Reject{Reject: r}}
}

var (
	testKey   = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	testHello = &agentv1.Hello{SessionEpoch: 1<<32 | 1, Name: "shop-1"}
)

// clock goes as time does in the bubble.
func clock() time.Duration { return time.Since(time.Unix(0, 0)) }

func open(ctx context.Context, c *canned) (*Session, error) {
	return Open(ctx, 10*time.Second, c.connect, testHello, testKey, clock, slog.New(slog.DiscardHandler))
}

func TestOpen(t *testing.T) {
	for _, test := range []struct {
		name     string
		messages []*agentv1.GatewayMessage
		want     string // in the error; empty is welcome
	}{
		{"welcome", []*agentv1.GatewayMessage{challenge(32), welcome(&agentv1.Welcome{Revision: wire.MaxRevision})}, ""},
		{"rejected at once", []*agentv1.GatewayMessage{reject(&agentv1.Reject{Reason: "too old", Permanent: true})}, "rejected by the gateway: too old"},
		{"rejected after the proof", []*agentv1.GatewayMessage{challenge(32), reject(&agentv1.Reject{Reason: "unknown"})}, "rejected by the gateway: unknown"},
		{"a nonce to be had twice", []*agentv1.GatewayMessage{challenge(8)}, "32 bytes to sign"},
		{"no challenge", []*agentv1.GatewayMessage{welcome(&agentv1.Welcome{Revision: wire.MaxRevision})}, "want a challenge"},
		{"no welcome", []*agentv1.GatewayMessage{challenge(32), challenge(32)}, "want a welcome"},
		{"a gateway of the future", []*agentv1.GatewayMessage{challenge(32), welcome(&agentv1.Welcome{Revision: wire.MaxRevision + 1})}, "update the older one"},
		{"a gateway without a word", []*agentv1.GatewayMessage{challenge(32)}, "no welcome within 10s"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCanned(test.messages...)
				s, err := open(t.Context(), c)
				if test.want == "" {
					if err != nil {
						t.Fatal(err)
					}
					s.hangUp()
					return
				}
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("error %v, want %q", err, test.want)
				}
				if isRejected(err) != strings.HasPrefix(test.want, "rejected") {
					t.Errorf("%v: only a Reject is a rejection", err)
				}
				select {
				case <-c.over:
				default:
					t.Error("the stream leaks")
				}
			})
		})
	}
}

// A gateway that has begun with a worker is waited for longer than one that says nothing:
// it may have many to welcome.
func TestWelcomeAfterTheChallenge(t *testing.T) {
	for _, test := range []struct {
		challenge bool
		welcome   time.Duration // after the beginning
		want      string        // in the error
	}{
		{false, time.Minute, "no welcome within 1.5s"},
		{true, 9 * time.Second, ""},
		{true, time.Minute, "no welcome within 10s"},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newCanned()
			if test.challenge {
				c.more <- challenge(32)
			}
			timer := time.AfterFunc(test.welcome, func() { c.more <- welcome(&agentv1.Welcome{Revision: wire.MaxRevision}) })
			defer timer.Stop()
			s, err := Open(t.Context(), 1500*time.Millisecond, c.connect, testHello, testKey, clock, slog.New(slog.DiscardHandler))
			switch {
			case test.want == "" && err != nil:
				t.Errorf("welcome after %v: %v", test.welcome, err)
			case test.want == "":
				s.hangUp()
			case err == nil || !errors.Is(err, ErrLate) || !strings.Contains(err.Error(), test.want):
				t.Errorf("challenge %v: error %v, want %q", test.challenge, err, test.want)
			}
		})
	}
}

// The hello of the caller is shared by all sessions.
func TestOpenLeavesHelloAlone(t *testing.T) {
	before := proto.CloneOf(testHello)
	if _, err := open(t.Context(), newCanned(reject(&agentv1.Reject{}))); err == nil {
		t.Fatal("welcomed by a rejection")
	}
	if !proto.Equal(before, testHello) {
		t.Errorf("hello is now %v", testHello)
	}
}

// idle is a worker with some attempts that all ended, and no logs.
type idle struct {
	attempts int
	trouble  string
	handled  []*agentv1.GatewayMessage
	shelf
}

func (w *idle) Handle(m *agentv1.GatewayMessage) { w.handled = append(w.handled, m) }

func (w *idle) Trouble() string { return w.trouble }

func (w *idle) Inventory() (list []*agentv1.AttemptStatus) {
	for i := range w.attempts {
		list = append(list, &agentv1.AttemptStatus{
			Key: &agentv1.AttemptKey{RunId: "r", Attempt: uint32(i + 1)}, Phase: agentv1.AttemptPhase_ATTEMPT_PHASE_ENDED,
		})
	}
	return list
}

func (w *idle) Message(k Key) *agentv1.AgentMessage {
	return &agentv1.AgentMessage{Body: &agentv1.AgentMessage_Result{Result: &agentv1.Result{
		Key: &agentv1.AttemptKey{RunId: k.Run, Attempt: k.Attempt},
	}}}
}

func (w *idle) Watch(*Outbox) func() { return func() {} }

func (w *idle) Wanted() ([]uint64, time.Duration) { return nil, 0 }

func (w *idle) Granted([]uint64, time.Duration) {}

var errEnough = errors.New("enough")

// talk opens a session, runs it for a while and returns how it ended.
func talk(t *testing.T, c *canned, w *idle, d time.Duration) error {
	t.Helper()
	s, err := open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), d, errEnough)
	defer cancel()
	return s.Run(ctx, w, w, w)
}

// Thousands of attempts are told in pages, and every result after them. Then
// comes a ping, and at the end a goodbye with the reason.
func TestInventoryInPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCanned(challenge(32), welcome(&agentv1.Welcome{Revision: 1, PingInterval: durationpb.New(20 * time.Second)}))
		if err := talk(t, c, &idle{attempts: 2500, trouble: "the disk is full"}, 30*time.Second); err != nil {
			t.Errorf("a session that was to end ended with %v", err)
		}
		close(c.said)
		var pages []string
		var last *agentv1.AgentMessage
		results := 0
		for m := range c.said {
			if i := m.GetInventory(); i != nil {
				if i.GetTrouble() != "the disk is full" {
					t.Errorf("page %d says of the trouble: %q", i.GetPage(), i.GetTrouble())
				}
				if int(i.GetPage()) != len(pages) {
					t.Errorf("page %d of the inventory has the number %d", len(pages), i.GetPage())
				}
				pages = append(pages, fmt.Sprintf("%d %v", len(i.GetAttempts()), i.GetMore()))
			}
			if m.GetResult() != nil {
				results++
			}
			last = m
		}
		if want := []string{"1000 true", "1000 true", "500 false"}; !slices.Equal(pages, want) {
			t.Errorf("pages %q, want %q", pages, want)
		}
		if results != 2500 || last.GetGoodbye().GetReason() != "enough" {
			t.Errorf("%d results, and %v at the end", results, last)
		}
	})
}

// A launch that may be older than a session may be silent is not handed on: the gateway
// says all kinds of things, and has answered no ping for so long.
func TestOldLaunch(t *testing.T) {
	for name, test := range map[string]struct {
		answers bool // the pings
		handled int
		want    string // in the error; empty is none
	}{
		"pings are answered": {true, 1, ""},
		"no ping is":         {false, 0, "silent for too long: a launch came that may be 50s old"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCanned(challenge(32), welcome(&agentv1.Welcome{Revision: 1}))
				go func() {
					for range 50 {
						time.Sleep(time.Second)
						c.more <- &agentv1.GatewayMessage{}
						for len(c.said) > 0 {
							if m := <-c.said; m.GetPing() != nil && test.answers {
								c.more <- &agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Pong{Pong: &agentv1.Pong{Seq: m.GetPing().GetSeq()}}}
							}
						}
					}
					c.more <- &agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Launch{Launch: &agentv1.Launch{}}}
				}()
				w := new(idle)
				err := talk(t, c, w, time.Minute)
				if len(w.handled) != test.handled || (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
					t.Errorf("%d launches were handled, and the session ended with %v", len(w.handled), err)
				}
			})
		})
	}
}

// How a session ends is told apart.
func TestEndings(t *testing.T) {
	for name, test := range map[string]struct {
		message *agentv1.GatewayMessage // nil ends the stream
		want    string
	}{
		"a load balancer's timeout": {nil, "the stream ended without a word"},
		"revoked":                   {reject(&agentv1.Reject{Reason: "revoked", Permanent: true}), "rejected by the gateway: revoked"},
		"nothing at all":            {&agentv1.GatewayMessage{}, "silent for too long: nothing came for 45s"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCanned(challenge(32), welcome(&agentv1.Welcome{Revision: 1}))
				if test.message != nil {
					c.more <- test.message
				} else {
					close(c.more)
				}
				if err := talk(t, c, new(idle), time.Hour); err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("error %v, want %q", err, test.want)
				}
			})
		})
	}
}

// Whatever a gateway says, a session does not fall over it: it goes on, or ends
// with an error.
func FuzzGatewayMessage(f *testing.F) {
	for _, m := range []*agentv1.GatewayMessage{
		challenge(32), welcome(&agentv1.Welcome{}), reject(&agentv1.Reject{RetryAfter: durationpb.New(-1)}),
		{Body: &agentv1.GatewayMessage_LogAck{LogAck: &agentv1.LogAck{Key: &agentv1.AttemptKey{RunId: "a", Attempt: 1}, Known: -7, Durable: 1 << 62, Credit: -1}}},
		{Body: &agentv1.GatewayMessage_LogAck{LogAck: &agentv1.LogAck{Key: &agentv1.AttemptKey{RunId: "a", Attempt: 1}, Known: 1 << 62, Credit: 1}}},
		{Body: &agentv1.GatewayMessage_Drain{Drain: &agentv1.Drain{Spread: durationpb.New(-time.Hour)}}},
		{Body: &agentv1.GatewayMessage_Launch{}},
	} {
		data, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := new(agentv1.GatewayMessage)
		if proto.Unmarshal(data, m) != nil {
			return
		}
		synctest.Test(t, func(t *testing.T) {
			c := newCanned(challenge(32), welcome(&agentv1.Welcome{Revision: 1}), m, m)
			k := Key{"a", 1}
			w := &idle{shelf: shelf{logs: map[Key][]byte{k: make([]byte, 100_000)}, durable: map[Key]int64{}, read: map[Key]bool{}}}
			err := talk(t, c, w, time.Second)
			if (err == nil) == (m.GetReject() != nil) {
				t.Errorf("%v ended the session with %v", m, err)
			}
		})
	})
}

// A gateway may tell a worker to stay away for a while, and no longer, whatever it says.
func TestNobodyIsToldToStayAwayForLong(t *testing.T) {
	for told, want := range map[time.Duration]time.Duration{
		0: 0, time.Minute: time.Minute, -time.Second: 0, 1<<63 - 1: longestWait,
	} {
		if got := rejected(&agentv1.Reject{RetryAfter: durationpb.New(told)}).RetryAfter; got != want {
			t.Errorf("told to wait %v, it waits %v at least, want %v", told, got, want)
		}
	}
}
