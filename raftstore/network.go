package raftstore

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// rpcTimeout is how long one primary waits for another on a [Network].
const rpcTimeout = 500 * time.Millisecond

// Network joins primaries in one process, for tests. Links between them can be
// cut. A primary's address is its NodeID, if it has no other.
type Network struct {
	mu    sync.Mutex // guards what follows
	nodes map[string]*raft.InmemTransport
	cut   map[link]bool
}

// link is a pair of primaries, the lesser first.
type link struct{ a, b string }

func linkOf(a, b string) link { return link{min(a, b), max(a, b)} }

// NewNetwork returns a network without primaries.
func NewNetwork() *Network {
	return &Network{nodes: map[string]*raft.InmemTransport{}, cut: map[link]bool{}}
}

// Transport returns a new transport for the primary of that id, for one Open. It
// takes the place of the one before.
func (n *Network) Transport(id string) raft.Transport { return n.TransportAt(id, id) }

// TransportAt is as Transport, for a primary that has another address.
func (n *Network) TransportAt(id, address string) raft.Transport {
	_, t := raft.NewInmemTransportWithTimeout(raft.ServerAddress(address), rpcTimeout)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nodes[id] = t
	for other := range n.nodes {
		n.join(id, other)
	}
	return t
}

// Group returns the configuration of a group of these primaries, all voters.
func (n *Network) Group(ids ...string) []Server {
	group := make([]Server, len(ids))
	for i, id := range ids {
		group[i] = Server{ID: id, Address: id, Voter: true}
	}
	return group
}

// Cut cuts the link between two primaries.
func (n *Network) Cut(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[linkOf(a, b)] = true
	n.join(a, b)
}

// Isolate cuts all links of a primary.
func (n *Network) Isolate(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for other := range n.nodes {
		n.cut[linkOf(id, other)] = true
		n.join(id, other)
	}
}

// Heal joins all primaries again.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for l := range n.cut {
		delete(n.cut, l)
		n.join(l.a, l.b)
	}
}

// join makes the link between two primaries as it should be. The caller holds
// the lock.
func (n *Network) join(a, b string) {
	t, u := n.nodes[a], n.nodes[b]
	if t == nil || u == nil || a == b {
		return
	}
	t.Disconnect(u.LocalAddr())
	u.Disconnect(t.LocalAddr())
	if !n.cut[linkOf(a, b)] {
		t.Connect(u.LocalAddr(), u)
		u.Connect(t.LocalAddr(), t)
	}
}
