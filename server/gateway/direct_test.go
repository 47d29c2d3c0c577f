package gateway_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/schedd/schedd/agent"
	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
	"github.com/schedd/schedd/server/gateway"
	"github.com/schedd/schedd/server/runlog"
)

// shop is a real worker that listens, with a job that takes 90 minutes.
type shop struct {
	listener *bufconn.Listener
	output   []byte
	starts   int
}

// openShop runs it until the test ends.
func openShop(t *testing.T) *shop {
	s := &shop{listener: bufconn.Listen(64 << 10), output: bytes.Repeat([]byte("0123456789abcdef"), 20_000)}
	host := fakerunner.New(func(runner.Spec) fakerunner.Behaviour {
		s.starts++
		half := len(s.output) / 2
		return fakerunner.Behaviour{Duration: 90 * time.Minute, Output: []fakerunner.Chunk{
			{Data: s.output[:half]}, {After: 80 * time.Minute, Data: s.output[half:]},
		}}
	})
	c := agent.DefaultConfig()
	c.Name, c.DataDir, c.Server, c.DirectListen = "shop-1", t.TempDir(), "", "127.0.0.1:7422"
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		err := agent.Run(ctx, c, agent.Seams{
			Log: slog.New(slog.DiscardHandler), Runner: host,
			Listen: func(context.Context, string) (net.Listener, error) { return s.listener, nil },
		})
		if err != nil {
			t.Errorf("worker: %v", err)
		}
	})
	t.Cleanup(func() {
		stop()
		running.Wait()
		host.Close()
	})
	return s
}

func (s *shop) dial(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address, append(wire.DialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return s.listener.DialContext(ctx) }))...)
}

// dialling is a primary that only dials.
type dialling struct {
	*gateway.Server
	leader *leader
	logs   *logs
}

func diallingPrimary(t *testing.T, id string, dial func(string) (*grpc.ClientConn, error)) *dialling {
	p := &dialling{leader: &leader{}, logs: newLogs()}
	p.Server = gateway.New(gateway.Config{
		PrimaryID: id, Leader: p.leader, Logs: p.logs, DialWorker: dial, Log: slog.New(slog.DiscardHandler),
	})
	t.Cleanup(func() {
		if err := p.Close(context.Background()); err != nil {
			t.Errorf("close %s: %v", id, err)
		}
	})
	return p
}

// A worker in direct mode is passed from one primary to another, and each renews
// its session each hour, and neither the worker nor its job notices.
func TestDirectWorkerIsPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		worker := openShop(t)
		first, second := diallingPrimary(t, "p1", worker.dial), diallingPrimary(t, "p2", worker.dial)
		first.Dial([]string{there})
		time.Sleep(time.Second)
		at := first.Sessions()
		if len(at) != 1 {
			t.Fatalf("sessions %v", at)
		}
		first.Send(at[0].Worker, at[0].Epoch, &agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Launch{Launch: &agentv1.Launch{
			Key: attempt("r"), Fence: 7, Task: &agentv1.Task{Argv: []string{"true"}}, StartWithin: durationpb.New(time.Minute), LogLimitBytes: 64 << 20,
		}}})
		for range 4 * 60 {
			time.Sleep(time.Minute)
			if len(first.Sessions())+len(second.Sessions()) == 0 {
				t.Fatal("the worker has no session")
			}
			if now := second.Sessions(); time.Since(at[0].Connected) > 70*time.Minute && len(now) == 0 {
				second.Dial([]string{there}) // before the first one lets go
				first.Dial(nil)
			}
		}

		synctest.Wait()
		if got := second.logs.bytes[runlog.Key{Run: "r", Attempt: 1, Fence: 7}]; !bytes.Equal(got, worker.output) || worker.starts != 1 {
			t.Errorf("the second primary has %d bytes of output, want %d, of one start; got %d", len(got), len(worker.output), worker.starts)
		}
		results := 0
		for _, m := range second.leader.reports {
			if r := m.GetResult(); r.GetOutcome() == agentv1.Outcome_OUTCOME_SUCCEEDED && r.GetFence() == 7 {
				results++
			}
		}
		if results == 0 {
			t.Error("the second primary has not heard of the result")
		}
		for _, p := range []*dialling{first, second} {
			attached := strings.Count(strings.Join(p.leader.told(), "\n"), "attach")
			if attached < 2 || attached > 4 {
				t.Errorf("%d sessions, want a new one each hour", attached)
			}
		}
	})
}
