//go:build e2e && linux

package natlab_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/schedd/schedd/server/systest/natlab/faultnet"
)

// idle is the idle timeout of all load balancers here. It is short, so that three
// minutes of silence are many of them.
const idle = 15 * time.Second

const (
	// drain is how long a load balancer that was reloaded keeps connections of
	// before.
	drain = 10 * time.Second
	// connections is how many a load balancer has to take.
	connections = 4000
)

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
	{"haproxy-tcp", haproxy("haproxy-tcp.cfg")},
	{"haproxy-h2", haproxy("haproxy-h2.cfg")},
	{"nginx-grpc", newNginx},
	{"random-tcp", newPlain},
}

// shipped is where the configurations are that we ship.
const shipped = "../../../deploy/load-balancers"

// change is a change of a configuration: what matches becomes something else.
type change struct{ pattern, to string }

// configure writes a configuration that we ship to a directory of its own, with
// the addresses of a lab, timeouts that are short, and what else is asked for.
// Each change has to change something.
func configure(t *testing.T, name, addr string, backends []string, changes ...change) (dir, file string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(shipped, name))
	if err != nil {
		t.Fatal(err)
	}
	changes = append(changes, change{`((bind|listen) ):7421|(listen )7421`, "${1}${3}" + addr})
	for n := range 3 {
		name := fmt.Sprintf(`(?m)^( *server (p\d )?)p%d\.example:7421(.*)$`, n+1)
		if n < len(backends) {
			changes = append(changes, change{name, "${1}" + backends[n] + "${3}"})
		} else {
			changes = append(changes, change{name, ""})
		}
	}
	for _, c := range changes {
		pattern := regexp.MustCompile(c.pattern)
		if !pattern.Match(text) {
			t.Fatalf("%s/%s has nothing like %s, which should become %q", shipped, name, c.pattern, c.to)
		}
		text = pattern.ReplaceAll(text, []byte(c.to))
	}
	dir = t.TempDir()
	file = filepath.Join(dir, name)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, file
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

func haproxy(name string) func(*testing.T, *host, string, []string) balancer {
	return func(t *testing.T, h *host, addr string, backends []string) balancer {
		t.Helper()
		_, file := configure(t, name, addr, backends,
			change{`timeout (client|server) \S+`, "timeout $1 " + idle.String()},
			change{`hard-stop-after \S+`, "hard-stop-after " + drain.String()},
			change{` resolvers dns init-addr \S+`, ""}) // primaries are written as addresses
		return &program{owner: t, host: h, addr: addr, argv: []string{"haproxy", "-W", "-db", "-n", fmt.Sprint(connections), "-f", file}, again: syscall.SIGUSR2}
	}
}

func newNginx(t *testing.T, h *host, addr string, backends []string) balancer {
	t.Helper()
	dir, file := configure(t, "nginx.conf", addr, backends,
		change{`(client_body|grpc_read|grpc_send)_timeout \S+;`, "${1}_timeout " + idle.String() + ";"},
		change{`worker_shutdown_timeout \S+;`, "worker_shutdown_timeout " + drain.String() + ";"},
		change{`worker_processes auto;`, "worker_processes 2;"})
	global := fmt.Sprintf("daemon off; user root; pid %s/pid; worker_rlimit_nofile %d;", dir, 2*connections)
	return &program{owner: t, host: h, addr: addr, argv: []string{"nginx", "-p", dir, "-e", "stderr", "-c", file, "-g", global}, again: syscall.SIGHUP}
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
