package agent_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/schedd/schedd/agent"
	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
)

// world is a gateway and a host for workers, in a bubble.
type world struct {
	*testing.T
	gateway *gateway
	host    *fakerunner.Fake
	dir     string
	boot    string
	dial    func(ctx context.Context, addr string) (net.Conn, error) // the gateway, unless it is changed
	change  func(*agent.Config, *agent.Seams)                        // of workers that start from now on
	onStart func(run string)                                         // called while an attempt is being started

	workers []*worker
}

// worker is one life of an agent.
type worker struct {
	stop context.CancelFunc
	wg   sync.WaitGroup
	err  error // when wg is done
	log  *lockedBuffer
}

// lockedBuffer is a log that can be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// story runs a test in a bubble with a gateway and a host whose attempts do what
// script says of each run.
func story(t *testing.T, m manners, script map[string]fakerunner.Behaviour, f func(*world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, gateway: newGateway(t, m), dir: t.TempDir(), boot: "boot-1"}
		w.dial, w.change = w.gateway.dial, func(*agent.Config, *agent.Seams) {}
		w.host = fakerunner.New(func(s runner.Spec) fakerunner.Behaviour {
			run, _, _ := strings.Cut(s.ID, "/")
			if w.onStart != nil {
				w.onStart(run)
			}
			return script[run]
		})
		defer w.close()
		f(w)
	})
}

// close ends all that was started.
func (w *world) close() {
	for _, one := range w.workers {
		one.stop()
		one.wg.Wait()
		if one.err != nil {
			w.Errorf("a worker ended with %v", one.err)
		}
		if w.Failed() {
			w.Logf("a worker's log:\n%s", one.log)
		}
	}
	w.host.Close()
	w.gateway.close()
}

func (w *world) config() agent.Config {
	c := agent.DefaultConfig()
	c.DataDir, c.Name, c.Slots = w.dir, "shop-1", 4
	c.Labels = map[string]string{"zone": "eu"}
	return c
}

// start begins a life of an agent, and waits until it has settled.
func (w *world) start() *worker { return w.startIn(w.dir, w.boot) }

func (w *world) startIn(dir, boot string) *worker {
	ctx, stop := context.WithCancel(w.Context())
	one := &worker{stop: stop, log: new(lockedBuffer)}
	c := w.config()
	c.DataDir = dir
	seams := agent.Seams{
		Log:    slog.New(slog.NewTextHandler(one.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Runner: w.host, Dialer: w.dial, BootID: boot,
	}
	w.change(&c, &seams)
	one.wg.Go(func() { one.err = agent.Run(ctx, c, seams) })
	w.workers = append(w.workers, one)
	w.wait(time.Second)
	return one
}

// end stops a life gracefully.
func (one *worker) end() {
	one.stop()
	one.wg.Wait()
}

// wait lets some time pass, and all that happens in it.
func (w *world) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// bare has workers that start from now on run processes themselves, as children
// that end with them.
func (w *world) bare() {
	w.change = func(_ *agent.Config, s *agent.Seams) { s.Runner = struct{ runner.Runner }{w.host} }
}

// image copies the data directory as it is on the disk at this moment: what an
// agent that crashed now would leave.
func (w *world) image() string {
	w.Helper()
	copied := w.TempDir()
	if err := os.CopyFS(copied, os.DirFS(w.dir)); err != nil {
		w.Fatal(err)
	}
	// What CopyFS makes of the mode does not matter, but for the key.
	if err := os.Chmod(filepath.Join(copied, "identity.key"), 0o600); err != nil {
		w.Fatal(err)
	}
	return copied
}

// says checks what a session has heard of the worker.
func (w *world) says(v *visit, want ...string) {
	w.Helper()
	if diff := cmp.Diff(want, v.story()); diff != "" {
		w.Errorf("the worker said (-want +got):\n%s", diff)
	}
}

func (w *world) startsOf(run string, want int) {
	w.Helper()
	if got := w.host.Starts(run + "/1"); got != want {
		w.Errorf("%s was started %d times, want %d", run, got, want)
	}
}

// outcomeOf checks how a run ended.
func (w *world) outcomeOf(run string, outcome agentv1.Outcome, reason string) *agentv1.Result {
	w.Helper()
	r := w.gateway.result(run)
	if r.GetOutcome() != outcome || !strings.Contains(r.GetReason(), reason) {
		w.Errorf("%s ended as %v %q, want %v with %q", run, r.GetOutcome(), r.GetReason(), outcome, reason)
	}
	return r
}

// launchOf returns the launch of a run's first attempt.
func launchOf(run string) *agentv1.Launch {
	return &agentv1.Launch{
		Key: &agentv1.AttemptKey{RunId: run, Attempt: 1}, Fence: 41,
		Namespace: "default", Job: "nightly", TriggerId: "t1",
		ScheduledAt: timestamppb.New(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)),
		Task:        &agentv1.Task{Argv: []string{"true"}, Env: map[string]string{"GREETING": "hello"}},
		KillGrace:   durationpb.New(5 * time.Second),
		StartWithin: durationpb.New(time.Minute), LogLimitBytes: 16 << 20,
	}
}

// text returns n bytes that are recognised wherever they are put.
func text(n int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "line %d\n", i)
	}
	return b.Bytes()[:n]
}
