package api

import (
	"google.golang.org/grpc"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// snapshotPiece is how much of a snapshot one message holds.
const snapshotPiece = 256 << 10

// SaveSnapshot sends the state of one moment.
func (s clusterService) SaveSnapshot(_ *schedv1.SaveSnapshotRequest, stream grpc.ServerStreamingServer[schedv1.SaveSnapshotResponse]) error {
	w := &pieces{send: func(data []byte) error { return stream.Send(&schedv1.SaveSnapshotResponse{Data: data}) }}
	if err := s.Cluster.SaveSnapshot(stream.Context(), w); err != nil {
		return err
	}
	return w.flush()
}

// pieces sends what is written to it, in pieces of one size but for the last.
type pieces struct {
	send func([]byte) error
	next []byte
}

// Write implements [io.Writer].
func (p *pieces) Write(data []byte) (int, error) {
	for rest := data; len(rest) > 0; {
		if p.next == nil {
			p.next = make([]byte, 0, snapshotPiece)
		}
		n := min(len(rest), snapshotPiece-len(p.next))
		p.next, rest = append(p.next, rest[:n]...), rest[n:]
		if len(p.next) == snapshotPiece {
			if err := p.flush(); err != nil {
				return len(data) - len(rest), err
			}
		}
	}
	return len(data), nil
}

// flush sends what is left. A piece that was sent is gRPC's, and is not written to
// again.
func (p *pieces) flush() error {
	if len(p.next) == 0 {
		return nil
	}
	data := p.next
	p.next = nil
	return p.send(data)
}

// RestoreSnapshot puts another state in the place of the one that there is.
func (s clusterService) RestoreSnapshot(stream grpc.ClientStreamingServer[schedv1.RestoreSnapshotRequest, schedv1.RestoreSnapshotResponse]) error {
	r := &received{next: func() ([]byte, error) {
		piece, err := stream.Recv()
		return piece.GetData(), err
	}}
	if err := s.Cluster.RestoreSnapshot(stream.Context(), r); err != nil {
		return err
	}
	return stream.SendAndClose(&schedv1.RestoreSnapshotResponse{Status: s.showCluster()})
}

// received reads what comes in pieces.
type received struct {
	next func() ([]byte, error)
	rest []byte
	err  error // once there is nothing more
}

// Read implements [io.Reader].
func (r *received) Read(p []byte) (n int, err error) {
	for len(r.rest) == 0 && r.err == nil {
		r.rest, r.err = r.next()
	}
	if len(r.rest) == 0 {
		return 0, r.err
	}
	n = copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
