package api

import (
	"context"
	"slices"

	"google.golang.org/protobuf/types/known/durationpb"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/peer"
)

// GetStatus tells how this primary sees the group. The leader knows of the
// others what they tell it; another primary only who they are.
func (s clusterService) GetStatus(context.Context, *schedv1.GetStatusRequest) (*schedv1.GetStatusResponse, error) {
	return &schedv1.GetStatusResponse{Status: s.showCluster()}, nil
}

func (s *Server) showCluster() *schedv1.ClusterStatus {
	group := s.Cluster.Status()
	p := &schedv1.ClusterStatus{LeaderId: group.LeaderID, Term: group.Term, AppliedIndex: s.Group.AppliedIndex()}
	s.Store.View(func(st *state.State) { p.ClusterId = st.ClusterID() })
	var heard map[string]peer.Primary
	if s.Group.Leads() {
		heard = s.Primaries.Primaries()
	}
	for _, v := range group.Servers {
		if v.ID == s.NodeID {
			p.Primaries = append(p.Primaries, s.showSelf(v, group))
			continue
		}
		p.Primaries = append(p.Primaries, showOther(v, group, heard))
	}
	return p
}

// primaryRoles is the roles of a primary by what package raftstore calls them.
var primaryRoles = map[string]schedv1.PrimaryRole{
	"leader":    schedv1.PrimaryRole_PRIMARY_ROLE_LEADER,
	"follower":  schedv1.PrimaryRole_PRIMARY_ROLE_FOLLOWER,
	"candidate": schedv1.PrimaryRole_PRIMARY_ROLE_CANDIDATE,
}

func (s *Server) showSelf(v raftstore.Server, group raftstore.Status) *schedv1.Primary {
	return &schedv1.Primary{
		Id: v.ID, ClusterAddress: v.Address, Voter: v.Voter, Role: primaryRoles[group.Role], LogsMissing: showMissing(v, group, s.Condition()),
		LastContact: showTime(group.LastContact), AppliedIndex: s.Group.AppliedIndex(), Sessions: uint32(s.Sessions()), Version: s.Version,
	}
}

// showOther returns another primary; heard is what it tells the leader, nil when
// this primary is not that.
func showOther(v raftstore.Server, group raftstore.Status, heard map[string]peer.Primary) *schedv1.Primary {
	p := &schedv1.Primary{Id: v.ID, ClusterAddress: v.Address, Voter: v.Voter}
	h, linked := heard[v.ID]
	p.LogsMissing = showMissing(v, group, h.Condition)
	switch {
	case v.ID == group.LeaderID:
		p.Role = schedv1.PrimaryRole_PRIMARY_ROLE_LEADER
	case linked:
		p.Role = schedv1.PrimaryRole_PRIMARY_ROLE_FOLLOWER
		p.LastContact, p.AppliedIndex, p.Sessions, p.Version = showTime(h.LastContact), h.AppliedIndex, uint32(h.Sessions), h.Version
		p.ClockOffset = durationpb.New(h.ClockOffset)
	case heard == nil && group.LeaderID != "":
		p.Role = schedv1.PrimaryRole_PRIMARY_ROLE_FOLLOWER
	}
	return p
}

// showMissing returns how many copies of logs a primary lacks; nil while it is not
// known. What was found out of another group than this one is no answer: people
// take the next primary away when none is missing.
func showMissing(v raftstore.Server, group raftstore.Status, is peer.Condition) *uint32 {
	var keep []string
	for _, o := range group.Servers {
		if o.Voter {
			keep = append(keep, o.ID)
		}
	}
	if !v.Voter || !slices.Equal(keep, is.LogsAmong) {
		return nil
	}
	return new(uint32(is.LogsMissing))
}
