//go:build e2e && linux

package natlab_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// The addresses of every lab. Those of workers are private, and all the same.
const (
	balancerAddr = "203.0.113.10:7421"
	privateIP    = "10.0.0.2"
	hostname     = "shop"
)

// lab is a public network with primaries and a load balancer, and private
// networks with workers:
//
//	p1  p2  p3  balancer          203.0.113.11-13, .10
//	 └───┴───┴─────┴────┬────┬────┬── wire, where the test stands: 203.0.113.1
//	                 router  …    …   203.0.113.101-103, MASQUERADE
//	                    │    │    │
//	                 wa.shop …    …   10.0.0.2, all three
type lab struct {
	owner     *testing.T // whose end is the end of the lab
	wire      *host
	primaries []*primary
	balancer  balancer
	a, b      *worker
	spare     *private // a private network where nobody is yet
	seen      seen
	file      string // where processes of jobs say that they ran
}

// newLab builds a lab and starts the primaries and the load balancer.
func newLab(t *testing.T, k kind, primaries int) *lab {
	t.Helper()
	l := &lab{owner: t, wire: newHost(t, "wire"), file: filepath.Join(t.TempDir(), "effects")}
	t.Cleanup(func() { l.clear(t) }) // after the programs have ended: a later cleanup runs earlier
	l.wire.ip(t, "link add br0 type bridge")
	l.wire.ip(t, "addr add 203.0.113.1/24 dev br0")
	l.wire.ip(t, "link set br0 up")
	var backends []string
	group := l.group(t, primaries)
	for n := range primaries {
		p := l.newPrimary(t, n+1, group)
		l.primaries = append(l.primaries, p)
		backends = append(backends, p.api)
	}
	l.balancer = k.make(t, l.public(t, "balancer", "203.0.113.10"), balancerAddr, backends)
	l.a = l.newWorker(t, "wa", l.newPrivate(t, 1))
	l.b = l.newWorker(t, "wb", l.newPrivate(t, 2))
	l.spare = l.newPrivate(t, 3)
	for _, p := range l.primaries {
		p.launch(t)
	}
	for _, p := range l.primaries {
		p.ready(t)
		l.unreachable(t, p)
	}
	l.balancer.start(t)
	return l
}

// clear ends the processes of jobs that were left behind.
func (l *lab) clear(t *testing.T) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Error(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		env, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "environ")) // it may have ended
		if strings.Contains(string(env), "LAB_FILE="+l.file+"\x00") {
			t.Logf("left behind: process %d", pid)
			_ = syscall.Kill(pid, syscall.SIGKILL) // likewise
		}
	}
}

// public makes a host in the public network.
func (l *lab) public(t *testing.T, name, ip string) *host {
	t.Helper()
	h := newHost(t, name)
	h.join(t, "eth0", ip+"/24", l.wire, name)
	l.wire.ip(t, "link set "+name+" master br0")
	return h
}

// private is a private network: a worker's host, and the router before it.
type private struct{ host, router *host }

// newPrivate makes a private network.
func (l *lab) newPrivate(t *testing.T, n int) *private {
	t.Helper()
	p := &private{
		router: l.public(t, fmt.Sprint("router", n), fmt.Sprint("203.0.113.", 100+n)),
		host:   newHost(t, fmt.Sprint("shop", n)),
	}
	p.router.join(t, "eth1", "10.0.0.1/24", p.host, "eth0")
	p.host.ip(t, "addr add "+privateIP+"/24 dev eth0")
	p.host.ip(t, "route add default via 10.0.0.1")
	p.router.sysctl(t, "ipv4/ip_forward", "1")
	p.router.iptables(t, "-t nat -A POSTROUTING -o eth0 -j MASQUERADE")
	// A flow that the router does not know is none of its business, as in most
	// routers; the kernel would take up connections from the middle.
	p.router.iptables(t, "-A FORWARD -m conntrack --ctstate INVALID -j DROP")
	p.router.sysctl(t, "netfilter/nf_conntrack_tcp_loose", "0")
	return p
}

// cut lets everything vanish that the router should pass on, until mend.
func (p *private) cut(t *testing.T) {
	t.Helper()
	p.router.iptables(t, "-I FORWARD -j DROP")
}

func (p *private) mend(t *testing.T) {
	t.Helper()
	p.router.iptables(t, "-D FORWARD -j DROP")
}

// unreachable asserts that a primary has no way to a worker.
func (l *lab) unreachable(t *testing.T, p *primary) {
	t.Helper()
	for _, ip := range []string{privateIP, "10.0.0.1"} {
		conn, err := p.host.dial(t.Context(), net.JoinHostPort(ip, "7421"))
		if !errors.Is(err, syscall.ENETUNREACH) {
			t.Fatalf("%s dials %s and gets %v, %v; want that the network is unreachable", p.id, ip, conn, err)
		}
	}
}

// primary is a host where a schedd lives, and the one that lives there now.
type primary struct {
	owner             *testing.T
	id, dir, api, web string
	host              *host
	flags             []string
	*process          // nil before the first start

	jobs    schedv1.JobServiceClient
	runs    schedv1.RunServiceClient
	workers schedv1.WorkerServiceClient
	cluster schedv1.ClusterServiceClient
}

