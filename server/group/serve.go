package group

import (
	"context"
	"errors"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
	"github.com/schedd/schedd/raftstore"
)

// Introduce implements [peerv1.GroupServiceServer].
func (m *Member) Introduce(_ context.Context, req *peerv1.IntroduceRequest) (*peerv1.IntroduceResponse, error) {
	if req.GetPrimaryId() == m.Self.ID && req.GetInstance() != m.instance {
		return nil, status.Errorf(codes.AlreadyExists, "two primaries are called %s, at %s and %s: give each a --node-id of its own", m.Self.ID, m.Self.Address, req.GetClusterAddress())
	}
	leader, _ := m.Store.Leader()
	return &peerv1.IntroduceResponse{
		PrimaryId: m.Self.ID, ClusterAddress: m.Self.Address, Expect: uint32(m.Expect), Instance: m.instance,
		Found: m.hasFound(req.GetPrimaryId()), Formed: m.Store.Formed(), LeaderId: leader, Version: m.Version,
	}, nil
}

func (m *Member) hasFound(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, found := m.found[id]
	return found
}

// Join implements [peerv1.GroupServiceServer].
func (m *Member) Join(ctx context.Context, req *peerv1.JoinRequest) (*peerv1.JoinResponse, error) {
	if m.Store.Leads() {
		return m.take(ctx, req)
	}
	id, address := m.Store.Leader()
	if id == "" || id == m.Self.ID {
		return nil, status.Errorf(codes.Unavailable, "%s knows of no leader at the moment: try again", m.Self.ID)
	}
	if req.GetHandedOn() { // or two that take each other for the leader would go on for ever
		return nil, status.Errorf(codes.Unavailable, "%s does not lead, and takes %s for the leader: try again", m.Self.ID, id)
	}
	conn, err := m.Conn(address)
	if err != nil {
		return nil, status.Errorf(codes.Unavailable, "reach the leader %s at %s: %v", id, address, err)
	}
	next := proto.CloneOf(req)
	next.HandedOn = true
	return peerv1.NewGroupServiceClient(conn).Join(ctx, next)
}

// take takes a primary into the group that this one leads, or notes its address.
func (m *Member) take(ctx context.Context, req *peerv1.JoinRequest) (*peerv1.JoinResponse, error) {
	if req.GetPrimaryId() == "" || req.GetClusterAddress() == "" {
		return nil, status.Error(codes.InvalidArgument, "who joins has to say its id and address")
	}
	servers := m.Store.Status().Servers
	v := raftstore.Server{ID: req.GetPrimaryId(), Address: req.GetClusterAddress()}
	if i := slices.IndexFunc(servers, func(o raftstore.Server) bool { return o.ID == v.ID }); i >= 0 {
		v.Voter = servers[i].Voter && (!req.GetEmpty() || alone(servers))
	} else if !req.GetEmpty() {
		return nil, status.Errorf(codes.FailedPrecondition, "%s was removed from the group: to come back it begins with an empty data directory", v.ID)
	}
	if i := slices.IndexFunc(servers, func(o raftstore.Server) bool { return o.Address == v.Address && o.ID != v.ID }); i >= 0 {
		return nil, status.Errorf(codes.AlreadyExists, "%s is the address of %s in the group: remove that one first, if it is gone", v.Address, servers[i].ID)
	}
	if !slices.Contains(servers, v) {
		m.Log.Info("taking a primary into the group", "primary", v.ID, "address", v.Address, "voter", v.Voter)
		if err := m.Store.AddServer(ctx, v); err != nil {
			return nil, leaderStatus(err)
		}
	}
	return &peerv1.JoinResponse{LeaderId: m.Self.ID}, nil
}

// alone tells whether only one has a vote, which it can't lose.
func alone(servers []raftstore.Server) bool {
	voters := 0
	for _, v := range servers {
		if v.Voter {
			voters++
		}
	}
	return voters < 2
}

// ReadIndex implements [peerv1.GroupServiceServer].
func (m *Member) ReadIndex(ctx context.Context, _ *peerv1.ReadIndexRequest) (*peerv1.ReadIndexResponse, error) {
	index, err := m.Store.ReadIndex(ctx)
	if err != nil {
		return nil, leaderStatus(err)
	}
	return &peerv1.ReadIndexResponse{Index: index}, nil
}

// leaderStatus is an error of the store in gRPC's words.
func leaderStatus(err error) error {
	switch {
	case errors.Is(err, raftstore.ErrNotLeader):
		return status.Error(codes.FailedPrecondition, err.Error())
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return status.FromContextError(err).Err()
	}
	return status.Error(codes.Unavailable, err.Error())
}
