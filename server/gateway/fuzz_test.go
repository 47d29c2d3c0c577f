package gateway_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"io"
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/server/gateway"
)

// tape is the gateway's end of a stream that plays messages, and answers the
// Challenge first if it is asked to.
type tape struct {
	grpc.ServerStream
	ctx     context.Context    //nolint:containedctx // that is what a stream is
	key     ed25519.PrivateKey // nil: all is on the tape
	epoch   uint64
	nonce   chan []byte
	answer  int // 2: hello comes next, 1: the proof does, 0: the tape
	hello   *agentv1.Hello
	encoded [][]byte
}

func (s *tape) Context() context.Context { return s.ctx }

func (s *tape) Send(m *agentv1.GatewayMessage) error {
	if c := m.GetChallenge(); c != nil {
		s.nonce <- c.GetNonce()
	}
	_, err := proto.Marshal(m) // what can't be marshalled can't be sent
	return err
}

func (s *tape) Recv() (*agentv1.AgentMessage, error) {
	switch s.answer {
	case 2:
		s.answer--
		return say(s.hello), nil
	case 1:
		s.answer--
		m := binary.BigEndian.AppendUint64([]byte("schedd agent session v1\n"+string(<-s.nonce)), s.epoch)
		return say(&agentv1.AuthProof{Signature: ed25519.Sign(s.key, m)}), nil
	}
	for len(s.encoded) > 0 {
		raw := s.encoded[0]
		s.encoded = s.encoded[1:]
		m := &agentv1.AgentMessage{}
		if proto.Unmarshal(raw, m) == nil { // gRPC lets nothing else through
			return m, nil
		}
	}
	return nil, io.EOF
}

// record writes messages as FuzzSession reads them.
func record(bodies ...proto.Message) []byte {
	var b []byte
	for _, body := range bodies {
		raw, err := proto.Marshal(say(body))
		if err != nil {
			panic(err)
		}
		b = append(binary.AppendUvarint(b, uint64(len(raw))), raw...)
	}
	return b
}

func split(b []byte) (messages [][]byte) {
	for len(b) > 0 {
		size, n := binary.Uvarint(b)
		if n <= 0 {
			return messages
		}
		size = min(size, uint64(len(b)-n))
		messages = append(messages, b[n:n+int(size)])
		b = b[n+int(size):]
	}
	return messages
}

// Whatever a worker says, before it proved its key or after: nothing panics, the
// session ends, all that is sent can be sent, and the leader hears of a session
// from Attach to Detach and of nothing that has no key.
func FuzzSession(f *testing.F) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize))
	hello := &agentv1.Hello{
		MinRevision: 1, MaxRevision: 1, PublicKey: key.Public().(ed25519.PublicKey),
		SessionEpoch: 7, Instance: "i", Name: "n", Slots: 1,
	}
	f.Add(false, record(hello, &agentv1.AuthProof{Signature: make([]byte, 64)}))
	f.Add(false, record(&agentv1.Ping{}))
	f.Add(true, record(&agentv1.Ping{Seq: 1}, &agentv1.Pong{}, &agentv1.Goodbye{Reason: "x"}))
	f.Add(true, record(&agentv1.Inventory{Attempts: []*agentv1.AttemptStatus{{Key: attempt("r"), Fence: 1}}}, &agentv1.Started{Key: attempt("r")}, &agentv1.Result{Key: attempt("r")}))
	f.Add(true, record(output("r", 0, []byte("hello")), output("r", 5, nil), output("s", 1<<40, []byte("x")), output("r", 5, []byte("y"))))
	f.Add(true, record(&agentv1.LogAppend{Key: attempt("r"), Data: []byte("x")}, output("r", -1, nil)))
	f.Add(true, record(hello))

	f.Fuzz(func(t *testing.T, proven bool, messages []byte) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		s := &tape{ctx: ctx, nonce: make(chan []byte, 1), encoded: split(messages)}
		if proven {
			s.key, s.epoch, s.answer, s.hello = key, hello.GetSessionEpoch(), 2, hello
		}
		l := &leader{}
		g := gateway.New(gateway.Config{PrimaryID: "p1", Leader: l, Logs: newLogs(), Log: slog.New(slog.DiscardHandler)})
		_ = g.Connect(s) // any status may be right
		cancel()
		if err := g.Close(context.Background()); err != nil {
			t.Fatalf("close: %v", err)
		}
		checkLeader(t, l, proven)
		if got := g.Stats(); got.Sessions != 0 || got.Handshakes != 0 {
			t.Fatalf("stats %+v, want nothing left", got)
		}
	})
}

func checkLeader(t *testing.T, l *leader, proven bool) {
	t.Helper()
	if !proven {
		if len(l.events) != 0 {
			t.Fatalf("the leader was told %q of a worker that proved nothing", l.events)
		}
		return
	}
	last := len(l.events) - 1
	for i, e := range l.events {
		if strings.HasPrefix(e, "attach") != (i == 0) || strings.HasPrefix(e, "detach") != (i == last) {
			t.Fatalf("the leader was told %q", l.events)
		}
	}
	if last < 1 {
		t.Fatalf("the leader was told %q, want attach and detach", l.events)
	}
	for _, m := range l.reports {
		for _, a := range m.GetInventory().GetAttempts() {
			if a.GetKey().GetRunId() == "" {
				t.Fatalf("the leader was told of no attempt: %v", m)
			}
		}
		if m.GetStarted().GetKey().GetRunId() == "" && m.GetResult().GetKey().GetRunId() == "" && m.GetInventory() == nil {
			t.Fatalf("the leader was told of no attempt: %v", m)
		}
	}
}
