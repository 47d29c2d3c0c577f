package raftstore

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// How Raft uses a [StreamLayer].
const (
	streamPool     = 3                // idle connections kept to each other primary
	streamTimeout  = 10 * time.Second // to dial, and for one request and its answer
	streamInFlight = 2                // requests to append entries that overlap
)

// StreamLayer is how this primary reaches the others for Raft: connections that
// are already authenticated, and set apart from all else on the cluster port.
//
// Closing it must end an Accept that waits, and should end dials in flight: the
// store waits for them. The store closes it, and all connections that came of it.
type StreamLayer interface {
	// Addr tells what the others dial: the advertised cluster address.
	net.Listener
	// Dial connects to another primary, within so long.
	Dial(address string, timeout time.Duration) (net.Conn, error)
}

// newStreams returns Raft's transport over a stream layer.
func newStreams(l StreamLayer, log *slog.Logger) raft.Transport {
	return transport{raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:                  &streams{StreamLayer: l, open: map[*tracked]struct{}{}},
		MaxPool:                 streamPool,
		Timeout:                 streamTimeout,
		MaxRPCsInFlight:         streamInFlight,
		MsgpackUseNewTimeFormat: true,
		Logger:                  newRaftLog(log),
	})}
}

// streams knows all connections of a stream layer, and closes them with it. Raft
// closes neither those that it keeps idle nor those that others opened, and would
// leave a goroutine behind for each of these.
type streams struct {
	StreamLayer

	mu     sync.Mutex // guards what follows
	open   map[*tracked]struct{}
	closed bool
}

// tracked is one connection.
type tracked struct {
	net.Conn
	of *streams
}

// Close implements [net.Conn].
func (c *tracked) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// Accept implements [net.Listener].
func (s *streams) Accept() (net.Conn, error) { return s.keep(s.StreamLayer.Accept()) }

// Dial implements [raft.StreamLayer].
func (s *streams) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return s.keep(s.StreamLayer.Dial(string(address), timeout))
}

func (s *streams) keep(conn net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	c := &tracked{conn, s}
	s.mu.Lock()
	closed := s.closed
	if !closed {
		s.open[c] = struct{}{}
	}
	s.mu.Unlock()
	if closed {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	return c, nil
}

// Close implements [net.Listener]. Closing again does nothing.
func (s *streams) Close() error {
	s.mu.Lock()
	open, again := s.open, s.closed
	s.open, s.closed = nil, true
	s.mu.Unlock()
	if again {
		return nil
	}
	err := s.StreamLayer.Close()
	for c := range open {
		_ = c.Conn.Close() // it is not needed any more, whatever it says
	}
	if err != nil {
		return fmt.Errorf("closing the cluster address: %w", err)
	}
	return nil
}
