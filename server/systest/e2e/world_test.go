//go:build e2e

package e2e_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// primary is a place where a schedd lives, and the one that lives there now.
type primary struct {
	dir, api, web, others string
	*process              // nil before the first start

	jobs    schedv1.JobServiceClient
	runs    schedv1.RunServiceClient
	workers schedv1.WorkerServiceClient
	cluster schedv1.ClusterServiceClient
}

// newPrimary makes the place, and starts nothing.
func newPrimary(t *testing.T) *primary {
	t.Helper()
	p := &primary{dir: filepath.Join(t.TempDir(), "primary"), api: freeAddr(t), web: freeAddr(t), others: freeAddr(t)}
	params := grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: look, Multiplier: 1.5, MaxDelay: 10 * look},
		MinConnectTimeout: patience,
	}
	conn, err := grpc.NewClient("passthrough:///"+p.api,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(params), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)), grpc.WithUnaryInterceptor(again))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	p.jobs, p.runs = schedv1.NewJobServiceClient(conn), schedv1.NewRunServiceClient(conn)
	p.workers, p.cluster = schedv1.NewWorkerServiceClient(conn), schedv1.NewClusterServiceClient(conn)
	return p
}

// args is the command line of this primary.
func (p *primary) args() []string {
	return []string{
		binary("schedd"), "serve", "--node-id", "p1", "--data-dir", p.dir, "--api-addr", p.api, "--web-addr", p.web, "--cluster-addr", p.others,
		"--log-format", "json", "--log-level", "debug",
	}
}

// launch starts the primary, and does not wait for anything.
func (p *primary) launch(t *testing.T) {
	t.Helper()
	p.process = start(t, "schedd", nil, p.args()...)
}

// start starts the primary, and waits until it takes calls.
func (p *primary) start(t *testing.T) {
	t.Helper()
	p.launch(t)
	p.ready(t)
}

// ready waits until the primary takes calls.
func (p *primary) ready(t *testing.T) {
	t.Helper()
	await(t, "the primary is ready", func() (bool, any) {
		if !p.running() {
			t.Fatalf("the primary ended with exit code %d", p.code)
		}
		code, text := p.get("/readyz")
		return code == http.StatusOK, text
	})
}

// get asks the web address, and returns code 0 when nobody answers.
func (p *primary) get(path string) (code int, text string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.web+path, nil)
	if err != nil {
		return 0, err.Error()
	}
	resp, err := http.DefaultClient.Do(req)
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
	dir, name, server string
	flags             []string
	epoch             uint64 // of the last session that start saw
	*process                 // nil before the first start
}

func newWorker(t *testing.T, p *primary, name string, flags ...string) *worker {
	t.Helper()
	return &worker{dir: filepath.Join(t.TempDir(), name), name: name, server: p.api, flags: flags}
}

func (w *worker) args() []string {
	return append([]string{
		binary("schedagent"), "run", "--data-dir", w.dir, "--server", w.server, "--name", w.name,
		"--log-format", "json", "--log-level", "debug",
	}, w.flags...)
}

// secret is in the environment of every schedagent, where no job may see it.
const secret = "E2E_SECRET=hush"

func (w *worker) launch(t *testing.T) {
	t.Helper()
	w.process = start(t, "schedagent", []string{secret}, w.args()...)
	t.Cleanup(func() { w.endRunner(t) })
}

// runner returns the process id of the worker's runner, 0 without one.
func (w *worker) runner(t *testing.T) int {
	t.Helper()
	for _, pid := range processes(t) {
		if strings.Contains(cmdline(pid), "schedagent runner --data-dir="+w.dir+" ") {
			return pid
		}
	}
	return 0
}

// killRunner is what the kernel does when memory runs out.
func (w *worker) killRunner(t *testing.T) {
	t.Helper()
	pid := w.runner(t)
	if pid == 0 {
		t.Fatalf("worker %s has no runner", w.name)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatalf("kill the runner, process %d: %v", pid, err)
	}
	await(t, "the runner is gone", func() (bool, any) { return w.runner(t) != pid, pid })
}

