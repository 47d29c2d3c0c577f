package remote_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/test/bufconn"

	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
	"github.com/schedd/schedd/agent/runner/remote"
)

// host is a machine with a runner and processes, in a bubble.
type host struct {
	*testing.T
	dir     string
	boot    string
	idle    time.Duration
	version string // of runners that start from now on
	policy  string // likewise
	does    map[string]fakerunner.Behaviour
	before  func(id string)     // called by the runner before it starts one
	asked   func(id string)     // called by it before it looks whether it may
	keeps   *runner.Enforcement // of runners that start from now on; nil: all
	torn    int64               // bytes that are missing at the end of a journal whose runner is killed

	mu       sync.Mutex // guards all below
	launches int
	serving  *serving // nil: there is no runner
	all      []*serving
	lives    uint64
	parted   bool // nobody reaches the runner
}

// serving is one life of the runner.
type serving struct {
	fake   *fakerunner.Fake
	socket *bufconn.Listener
	conns  []net.Conn // guarded by host.mu
	stop   context.CancelFunc
	wg     sync.WaitGroup
	err    error // when wg is done
	broken bool  // it was killed
}

// story tells a story in a bubble.
func story(t *testing.T, does map[string]fakerunner.Behaviour, tell func(h *host)) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "runner")
	synctest.Test(t, func(t *testing.T) {
		h := &host{T: t, dir: dir, boot: "boot-1", version: "1", does: does, before: func(string) {}, asked: func(string) {}}
		defer h.close()
		tell(h)
	})
}

func (h *host) close() {
	for _, s := range h.all {
		s.stop()
		_ = s.socket.Close()
		s.wg.Wait()
		if s.err != nil && !s.broken {
			h.Errorf("a runner ended with %v", s.err)
		}
		s.fake.Close()
	}
}

func (h *host) log() *slog.Logger {
	return slog.New(slog.NewTextHandler(h.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// launch starts a runner, unless there is one.
func (h *host) launch() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.serving != nil {
		return nil
	}
	h.launches++
	ctx, stop := context.WithCancel(h.Context())
	s := &serving{socket: bufconn.Listen(1 << 16), stop: stop}
	s.fake = fakerunner.New(func(s runner.Spec) fakerunner.Behaviour {
		h.before(s.ID)
		return h.does[s.ID]
	})
	if h.keeps != nil {
		s.fake.SetEnforcement(*h.keeps)
	}
	o := remote.ServeOptions{
		Dir: h.dir, Runner: hesitant{s.fake, h}, BootID: h.boot, Idle: h.idle, Version: h.version, Policy: h.policy, Log: h.log(), Listener: s.socket,
	}
	h.serving = s
	h.all = append(h.all, s)
	s.wg.Go(func() {
		s.err = remote.Serve(ctx, o)
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.serving == s {
			h.serving = nil
		}
	})
	return nil
}

// hesitant is a runner that may stand still when it is asked for a start.
type hesitant struct {
	runner.Runner
	host *host
}

func (r hesitant) Start(s runner.Spec) (runner.Process, error) {
	r.host.asked(s.ID)
	return r.Runner.Start(s)
}

// present is the runner that there is, nil without one.
func (h *host) present() *serving {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.serving
}

// launched is how many runners were started.
func (h *host) launched() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.launches
}

// part breaks the connections to the runner, and lets none be made until it is called
// again.
func (h *host) part(parted bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.parted = parted
	if parted && h.serving != nil {
		for _, c := range h.serving.conns {
			_ = c.Close()
		}
	}
}

func (h *host) isParted() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.parted
}

var errRefused = errors.New("connection refused")

func (h *host) dial(ctx context.Context) (net.Conn, error) {
	s := h.present()
	if s == nil || h.isParted() {
		return nil, errRefused
	}
	c, err := s.socket.DialContext(ctx)
	if err == nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		s.conns = append(s.conns, c)
	}
	return c, err
}

