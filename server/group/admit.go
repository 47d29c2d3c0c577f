package group

import (
	"cmp"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
	"github.com/schedd/schedd/raftstore"
)

// claim is that a primary wants to be in the group under an id, at an address, and
// what the leader has found out about it.
type claim struct {
	id, address string
	instance    string // of its process; "" from a version that does not say
	empty       bool   // it has no data

	servers []raftstore.Server // the group
	asked   string             // where the group had that id when the questions were asked; "": nowhere

	here  *peerv1.IntroduceResponse // who answers at address; nil: nobody
	there *peerv1.IntroduceResponse // who answers at asked; nil: nobody
	heard string                    // instance that has the id and was heard of just now; "": none
}

// admit returns what is to be on record of who makes a claim, or why nothing is. It
// is pure.
//
// An id belongs to one process at a time, or two would vote under it. So it stays
// with who has it for as long as that one lives; whoever claims it must answer at its
// address; and one without data does not remember how it voted, so it loses its vote.
func admit(c claim) (raftstore.Server, error) {
	v := raftstore.Server{ID: c.id, Address: c.address}
	i := slices.IndexFunc(c.servers, func(o raftstore.Server) bool { return o.ID == c.id })
	switch {
	case i >= 0 && c.servers[i].Address != c.asked:
		return v, status.Errorf(codes.Unavailable, "the address of %s has just changed: try again", c.id)
	case i < 0 && !c.empty:
		return v, status.Errorf(codes.FailedPrecondition, "%s was removed from the group: to come back it begins with an empty data directory", c.id)
	case i >= 0:
		v.Voter = c.servers[i].Voter && (!c.empty || alone(c.servers))
	}
	if err := c.namesake(); err != nil {
		return v, err
	}
	if i := slices.IndexFunc(c.servers, func(o raftstore.Server) bool { return o.Address == c.address && o.ID != c.id }); i >= 0 {
		return v, status.Errorf(codes.FailedPrecondition, "%s is the address of %s in the group: remove that one first, if it is gone", c.address, c.servers[i].ID)
	}
	if c.here.GetPrimaryId() != c.id {
		return v, status.Errorf(codes.Unavailable, "%s does not answer at %s, where others shall reach it: look at its --cluster-advertise", c.id, c.address)
	}
	return v, nil
}

// namesake tells that the id belongs to another process, which lives.
func (c claim) namesake() error {
	who := cmp.Or(c.instance, c.here.GetInstance())
	for _, o := range []struct {
		*peerv1.IntroduceResponse
		at string
	}{{c.there, c.asked}, {c.here, c.address}} {
		if o.GetPrimaryId() == c.id && o.GetInstance() != who {
			return status.Error(codes.AlreadyExists, twoAreCalled(c.id, o.at, c.address))
		}
	}
	if c.heard != "" && who != "" && c.heard != who { // it may have ended since
		return status.Errorf(codes.Unavailable, "another primary that is called %s was heard of just now: try again", c.id)
	}
	return nil
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