// endRunner ends the runner at the end of a test, and what it runs. The agent ends
// with it.
func (w *worker) endRunner(t *testing.T) {
	t.Helper()
	pid := w.runner(t)
	if pid == 0 {
		return
	}
	if t.Failed() {
		t.Logf("worker %s, the end of what its runner said:\n%s", w.name, tail(filepath.Join(w.dir, "runner.log"), 40))
	}
	_ = syscall.Kill(pid, syscall.SIGTERM) // it may have ended
	grace, again := time.NewTimer(patience/10), time.NewTicker(look)
	defer grace.Stop()
	defer again.Stop()
	for w.runner(t) == pid {
		select {
		case <-again.C:
		case <-grace.C:
			_ = syscall.Kill(pid, syscall.SIGKILL) // likewise; its jobs have a mark
			return
		}
	}
}

// start starts the worker, and waits until the primary has it online. As a
// supervisor does, it starts it again when it could not have its directory: a
// process that a killed one was about to start holds the lock for a moment.
func (w *worker) start(t *testing.T, p *primary) *schedv1.Worker {
	t.Helper()
	w.launch(t)
	return w.connected(t, p, w.epoch+1)
}

// online waits until the primary has the worker.
func (w *worker) online(t *testing.T, p *primary) *schedv1.Worker {
	t.Helper()
	return w.connected(t, p, 0)
}

func (w *worker) connected(t *testing.T, p *primary, epoch uint64) *schedv1.Worker {
	t.Helper()
	var found *schedv1.Worker
	await(t, "worker "+w.name+" is online", func() (bool, any) {
		if !w.running() {
			if !strings.Contains(w.said(t), "another schedagent uses it") {
				t.Fatalf("the worker ended with exit code %d", w.code)
			}
			w.launch(t)
		}
		resp, err := p.workers.ListWorkers(t.Context(), &schedv1.ListWorkersRequest{Filter: "phase=WORKER_PHASE_ONLINE,name=" + w.name})
		if err != nil || len(resp.GetWorkers()) != 1 {
			return false, fmt.Sprint(resp, err)
		}
		found = resp.GetWorkers()[0]
		return found.GetConnectedTime() != nil && found.GetSessionEpoch() >= epoch, found
	})
	w.epoch = found.GetSessionEpoch()
	return found
}

// world is one primary with one worker, and what the processes of jobs leave
// behind.
type world struct {
	*primary
	worker *worker
	// mark is in the environment of all processes of jobs, so that none can
	// hide.
	mark string
	// file is where processes of jobs say that they ran.
	file string
}

// newWorld starts it all.
func newWorld(t *testing.T, flags ...string) *world {
	t.Helper()
	w := newSilentWorld(t)
	w.start(t)
	w.worker = newWorker(t, w.primary, "w1", flags...)
	w.worker.start(t, w.primary)
	return w
}

// newSilentWorld starts nothing.
func newSilentWorld(t *testing.T) *world {
	t.Helper()
	w := &world{mark: "mark-" + rand.Text(), file: filepath.Join(t.TempDir(), "effects")}
	t.Cleanup(func() { // after the programs have ended: a later cleanup runs earlier
		for _, pid := range w.strays(t) {
			if t.Failed() {
				t.Logf("left behind: process %d, %s", pid, cmdline(pid))
			}
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
		}
	})
	w.primary = newPrimary(t)
	return w
}

// strays are the processes with our mark, in their environment or their
// arguments.
func (w *world) strays(t *testing.T) []int {
	t.Helper()
	return slices.DeleteFunc(processes(t), func(pid int) bool {
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid)) // it may have ended, or is a zombie
		return !strings.Contains(string(env), w.mark) && !strings.Contains(cmdline(pid), w.mark)
	})
}