// agent is one life of an agent, which finds the runner or has it started.
func (h *host) agent() *remote.Runner {
	h.Helper()
	h.lives++
	return h.agentOf(h.lives)
}

func (h *host) agentOf(life uint64) *remote.Runner {
	h.Helper()
	r, err := remote.Open(h.Context(), remote.Options{
		Dir: h.dir, Life: life, Version: "1", Launch: h.launch, Dial: h.dial, Log: h.log(), Uptime: uptime, Marks: marks,
	})
	if err != nil {
		h.Fatal(err)
	}
	return r
}

// marks are the variables by which the processes of an attempt are recognised.
func marks(id string) []string {
	return []string{"SCHEDD_RUN_ID=" + id, "SCHEDD_ATTEMPT=1", "SCHEDD_WORKER=w-1"}
}

func (h *host) start(r *remote.Runner, id string) runner.Process {
	h.Helper()
	p, err := r.Start(runner.Spec{ID: id, Timeout: time.Hour, KillGrace: 10 * time.Second, Env: marks(id)})
	if err != nil {
		h.Fatal(err)
	}
	return p
}

// kept says what a new agent is told.
func (h *host) kept(r *remote.Runner) string {
	var all []string
	known := r.Known()
	for _, id := range []string{"a/1", "b/1", "c/1", "d/1"} {
		p := known[id]
		if p == nil {
			continue
		}
		synctest.Wait()
		select {
		case <-p.Done():
			all = append(all, fmt.Sprint(id, "=", p.Exit().Code))
		default:
			all = append(all, id+" runs")
		}
	}
	return strings.Join(all, ", ")
}

func (h *host) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// An agent goes, in order or not, and another comes. What runs goes on, with its
// timeout; what has ended is told until it is forgotten.
func TestAgentsComeAndGo(t *testing.T) {
	does := map[string]fakerunner.Behaviour{"a/1": {Duration: time.Minute, ExitCode: 3, CPUTime: time.Second, MaxRSS: 5}, "b/1": {Duration: -1}}
	story(t, does, func(h *host) {
		r := h.agent()
		began := time.Now()
		a, b := h.start(r, "a/1"), h.start(r, "b/1")
		if a.PID() == 0 || b.PID() == a.PID() || !a.Started().Equal(began) || a.Exit() != (runner.Exit{}) {
			t.Errorf("pids %d and %d, started %v, exit %v", a.PID(), b.PID(), a.Started(), a.Exit())
		}
		r.Close()
		h.wait(30 * time.Second)
		r = h.agent()
		if got := h.kept(r); got != "a/1 runs, b/1 runs" {
			t.Errorf("the second one is told %s", got)
		}
		again := h.start(r, "a/1") // somebody who was not told asks again
		if again.PID() != a.PID() || h.present().fake.Starts("a/1") != 1 {
			t.Errorf("asked for again it is process %d, was %d, and was started %d times", again.PID(), a.PID(), h.present().fake.Starts("a/1"))
		}
		h.wait(30 * time.Second)
		want := runner.Exit{Code: 3, CPUTime: time.Second, MaxRSS: 5, Started: began.UTC(), Finished: began.Add(time.Minute).UTC()}
		if got := again.Exit(); got != want {
			t.Errorf("exit %+v, want %+v", got, want)
		}
		r.Close()
		h.wait(time.Hour)

		r = h.agent()
		if got := h.kept(r); got != "a/1=3, b/1=143" {
			t.Errorf("the third one is told %s", got)
		}
		if e := r.Known()["b/1"].Exit(); !e.TimedOut || e.Finished.Sub(began) != time.Hour {
			t.Errorf("it timed out with %+v", e)
		}
		r.Forget("a/1")
		h.wait(time.Second)
		r.Close()
		r = h.agent()
		if got := h.kept(r); got != "b/1=143" {
			t.Errorf("the fourth one is told %s", got)
		}
		r.Close()
		if h.launched() != 1 {
			t.Errorf("%d runners were started", h.launched())
		}
	})
}

