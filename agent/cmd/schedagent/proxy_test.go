package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"syscall"
	"testing"

	"google.golang.org/grpc"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
)

// doorman is a gateway that sends everybody away with the same words.
type doorman struct {
	agentv1.UnimplementedAgentGatewayServer
}

func (doorman) Connect(stream agentv1.AgentGateway_ConnectServer) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	return stream.Send(&agentv1.GatewayMessage{Body: &agentv1.GatewayMessage_Reject{Reject: &agentv1.Reject{Reason: "the doorman says no"}}})
}

// serve runs a gateway on a port of this host until the test ends.
func serve(t *testing.T, g agentv1.AgentGatewayServer) (address string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(wire.ServerOptions()...)
	agentv1.RegisterAgentGatewayServer(server, g)
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(l); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(func() {
		server.Stop()
		serving.Wait()
	})
	return l.Addr().String()
}

// proxy is an HTTP proxy that knows one name, and where that is.
type proxy struct {
	name, address string
	asked         chan string // for what
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case p.asked <- r.Method + " " + r.Host:
	default: // the first few are enough
	}
	if r.Method != http.MethodConnect || r.Host != p.name {
		http.Error(w, "unknown", http.StatusBadGateway)
		return
	}
	there, err := new(net.Dialer).DialContext(r.Context(), "tcp", p.address)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer func() { _ = there.Close() }()
	here, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = here.Close() }()
	if _, err := io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(here, there)
		_ = here.Close()
	})
	_, _ = io.Copy(there, buffered)
	_ = there.Close()
	back.Wait()
}

// Behind a proxy the worker reaches a name that only the proxy knows: the name is
// not looked up here, and the session runs through the tunnel. It needs a
// process of its own, since the environment is read once in a process, and a
// name other than localhost, for which no proxy is ever asked.
func TestProxy(t *testing.T) {
	const primary = "primary.invalid:7421"
	p := &proxy{name: primary, address: serve(t, doorman{}), asked: make(chan string, 10)}
	server := httptest.NewServer(p)
	defer server.Close()

	cmd, lines := programIn(t, []string{"HTTPS_PROXY=" + server.URL, "NO_PROXY="},
		"run", "--data-dir", t.TempDir(), "--server", primary, "--insecure", "--name", "a")
	await(t, lines, "the doorman says no")
	if got := <-p.asked; got != "CONNECT "+primary {
		t.Errorf("the proxy was asked for %q", got)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	await(t, lines, "worker stopped")
	if err := cmd.Wait(); err != nil {
		t.Errorf("the worker ended with %v", err)
	}
}
