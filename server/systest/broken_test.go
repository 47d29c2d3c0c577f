package systest

import (
	"context"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/schedd/schedd/proto/wire"
)

// A connection that the other end has closed is broken both ways, also while what that end
// has sent is held up: who writes is told, and who reads as well. Of one that is broken in
// one direction alone, which no kernel has, gRPC takes new calls again and again, in no
// time at all, and no clock of a bubble goes on.
func TestBrokenConnectionIsBrokenBothWays(t *testing.T) {
	story(t, func(w *world) {
		server := grpc.NewServer(wire.ServerOptions()...)
		healthv1.RegisterHealthServer(server, health.NewServer())
		var serving sync.WaitGroup
		listener := w.net.listen(port{"server", apiPort})
		serving.Go(func() { _ = server.Serve(listener) }) // it ends when it is stopped
		conn := must[*grpc.ClientConn](w)(grpc.NewClient("passthrough:///server:"+apiPort, append(wire.DialOptions(),
			grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(w.own.dial))...))
		defer func() { _ = conn.Close() }()
		check := func() error {
			ctx, cancel := context.WithTimeout(w.Context(), time.Second)
			defer cancel()
			_, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{})
			return err
		}
		if err := check(); err != nil {
			w.Fatalf("the server does not answer: %v", err)
		}
		w.net.mute(way{"server", "client"})
		server.Stop()
		serving.Wait()
		for range 3 { // the first call finds out, and the next ones would be taken again and again
			time.Sleep(time.Second)
			if err := check(); !noAnswer(err) {
				w.Errorf("a call over a connection that was closed: %v, want no answer", err)
			}
		}
		w.net.unmute()
	})
}
