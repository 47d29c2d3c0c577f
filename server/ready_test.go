package server

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore"
)

// wait lets time pass, and everything happen that is due by then.
func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// isReady checks what load balancers are told, by either way to ask.
func isReady(t *testing.T, when string, s *Server, why string) {
	t.Helper()
	if is := s.unready(); why == "" && is != "" || !strings.Contains(is, why) {
		t.Errorf("%s: not ready, since %q, want %q", when, is, why)
	}
	want := grpc_health_v1.HealthCheckResponse_SERVING
	if why != "" {
		want = grpc_health_v1.HealthCheckResponse_NOT_SERVING
	}
	r, err := s.health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "schedd.agent.v1.AgentGateway"})
	if err != nil || r.GetStatus() != want {
		t.Errorf("%s: %v, %v, want %v", when, r.GetStatus(), err, want)
	}
}

// A primary whose disk is full is not ready, and is again when there is room.
func TestNotReadyWithAFullDisk(t *testing.T) {
	bubbled(t, func(t *testing.T, s *Server, disk *raftstore.Memory) {
		isReady(t, "at first", s, "")
		disk.Fail(syscall.ENOSPC)
		if err := s.store.AddServer(t.Context(), raftstore.Server{ID: "b", Address: "b:1"}); err == nil {
			t.Error("what can't be written is agreed")
		}
		wait(5 * time.Second)
		isReady(t, "with a full disk", s, "the log can't be written: writing CurrentTerm: write raft.db: no space left on device")
		disk.Fail(nil)
		wait(10 * time.Second)
		isReady(t, "when there is room", s, "")
		answers := make(chan struct{})
		disk.BeforeWrite(func() { <-answers })
		if err := s.store.AddServer(t.Context(), raftstore.Server{ID: "c", Address: "c:1"}); err == nil {
			t.Error("what the disk does not answer is agreed")
		}
		wait(5 * time.Second)
		isReady(t, "with a disk that hangs", s, "the disk has not answered for more than 10s")
		close(answers)
		disk.BeforeWrite(nil)
		wait(10 * time.Second)
		isReady(t, "once it answers", s, "")
	})
}

// A primary whose store has stopped or failed is not ready, though it ends by itself
// soon.
func TestNotReadyWithoutAStore(t *testing.T) {
	s, err := Open(localConfig(t), Seams{Memory: raftstore.NewMemory(), Listen: newPort, ListenCluster: newPort})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.store.Close(); err != nil {
		t.Fatal(err)
	}
	if is := s.unready(); is != "the store has stopped" {
		t.Errorf("not ready, since %q", is)
	}
	if err := s.release(); err != nil {
		t.Error(err)
	}
}

// A primary that waits to be taken into a group tells how it is, and nothing that
// it does not know.
func TestStatusWhileJoining(t *testing.T) {
	c := localConfig(t)
	c.Cluster.Join = "127.0.0.1:1" // nobody is there
	s := start(t, c)
	conn, err := grpc.NewClient("passthrough:///"+s.APIAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := schedv1.NewClusterServiceClient(conn).GetStatus(ctx, &schedv1.GetStatusRequest{})
	if err != nil || r.GetStatus().GetLeaderId() != "" || len(r.GetStatus().GetPrimaries()) != 0 {
		t.Errorf("status: %v, %v, want one of nobody", r, err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := schedv1.NewJobServiceClient(conn).ListJobs(ctx, &schedv1.ListJobsRequest{}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("jobs: %v, want that it waits", err)
	}
}
