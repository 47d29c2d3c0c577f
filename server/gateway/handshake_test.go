package gateway_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
	"github.com/schedd/schedd/server/gateway"
	"github.com/schedd/schedd/server/peer"
)

func TestHandshake(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		w := p.dial(t, 1)
		w.greet()
		const id = "w-gr2q7gf5lh6pzfdn" // of the key made of ones; it must never change
		want := &agentv1.Welcome{
			Revision: 1, WorkerId: id, PrimaryId: "p1",
			PingInterval: durationpb.New(10 * time.Second), StreamLife: durationpb.New(time.Hour), LogCredit: wire.LogCredit,
		}
		if diff := cmp.Diff(want, w.expect("Welcome").GetWelcome(), protocmp.Transform()); diff != "" {
			t.Errorf("Welcome (-want +got):\n%s", diff)
		}
		synctest.Wait()
		session := peer.Session{
			Worker: id, Epoch: 1<<32 | 1, Hello: w.hello, Gateway: "p1",
			ObservedAddress: "192.0.2.1:4001", Connected: time.Now(),
		}
		if diff := cmp.Diff([]peer.Session{session}, p.leader.sessions, protocmp.Transform()); diff != "" {
			t.Errorf("what the leader knows of the session (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]peer.Session{session}, p.Sessions(), protocmp.Transform()); diff != "" {
			t.Errorf("Sessions (-want +got):\n%s", diff)
		}
		if got := p.log.with("worker connected", "worker="+id, "name=host-1", "address=192.0.2.1:4001", "epoch=4294967297"); len(got) != 1 {
			t.Errorf("log lines of the new session: %q, want one", got)
		}
	})
}

// refusals are Hellos that are not good enough.
var refusals = []struct {
	name   string
	spoil  func(h *agentv1.Hello)
	code   codes.Code
	reason []string
}{
	{
		"from the future", func(h *agentv1.Hello) { h.MinRevision, h.MaxRevision = 2, 3 },
		codes.FailedPrecondition,
		[]string{"revisions 2 to 3", "upgrade the primary"},
	},
	{
		"from the past", func(h *agentv1.Hello) { h.MinRevision, h.MaxRevision = 0, 0 },
		codes.FailedPrecondition,
		[]string{"revisions 0 to 0", "upgrade the worker"},
	},
	{
		"revisions the wrong way round", func(h *agentv1.Hello) { h.MinRevision, h.MaxRevision = 2, 1 },
		codes.FailedPrecondition,
		[]string{"revisions 2 to 1"},
	},
	{
		"short key", func(h *agentv1.Hello) { h.PublicKey = h.PublicKey[:31] },
		codes.InvalidArgument,
		[]string{"public_key has 31 bytes, want 32"},
	},
	{
		"no key", func(h *agentv1.Hello) { h.PublicKey = nil },
		codes.InvalidArgument,
		[]string{"public_key has 0 bytes"},
	},
	{
		"bad labels", func(h *agentv1.Hello) { h.Labels = map[string]string{"-a": "1", "b": "not ok", "c": "fine"} },
		codes.InvalidArgument,
		[]string{`labels["-a"]: the key`, `labels["b"] = "not ok": the value`},
	},
	{"too many labels", func(h *agentv1.Hello) {
		for c := range 65 {
			h.Labels[strings.Repeat("l", c+1)] = ""
		}
	}, codes.InvalidArgument, []string{"labels has 67 entries, want at most 64"}},
	{
		"no slots", func(h *agentv1.Hello) { h.Slots = 0 },
		codes.InvalidArgument,
		[]string{"slots is 0, want 1 to 10000"},
	},
	{"everything wrong", func(h *agentv1.Hello) {
		*h = agentv1.Hello{MaxRevision: 1, Slots: 10_001, Name: "a\nb", BootId: strings.Repeat("x", 300), AdvertiseIp: strings.Repeat("x", 300)}
	}, codes.InvalidArgument, []string{"public_key", "slots is 10001", `name is "a\nb"`, "instance has 0 bytes", "boot_id has 300", "advertise_ip"}},
	{"more than is worth telling", func(h *agentv1.Hello) {
		for c := range 20 {
			h.Labels["-"+strings.Repeat("l", c)] = ""
		}
	}, codes.InvalidArgument, []string{"and 10 more"}},
}

// Whoever is refused is told why, all that is wrong at once, and the leader
// never hears of it.
func TestRefusals(t *testing.T) {
	for _, test := range refusals {
		t.Run(test.name, func(t *testing.T) {
			story(t, func(t *testing.T, p *primary) {
				w := p.dial(t, 1)
				test.spoil(w.hello)
				w.say(w.hello)
				last, code := w.expectEnd()
				if r := last.GetReject(); r == nil || !r.GetPermanent() || code != test.code {
					t.Fatalf("got %v, then %v; want a permanent Reject, then %v", last, code, test.code)
				}
				for _, part := range test.reason {
					if got := last.GetReject().GetReason(); !strings.Contains(got, part) {
						t.Errorf("reason %q, want it to contain %q", got, part)
					}
				}
				if told := p.leader.told(); len(told) != 0 {
					t.Errorf("the leader was told %q", told)
				}
				if got := p.Stats(); got.Rejected != 1 || got.Handshakes != 0 || got.Sessions != 0 {
					t.Errorf("stats %+v, want one rejected and nothing left", got)
				}
			})
		})
	}
}

