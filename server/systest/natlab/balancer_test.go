//go:build e2e && linux

package natlab_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/template"
	"time"

	"github.com/schedd/schedd/server/systest/natlab/faultnet"
)

// idle is the idle timeout of all load balancers here. It is short, so that three
// minutes of silence are many of them.
const idle = 15 * time.Second

// balancer is a load balancer on its host.
type balancer interface {
	// start starts it, and waits until it accepts connections.
	start(t *testing.T)
	// stop ends it, and with it all connections.
	stop(t *testing.T)
	// reload does what an operator does when the configuration has changed.
	reload(t *testing.T)
}

// kind is a kind of load balancer.
type kind struct {
	name string
	make func(t *testing.T, h *host, addr string, backends []string) balancer
}

// kinds are those that all has to work with.
var kinds = []kind{
	{"haproxy-tcp", haproxy(haproxyTCP)},
	{"haproxy-h2", haproxy(haproxyH2)},
	{"nginx-grpc", newNginx},
	{"random-tcp", newPlain},
}

// The configurations are those of deploy/load-balancers, but for the timeouts.
const (
	haproxyTCP = `
global
  maxconn 8000
  hard-stop-after 10s
defaults
  mode tcp
  timeout connect 1s
  timeout client {{.Idle}}
  timeout server {{.Idle}}
  timeout tunnel {{.Idle}}
  retries 3
  option redispatch
listen schedd
  bind {{.Addr}}
  balance leastconn
  default-server check inter 500ms fall 2 rise 1
{{range $i, $addr := .Backends}}  server p{{$i}} {{$addr}}
{{end}}`
	haproxyH2 = `
global
  maxconn 8000
  hard-stop-after 10s
defaults
  mode http
  timeout connect 1s
  timeout client {{.Idle}}
  timeout server {{.Idle}}
  timeout http-request 10s
  retries 3
  option redispatch
listen schedd
  bind {{.Addr}} proto h2
  balance leastconn
  default-server check inter 500ms fall 2 rise 1 proto h2
{{range $i, $addr := .Backends}}  server p{{$i}} {{$addr}}
{{end}}`
	nginxGRPC = `
daemon off;
user root;
worker_processes 2;
worker_rlimit_nofile 16384;
worker_shutdown_timeout 10s;
pid {{.Dir}}/pid;
error_log stderr warn;
events { worker_connections 8000; }
http {
  access_log off;
  client_body_temp_path {{.Dir}}/body;
  proxy_temp_path {{.Dir}}/proxy;
  fastcgi_temp_path {{.Dir}}/fastcgi;
  uwsgi_temp_path {{.Dir}}/uwsgi;
  scgi_temp_path {{.Dir}}/scgi;
  upstream primaries {
{{range .Backends}}    server {{.}} max_fails=1 fail_timeout=1s;
{{end}}  }
  server {
    listen {{.Addr}} http2;
    client_max_body_size 0;
    client_body_timeout {{.Idle}};
    send_timeout {{.Idle}};
    keepalive_timeout {{.Idle}};
    location / {
      grpc_pass grpc://primaries;
      grpc_connect_timeout 1s;
      grpc_read_timeout {{.Idle}};
      grpc_send_timeout {{.Idle}};
      grpc_socket_keepalive on;
    }
  }
}`
)

// configure writes a configuration to a directory of its own.
func configure(t *testing.T, text, addr string, backends []string) (file string) {
	t.Helper()
	dir := t.TempDir()
	var b strings.Builder
	err := template.Must(template.New("").Parse(text)).Execute(&b, map[string]any{
		"Addr": addr, "Backends": backends, "Dir": dir, "Idle": idle.String(),
	})
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, "conf")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// program is a load balancer that is somebody else's program.
type program struct {
	owner *testing.T
	host  *host
	addr  string
	argv  []string
	again syscall.Signal // reloads it
	*process
}

func haproxy(text string) func(*testing.T, *host, string, []string) balancer {
	return func(t *testing.T, h *host, addr string, backends []string) balancer {
		file := configure(t, text, addr, backends)
		return &program{owner: t, host: h, addr: addr, argv: []string{"haproxy", "-W", "-db", "-f", file}, again: syscall.SIGUSR2}
	}
}

func newNginx(t *testing.T, h *host, addr string, backends []string) balancer {
	t.Helper()
	file := configure(t, nginxGRPC, addr, backends)
	return &program{owner: t, host: h, addr: addr, argv: []string{"nginx", "-e", "stderr", "-c", file}, again: syscall.SIGHUP}
}

func (b *program) start(t *testing.T) {
	t.Helper()
	b.process = b.host.start(b.owner, b.argv[0], b.argv...)
	answers(t, b.host, b.addr)
}

func (b *program) stop(*testing.T) { b.end() }

func (b *program) reload(t *testing.T) {
	t.Helper()
	b.signal(t, b.again)
}

// answers waits until somebody listens at an address of h.
func answers(t *testing.T, h *host, addr string) {
	t.Helper()
	await(t, "the load balancer answers", func() (bool, any) {
		conn, err := h.dial(t.Context(), addr)
		if err != nil {
			return false, err
		}
		return true, conn.Close()
	})
}

// plain is a load balancer of ours: it takes a primary at random, knows nothing
// of what it carries or of who is well, and forgets who is silent.
type plain struct {
	host  *host
	addr  string
	proxy *faultnet.Proxy
	quit  context.CancelFunc
	wg    sync.WaitGroup
}

func newPlain(t *testing.T, h *host, addr string, backends []string) balancer {
	t.Helper()
	b := &plain{host: h, addr: addr, proxy: faultnet.New(faultnet.Random(h.dial, backends...)), quit: func() {}}
	b.proxy.Set(faultnet.Conditions{IdleTimeout: idle})
	t.Cleanup(func() { b.stop(t) })
	return b
}

func (b *plain) start(t *testing.T) {
	t.Helper()
	ctx, quit := context.WithCancel(context.WithoutCancel(t.Context())) // it outlives a part of a test
	l, err := b.host.listen(ctx, b.addr)
	if err != nil {
		quit()
		t.Fatal(err)
	}
	b.quit = quit
	b.wg.Go(func() {
		if err := b.proxy.Serve(ctx, l); err != nil {
			t.Errorf("the load balancer: %v", err)
		}
	})
}

func (b *plain) stop(*testing.T) {
	b.quit()
	b.wg.Wait()
}

// reload drops all connections, for want of a configuration.
func (b *plain) reload(*testing.T) { b.proxy.Reset() }
