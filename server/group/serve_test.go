package group

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
	"github.com/schedd/schedd/raftstore"
)

// believer is the record of a primary that takes another one for the leader.
type believer struct {
	Store
	leader string
}

func (b believer) Leads() bool                  { return false }
func (b believer) Leader() (id, address string) { return b.leader, b.leader }

// way leads straight to a member, and counts.
type way struct {
	to    *Member
	calls *int
}

func (w way) Invoke(ctx context.Context, _ string, args, reply any, _ ...grpc.CallOption) error {
	if *w.calls++; *w.calls > 10 {
		return errors.New("it goes round in circles")
	}
	r, err := w.to.Join(ctx, args.(*peerv1.JoinRequest))
	if err == nil {
		proto.Merge(reply.(proto.Message), r)
	}
	return err
}

func (w way) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, errors.New("there are no streams here")
}

// Two primaries that each take the other for the leader, as they may for a moment
// while the leadership changes, hand on who wants to join once, and then tell it to
// come again.
func TestJoinIsHandedOnOnce(t *testing.T) {
	members, calls := map[string]*Member{}, 0
	for id, leader := range map[string]string{"a": "b", "b": "a"} {
		members[id] = NewMember(Config{
			Self: raftstore.Server{ID: id, Address: id}, Store: believer{leader: leader}, Log: slog.New(slog.DiscardHandler),
			Conn: func(address string) (grpc.ClientConnInterface, error) { return way{members[address], &calls}, nil },
		})
	}
	req := &peerv1.JoinRequest{PrimaryId: "c", ClusterAddress: "c", Empty: true}
	_, err := members["a"].Join(t.Context(), req)
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "b does not lead, and takes a for the leader: try again") {
		t.Errorf("err = %v, want one that says to try again", err)
	}
	if calls != 1 || req.GetHandedOn() {
		t.Errorf("it was handed on %d times, want once; and what the caller sent is now %v", calls, req)
	}
}
