package raftstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

var (
	// ErrFormed is returned to whoever would form a group with a primary that is
	// or was in one. Nothing was changed.
	ErrFormed = errors.New("a group is formed already")

	// ErrUnknownServer is returned when no primary of that id is in the group.
	ErrUnknownServer = errors.New("no such primary in the group")
)

// Formed tells whether this primary is, or was, in a group: whether its log or
// snapshot says who belongs to it. One that was opened with [Config.Join] and no
// data is in none, until it forms one or a leader adds it.
func (s *Store) Formed() bool { return len(s.servers()) > 0 }

// Form makes a group of these primaries. It is called once in the life of a
// cluster, on one of them that has a vote; the others wait, opened with
// [Config.Join], and learn of it from that one. It returns [ErrFormed] on a
// primary that is or was in a group.
func (s *Store) Form(ctx context.Context, group []Server) error {
	err := s.ask(ctx, fmt.Sprintf("form a group of %d", len(group)), func() error {
		if v := find(group, s.id); v == nil || !v.Voter {
			return errors.New("this primary has to be one of them, with a vote")
		}
		err := s.raft.BootstrapCluster(toRaft(group)).Error()
		if errors.Is(err, raft.ErrCantBootstrap) {
			return ErrFormed
		}
		return err
	})
	s.watchers.wake()
	return err
}

// Leader returns who leads, as far as this primary knows, and where the others
// reach it; "" when it knows of none.
func (s *Store) Leader() (id, address string) {
	a, i := s.raft.LeaderWithID()
	return string(i), string(a)
}

// Leads tells whether Raft takes this primary for the leader. It may not know yet
// that another one is: what must not go wrong then needs [Store.ReadIndex], or
// [Store.Propose].
func (s *Store) Leads() bool { return s.raft.State() == raft.Leader }

// AddServer adds a primary to the group, with a vote or without. One that is in
// it already gets the address and the vote that v says; when it has them, nothing
// changes. Give a vote only to one that is caught up: until then there is one more
// to wait for and nobody more to answer.
//
// Only the leader can: the others return [ErrNotLeader]. After [ErrUnknown], look
// at [Store.Status] whether it was done.
func (s *Store) AddServer(ctx context.Context, v Server) error {
	return s.ask(ctx, fmt.Sprintf("add primary %q to the group", v.ID), func() error {
		if !s.Leads() {
			return ErrNotLeader
		}
		servers := s.servers()
		if err := mayAdd(servers, v); err != nil {
			return err
		}
		return s.add(find(servers, v.ID), v)
	})
}

// mayAdd tells why v can't be in a group with the others as they are.
func mayAdd(servers []Server, v Server) error {
	if v.ID == "" || v.Address == "" {
		return errors.New("it needs an id and an address")
	}
	for _, o := range servers {
		if o.Address == v.Address && o.ID != v.ID {
			return fmt.Errorf("its address %s is that of primary %q: give it another one, or remove that one first", v.Address, o.ID)
		}
	}
	if !v.Voter && onlyVoter(servers, v.ID) {
		return errLastVote
	}
	return nil
}

// errLastVote is why the last primary with a vote keeps it.
var errLastVote = errors.New("it is the only one with a vote: give another one a vote first")

func onlyVoter(servers []Server, id string) bool {
	voters, its := 0, false
	for _, o := range servers {
		if o.Voter {
			voters++
			its = its || o.ID == id
		}
	}
	return its && voters == 1
}

// add makes v of what is in the group: old, or nothing when that is nil.
func (s *Store) add(old *Server, v Server) error {
	id, address := raft.ServerID(v.ID), raft.ServerAddress(v.Address)
	switch {
	case old != nil && *old == v:
		return s.barrier() // it may not be agreed yet
	case v.Voter:
		return s.raft.AddVoter(id, address, 0, 0).Error()
	case old != nil && old.Voter:
		err := s.raft.DemoteVoter(id, 0, 0).Error()
		if err != nil || old.Address == v.Address {
			return err
		}
	}
	return s.raft.AddNonvoter(id, address, 0, 0).Error()
}

// RemoveServer takes a primary out of the group. The leader itself may be taken
// out: it steps down when that is agreed. A primary that was taken out stays as it
// is, without a leader; to come back, it starts with empty data and is added.
//
// Only the leader can: the others return [ErrNotLeader]. It returns
// [ErrUnknownServer] when there is none of that id, and that is agreed.
func (s *Store) RemoveServer(ctx context.Context, id string) error {
	return s.ask(ctx, fmt.Sprintf("remove primary %q from the group", id), func() error {
		servers := s.servers()
		switch {
		case !s.Leads():
			return ErrNotLeader
		case find(servers, id) == nil:
			if err := s.barrier(); err != nil { // its removal may not be agreed yet
				return err
			}
			return ErrUnknownServer
		case onlyVoter(servers, id):
			return errLastVote
		}
		return s.raft.RemoveServer(raft.ServerID(id), 0, 0).Error()
	})
}

// Transfer hands the leadership over to another primary that is up to date. It
// fails with [ErrNotLeader] on any other primary than the leader, and otherwise
// when there is none to take over: then this one goes on leading.
func (s *Store) Transfer(ctx context.Context) error { return s.TransferTo(ctx, "") }

// TransferTo hands the leadership over to the primary of that id; "": the one that
// is furthest. To the leader itself there is nothing to do. It fails with
// [ErrNotLeader] on any other primary than the leader, with [ErrUnknownServer]
// when there is none of that id, and otherwise when that one can't take over: then
// this one goes on leading.
func (s *Store) TransferTo(ctx context.Context, id string) error {
	return s.ask(ctx, "hand over the leadership", func() error {
		if !s.Leads() {
			return ErrNotLeader
		}
		if id == "" {
			return s.raft.LeadershipTransfer().Error()
		}
		switch to := find(s.servers(), id); {
		case id == s.id:
			return nil
		case to == nil:
			return fmt.Errorf("to %q: %w", id, ErrUnknownServer)
		case !to.Voter:
			return fmt.Errorf("to %q: it has no vote, and can't lead", id)
		default:
			return s.raft.LeadershipTransferToServer(raft.ServerID(id), raft.ServerAddress(to.Address)).Error()
		}
	})
}

// servers returns the group, in the order of ids.
func (s *Store) servers() []Server {
	return fromRaft(s.raft.GetConfiguration().Configuration())
}

func find(servers []Server, id string) *Server {
	for i := range servers {
		if servers[i].ID == id {
			return &servers[i]
		}
	}
	return nil
}
