package remote_test

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"github.com/schedd/schedd/agent/runner/fakerunner"
	"github.com/schedd/schedd/agent/runner/remote"
	runnerv1 "github.com/schedd/schedd/proto/schedd/runner/v1"
)

func troubleOf(r *remote.Runner) string {
	why, _ := r.Trouble()
	return why
}

// A runner that stands still, by SIGSTOP or on a disk that hangs, keeps its connection. It
// is noticed by that it does not answer.
func TestRunnerStandsStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		socket, server := bufconn.Listen(1<<16), grpc.NewServer()
		slow := new(still)
		runnerv1.RegisterRunnerServiceServer(server, slow)
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := server.Serve(socket); err != nil {
				t.Error(err)
			}
		})
		r, err := remote.Open(t.Context(), remote.Options{Life: 1, Log: slog.New(slog.DiscardHandler), Dial: func(ctx context.Context) (net.Conn, error) { return socket.DialContext(ctx) }, Uptime: uptime})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		why, changed := r.Trouble()
		if why != "" {
			t.Errorf("one that answers is in trouble: %s", why)
		}
		slow.halted.Store(true)
		begun := time.Now()
		select {
		case <-changed:
		case <-time.After(time.Minute):
		}
		if why := troubleOf(r); !strings.Contains(why, "process 1, has not answered for 10s") || time.Since(begun) > 16*time.Second {
			t.Errorf("after %v: %q", time.Since(begun), why)
		}
		slow.halted.Store(false)
		time.Sleep(10 * time.Second)
		if why := troubleOf(r); why != "" {
			t.Errorf("it answers, and is in trouble: %s", why)
		}
		r.Close()
		server.Stop()
		wg.Wait()
	})
}

// still is a runner that stands still at times.
type still struct {
	old
	halted atomic.Bool
}

func (s *still) Check(ctx context.Context, _ *runnerv1.CheckRequest) (*runnerv1.CheckResponse, error) {
	if s.halted.Load() {
		<-ctx.Done()
	}
	return &runnerv1.CheckResponse{}, nil
}

// A runner of a version that does not know the question has answered. One that can't be
// reached for long is in trouble, until it is there.
func TestTroubleOfARunner(t *testing.T) {
	story(t, map[string]fakerunner.Behaviour{}, func(h *host) {
		r := h.agent()
		h.wait(time.Minute)
		if why := troubleOf(r); why != "" {
			t.Errorf("in trouble: %s", why)
		}
		h.part(true)
		h.wait(9 * time.Second)
		if why := troubleOf(r); why != "" {
			t.Errorf("at once in trouble: %s", why)
		}
		h.wait(10 * time.Second)
		if why := troubleOf(r); !strings.Contains(why, "no runner for 10s") {
			t.Errorf("told %q", why)
		}
		h.part(false)
		h.wait(10 * time.Second)
		if why := troubleOf(r); why != "" {
			t.Errorf("back, and in trouble: %s", why)
		}
		r.Close()
	})
}
