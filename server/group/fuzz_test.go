package group

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/server/peer"
)

// register is the group as a leader has it on record: a, b and c, all with a vote.
type register struct {
	Store
	servers []raftstore.Server
}

func newRegister() *register {
	r := &register{}
	for _, id := range []string{"a", "b", "c"} {
		r.servers = append(r.servers, raftstore.Server{ID: id, Address: id + ":1", Voter: true})
	}
	return r
}

func (*register) Leads() bool                  { return true }
func (*register) Formed() bool                 { return true }
func (*register) Leader() (id, address string) { return "a", "a:1" }

func (r *register) Status() raftstore.Status {
	return raftstore.Status{Servers: slices.Clone(r.servers)}
}

func (r *register) AddServer(_ context.Context, v raftstore.Server) error {
	r.servers = append(slices.DeleteFunc(r.servers, func(s raftstore.Server) bool { return s.ID == v.ID }), v)
	return nil
}

// Whatever another process says when it introduces itself or asks to join, whom it names, and
// whatever answers at the address that it gives: who has a vote keeps it or comes back
// empty by its own name, nobody new gets one, and no two are on record at one address.
func FuzzJoin(f *testing.F) {
	encoded := func(m proto.Message) []byte {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	for _, id := range []string{"", "a", "b", "d"} {
		for _, address := range []string{"", "a:1", "b:1", "d:1"} {
			f.Add(encoded(&peerv1.JoinRequest{PrimaryId: id, ClusterAddress: address, Instance: "i", Empty: true}),
				encoded(&peerv1.IntroduceRequest{PrimaryId: id, ClusterAddress: address}), encoded(&peerv1.IntroduceResponse{PrimaryId: id, ClusterAddress: address, Instance: "i"}))
			f.Add(encoded(&peerv1.JoinRequest{PrimaryId: id, ClusterAddress: address}), encoded(&peerv1.IntroduceRequest{PrimaryId: "a", Instance: "j"}), []byte(nil))
		}
	}
	f.Fuzz(func(t *testing.T, join, introduce, there []byte) {
		store := newRegister()
		m := NewMember(Config{
			Self: raftstore.Server{ID: "a", Address: "a:1"}, Expect: 3, Store: store, Version: "v", Log: slog.New(slog.DiscardHandler),
			Heard: func() map[string]peer.Primary { return nil },
			Conn:  func(string) (grpc.ClientConnInterface, error) { return says(there), nil },
		})
		var i peerv1.IntroduceRequest
		if proto.Unmarshal(introduce, &i) == nil {
			if r, err := m.Introduce(t.Context(), &i); err == nil && r.GetPrimaryId() != "a" {
				t.Errorf("it says that it is %v", r)
			}
		}
		var j peerv1.JoinRequest
		if proto.Unmarshal(join, &j) != nil {
			return
		}
		_, err := m.Join(t.Context(), &j)
		before := newRegister().servers
		at := map[string]string{}
		for _, s := range store.servers {
			if other, taken := at[s.Address]; taken {
				t.Errorf("%s and %s are both at %s", s.ID, other, s.Address)
			}
			at[s.Address] = s.ID
			if s.Voter && !slices.ContainsFunc(before, func(b raftstore.Server) bool { return b.ID == s.ID }) {
				t.Errorf("%s, which is new, has a vote", s.ID)
			}
		}
		if err != nil && !slices.Equal(store.servers, before) {
			t.Errorf("%v is refused (%v), and the group is %v", &j, err, store.servers)
		}
		if mine := store.servers[slices.IndexFunc(store.servers, func(s raftstore.Server) bool { return s.ID == "a" })]; !mine.Voter {
			t.Errorf("the leader has no vote any more: %+v", mine)
		}
	})
}

// says is whoever is at an address, and gives that answer to all that it is asked.
type says []byte

func (s says) Invoke(_ context.Context, _ string, _, reply any, _ ...grpc.CallOption) error {
	if len(s) == 0 {
		return errors.New("nobody is there")
	}
	return proto.Unmarshal(s, reply.(proto.Message))
}

func (says) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.New("there are no streams here")
}
