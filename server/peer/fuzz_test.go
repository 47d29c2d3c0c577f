package peer

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"testing"

	"google.golang.org/protobuf/proto"

	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
)

// record writes messages one after the other, each behind its length.
func record[M proto.Message](messages ...M) (b []byte) {
	for _, m := range messages {
		one, _ := proto.Marshal(m) // ours can be encoded
		b = append(binary.AppendUvarint(b, uint64(len(one))), one...)
	}
	return b
}

// replay reads what record wrote, and whatever else it is given: a message that
// can't be decoded ends it, as it ends a stream.
func replay[M any, P interface {
	*M
	proto.Message
}](b []byte) (messages []P) {
	for len(b) > 0 {
		size, n := binary.Uvarint(b)
		if n <= 0 {
			break
		}
		size = min(size, uint64(len(b)-n))
		m := P(new(M))
		if proto.Unmarshal(b[n:n+int(size)], m) != nil {
			break
		}
		messages = append(messages, m)
		b = b[n+int(size):]
	}
	return messages
}

// tape is a link on which a gateway says what was recorded.
type tape struct{ messages []*peerv1.LinkRequest }

func (t *tape) Send(m *peerv1.LinkResponse) error {
	_, err := proto.Marshal(m)
	return err
}

func (t *tape) Recv() (*peerv1.LinkRequest, error) {
	if len(t.messages) == 0 {
		return nil, io.EOF
	}
	m := t.messages[0]
	t.messages = t.messages[1:]
	return m, nil
}

// Whatever a gateway says: nothing panics, the link ends, all that it is told can be
// sent, and the leader is left without sessions, each of which it was told the
// beginning and the end of in turn.
func FuzzLink(f *testing.F) {
	hello := &peerv1.LinkRequest{Body: &peerv1.LinkRequest_Hello{Hello: &peerv1.LinkHello{PrimaryId: "b", Version: "v", Level: 1}}}
	synced := &peerv1.LinkRequest{Body: &peerv1.LinkRequest_Synced{Synced: &peerv1.Synced{}}}
	beat := &peerv1.LinkRequest{Body: &peerv1.LinkRequest_Beat{Beat: &peerv1.Beat{Seq: 1 << 63}}}
	f.Add(record(hello, attach(session("w", 1, "b")), synced, report("w", 1, result("x")), attach(session("w", 2, "b")), detach("w", 2), beat))
	f.Add(record(hello, attach(session("w", 2, "b")), synced, attach(session("w", 1, "b")), report("w", 7, result("x")), detach("w", 1)))
	f.Add(record(hello, hello, synced, attach(Session{}), detach("", 0), report("", 0, nil), heard(map[string]sighting{"w": {}})))
	f.Add(record(attach(session("w", 1, "b"))))
	f.Add(record(&peerv1.LinkRequest{}))
	f.Add([]byte("nothing of the kind"))
	f.Fuzz(func(t *testing.T, messages []byte) {
		e := newEar()
		h := NewHub(HubConfig{
			PrimaryID: "a", Leader: e, Log: slog.New(slog.DiscardHandler),
			Admit: func(context.Context, string) error { return nil },
			Term:  func() uint64 { return 7 }, Applied: func() uint64 { return 100 },
		})
		h.During(t.Context(), func(ctx context.Context) {
			_ = h.serve(&tape{replay[peerv1.LinkRequest](messages)}, func(string) error { return nil }) // any error may be right
			if ctx.Err() != nil {
				t.Fatal("the term is over")
			}
		})
		if n := len(e.has()); n != 0 || len(h.Sessions()) != 0 {
			t.Fatalf("%d sessions are left at the leader, and %d of them have a way", n, len(h.Sessions()))
		}
		for _, wrong := range e.wrong {
			t.Fatal(wrong)
		}
	})
}

// Whatever the leader says, a gateway lives on, and its answers can be sent.
func FuzzUplink(f *testing.F) {
	f.Add(record(deliver("w", 1, kill("x")), supersede("w", 1, "y", true), deliver("", 0, nil)))
	f.Add(record(
		&peerv1.LinkResponse{Body: &peerv1.LinkResponse_Welcome{Welcome: &peerv1.LinkWelcome{LeaderId: "a", Term: 1}}},
		&peerv1.LinkResponse{Body: &peerv1.LinkResponse_Beat{Beat: &peerv1.Beat{Seq: 1, AppliedIndex: 1 << 60}}},
		&peerv1.LinkResponse{Body: &peerv1.LinkResponse_Shed{Shed: &peerv1.Shed{Count: 1 << 31}}},
		&peerv1.LinkResponse{Body: &peerv1.LinkResponse_Dial{Dial: &peerv1.Dial{Addresses: []string{"", "x:1", "x:1"}}}},
		&peerv1.LinkResponse{Body: &peerv1.LinkResponse_Cut{Cut: &peerv1.Cut{WorkerId: "w", Permanent: true}}},
	))
	f.Add(record(&peerv1.LinkResponse{}))
	f.Fuzz(func(t *testing.T, messages []byte) {
		u := NewUplink(UplinkConfig{PrimaryID: "b", Log: slog.New(slog.DiscardHandler), Applied: func() uint64 { return 5 }, Condition: func() Condition { return Condition{} }})
		u.gateway = &hand{}
		u.Attach(session("w", 1, "b"))
		out := newQueue[*peerv1.LinkRequest](false)
		for _, m := range replay[peerv1.LinkResponse](messages) {
			u.handle(m, out)
		}
		all, ok := out.take()
		if !ok {
			t.Fatal("it has more to say than a link takes")
		}
		for _, m := range all {
			if _, err := proto.Marshal(m); err != nil {
				t.Fatalf("its answer %v can't be sent: %v", m, err)
			}
		}
		if u.Len() != 1 {
			t.Fatalf("the leader's words made it hold %d sessions", u.Len())
		}
	})
}