// processes are all of this host.
func processes(t *testing.T) (pids []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func cmdline(pid int) string {
	text, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	return strings.ReplaceAll(string(text), "\x00", " ")
}

// tell is a line of shell that says who runs: once for each attempt that was
// started, whatever becomes of it.
const tell = `echo "$SCHEDD_RUN_ID $SCHEDD_ATTEMPT $SCHEDD_FENCE $SCHEDD_SCHEDULED_AT $SCHEDD_JOB $SCHEDD_TRIGGER" >>"$E2E_FILE"` + "\n"

// effect is what an attempt told.
type effect struct {
	run     string
	attempt uint64
	fence   uint64
	nominal string
	job     string
	trigger string // empty by hand
}

// effects returns what was told, by run and attempt. Nothing may be told twice.
func (w *world) effects(t *testing.T) map[string]effect {
	t.Helper()
	all := map[string]effect{}
	text, err := os.ReadFile(w.file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), " ")
		if len(f) != 6 {
			t.Fatalf("a line of %d words in the file of effects: %q", len(f), line)
		}
		key := f[0] + "/" + f[1]
		if _, twice := all[key]; twice {
			t.Errorf("run %s attempt %s was started twice", f[0], f[1])
		}
		attempt, err1 := strconv.ParseUint(f[1], 10, 32)
		fence, err2 := strconv.ParseUint(f[2], 10, 64)
		if err1 != nil || err2 != nil {
			t.Errorf("no numbers in the file of effects: %q", line)
		}
		all[key] = effect{f[0], attempt, fence, f[3], f[4], f[5]}
	}
	return all
}

// script is a job that runs a script by hand. Its definition may be changed
// before it is put.
func (w *world) script(name, body string) *schedv1.Job {
	return w.marked(name, &schedv1.Task{Do: &schedv1.Task_Script{Script: &schedv1.Script{Body: body}}})
}

// exec is a job that runs a program by hand.
func (w *world) exec(name string, argv ...string) *schedv1.Job {
	return w.marked(name, &schedv1.Task{Do: &schedv1.Task_Exec{Exec: &schedv1.Exec{Argv: argv}}})
}

func (w *world) marked(name string, task *schedv1.Task) *schedv1.Job {
	task.Env = map[string]string{"E2E_FILE": w.file, "E2E_MARK": w.mark}
	return &schedv1.Job{Name: name, Task: task, Policy: &schedv1.Policy{Overlap: schedv1.Overlap_OVERLAP_ALLOW}}
}

// every makes a job run on an interval, and leave nothing out: a slow machine may take
// more than a minute to decide, and then only the latest would count.
func every(j *schedv1.Job, d time.Duration) *schedv1.Job {
	j.Policy.CatchUp = schedv1.CatchUp_CATCH_UP_ALL
	j.Triggers = append(j.Triggers, &schedv1.Trigger{When: &schedv1.Trigger_Every{Every: &schedv1.Every{Interval: durationpb.New(d)}}})
	return j
}

// cron makes a job run by a calendar; see every.
func cron(j *schedv1.Job, expression string) *schedv1.Job {
	j.Policy.CatchUp = schedv1.CatchUp_CATCH_UP_ALL
	j.Triggers = append(j.Triggers, &schedv1.Trigger{When: &schedv1.Trigger_Cron{Cron: &schedv1.Cron{Expression: expression}}})
	return j
}

// spool lists the files in the worker's spool with the bytes of disk that they
// take.
func (w *worker) spool(t *testing.T) (files []string, size, taken int64) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(w.dir, "spool"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // removed meanwhile
		}
		files = append(files, e.Name())
		size += info.Size()
		taken += info.Sys().(*syscall.Stat_t).Blocks * 512
	}
	return files, size, taken
}

// emptied waits until nothing is in the worker's spool: what is durable on the
// primary needs no copy.
func (w *worker) emptied(t *testing.T) {
	t.Helper()
	await(t, "the spool is empty", func() (bool, any) {
		files, _, _ := w.spool(t)
		return len(files) == 0 || slices.Equal(files, []string{"filler"}), files
	})
}

// values returns what a map holds, by key.
func values[V any](m map[string]V) (all []V) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		all = append(all, m[k])
	}
	return all
}

func seconds(n int64) *durationpb.Duration { return &durationpb.Duration{Seconds: n} }

func stamp(unix int64) *timestamppb.Timestamp { return &timestamppb.Timestamp{Seconds: unix} }
