package peer

import (
	"context"
	"io"

	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
)

// Stream is the gateway's end of a link. When the context that it was opened
// with is done, Send and Recv return.
type Stream interface {
	Send(*peerv1.LinkRequest) error
	Recv() (*peerv1.LinkResponse, error)
}

// leaderStream is the leader's end of a link.
type leaderStream interface {
	Send(*peerv1.LinkResponse) error
	Recv() (*peerv1.LinkRequest, error)
}

// pipeDepth is how many messages a link within one process holds in each
// direction, so that the two ends need not take turns.
const pipeDepth = 64

// pipe is a link within one process: the leader's gateway is a gateway like all
// others. Messages are handed over, not copied, and neither end changes them.
type pipe struct {
	up   chan *peerv1.LinkRequest
	down chan *peerv1.LinkResponse
	over <-chan struct{}
}

// newPipe returns a link that ends with ctx.
func newPipe(ctx context.Context) *pipe {
	return &pipe{
		up:   make(chan *peerv1.LinkRequest, pipeDepth),
		down: make(chan *peerv1.LinkResponse, pipeDepth),
		over: ctx.Done(),
	}
}

// The two ends of a pipe.
type (
	gatewayEnd struct{ *pipe }
	leaderEnd  struct{ *pipe }
)

// within tells whether a stream is an end of a link within one process.
func within(stream any) bool {
	switch stream.(type) {
	case gatewayEnd, leaderEnd:
		return true
	}
	return false
}

func (e gatewayEnd) Send(m *peerv1.LinkRequest) error    { return send(e.up, m, e.over) }
func (e gatewayEnd) Recv() (*peerv1.LinkResponse, error) { return recv(e.down, e.over) }
func (e leaderEnd) Send(m *peerv1.LinkResponse) error    { return send(e.down, m, e.over) }
func (e leaderEnd) Recv() (*peerv1.LinkRequest, error)   { return recv(e.up, e.over) }

func send[T any](c chan<- T, m T, over <-chan struct{}) error {
	select {
	case c <- m:
		return nil
	case <-over:
		return io.EOF
	}
}

func recv[T any](c <-chan T, over <-chan struct{}) (m T, err error) {
	select {
	case m = <-c:
		return m, nil
	case <-over:
		return m, io.EOF
	}
}