// An attempt is asked for again before the runner has heard that it is forgotten. The answer
// is how it ended, at once.
func TestStartOfWhatIsBeingForgotten(t *testing.T) {
	story(t, map[string]fakerunner.Behaviour{"a/1": {Duration: time.Second, ExitCode: 3}}, func(h *host) {
		r := h.agent()
		<-h.start(r, "a/1").Done()
		r.Forget("a/1")
		asked := time.Now()
		late := time.AfterFunc(time.Minute, r.Close) // then it fails
		p := h.start(r, "a/1")
		late.Stop()
		<-p.Done()
		if took := time.Since(asked); took != 0 || p.Exit().Code != 3 {
			t.Errorf("after %v it is told %+v", took, p.Exit())
		}
		r.Close()
	})
}

// A kill has its grace, over a change of agents too, and the sooner one counts.
func TestKill(t *testing.T) {
	story(t, map[string]fakerunner.Behaviour{"a/1": {Duration: -1, IgnoreTerm: true}}, func(h *host) {
		r := h.agent()
		began := time.Now()
		h.start(r, "a/1").Kill(time.Minute)
		h.wait(time.Second)
		r.Close()
		h.wait(time.Second)
		r = h.agent()
		p := r.Known()["a/1"]
		p.Kill(8 * time.Second)
		p.Kill(time.Hour)
		<-p.Done()
		if e := p.Exit(); !e.Killed || e.Signal != "SIGKILL" || e.Finished.Sub(began) != 10*time.Second {
			t.Errorf("exit %+v", e)
		}
		p.Kill(0) // too late to matter
		r.Close()
	})
}

// What can't be started is told in the runner's words, and leaves nothing behind.
func TestNotStarted(t *testing.T) {
	story(t, map[string]fakerunner.Behaviour{"a/1": {StartError: errors.New(`user "x" is not known`)}}, func(h *host) {
		r := h.agent()
		if _, err := r.Start(runner.Spec{ID: "a/1"}); err == nil || err.Error() != `user "x" is not known` {
			t.Errorf("told %v", err)
		}
		if _, err := r.Start(runner.Spec{ID: "b/1", Output: "/no/such/file"}); err == nil || !strings.Contains(err.Error(), "/no/such/file") {
			t.Errorf("told %v", err)
		}
		r.Close()
		r = h.agent()
		if got := h.kept(r); got != "" {
			t.Errorf("the next one is told %s", got)
		}
		r.Close()
	})
}

// An agent dies while the runner is starting what it asked for. Its successor is
// told nothing before that is done, so that whatever it is not told of was not
// started. The dead one can't start anything any more.
func TestAgentDiesAmidAStart(t *testing.T) {
	story(t, map[string]fakerunner.Behaviour{"a/1": {Duration: -1}, "b/1": {Duration: -1}}, func(h *host) {
		first := h.agent()
		h.before = func(string) { time.Sleep(10 * time.Second) }
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := first.Start(runner.Spec{ID: "a/1"}); !errors.Is(err, runner.ErrLeft) {
				t.Errorf("the first is told %v", err)
			}
		})
		h.wait(time.Second)
		asked := time.Now()
		second := h.agent()
		if got, took := h.kept(second), time.Since(asked); got != "a/1 runs" || took != 9*time.Second {
			t.Errorf("the second is told %s after %v", got, took)
		}
		wg.Go(func() {
			if _, err := first.Start(runner.Spec{ID: "b/1", Deadline: deadline(time.Minute)}); err == nil {
				t.Error("the first has started another one")
			}
		})
		h.wait(2 * time.Minute)
		first.Close()
		wg.Wait()
		if n := h.present().fake.Starts("b/1"); n != 0 {
			t.Errorf("b/1 was started %d times", n)
		}
		second.Close()
	})
}