// Only who has the key is that worker: for this challenge and this epoch.
func TestProof(t *testing.T) {
	for _, test := range []struct {
		name  string
		prove func(w, other *worker, nonce []byte) []byte
	}{
		{"nothing", func(_, _ *worker, _ []byte) []byte { return nil }},
		{"noise", func(_, _ *worker, _ []byte) []byte { return make([]byte, 64) }},
		{"another key", func(_, other *worker, nonce []byte) []byte { return other.sign(nonce) }},
		{"an older challenge", func(w, _ *worker, _ []byte) []byte { return w.sign(make([]byte, 32)) }},
		{"another epoch", func(w, _ *worker, nonce []byte) []byte {
			w.hello.SessionEpoch++
			defer func() { w.hello.SessionEpoch-- }()
			return w.sign(nonce)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			story(t, func(t *testing.T, p *primary) {
				w, other := p.dial(t, 1), p.dial(t, 2)
				w.say(w.hello)
				nonce := w.expect("Challenge").GetChallenge().GetNonce()
				if len(nonce) != 32 {
					t.Errorf("nonce of %d bytes, want 32", len(nonce))
				}
				w.say(&agentv1.AuthProof{Signature: test.prove(w, other, nonce)})
				last, code := w.expectEnd()
				if !last.GetReject().GetPermanent() || code != codes.Unauthenticated {
					t.Errorf("got %v, then %v; want a permanent Reject, then %v", last, code, codes.Unauthenticated)
				}
				if told := p.leader.told(); len(told) != 0 {
					t.Errorf("the leader was told %q", told)
				}
			})
		})
	}
}

func TestHandshakeOutOfTurn(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		first, second := p.dial(t, 1), p.dial(t, 2)
		first.say(&agentv1.Inventory{})
		second.say(second.hello)
		second.say(second.hello)
		for _, w := range []*worker{first, second} {
			if last, code := w.expectEnd(); last.GetReject() == nil || last.GetReject().GetPermanent() || code != codes.InvalidArgument {
				t.Errorf("got %v, then %v; want a Reject, then %v", last, code, codes.InvalidArgument)
			}
		}
	})
}

func TestHandshakeInTime(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		mute, slow := p.dial(t, 1), p.dial(t, 2)
		began := time.Now()
		slow.say(slow.hello)
		slow.expect("Challenge")
		for _, w := range []*worker{mute, slow} {
			if _, code := w.expectEnd(); code != codes.DeadlineExceeded {
				t.Errorf("ended with %v, want %v", code, codes.DeadlineExceeded)
			}
		}
		if got := time.Since(began); got != 10*time.Second {
			t.Errorf("ended after %v, want 10 s", got)
		}
		if got := p.log.with("worker refused", "the handshake took longer than 10s"); len(got) != 2 {
			t.Errorf("log lines %q, want two", got)
		}
	})
}

// Streams that prove nothing cost memory, so there is a limit to them. Workers
// that are already in do not count, and whoever has begun may go on.
func TestTooManyHandshakes(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		p.connect(t, 1)
		p.connect(t, 2)
		for number := range byte(2) {
			w := p.dial(t, 3+number)
			w.say(w.hello)
			w.expect("Challenge")
		}
		late := p.dial(t, 5)
		if _, code := late.expectEnd(); code != codes.ResourceExhausted {
			t.Errorf("the third got %v, want %v", code, codes.ResourceExhausted)
		}
		time.Sleep(11 * time.Second) // those that prove nothing are gone
		p.connect(t, 5)
	}, func(c *gateway.Config) { c.MaxHandshakes = 2 })
}

// Whoever opens streams and says nothing locks no worker out: the oldest of them goes,
// whoever came before and has said Hello stays, and nothing is counted twice.
func TestMuteStreamsMakeRoom(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		slow := p.dial(t, 1)
		slow.say(slow.hello)
		nonce := slow.expect("Challenge").GetChallenge().GetNonce()
		oldest := p.dial(t, 2)
		synctest.Wait()
		p.dial(t, 3)
		synctest.Wait()
		for number := range byte(20) {
			p.connect(t, 10+number)
		}
		if _, code := oldest.expectEnd(); code != codes.ResourceExhausted {
			t.Errorf("the oldest that was mute ended with %v, want %v", code, codes.ResourceExhausted)
		}
		if got := p.log.with("worker refused", "no Hello came"); len(got) != 1 {
			t.Errorf("log lines %q, want that of the oldest only: there was room then", got)
		}
		slow.say(&agentv1.AuthProof{Signature: slow.sign(nonce)})
		slow.expect("Welcome")
		synctest.Wait()
		if got := p.Stats(); got.Sessions != 21 || got.Handshakes != 1 {
			t.Errorf("stats %+v, want 21 sessions and the mute one that is left", got)
		}
	}, func(c *gateway.Config) { c.MaxHandshakes = 3 })
}

func TestAdmit(t *testing.T) {
	removed := errors.New("worker was removed by ada; delete its data directory to enrol it anew")
	for _, test := range []struct {
		name   string
		answer []error // to the times Admit is asked
	}{
		{"refused", []error{removed}},
		// It is revoked, and what sessions it has are cut, while it shakes hands.
		{"refused meanwhile", []error{nil, removed}},
	} {
		t.Run(test.name, func(t *testing.T) {
			answer := slices.Clone(test.answer)
			story(t, func(t *testing.T, p *primary) {
				w := p.dial(t, 1)
				w.greet()
				last, code := w.expectEnd()
				if r := last.GetReject(); r.GetReason() != removed.Error() || !r.GetPermanent() || code != codes.PermissionDenied {
					t.Errorf("got %v, then %v; want a permanent Reject with the reason, then %v", last, code, codes.PermissionDenied)
				}
				if told, live := p.leader.told(), p.Sessions(); len(told) != 0 || len(live) != 0 {
					t.Errorf("the leader was told %q and there are sessions %v, want nothing", told, live)
				}
			}, func(c *gateway.Config) {
				c.Admit = func(string) error {
					first := answer[0]
					answer = answer[1:]
					return first
				}
			})
		})
	}
}
