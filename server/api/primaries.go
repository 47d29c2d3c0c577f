package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
)

const (
	// heardWithin is how lately something was heard of a primary that lives: they
	// answer the leader each second.
	heardWithin = 3 * time.Second
	// hearFor is how long a leader listens before it says that a primary is silent.
	// One that has just been elected has heard of nobody yet.
	hearFor = 3 * time.Second
	// hearEvery is how often it looks meanwhile.
	hearEvery = 100 * time.Millisecond
	// farBehind is how many log entries a primary may be behind that is to lead.
	// Handing over has to wait until it has them.
	farBehind = 250
	// newLeaderWithin is how long it may take until the new leader is known here.
	newLeaderWithin = 3 * time.Second
)

// AddPrimary changes who is in the group. That a primary votes once it has caught
// up is seen to by the leader; all that is said here is whether it may.
func (s clusterService) AddPrimary(ctx context.Context, req *schedv1.AddPrimaryRequest) (*schedv1.AddPrimaryResponse, error) {
	c := request()
	v := raftstore.Server{ID: c.in("id").nodeID(req.GetId()), Address: c.in("cluster_address").address(req.GetClusterAddress())}
	if err := c.err(); err != nil {
		return nil, err
	}
	servers := s.Cluster.Status().Servers
	if i := slices.IndexFunc(servers, func(o raftstore.Server) bool { return o.Address == v.Address && o.ID != v.ID }); i >= 0 {
		return nil, status.Errorf(codes.AlreadyExists, "%s is the address of primary %s: give the new one another address, or remove that one first", v.Address, servers[i].ID)
	}
	old, there := findServer(servers, v.ID)
	if there && old.Voter && !req.GetVoter() {
		if err := s.giveUpVote(ctx, servers, v.ID); err != nil {
			return nil, err
		}
	}
	if err := s.setStandby(ctx, v.ID, !req.GetVoter()); err != nil {
		return nil, err
	}
	v.Voter = old.Voter && req.GetVoter()
	if !there || old != v {
		if err := s.Cluster.AddServer(ctx, v); err != nil {
			return nil, err
		}
		s.Log.InfoContext(ctx, "primary added by request", "primary", v.ID, "address", v.Address, "voter", req.GetVoter())
	}
	return &schedv1.AddPrimaryResponse{Status: s.showCluster()}, nil
}

// RemovePrimary takes a primary out of the group, and what is said of it with it.
func (s clusterService) RemovePrimary(ctx context.Context, req *schedv1.RemovePrimaryRequest) (*schedv1.RemovePrimaryResponse, error) {
	c := request()
	id := c.in("id").nodeID(req.GetId())
	if err := c.err(); err != nil {
		return nil, err
	}
	servers := s.Cluster.Status().Servers
	v, there := findServer(servers, id)
	if there && v.Voter {
		if err := s.giveUpVote(ctx, servers, id); err != nil {
			return nil, err
		}
	}
	err := s.Cluster.RemoveServer(ctx, id) // also who is not there: that may not be agreed yet
	gone := errors.Is(err, raftstore.ErrUnknownServer)
	if err != nil && !gone {
		return nil, err
	}
	if !gone {
		s.Log.InfoContext(ctx, "primary removed by request", "primary", id, "address", v.Address)
	}
	if err := s.setStandby(ctx, id, false); err != nil { // a first try may have got no further than this
		return nil, fmt.Errorf("primary %s is not in the group any more, and that it shall never vote is still on record: %w", id, err)
	}
	if gone {
		return nil, noPrimary(id, servers)
	}
	return &schedv1.RemovePrimaryResponse{Status: s.showCluster()}, nil
}

// TransferLeadership hands the leadership over, and answers when the new leader is
// known here.
func (s clusterService) TransferLeadership(ctx context.Context, req *schedv1.TransferLeadershipRequest) (*schedv1.TransferLeadershipResponse, error) {
	c := request()
	id := req.GetId()
	if id != "" {
		c.in("id").nodeID(id)
	}
	if err := c.err(); err != nil {
		return nil, err
	}
	if id == s.NodeID {
		if err := s.confirm(ctx); err != nil {
			return nil, err
		}
		return &schedv1.TransferLeadershipResponse{Status: s.showCluster()}, nil
	}
	if err := s.mayLead(id); err != nil {
		return nil, err
	}
	if err := s.handOver(ctx, id); err != nil {
		return nil, err
	}
	s.awaitLeader(ctx)
	return &schedv1.TransferLeadershipResponse{Status: s.showCluster()}, nil
}

func findServer(servers []raftstore.Server, id string) (v raftstore.Server, there bool) {
	if i := slices.IndexFunc(servers, func(o raftstore.Server) bool { return o.ID == id }); i >= 0 {
		return servers[i], true
	}
	return v, false
}

func noPrimary(id string, servers []raftstore.Server) error {
	var ids []string
	for _, v := range servers {
		ids = append(ids, v.ID)
	}
	return fmt.Errorf("primary %s: %w; there are %s", quote(id), state.ErrNotFound, strings.Join(ids, ", "))
}

