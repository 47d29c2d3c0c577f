package api

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
)

// GetStatus tells how this primary sees the group. Of the others it knows who
// they are; what only they know of themselves is left out.
func (s clusterService) GetStatus(context.Context, *schedv1.GetStatusRequest) (*schedv1.GetStatusResponse, error) {
	group := s.Cluster.Status()
	p := &schedv1.ClusterStatus{LeaderId: group.LeaderID, Term: group.Term, AppliedIndex: group.AppliedIndex}
	s.Store.View(func(st *state.State) { p.ClusterId = st.ClusterID() })
	for _, v := range group.Servers {
		p.Primaries = append(p.Primaries, s.showPrimary(v, group))
	}
	return &schedv1.GetStatusResponse{Status: p}, nil
}

// primaryRoles is the roles of a primary by what package raftstore calls them.
var primaryRoles = map[string]schedv1.PrimaryRole{
	"leader":    schedv1.PrimaryRole_PRIMARY_ROLE_LEADER,
	"follower":  schedv1.PrimaryRole_PRIMARY_ROLE_FOLLOWER,
	"candidate": schedv1.PrimaryRole_PRIMARY_ROLE_CANDIDATE,
}

func (s *Server) showPrimary(v raftstore.Server, group raftstore.Status) *schedv1.Primary {
	p := &schedv1.Primary{Id: v.ID, ClusterAddress: v.Address, Voter: v.Voter}
	switch v.ID {
	case s.NodeID:
		p.Role, p.AppliedIndex, p.Version = primaryRoles[group.Role], group.AppliedIndex, s.Version
		p.LastContact, p.Sessions = showTime(group.LastContact), uint32(s.Sessions())
	case group.LeaderID:
		p.Role = schedv1.PrimaryRole_PRIMARY_ROLE_LEADER
	default:
		if group.LeaderID != "" {
			p.Role = schedv1.PrimaryRole_PRIMARY_ROLE_FOLLOWER
		}
	}
	return p
}

func unserved(what string) error {
	return status.Errorf(codes.Unimplemented, "%s is not served yet", what)
}

func (clusterService) AddPrimary(context.Context, *schedv1.AddPrimaryRequest) (*schedv1.AddPrimaryResponse, error) {
	return nil, unserved("adding a primary to a running group")
}

func (clusterService) RemovePrimary(context.Context, *schedv1.RemovePrimaryRequest) (*schedv1.RemovePrimaryResponse, error) {
	return nil, unserved("removing a primary from a running group")
}

func (clusterService) TransferLeadership(context.Context, *schedv1.TransferLeadershipRequest) (*schedv1.TransferLeadershipResponse, error) {
	return nil, unserved("handing the leadership over on request")
}

func (clusterService) SaveSnapshot(*schedv1.SaveSnapshotRequest, grpc.ServerStreamingServer[schedv1.SaveSnapshotResponse]) error {
	return unserved("saving a snapshot: stop the primary and copy its data directory; over the network it")
}

func (clusterService) RestoreSnapshot(grpc.ClientStreamingServer[schedv1.RestoreSnapshotRequest, schedv1.RestoreSnapshotResponse]) error {
	return unserved("restoring a snapshot: stop the primary and put its data directory back; over the network it")
}
