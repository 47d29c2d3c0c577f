//go:build e2e

package deploy_test

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
	"google.golang.org/grpc/credentials/insecure"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

const (
	// patience is how long a test waits for what has to happen. It is no measure of
	// anything: only what is broken takes as long.
	patience = 2 * time.Minute
	// look is how often a test looks.
	look = 50 * time.Millisecond
)

// output is how much a job writes: several times what nginx lets through by
// default, and HTTP/2 without windows that are opened again.
const output = 3_000_000

// A worker is connected through each load balancer, as it is configured here but
// for the addresses, while two of the three primaries are down; and what a job
// there writes arrives whole, over one and the same stream.
func TestBalancersBalance(t *testing.T) {
	primary := startPrimary(t)
	for _, b := range []struct {
		file, command string
		args          func(conf, dir string) []string
	}{
		{"haproxy-tcp.cfg", "haproxy", haproxyArgs},
		{"haproxy-h2.cfg", "haproxy", haproxyArgs},
		{"nginx.conf", "nginx", func(conf, dir string) []string {
			return []string{"-p", dir, "-c", conf, "-e", "stderr", "-g", "daemon off; pid " + dir + "/pid;"}
		}},
	} {
		t.Run(b.file, func(t *testing.T) {
			if _, err := exec.LookPath(b.command); err != nil {
				t.Skip(b.command + " is not installed")
			}
			front := freeAddr(t)
			dir := t.TempDir()
			conf := filepath.Join(dir, b.file)
			if err := os.WriteFile(conf, []byte(adapt(read(t, "load-balancers/"+b.file), front, primary)), 0o600); err != nil {
				t.Fatal(err)
			}
			start(t, b.command, b.args(conf, dir)...)
			start(t, binary("schedagent"), "run", "--in-process", "--server="+front, "--name="+b.file, "--labels=lb="+b.file, "--data-dir="+filepath.Join(dir, "worker"))
			carries(t, front, b.file)
		})
	}
}

func haproxyArgs(conf, _ string) []string { return []string{"-db", "-f", conf} }

// addresses are where a primary listens.
type addresses struct{ api, web string }

// adapt puts a configuration on this machine: it listens on front, and one of its
// primaries is there. The others are on addresses of this machine where nobody
// listens.
func adapt(conf, front string, p addresses) string {
	_, api, _ := net.SplitHostPort(p.api)
	_, web, _ := net.SplitHostPort(p.web)
	return strings.NewReplacer(
		"bind :7421", "bind "+front, "listen 7421", "listen "+front,
		"p1.example:7421", "127.0.0.2:"+api, "p2.example:7421", p.api, "p3.example:7421", "127.0.0.3:"+api,
		"port 7480", "port "+web,
	).Replace(conf)
}

func startPrimary(t *testing.T) addresses {
	t.Helper()
	p := addresses{freeAddr(t), freeAddr(t)}
	start(t, binary("schedd"), "serve", "--data-dir="+t.TempDir(), "--api-addr="+p.api, "--web-addr="+p.web, "--cluster-addr="+freeAddr(t))
	get(t, p.web, "/readyz")
	return p
}

// get returns a page as soon as it is there.
func get(t *testing.T, addr, path string) (page string) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+path, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = errors.New(resp.Status)
		}
		page = string(text)
		return err
	})
	return page
}

// carries asserts that a worker and people work together behind a load balancer.
func carries(t *testing.T, front, name string) {
	t.Helper()
	conn, err := grpc.NewClient(front, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	before := worker(t, conn, name)
	job := &schedv1.Job{
		Name:   "talk-" + name,
		Task:   &schedv1.Task{Do: &schedv1.Task_Script{Script: &schedv1.Script{Body: fmt.Sprintf("head -c %d /dev/zero | tr '\\0' x", output)}}},
		Target: &schedv1.Target{Selector: "lb=" + name},
	}
	// The load balancer may not know yet that two of the primaries are down.
	jobs := schedv1.NewJobServiceClient(conn)
	eventually(t, func(ctx context.Context) error {
		_, err := jobs.PutJob(ctx, &schedv1.PutJobRequest{Job: job})
		return err
	})
	var run string
	eventually(t, func(ctx context.Context) error {
		resp, err := jobs.RunJob(ctx, &schedv1.RunJobRequest{Name: job.GetName(), RequestId: name})
		run = resp.GetRun().GetId()
		return err
	})
	eventually(t, func(ctx context.Context) error {
		got, err := follow(ctx, conn, run)
		if err == nil && got != output {
			t.Errorf("%d bytes of output arrived, want %d", got, output)
		}
		return err
	})
	if after := worker(t, conn, name); after.GetSessionEpoch() != before.GetSessionEpoch() {
		t.Error("the worker's stream was cut")
	}
}

// worker waits until a worker is online.
func worker(t *testing.T, conn *grpc.ClientConn, name string) (found *schedv1.Worker) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		resp, err := schedv1.NewWorkerServiceClient(conn).ListWorkers(ctx, &schedv1.ListWorkersRequest{Filter: "labels.lb=" + name})
		if err != nil {
			return err
		}
		for _, w := range resp.GetWorkers() {
			if w.GetPhase() == schedv1.WorkerPhase_WORKER_PHASE_ONLINE {
				found = w
				return nil
			}
		}
		return errors.New("the worker is not online")
	})
	return found
}

// follow returns how many bytes a run has written in the end.
func follow(ctx context.Context, conn *grpc.ClientConn, run string) (n int, err error) {
	log, err := schedv1.NewRunServiceClient(conn).ReadLog(ctx, &schedv1.ReadLogRequest{RunId: run, Follow: true})
	for err == nil {
		var piece *schedv1.ReadLogResponse
		if piece, err = log.Recv(); err == nil {
			n += len(piece.GetData())
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// eventually waits until f has nothing to complain about.
func eventually(t *testing.T, f func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	again := time.NewTicker(look)
	defer again.Stop()
	for {
		err := f(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-again.C:
		}
	}
}

// start starts a program, which is ended with the test; what it said is shown if
// that fails.
func start(t *testing.T, argv0 string, args ...string) {
	t.Helper()
	said, err := os.CreateTemp(t.TempDir(), "said")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), argv0, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = clean(), said, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		grace := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		defer grace.Stop()
		_ = cmd.Wait() // however it ended
		_ = said.Close()
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(argv0), read(t, said.Name()))
		}
	})
}

// ports are below what the kernel gives to whoever dials, so that nobody takes one
// before the program listens that it is meant for.
var ports = 10000 + os.Getpid()*61%20000

// freeAddr returns an address that nobody listens on at the moment.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 1000 {
		ports++
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(ports))
		if l, err := net.Listen("tcp", addr); err == nil {
			_ = l.Close()
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}