// kill ends the runner as SIGKILL does: nothing that it does from now on is seen by
// anybody. With its processes left nobody's, its successor ends them. What is on its
// disk stays.
func (h *host) kill() {
	h.Helper()
	s := h.present()
	next := fmt.Sprint(h.dir, "+")
	if err := os.CopyFS(next, os.DirFS(h.dir)); err != nil {
		h.Fatal(err)
	}
	if err := os.Chmod(next, 0o700); err != nil {
		h.Fatal(err)
	}
	if h.torn > 0 {
		h.tear(filepath.Join(next, "journal"))
	}
	h.mu.Lock()
	h.dir, h.serving, s.broken = next, nil, true
	for _, c := range s.conns {
		_ = c.Close()
	}
	h.mu.Unlock()
	_ = s.socket.Close()
	s.stop()
}

// The runner dies. What ran is interrupted, and never told as anything else; how
// others ended before is still known. The agent has another runner at once, and that
// one works.
func TestRunnerDies(t *testing.T) {
	does := map[string]fakerunner.Behaviour{"a/1": {Duration: -1}, "b/1": {Duration: time.Second, ExitCode: 4}, "c/1": {Duration: time.Second, ExitCode: 5}}
	for _, there := range []bool{true, false} {
		t.Run(fmt.Sprint("with an agent: ", there), func(t *testing.T) {
			story(t, does, func(h *host) {
				r := h.agent()
				a, b := h.start(r, "a/1"), h.start(r, "b/1")
				h.wait(2 * time.Second)
				if !there {
					r.Close()
				}
				h.kill()
				h.wait(30 * time.Second)
				if !there {
					r = h.agent()
					a, b = r.Known()["a/1"], r.Known()["b/1"]
					h.wait(time.Second)
				}
				if e := a.Exit(); !e.Interrupted || e.Killed || e.Reason != "the worker's runner died while it ran" {
					t.Errorf("what ran ended as %+v", e)
				}
				if e := b.Exit(); e.Interrupted || e.Code != 4 {
					t.Errorf("what had ended ended as %+v", e)
				}
				c := h.start(r, "c/1")
				<-c.Done()
				if e := c.Exit(); e.Code != 5 {
					t.Errorf("the next runner's ended as %+v", e)
				}
				r.Close()
				if h.launched() != 2 {
					t.Errorf("%d runners were started", h.launched())
				}
			})
		})
	}
}

// The runner dies before it has put a start on record, and the agent that had asked for
// it is gone as well. The next one knows by what the processes are recognised.
func TestRunnerDiesUnderTheNextAgent(t *testing.T) {
	story(t, map[string]fakerunner.Behaviour{"a/1": {Duration: -1}}, func(h *host) {
		r := h.agent()
		h.start(r, "a/1")
		r.Close()
		r = h.agent()
		h.kill()
		h.wait(30 * time.Second)
		if e := r.Known()["a/1"].Exit(); !e.Interrupted || e.Reason != "the worker's runner died while it ran" {
			t.Errorf("it ended as %+v", e)
		}
		if got := h.present().fake.Swept("a/1"); !slices.Equal(got, marks("a/1")) {
			t.Errorf("its successor looked for %q", got)
		}
		r.Close()
	})
}