// setStandby has on record whether a primary shall never vote.
func (s *Server) setStandby(ctx context.Context, id string, is bool) error {
	_, _, err := s.agree(ctx, func(st *state.State, _ time.Time) (change, error) {
		if st.Standby(id) == is {
			return change{done: &state.Result{}}, nil
		}
		return change{commands: []state.Command{state.SetStandby{ID: id, Standby: is}}}, nil
	})
	return err
}

// giveUpVote returns when a primary may lose its vote. The leader does not take
// it from itself: it hands over first, and the new leader is asked.
func (s *Server) giveUpVote(ctx context.Context, servers []raftstore.Server, id string) error {
	if err := s.enoughWithout(ctx, servers, id); err != nil {
		return err
	}
	if id != s.NodeID {
		return nil
	}
	if err := s.handOver(ctx, ""); err != nil {
		return err
	}
	return fmt.Errorf("primary %s has handed the leadership over before it leaves: it is %w", id, raftstore.ErrNotLeader)
}

// enoughWithout tells why the others could not go on without the vote of a
// primary, after it has listened for them.
func (s *Server) enoughWithout(ctx context.Context, servers []raftstore.Server, id string) error {
	enough := time.NewTimer(hearFor)
	defer enough.Stop()
	look := time.NewTicker(hearEvery)
	defer look.Stop()
	for {
		left := without(servers, id, s.silent(time.Now()))
		if left.problem() == "" {
			return nil
		}
		problem := status.Errorf(codes.FailedPrecondition, "primary %s can't be spared: %s", id, left.problem())
		if len(left.silent) == 0 {
			return problem
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("listening for the other primaries: %w", ctx.Err())
		case <-enough.C:
			return problem
		case <-look.C:
		}
	}
}

// silent returns a function that tells of which primaries nothing is heard.
func (s *Server) silent(now time.Time) func(id string) bool {
	heard := s.Primaries.Primaries()
	return func(id string) bool {
		p, linked := heard[id]
		return id != s.NodeID && (!linked || now.Sub(p.LastContact) > heardWithin)
	}
}

// electorate is the primaries with a vote.
type electorate struct {
	voters int
	silent []string // of them
}

// without returns the electorate of a group when a primary has no vote any more. It
// is pure.
func without(servers []raftstore.Server, id string, silent func(id string) bool) electorate {
	var e electorate
	for _, v := range servers {
		if !v.Voter || v.ID == id {
			continue
		}
		e.voters++
		if silent(v.ID) {
			e.silent = append(e.silent, v.ID)
		}
	}
	return e
}

// problem says why it can't agree on anything; "" when it can.
func (e electorate) problem() string {
	need := e.voters/2 + 1
	switch {
	case e.voters == 0:
		return "it is the only one that votes"
	case e.voters-len(e.silent) >= need:
		return ""
	}
	return fmt.Sprintf("of the %d others that vote it takes %d to agree on anything, and nothing is heard of %s: bring that back first, or remove it instead",
		e.voters, need, strings.Join(e.silent, ", "))
}

// mayLead tells why a primary can't lead; "" is whoever is furthest.
func (s *Server) mayLead(id string) error {
	servers := s.Cluster.Status().Servers
	if id == "" {
		if without(servers, s.NodeID, func(string) bool { return false }).voters == 0 {
			return status.Error(codes.FailedPrecondition, "there is no other primary with a vote that could lead")
		}
		return nil
	}
	v, there := findServer(servers, id)
	heard, linked := s.Primaries.Primaries()[id]
	switch here := s.Group.AppliedIndex(); {
	case !there:
		return noPrimary(id, servers)
	case !v.Voter:
		return status.Errorf(codes.FailedPrecondition, "primary %s has no vote, and can't lead: give it one by AddPrimary, and wait until it has it", id)
	case !linked || time.Since(heard.LastContact) > heardWithin:
		return status.Errorf(codes.FailedPrecondition, "nothing is heard of primary %s, so it can't lead: bring it back first", id)
	case heard.AppliedIndex+farBehind < here:
		return status.Errorf(codes.FailedPrecondition, "primary %s is %d log entries behind: wait until it has caught up", id, here-heard.AppliedIndex)
	}
	return nil
}

// handOver lets another primary lead; "": whoever is furthest.
func (s *Server) handOver(ctx context.Context, to string) error {
	err := s.Cluster.TransferTo(ctx, to)
	for _, known := range []error{raftstore.ErrNotLeader, raftstore.ErrStopped, raftstore.ErrUnknown, raftstore.ErrUnknownServer, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, known) {
			return err
		}
	}
	if err != nil {
		return status.Errorf(codes.Aborted, "%v: %s goes on leading, try again", err, s.NodeID)
	}
	s.Log.InfoContext(ctx, "leadership handed over by request", "to", to)
	return nil
}

// awaitLeader waits for a moment until it is known who leads now.
func (s *Server) awaitLeader(ctx context.Context) {
	news, cancel := s.Group.WatchLeader()
	defer cancel()
	enough := time.NewTimer(newLeaderWithin)
	defer enough.Stop()
	for s.Cluster.Status().LeaderID == "" {
		select {
		case <-ctx.Done():
			return
		case <-enough.C:
			return
		case <-news:
		}
	}
}
