package systest

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/proto/wire"
	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/server"
)

// TestMain puts what workers and primaries keep in memory where that is
// possible: the clock of a bubble stands still during an fsync, so a slow disk
// proves nothing and only takes time.
func TestMain(m *testing.M) {
	const memory = "/dev/shm"
	if probe, err := os.CreateTemp(memory, "systest"); err == nil && os.Getenv("TMPDIR") == "" {
		_ = probe.Close()
		_ = os.Remove(probe.Name())
		_ = os.Setenv("TMPDIR", memory)
	}
	debug.SetGCPercent(800) // a few hundred MB, for a tenth of the time
	os.Exit(m.Run())
}

// hung is how long a story may take of real time; the longest takes a minute, and an hour of
// a world some seconds. One that waits for ever, for a lock or for itself, would otherwise wait
// for whoever looks at it: no deadlock is told while a goroutine is blocked by what is not of
// the bubble.
func hung() time.Duration { return 15*time.Minute + *long/12 }

// world is a primary, workers and somebody who uses the API, in a bubble.
type world struct {
	*testing.T
	dir  string
	born time.Time // when what it is about began
	log  *slog.Logger
	tail *tail
	net  *network
	book *book

	disk      *raftstore.Memory // of the primary: outlives it
	clock     wallClock         // of its host
	terms     *terms            // of all primaries
	primary   *primary          // nil: it is down; of a group: whoever answers
	group     []*member         // none: there is but one primary
	left      []*member         // those that left the group for good
	own       *link             // of who uses the API
	workers   []*worker
	hosts     []*fakerunner.Fake // that there ever were
	gone      map[string]bool    // hosts that were taken away, with all that was on them
	twinned   map[string]bool    // workers that had a copy
	copies    map[string]string  // hosts that were a copy of another, which is named
	unplugged map[string]int64   // of attempts whose host lost its power while they ran: bytes that were safe by then

	put         map[string][]put // definitions by job, the oldest first
	needsLeases map[string]bool  // jobs whose attempts do
	outages     []outage         // of the primary
	asked       asked            // what people asked for, and were told
	final       map[string]end   // runs that were seen to have ended
	safe        map[string]int64 // bytes of logs that were said to be durable, by attempt

	heartbeat time.Duration        // of Raft; 0: as in production
	logLimit  int                  // of all jobs that print more than that
	settings  func(*server.Config) // changes those of primaries that are started; may be nil
	older     bool                 // primaries and runners are of an older version until they are upgraded
	renewed   time.Time            // when a primary was last upgraded

	lostBytes   int64 // of files, and entries of Raft's log, that went with the power
	lostEntries int

	suspects []string               // what check complains of is kept here, when not nil, and not said
	first    atomic.Pointer[string] // what was said first to be wrong

	mu      sync.Mutex        // guards what follows
	scripts map[string]script // by job; what is not here is over soon
	holding func(runner.Spec) // called by agents before they start a process
}

// script says what the process of an attempt does.
type script func(runner.Spec) fakerunner.Behaviour

// outage is a time without a primary.
type outage struct {
	from, to time.Time // to is when it was started again; zero: not yet
}

// primary is one life of the primary.
type primary struct {
	server *server.Server
	stop   context.CancelFunc
	wg     sync.WaitGroup
	err    error // when wg is done

	conn     *grpc.ClientConn
	jobs     schedv1.JobServiceClient
	runs     schedv1.RunServiceClient
	workers  schedv1.WorkerServiceClient
	clusters schedv1.ClusterServiceClient
}

// story tells a story in a bubble, beside others in theirs. Whatever it leaves
// running is killed.
func story(t *testing.T, tell func(w *world)) {
	t.Helper()
	t.Parallel()
	bubble(t, tell)
}

// bubble tells a story in a bubble, now.
func bubble(t *testing.T, tell func(w *world)) {
	t.Helper()
	dir := t.TempDir() // outlives the bubble
	defer time.AfterFunc(hung(), func() {
		debug.SetTraceback("all")
		panic(fmt.Sprintf("%s has not come to its end within %v of real time: somebody waits for what no bubble's clock brings, or spins", t.Name(), hung()))
	}).Stop()
	synctest.Test(t, func(t *testing.T) { tell(newWorld(t, dir)) })
}

// newWorld returns a world with nothing in it.
func newWorld(t *testing.T, dir string) *world {
	w := &world{
		T: t, dir: dir, tail: newTail(t, dir), born: time.Now(), net: newNetwork(), book: &book{starts: map[string][]start{}},
		disk: raftstore.NewMemory(), scripts: map[string]script{}, holding: func(runner.Spec) {},
		put: map[string][]put{}, gone: map[string]bool{}, twinned: map[string]bool{}, copies: map[string]string{}, unplugged: map[string]int64{}, needsLeases: map[string]bool{},
		asked: newAsked(), terms: &terms{led: map[string][]span{}, clocks: map[string][]*wallClock{}}, final: map[string]end{}, safe: map[string]int64{},
	}
	w.log = slog.New(listener{Handler: slog.NewTextHandler(w.tail, nil), terms: w.terms})
	w.own = w.net.newLink("client")
	t.Cleanup(func() {
		switch {
		case len(w.group) > 0:
			w.endGroup()
		case w.primary != nil:
			w.killPrimary()
		}
		for _, k := range w.workers {
			k.close()
		}
		if t.Failed() {
			w.tail.show(t)
		}
		w.tail.close()
	})
	return w
}