// The runner dies before it has put on record that it may forget an attempt. Its successor
// has it again, and the agent, which does not know of it any more, has it forgotten once more;
// also of one whose end was not on record either.
func TestRunnerDiesBeforeItForgets(t *testing.T) {
	does := map[string]fakerunner.Behaviour{"a/1": {Duration: 2 * time.Second, ExitCode: 3}, "b/1": {Duration: 5 * time.Second}}
	story(t, does, func(h *host) {
		r := h.agent()
		a, b := h.start(r, "a/1"), h.start(r, "b/1")
		<-a.Done()
		h.wait(time.Second)
		journal := filepath.Join(h.dir, "journal")
		was, err := os.ReadFile(journal)
		if err != nil {
			h.Fatal(err)
		}
		<-b.Done()
		r.Forget("a/1")
		r.Forget("b/1")
		h.wait(time.Second)
		if err := os.WriteFile(journal, was, 0o600); err != nil {
			h.Fatal(err)
		}
		h.kill()
		h.wait(30 * time.Second)
		if h.launched() != 2 {
			t.Errorf("%d runners were started", h.launched())
		}
		r.Close()
		r = h.agent()
		if got := h.kept(r); got != "" {
			t.Errorf("the next agent is told %s", got)
		}
		r.Close()
	})
}

// The link breaks during a start, and is back when it is too late to start anything. The
// runner has started it, though, and says so: it is not given up, with nobody to look
// after it.
func TestLinkBreaksAmidAStart(t *testing.T) {
	story(t, map[string]fakerunner.Behaviour{"a/1": {Duration: -1}, "b/1": {Duration: -1}}, func(h *host) {
		r := h.agent()
		h.before = func(string) { time.Sleep(10 * time.Second) }
		var wg sync.WaitGroup
		wg.Go(func() {
			p, err := r.Start(runner.Spec{ID: "a/1", Env: marks("a/1"), Deadline: deadline(30 * time.Second)})
			if err != nil {
				t.Error(err)
			} else if e := p.Exit(); e != (runner.Exit{}) {
				t.Errorf("it has ended: %+v", e)
			}
		})
		h.wait(time.Second)
		h.part(true)
		h.wait(time.Minute)
		h.part(false)
		wg.Wait()
		if got := h.present().fake.Running(); !slices.Equal(got, []string{"a/1"}) {
			t.Errorf("%q runs", got)
		}
		r.Close()
	})
}

// The host reboots. What had ended before is known, and what ran is interrupted.
func TestReboot(t *testing.T) {
	story(t, map[string]fakerunner.Behaviour{"a/1": {Duration: -1}, "b/1": {Duration: time.Second, ExitCode: 4}}, func(h *host) {
		r := h.agent()
		h.start(r, "a/1")
		h.start(r, "b/1")
		h.wait(2 * time.Second)
		r.Close()
		h.kill()
		h.boot = "boot-2"
		r = h.agent()
		h.wait(time.Second)
		known := r.Known()
		if e := known["a/1"].Exit(); !e.Interrupted || e.Reason != "the host rebooted while it ran" {
			t.Errorf("what ran ended as %+v", e)
		}
		if e := known["b/1"].Exit(); e.Code != 4 {
			t.Errorf("what had ended ended as %+v", e)
		}
		r.Close()
	})
}

// The runner dies while it starts something. Nobody can tell whether it has, so it
// has been interrupted; it is not started again.
func TestRunnerDiesAmidAStart(t *testing.T) {
	story(t, map[string]fakerunner.Behaviour{"a/1": {Duration: -1}}, func(h *host) {
		r := h.agent()
		h.before = func(string) { time.Sleep(10 * time.Second) }
		var p runner.Process
		var wg sync.WaitGroup
		wg.Go(func() { p = h.start(r, "a/1") })
		h.wait(time.Second)
		h.kill()
		wg.Wait()
		if e := p.Exit(); !e.Interrupted || !strings.Contains(e.Reason, "before it could tell") {
			t.Errorf("it ended as %+v", e)
		}
		if n := h.present().fake.Starts("a/1"); n != 0 {
			t.Errorf("the next runner started it %d times", n)
		}
		r.Close()
	})
}

