package remote_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
	"github.com/schedd/schedd/agent/runner/remote"
	runnerv1 "github.com/schedd/schedd/proto/schedd/runner/v1"
)

// uptime is the clock of the fake's host.
func uptime() (time.Duration, bool) { return fakerunner.New(nil).Uptime() }

// deadline is so long from now on that clock.
func deadline(d time.Duration) time.Duration {
	now, _ := uptime()
	return now + d
}

func (h *host) lease(r *remote.Runner, id string, d time.Duration) runner.Process {
	h.Helper()
	now, _ := r.Uptime()
	p, err := r.Start(runner.Spec{ID: id, KillGrace: 10 * time.Second, LeaseEnd: now + d})
	if err != nil {
		h.Fatal(err)
	}
	return p
}

func (h *host) renew(r *remote.Runner, id string, d time.Duration) {
	now, _ := r.Uptime()
	r.Renew(map[string]time.Duration{id: now + d})
	h.wait(0)
}

// An agent renews a lease and then dies, or is stopped by SIGSTOP. The runner ends what
// runs when the lease is over all the same, and the next agent is told why.
func TestLeaseWithoutAnAgent(t *testing.T) {
	does := map[string]fakerunner.Behaviour{"a/1": {Duration: -1}, "b/1": {Duration: -1, IgnoreTerm: true}}
	story(t, does, func(h *host) {
		r := h.agent()
		began := time.Now()
		h.lease(r, "a/1", time.Minute)
		h.lease(r, "b/1", time.Minute)
		h.wait(50 * time.Second)
		h.renew(r, "a/1", 2*time.Minute)
		r.Close()
		h.wait(time.Hour)
		r = h.agent()
		known := r.Known()
		for id, want := range map[string]runner.Exit{
			"a/1": {Code: 143, Signal: "SIGTERM", LeaseExpired: true, Reason: "its lease expired, ended after SIGTERM", Finished: began.Add(170 * time.Second)},
			"b/1": {Code: 137, Signal: "SIGKILL", LeaseExpired: true, Reason: "its lease expired, did not end after SIGTERM and was ended with SIGKILL", Finished: began.Add(70 * time.Second)},
		} {
			want.Started, want.Finished = began.UTC(), want.Finished.UTC()
			if got := known[id].Exit(); got != want {
				t.Errorf("%s ended with %+v, want %+v", id, got, want)
			}
		}
		r.Close()
	})
}

// The runner is told by when to start, and goes by its own clock: it stood still, perhaps,
// after it had been asked.
func TestDeadlineIsTheRunners(t *testing.T) {
	story(t, map[string]fakerunner.Behaviour{"a/1": {Duration: -1}}, func(h *host) {
		r := h.agent()
		h.asked = func(string) { time.Sleep(time.Hour) }
		_, err := r.Start(runner.Spec{ID: "a/1", Deadline: deadline(time.Minute)})
		if err == nil || !strings.Contains(err.Error(), runner.ErrLate.Error()) {
			t.Errorf("told %v", err)
		}
		if got := h.present().fake.Running(); len(got) > 0 {
			t.Errorf("%q runs", got)
		}
		r.Close()
	})
}

// A new agent goes on renewing what the last one has left.
func TestLeaseGoesOnWithTheNextAgent(t *testing.T) {
	story(t, map[string]fakerunner.Behaviour{"a/1": {Duration: 10 * time.Minute, ExitCode: 3}}, func(h *host) {
		r := h.agent()
		h.lease(r, "a/1", time.Minute)
		for range 20 {
			h.wait(40 * time.Second)
			r.Close()
			r = h.agent()
			h.renew(r, "a/1", time.Minute)
		}
		if e := r.Known()["a/1"].Exit(); e.Code != 3 || e.LeaseExpired {
			t.Errorf("exit %+v", e)
		}
		r.Close()
	})
}

// What the runner could not be told it is told when there is a link again; but a lease
// that is over by then stays so.
func TestLeaseWhileTheLinkIsBroken(t *testing.T) {
	for name, test := range map[string]struct {
		away    time.Duration
		expired bool
	}{"for a moment": {10 * time.Second, false}, "for too long": {2 * time.Minute, true}} {
		t.Run(name, func(t *testing.T) {
			story(t, map[string]fakerunner.Behaviour{"a/1": {Duration: 4 * time.Minute}}, func(h *host) {
				r := h.agent()
				p := h.lease(r, "a/1", time.Minute)
				h.part(true)
				h.wait(time.Second)
				h.renew(r, "a/1", 10*time.Minute)
				h.wait(test.away)
				h.part(false)
				h.wait(5 * time.Minute)
				if e := p.Exit(); e.Finished.IsZero() || e.LeaseExpired != test.expired {
					t.Errorf("exit %+v", e)
				}
				r.Close()
			})
		})
	}
}

// A runner of a version that knows of no leases is given nothing that needs one, and
// the agent can tell.
func TestLeaseAndAnOldRunner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		socket, server := bufconn.Listen(1<<16), grpc.NewServer()
		runnerv1.RegisterRunnerServiceServer(server, old{})
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
		if _, ok := r.Uptime(); ok {
			t.Error("it says that it keeps leases")
		}
		if _, err := r.Start(runner.Spec{ID: "a/1", LeaseEnd: time.Hour}); !errors.Is(err, runner.ErrNoLeases) {
			t.Errorf("told %v", err)
		}
		if p, err := r.Start(runner.Spec{ID: "b/1"}); err != nil || p.PID() != 7 {
			t.Errorf("what needs none is started as %v, %v", p, err)
		}
		r.Close()
		server.Stop()
		wg.Wait()
	})
}

// old is a runner that speaks revision 1.
type old struct {
	runnerv1.UnimplementedRunnerServiceServer
}

func (old) Watch(_ *runnerv1.WatchRequest, stream grpc.ServerStreamingServer[runnerv1.WatchResponse]) error {
	for _, m := range []*runnerv1.WatchResponse{
		{Body: &runnerv1.WatchResponse_Hello{Hello: &runnerv1.Hello{Revision: 1, MinRevision: 1, MaxRevision: 1, Instance: "old", Pid: 1}}},
		{Body: &runnerv1.WatchResponse_Synced{Synced: &runnerv1.Synced{}}},
	} {
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	<-stream.Context().Done()
	return nil
}

func (old) Start(_ context.Context, m *runnerv1.StartRequest) (*runnerv1.StartResponse, error) {
	return &runnerv1.StartResponse{Attempt: &runnerv1.Attempt{Id: m.GetId(), Pid: 7}}, nil
}