// startPrimary starts a primary on the disk that the last one left.
func (w *world) startPrimary() {
	w.Helper()
	if w.primary != nil {
		w.Fatal("the primary runs already")
	}
	p := &primary{}
	c := server.DefaultConfig()
	c.NodeID, c.DataDir = "primary-1", filepath.Join(w.dir, "primary")
	w.configure(&c)
	w.terms.goesBy(c.NodeID, &w.clock)
	var err error
	p.server, err = server.Open(c, server.Seams{
		Log: w.log.With("on", c.NodeID), Memory: w.disk, WallClock: w.clock.now,
		Listen: func(string) (net.Listener, error) { return w.net.listen(port{"primary-1", apiPort}), nil },
	})
	if err != nil {
		w.Fatalf("opening the primary: %v", err)
	}
	ctx, stop := context.WithCancel(w.Context())
	p.stop = stop
	p.wg.Go(func() { p.err = p.server.Run(ctx) })
	p.dial(w)
	w.primary = p
	w.net.troubles.ends("down", "primary-1", "")
	if n := len(w.outages); n > 0 {
		w.outages[n-1].to = time.Now()
	}
	w.await("a leader", time.Minute, func() bool {
		r, err := p.clusters.GetStatus(w.Context(), &schedv1.GetStatusRequest{})
		return err == nil && r.GetStatus().GetLeaderId() != ""
	})
}

// configure gives a primary the settings of this story.
func (w *world) configure(c *server.Config) {
	if w.settings != nil {
		w.settings(c)
	}
}

func (p *primary) dial(w *world) {
	w.Helper()
	options := append(wire.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(w.own.dial))
	conn, err := grpc.NewClient("passthrough:///primary:7421", options...)
	if err != nil {
		w.Fatal(err)
	}
	p.clients(conn)
}

// clients makes a client of each service.
func (p *primary) clients(conn *grpc.ClientConn) {
	p.conn = conn
	p.jobs, p.runs = schedv1.NewJobServiceClient(conn), schedv1.NewRunServiceClient(conn)
	p.workers, p.clusters = schedv1.NewWorkerServiceClient(conn), schedv1.NewClusterServiceClient(conn)
}

// killPrimary ends the primary as SIGKILL does, at this very instant: what it
// has sent and nobody has read is lost, and nothing is written any more.
func (w *world) killPrimary() {
	w.Helper()
	w.net.vanish("primary-1")
	w.disk.Pull()
	w.endPrimary()
}

// stopPrimary asks the primary to stop, and waits until it has.
func (w *world) stopPrimary() {
	w.Helper()
	p := w.primary
	w.endPrimary()
	if p.err != nil {
		w.Errorf("the primary stopped with %v", p.err)
	}
	w.net.vanish("primary-1")
}

func (w *world) endPrimary() {
	w.Helper()
	p := w.primary
	w.outages = append(w.outages, outage{from: time.Now()})
	w.net.troubles.begins("down", "primary-1", "")
	_ = p.conn.Close() // what it still had to say nobody waits for
	p.stop()
	p.wg.Wait()
	w.primary = nil
}

// restart kills the primary and starts it again after a while.
func (w *world) restart(down time.Duration) {
	w.Helper()
	w.killPrimary()
	time.Sleep(down)
	w.startPrimary()
}

// wait lets time pass, and everything happen that is due by then.
func (w *world) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// waitUntil lets time pass until an instant.
func (w *world) waitUntil(t time.Time) { w.wait(time.Until(t)) }

// await waits until something is so.
func (w *world) await(what string, limit time.Duration, is func() bool) {
	w.Helper()
	pause := 10 * time.Millisecond
	for deadline := time.Now().Add(limit); !is(); time.Sleep(pause) {
		if time.Now().After(deadline) {
			w.Fatalf("%s: not within %v", what, limit)
		}
		pause = min(2*pause, 5*time.Second)
	}
}

// does says what the processes of a job do.
func (w *world) does(job string, s script) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.scripts[job] = s
}

// takes has the processes of a job run for so long and print a line at the
// beginning and the end.
func (w *world) takes(job string, d time.Duration) { w.does(job, talker(d, d)) }

// hold has agents call f before they start a process.
func (w *world) hold(f func(runner.Spec)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.holding = f
}

func (w *world) held(s runner.Spec) {
	w.mu.Lock()
	f := w.holding
	w.mu.Unlock()
	f(s)
}

// talker is a process that runs for d and prints a line every so often.
func talker(d, every time.Duration) script {
	return func(s runner.Spec) fakerunner.Behaviour {
		line := func(n int) []byte { return fmt.Appendf(nil, "%s says line %d\n", s.ID, n) }
		b := fakerunner.Behaviour{Duration: d, Output: []fakerunner.Chunk{{Data: line(0)}}}
		if every <= 0 {
			return b
		}
		for n := 1; time.Duration(n)*every <= d; n++ {
			b.Output = append(b.Output, fakerunner.Chunk{After: every, Data: line(n)})
		}
		return b
	}
}

// scripted returns the script of a host, which writes down what it starts.
func (w *world) scripted(host string) script {
	return func(s runner.Spec) fakerunner.Behaviour {
		w.mu.Lock()
		does, ok := w.scripts[env(s, "SCHEDD_JOB")]
		w.mu.Unlock()
		if !ok {
			does = talker(100*time.Millisecond, 0)
		}
		b := does(s)
		w.book.enter(start{at: time.Now(), worker: host, spec: s, does: b})
		return b
	}
}
