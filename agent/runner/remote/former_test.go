package remote_test

import (
	"context"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/schedd/schedd/agent/runner/fakerunner"
	runnerv1 "github.com/schedd/schedd/proto/schedd/runner/v1"
)

// An agent of a version before revision 3 asks for each start by a call, and is told of one
// attempt in each message.
func TestAFormerAgent(t *testing.T) {
	does := map[string]fakerunner.Behaviour{"a/1": {Duration: time.Minute, ExitCode: 3}}
	story(t, does, func(h *host) {
		if err := h.launch(); err != nil {
			h.Fatal(err)
		}
		conn, err := grpc.NewClient("passthrough:///runner", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return h.dial(ctx) }))
		if err != nil {
			h.Fatal(err)
		}
		client := runnerv1.NewRunnerServiceClient(conn)
		stream, err := client.Watch(h.Context(), &runnerv1.WatchRequest{MinRevision: 1, MaxRevision: 2, Life: 1})
		if err != nil {
			h.Fatal(err)
		}
		hear := func() *runnerv1.WatchResponse {
			m, err := stream.Recv()
			if err != nil {
				h.Fatal(err)
			}
			return m
		}
		if m := hear(); m.GetHello().GetRevision() != 2 {
			h.Errorf("it begins with %v", m)
		}
		if m := hear(); m.GetSynced() == nil {
			h.Errorf("of nothing it tells %v", m)
		}
		resp, err := client.Start(h.Context(), &runnerv1.StartRequest{Life: 1, Id: "a/1", Argv: []string{"true"}})
		if err != nil || resp.GetAttempt().GetPid() == 0 || resp.GetAttempt().GetExit() != nil {
			h.Errorf("a start is answered with %v, %v", resp, err)
		}
		began := time.Now()
		if m := hear(); m.GetAttempt().GetExit().GetCode() != 3 || time.Since(began) != time.Minute {
			h.Errorf("after %v it tells %v", time.Since(began), m)
		}
		if err := conn.Close(); err != nil {
			h.Error(err)
		}
	})
}
