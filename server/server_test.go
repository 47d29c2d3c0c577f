package server

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// patience is how long a test waits for what has to happen. It is no measure of
// anything: only what is broken takes as long.
const patience = 2 * time.Minute

// localConfig is a primary on ports of its own.
func localConfig(t *testing.T) Config {
	c := DefaultConfig()
	c.DataDir, c.APIAddr, c.WebAddr, c.Cluster.Addr = t.TempDir(), "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	return c
}

// start runs a primary until the test ends.
func start(t *testing.T, c Config) *Server {
	t.Helper()
	s, err := Open(c, Seams{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// A primary gets ready by itself, and what watches it sees that.
func TestHealthAndMetrics(t *testing.T) {
	s := start(t, localConfig(t))
	web := "http://" + s.WebAddr()
	if code, body := get(t, web+"/healthz"); code != http.StatusOK || body != "ok\n" {
		t.Errorf("/healthz: %d %q", code, body)
	}
	deadline, tick := time.NewTimer(patience), time.NewTicker(20*time.Millisecond)
	defer deadline.Stop()
	defer tick.Stop()
	for ready := false; !ready; {
		code, body := get(t, web+"/readyz")
		switch ready = code == http.StatusOK; {
		case !ready && body != "catching up with the log\n" && body != "no link to the leader\n":
			t.Fatalf("/readyz: %d %q", code, body)
		case !ready:
			select {
			case <-deadline.C:
				t.Fatalf("not ready after %v", patience)
			case <-tick.C:
			}
		}
	}
	_, body := get(t, web+"/metrics")
	for _, name := range []string{
		`schedd_occurrences_total{decision="run"} 0`, "schedd_decision_lateness_seconds_bucket", "schedd_sessions 0",
		"schedd_leader 1", "schedd_state_clock_ahead_seconds 0", "schedd_history_bytes", "schedd_history_failed 0", "schedd_proposals_total", "schedd_apply_seconds_count", "schedd_jobs 0", "go_goroutines",
	} {
		if !strings.Contains(body, name) {
			t.Errorf("/metrics lacks %q", name)
		}
	}
	conn, err := grpc.NewClient("passthrough:///"+s.APIAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	stream, err := grpc_health_v1.NewHealthClient(conn).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "schedd.agent.v1.AgentGateway"})
	if err != nil {
		t.Fatal(err)
	}
	for serving := false; !serving; {
		answer, err := stream.Recv()
		if err != nil {
			t.Fatalf("gRPC health: %v", err)
		}
		serving = answer.GetStatus() == grpc_health_v1.HealthCheckResponse_SERVING
	}
}

// What keeps a primary from starting is said in a line that names it, and
// leaves nothing behind that would keep the next one from starting.
func TestCannotStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	c := localConfig(t)
	c.WebAddr = taken.Addr().String()
	if _, err := Open(c, Seams{}); err == nil || !strings.Contains(err.Error(), "address already in use") || !strings.Contains(err.Error(), "--web-addr") {
		t.Errorf("a port in use: %v", err)
	}
	c.WebAddr = "127.0.0.1:0"
	start(t, c)
	if _, err := Open(c, Seams{}); err == nil || !strings.Contains(err.Error(), c.DataDir) {
		t.Errorf("a data directory in use: %v", err)
	}
}