// Who asks for a start while there is no runner waits for one, but not beyond the
// time in which it may start.
func TestNoRunner(t *testing.T) {
	story(t, nil, func(h *host) {
		if err := h.launch(); err != nil {
			t.Fatal(err)
		}
		r, err := remote.Open(h.Context(), remote.Options{Dir: h.dir, Life: 1, Version: "1", Dial: h.dial, Log: h.log(), Uptime: uptime})
		if err != nil {
			t.Fatal(err)
		}
		h.kill()
		h.wait(time.Second)
		asked := time.Now()
		_, err = r.Start(runner.Spec{ID: "a/1", Deadline: deadline(time.Minute)})
		if took := time.Since(asked); err == nil || !strings.Contains(err.Error(), "there is no runner") || took != time.Minute {
			t.Errorf("after %v told %v", took, err)
		}
		if err := h.launch(); err != nil {
			t.Fatal(err)
		}
		<-h.start(r, "a/1").Done()
		r.Close()
		h.kill()
		if _, err = remote.Open(h.Context(), remote.Options{Dir: h.dir, Life: 2, Dial: h.dial, Log: h.log()}); err == nil || !strings.Contains(err.Error(), "schedagent runner") {
			t.Errorf("an agent without a runner is told %v", err)
		}
	})
}

// A runner that is stopped ends all, tells the agent of it, and is over. What it
// ended is interrupted, and known to the next agent if there is none.
func TestStop(t *testing.T) {
	does := map[string]fakerunner.Behaviour{"a/1": {Duration: -1, IgnoreTerm: true}, "b/1": {Duration: time.Second, ExitCode: 4}, "c/1": {Duration: 15 * time.Second}}
	story(t, does, func(h *host) {
		r := h.agent()
		a, b := h.start(r, "a/1"), h.start(r, "b/1")
		h.wait(2 * time.Second)
		h.present().stop()
		<-r.Stopping()
		if _, err := r.Start(runner.Spec{ID: "c/1"}); err == nil || !strings.Contains(err.Error(), "being stopped") {
			t.Errorf("a start meanwhile is told %v", err)
		}
		stopped := time.Now()
		<-a.Done()
		if e := a.Exit(); !e.Interrupted || e.Killed || time.Since(stopped) != 10*time.Second {
			t.Errorf("it ended after %v as %+v", time.Since(stopped), e)
		}
		if e := b.Exit(); e.Code != 4 || e.Interrupted {
			t.Errorf("what had ended ended as %+v", e)
		}
		h.wait(time.Minute)
		if h.present() != nil || h.launched() != 1 {
			t.Errorf("the runner is %v, %d were started", h.present(), h.launched())
		}
		r.Close()
		r = h.agent()
		if e := r.Known()["a/1"].Exit(); !e.Interrupted || !strings.Contains(e.Reason, "stopped") {
			t.Errorf("the next agent is told %+v", e)
		}
		r.Close()
	})
}

// A start hangs, as long as a file system does not answer. Whoever stops the runner waits no
// longer than for a process that can't be killed; and what is started after all is ended, at
// once: nobody is there to end it when its grace is over.
func TestStopAmidAStartThatHangs(t *testing.T) {
	does := map[string]fakerunner.Behaviour{"hangs/1": {Duration: -1, IgnoreTerm: true}, "runs/1": {Duration: -1}}
	story(t, does, func(h *host) {
		r := h.agent()
		answers := make(chan struct{})
		h.before = func(id string) {
			if id == "hangs/1" {
				<-answers
			}
		}
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = r.Start(runner.Spec{ID: "hangs/1", KillGrace: 10 * time.Second}) })
		a := h.start(r, "runs/1")
		h.wait(time.Second)
		s, asked := h.present(), time.Now()
		s.stop()
		s.wg.Wait()
		if took := time.Since(asked); took > 30*time.Second || s.err != nil {
			t.Errorf("it ended after %v: %v", took, s.err)
		}
		if e := a.Exit(); !isDone(a) || !e.Interrupted {
			t.Errorf("what ran ended as %+v", e)
		}
		close(answers)
		h.wait(time.Second)
		if left := s.fake.Running(); len(left) > 0 {
			t.Errorf("%q runs on", left)
		}
		r.Close()
		wg.Wait()
	})
}

