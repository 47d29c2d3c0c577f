package server

import (
	"slices"

	"github.com/schedd/schedd/raftstore"
)

// forgetLeft closes the connections to addresses where no primary of the group is
// any more: one was removed, or has another address now. They would try to connect
// for ever. It is given the group as it was at the last look, and returns it as it
// is.
func (s *Server) forgetLeft(before []raftstore.Server) (now []raftstore.Server) {
	now = s.store.Status().Servers
	if s.net == nil {
		return now
	}
	for _, address := range left(before, now) {
		s.log.Info("an address has left the group; its connections are closed", "address", address)
		s.net.Forget(address)
	}
	return now
}

// left returns the addresses that were in the group and no longer are. It is pure.
func left(before, now []raftstore.Server) (addresses []string) {
	for _, v := range before {
		if !slices.ContainsFunc(now, func(w raftstore.Server) bool { return w.Address == v.Address }) {
			addresses = append(addresses, v.Address)
		}
	}
	return addresses
}
