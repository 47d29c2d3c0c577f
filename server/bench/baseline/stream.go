package baseline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Options are those of the connection that a stream goes over, so that it is like those
// it is compared with.
type Options struct {
	Server []grpc.ServerOption
	Dial   []grpc.DialOption
}

// copying is a method that takes bytes as a stream, and throws them away.
var copying = grpc.StreamDesc{StreamName: "Copy", ClientStreams: true, Handler: swallow}

const copyMethod = "/schedd.baseline/Copy"

func swallow(_ any, stream grpc.ServerStream) error {
	for {
		var piece wrapperspb.BytesValue
		if err := stream.RecvMsg(&piece); errors.Is(err, io.EOF) {
			return stream.SendMsg(&emptypb.Empty{})
		} else if err != nil {
			return err
		}
	}
}

// StreamCopy is how many bytes per second one gRPC stream carries over loopback, in
// pieces of the size given, with nothing done to them, for the time given.
func StreamCopy(ctx context.Context, o Options, piece int, span time.Duration) (perSecond float64, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("measure how fast gRPC copies: %w", err)
		}
	}()
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	server := grpc.NewServer(o.Server...)
	server.RegisterService(&grpc.ServiceDesc{ServiceName: "schedd.baseline", HandlerType: (*any)(nil), Streams: []grpc.StreamDesc{copying}}, struct{}{})
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	defer func() {
		server.Stop()
		err = errors.Join(err, <-served)
	}()
	conn, err := grpc.NewClient(l.Addr().String(), append(o.Dial, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }() // nothing is under way by then
	return pour(ctx, conn, piece, span)
}

// pour sends pieces until the time is over and all have arrived.
func pour(ctx context.Context, conn *grpc.ClientConn, piece int, span time.Duration) (perSecond float64, err error) {
	stream, err := conn.NewStream(ctx, &copying, copyMethod)
	if err != nil {
		return 0, err
	}
	message := wrapperspb.Bytes(make([]byte, piece))
	sent, begin := 0, time.Now()
	for time.Since(begin) < span {
		if err := stream.SendMsg(message); err != nil {
			return 0, errors.Join(err, stream.RecvMsg(&emptypb.Empty{}))
		}
		sent += piece
	}
	if err := errors.Join(stream.CloseSend(), stream.RecvMsg(&emptypb.Empty{})); err != nil {
		return 0, err
	}
	return float64(sent) / time.Since(begin).Seconds(), nil
}