func isDone(p runner.Process) bool {
	select {
	case <-p.Done():
		return true
	default:
		return false
	}
}

// A runner ends when nobody needs it: not while there is an agent, nor while
// something runs.
func TestIdle(t *testing.T) {
	story(t, map[string]fakerunner.Behaviour{"a/1": {Duration: 30 * time.Minute}}, func(h *host) {
		h.idle = 5 * time.Minute
		r := h.agent()
		h.wait(time.Hour)
		h.start(r, "a/1")
		r.Close()
		h.wait(34 * time.Minute)
		if h.present() == nil {
			t.Fatal("it has gone too early")
		}
		h.wait(2 * time.Minute)
		if h.present() != nil {
			t.Fatal("it is still there")
		}
		r = h.agent()
		if got := h.kept(r); got != "a/1=0" || h.launched() != 2 {
			t.Errorf("its successor tells %s; %d were started", got, h.launched())
		}
		r.Close()
	})
}

// An agent of another version uses the runner that is there while that has
// something, and has it replaced when it has not.
func TestAnotherVersion(t *testing.T) {
	story(t, map[string]fakerunner.Behaviour{"a/1": {Duration: time.Minute}}, func(h *host) {
		h.version = "0"
		if err := h.launch(); err != nil {
			t.Fatal(err)
		}
		h.version = "1"
		r := h.agent()
		if h.launched() != 2 {
			t.Errorf("an idle runner of another version stays; %d were started", h.launched())
		}
		r.Close()

		h.present().stop()
		h.wait(time.Second)
		h.version = "0"
		if err := h.launch(); err != nil {
			t.Fatal(err)
		}
		other, err := remote.Open(h.Context(), remote.Options{Dir: h.dir, Life: 100, Version: "0", Launch: h.launch, Dial: h.dial, Log: h.log()})
		if err != nil {
			t.Fatal(err)
		}
		h.start(other, "a/1")
		other.Close()
		r = h.agentOf(101)
		if got := h.kept(r); got != "a/1 runs" || h.launched() != 3 {
			t.Errorf("a runner of another version that is busy tells %s; %d were started", got, h.launched())
		}
		r.Close()
	})
}

// A runner that goes by another policy makes way when it is idle, and is told of when
// it is not.
func TestAnotherPolicy(t *testing.T) {
	story(t, map[string]fakerunner.Behaviour{"a/1": {Duration: time.Minute}}, func(h *host) {
		r := h.agent()
		h.start(r, "a/1")
		r.Close()
		var said strings.Builder
		o := remote.Options{
			Dir: h.dir, Life: 2, Version: "1", Policy: "/p", Launch: h.launch, Dial: h.dial, Log: slog.New(slog.NewTextHandler(&said, nil)),
		}
		r, err := remote.Open(h.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		h.wait(2 * time.Minute)
		r.Forget("a/1")
		h.wait(time.Second)
		r.Close()
		if !strings.Contains(said.String(), "ANOTHER POLICY") || h.launched() != 1 {
			t.Errorf("%d were started, and the agent says %s", h.launched(), &said)
		}
		h.policy = "/p"
		o.Life = 3
		if r, err = remote.Open(h.Context(), o); err != nil {
			t.Fatal(err)
		}
		if h.launched() != 2 {
			t.Errorf("an idle runner with another policy stays; %d were started", h.launched())
		}
		r.Close()
	})
}

// A directory that others may enter is refused, and one that is used.
func TestDirectoryIsOurs(t *testing.T) {
	o := remote.ServeOptions{Dir: t.TempDir(), Runner: fakerunner.New(nil), Log: slog.New(slog.DiscardHandler)}
	if err := os.Chmod(o.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := remote.Serve(t.Context(), o); err == nil || !strings.Contains(err.Error(), "chmod 700") {
		t.Errorf("told %v", err)
	}
	if err := os.Chmod(o.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := remote.Serve(ctx, o); err != nil {
			t.Errorf("the first ended with %v", err)
		}
	})
	r, err := remote.Open(t.Context(), remote.Options{Dir: o.Dir, Life: 1, Log: o.Log})
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Serve(t.Context(), o); !errors.Is(err, remote.ErrInUse) {
		t.Errorf("the second is told %v", err)
	}
	r.Close()
	if n, err := remote.Stop(t.Context(), o.Dir); n != 0 || err != nil {
		t.Errorf("stopped %d, %v", n, err)
	}
	wg.Wait()
	if _, err := remote.Stop(t.Context(), o.Dir); !errors.Is(err, remote.ErrNobody) {
		t.Errorf("stopping nobody is told %v", err)
	}
	stop()
}

// Whoever stops a runner that is just about to end finds nobody.
func TestStopOfOneThatEnds(t *testing.T) {
	dir := t.TempDir()
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", filepath.Join(dir, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		c, err := l.Accept()
		if err == nil {
			_ = c.Close()
		}
		_ = l.Close()
	})
	if n, err := remote.Stop(t.Context(), dir); !errors.Is(err, remote.ErrNobody) {
		t.Errorf("stopped %d, %v", n, err)
	}
	wg.Wait()
}