// group is how primaries are told that they belong together, in the words of
// their command line.
func (l *lab) group(t *testing.T, primaries int) []string {
	t.Helper()
	if primaries == 1 {
		return nil
	}
	key, err := exec.CommandContext(t.Context(), built("schedd"), "keygen").Output()
	if err != nil {
		t.Fatalf("make a cluster key: %v", err)
	}
	file := filepath.Join(t.TempDir(), "cluster.key")
	if err := os.WriteFile(file, key, 0o600); err != nil {
		t.Fatal(err)
	}
	var join []string
	for n := range primaries {
		join = append(join, primaryIP(n+1)+":7420")
	}
	return []string{"--bootstrap-expect", fmt.Sprint(primaries), "--join", strings.Join(join, ","), "--cluster-key", file}
}

func primaryIP(n int) string { return fmt.Sprint("203.0.113.", 10+n) }

func (l *lab) newPrimary(t *testing.T, n int, group []string) *primary {
	t.Helper()
	ip := primaryIP(n)
	p := &primary{owner: t, id: fmt.Sprint("p", n), dir: filepath.Join(t.TempDir(), "primary"), api: ip + ":7421", web: ip + ":7480"}
	p.host = l.public(t, p.id, ip)
	if group != nil {
		p.flags = append([]string{"--cluster-addr", ip + ":7420"}, group...)
	}
	params := grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: look, Multiplier: 1.5, MaxDelay: 10 * look},
		MinConnectTimeout: time.Second,
	}
	conn, err := grpc.NewClient("passthrough:///"+p.api,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithConnectParams(params),
		grpc.WithContextDialer(l.wire.dial), grpc.WithUnaryInterceptor(l.seen.unary), grpc.WithStreamInterceptor(l.seen.stream),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	p.jobs, p.runs = schedv1.NewJobServiceClient(conn), schedv1.NewRunServiceClient(conn)
	p.workers, p.cluster = schedv1.NewWorkerServiceClient(conn), schedv1.NewClusterServiceClient(conn)
	return p
}

// launch starts the primary, and does not wait for anything.
func (p *primary) launch(t *testing.T) {
	t.Helper()
	p.process = p.host.start(p.owner, p.id, append([]string{
		built("schedd"), "serve", "--node-id", p.id, "--data-dir", p.dir, "--api-addr", p.api, "--web-addr", p.web,
		"--insecure", "--log-format", "json", "--log-level", "debug",
	}, p.flags...)...)
	if t.Failed() {
		t.FailNow()
	}
}

// ready waits until the primary takes calls.
func (p *primary) ready(t *testing.T) {
	t.Helper()
	await(t, p.id+" is ready", func() (bool, any) {
		select {
		case <-p.exited:
			t.Fatalf("%s ended with exit code %d", p.id, p.code)
		default:
		}
		code, text := p.get(t.Context(), "/readyz")
		return code == http.StatusOK, text
	})
}

// get asks the web address, and returns code 0 when nobody answers.
func (p *primary) get(ctx context.Context, path string) (code int, text string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.web+path, nil)
	if err != nil {
		return 0, err.Error()
	}
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, addr string) (net.Conn, error) { return p.host.dial(ctx, addr) },
	}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(body)
}

// worker is a place where a schedagent lives, and the one that lives there now.
type worker struct {
	owner     *testing.T
	name, dir string
	server    string // where it dials,
	listen    string // or, if not empty, is dialled
	net       *private
	*process  // nil before the first start
}

func (l *lab) newWorker(t *testing.T, name string, net *private) *worker {
	t.Helper()
	return &worker{owner: t, name: name, dir: filepath.Join(t.TempDir(), name), server: balancerAddr, net: net}
}

// launch starts the worker on a host with the same name as all.
func (w *worker) launch(t *testing.T) {
	t.Helper()
	way := []string{"--server", w.server}
	if w.listen != "" {
		way = []string{"--direct-listen", w.listen}
	}
	as := `hostname ` + hostname + ` && exec "$@"`
	w.process = w.net.host.start(w.owner, w.name, append([]string{
		"unshare", "--uts", "sh", "-c", as, "sh",
		built("schedagent"), "run", "--data-dir", w.dir, "--name", w.name, "--labels", "lab=" + w.name, "--slots", "400",
		"--insecure", "--log-format", "json", "--log-level", "debug",
	}, way...)...)
	w.owner.Cleanup(w.endRunner)
	if t.Failed() {
		t.FailNow()
	}
}

// endRunner ends what outlives the worker's agent.
func (w *worker) endRunner() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.owner.Context()), patience/3)
	defer cancel()
	cmd := exec.CommandContext(ctx, built("schedagent"), "stop", "--data-dir", w.dir)
	cmd.Env = clean(os.Environ())
	if out, err := cmd.CombinedOutput(); err != nil {
		w.owner.Errorf("end the runner of %s: %v\n%s", w.name, err, out)
	}
}