// A data directory may have a longer name than the kernel takes for a socket.
func TestLongName(t *testing.T) {
	o := remote.ServeOptions{
		Dir: filepath.Join(t.TempDir(), strings.Repeat("long/", 40)), Runner: fakerunner.New(nil), Log: slog.New(slog.DiscardHandler),
	}
	var wg sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	wg.Go(func() {
		if err := remote.Serve(ctx, o); err != nil {
			t.Error(err)
		}
	})
	r, err := remote.Open(t.Context(), remote.Options{Dir: o.Dir, Life: 1, Log: o.Log})
	if err == nil {
		r.Close()
	} else {
		t.Error(err)
	}
	stop()
	wg.Wait()
}

// Limits reach the runner, and what it can hold attempts to reaches the agent. One that
// can't keep a limit is not even asked: of an older version it would start the attempt
// without.
func TestLimits(t *testing.T) {
	story(t, map[string]fakerunner.Behaviour{"a/1": {Duration: time.Hour}, "b/1": {Duration: time.Hour}}, func(h *host) {
		r := h.agent()
		want := runner.Limits{Memory: 1 << 30, CPUMillis: 1500, PIDs: 7}
		if _, err := r.Start(runner.Spec{ID: "a/1", Limits: want}); err != nil {
			t.Fatal(err)
		}
		first := h.present()
		if got := first.fake.Specs()[0].Limits; got != want {
			t.Errorf("the runner was told %+v, want %+v", got, want)
		}
		got, changed := r.Enforcement()
		if want, _ := first.fake.Enforcement(); got != want {
			t.Errorf("the agent was told %+v", got)
		}

		h.keeps = &runner.Enforcement{PIDs: runner.MeansCgroupV2, Note: "no memory"}
		h.kill()
		h.wait(time.Minute)
		select {
		case <-changed:
		default:
			t.Error("the agent does not hear that it may have changed")
		}
		if got, _ := r.Enforcement(); got != *h.keeps {
			t.Errorf("of the next runner the agent was told %+v", got)
		}
		if _, err := r.Start(runner.Spec{ID: "b/1", Limits: want}); !errors.Is(err, runner.ErrUnenforced) || !strings.Contains(err.Error(), "memory, cpus (no memory)") {
			t.Errorf("err %v", err)
		}
		if n := len(h.present().fake.Specs()); n != 0 {
			t.Errorf("the runner was asked %d times", n)
		}
		if _, err := r.Start(runner.Spec{ID: "b/1", Limits: runner.Limits{PIDs: 7}}); err != nil {
			t.Error(err)
		}
		r.Close()
	})
}
