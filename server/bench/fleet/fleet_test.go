package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/proto/wire"
	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/server"
	"github.com/schedd/schedd/server/bench/fleet"
)

// story runs a test in a bubble, with a primary.
func story(t *testing.T, tell func(t *testing.T, p *primary)) {
	t.Helper()
	dir := t.TempDir() // outlives the bubble
	synctest.Test(t, func(t *testing.T) { tell(t, startPrimary(t, dir)) })
}

// primary is a real one, on connections in memory.
type primary struct {
	listener *bufconn.Listener
	jobs     schedv1.JobServiceClient
	runs     schedv1.RunServiceClient
	workers  schedv1.WorkerServiceClient

	mu    sync.Mutex
	conns []net.Conn // of workers
	down  bool       // nobody gets through
}

func startPrimary(t *testing.T, dir string) *primary {
	t.Helper()
	p := &primary{listener: bufconn.Listen(64 << 10)}
	c := server.DefaultConfig()
	c.NodeID, c.DataDir = "primary-1", dir
	s, err := server.Open(c, server.Seams{
		Log: slog.New(slog.DiscardHandler), Memory: raftstore.NewMemory(),
		Listen: func(string) (net.Listener, error) { return p.listener, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///primary", append(wire.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return p.listener.DialContext(ctx) }))...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Errorf("the primary ended with %v", err)
		}
	})
	t.Cleanup(func() {
		_ = conn.Close()
		stop()
		wg.Wait()
	})
	p.jobs, p.runs, p.workers = schedv1.NewJobServiceClient(conn), schedv1.NewRunServiceClient(conn), schedv1.NewWorkerServiceClient(conn)
	return p
}

var errDown = errors.New("the balancer is down")

// dial is what workers dial with.
func (p *primary) dial(ctx context.Context, _ string) (net.Conn, error) {
	p.mu.Lock()
	down := p.down
	p.mu.Unlock()
	if down {
		return nil, errDown
	}
	conn, err := p.listener.DialContext(ctx)
	if err == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.conns = append(p.conns, conn)
	}
	return conn, err
}

// cut ends all connections of workers, and lets none through from now on.
func (p *primary) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

func (p *primary) mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = false
}

// log is what a fleet tells.
type log struct {
	mu       sync.Mutex
	launched map[string]int // by job and instant
	acked    int
}

func (l *log) launch(m *agentv1.Launch, _ time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.launched[fmt.Sprint(m.GetJob(), m.GetScheduledAt().AsTime())]++
}

func (l *log) ack(*agentv1.ResultAck, time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked++
}

func (p *primary) fleet(t *testing.T, l *log, workers int) *fleet.Fleet {
	t.Helper()
	f, err := fleet.Start(context.Background(), fleet.Config{
		Servers: []string{"primary"}, Workers: workers, Slots: 50, Name: "w", Labels: map[string]string{"kind": "fleet"}, Opening: 2,
		Launched: l.launch, Acked: l.ack, Dial: p.dial,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Stop)
	if err := f.AwaitOnline(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f
}

// put defines jobs that are due each second of a span.
func (p *primary) put(t *testing.T, jobs int, from time.Time, seconds int) {
	t.Helper()
	for i := range jobs {
		_, err := p.jobs.PutJob(t.Context(), &schedv1.PutJobRequest{Job: &schedv1.Job{
			Name: fmt.Sprint("job-", i),
			Triggers: []*schedv1.Trigger{{
				Id: "t", When: &schedv1.Trigger_Cron{Cron: &schedv1.Cron{Expression: "* * * * * *"}},
				StartTime: timestamppb.New(from), EndTime: timestamppb.New(from.Add(time.Duration(seconds) * time.Second)),
			}},
			Task: &schedv1.Task{Do: &schedv1.Task_Exec{Exec: &schedv1.Exec{Argv: []string{"/bin/true"}}}},
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// verify holds the ledger of each job: all its occurrences became runs.
func (p *primary) verify(t *testing.T, jobs, seconds int) {
	t.Helper()
	for i := range jobs {
		r, err := p.jobs.VerifyLedger(t.Context(), &schedv1.VerifyLedgerRequest{Name: fmt.Sprint("job-", i)})
		if err != nil || !r.GetOk() || r.GetTriggers()[0].GetRan() != int64(seconds) {
			t.Errorf("job %d: %v, %v", i, r, err)
		}
	}
}

// A fleet keeps its sessions for longer than a silent one lives, and finishes all that
// it is given, once.
func TestFleetFinishesRuns(t *testing.T) {
	const workers, jobs, seconds = 5, 20, 10
	story(t, func(t *testing.T, p *primary) {
		l := &log{launched: map[string]int{}}
		f := p.fleet(t, l, workers)
		time.Sleep(3 * wire.DeadAfter)
		p.put(t, jobs, time.Now().Truncate(time.Second).Add(2*time.Second), seconds)
		time.Sleep((seconds + 5) * time.Second)
		synctest.Wait()

		c := f.Counts()
		if want := (fleet.Counts{Online: workers, Opened: workers, Launched: jobs * seconds, Acked: jobs * seconds}); c != want {
			t.Errorf("the fleet has seen %+v, want %+v", c, want)
		}
		if len(l.launched) != jobs*seconds || l.acked != jobs*seconds {
			t.Errorf("told of %d occurrences and %d results, want %d of each", len(l.launched), l.acked, jobs*seconds)
		}
		p.verify(t, jobs, seconds)
		r, err := p.runs.ListRuns(t.Context(), &schedv1.ListRunsRequest{PageSize: 1000, Filter: "phase=PHASE_SUCCEEDED"})
		if err != nil || len(r.GetRuns()) != jobs*seconds {
			t.Errorf("%d runs have succeeded, want %d: %v", len(r.GetRuns()), jobs*seconds, err)
		}
		if a := r.GetRuns()[0].GetAttempts()[0]; a.GetStartedTime() == nil || a.GetFinishedTime() == nil {
			t.Errorf("an attempt that began and ended is %v", a)
		}
	})
}

// All come back after their connections were cut, and what was due meanwhile is done.
func TestFleetComesBack(t *testing.T) {
	const workers, jobs, seconds = 5, 3, 20
	story(t, func(t *testing.T, p *primary) {
		l := &log{launched: map[string]int{}}
		f := p.fleet(t, l, workers)
		p.put(t, jobs, time.Now().Truncate(time.Second).Add(2*time.Second), seconds)
		time.Sleep(5 * time.Second)
		p.cut()
		synctest.Wait()
		if c := f.Counts(); c.Online != 0 {
			t.Errorf("%d workers are online, want none behind a balancer that is down", c.Online)
		}
		time.Sleep(3 * time.Second)
		p.mend()
		if err := f.AwaitOnline(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep((seconds + wire.BackoffMax/time.Second) * time.Second)
		synctest.Wait()

		c := f.Counts()
		if c.Opened != 2*workers || c.Failed == 0 || c.Launched != c.Acked || int(c.Launched) != len(l.launched) {
			t.Errorf("the fleet has seen %+v, and %d occurrences", c, len(l.launched))
		}
		if r, err := p.workers.ListWorkers(t.Context(), &schedv1.ListWorkersRequest{}); err != nil || len(r.GetWorkers()) != workers {
			t.Errorf("there are %d workers, want the same %d: %v", len(r.GetWorkers()), workers, err)
		}
	})
}

// Who waits for a fleet that can't come is told why it did not.
func TestAwaitTellsWhy(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		p.cut()
		f, err := fleet.Start(context.Background(), fleet.Config{Servers: []string{"primary"}, Workers: 1, Slots: 1, Name: "w", Dial: p.dial})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(f.Stop)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err = f.AwaitOnline(ctx)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it is %v", err)
		}
		if got := fmt.Sprint(err); !strings.Contains(got, errDown.Error()) || !strings.Contains(got, "w-0") {
			t.Errorf("%q does not say what went wrong with which worker", got)
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	for name, c := range map[string]fleet.Config{
		"no server": {Workers: 1, Slots: 1}, "no worker": {Servers: []string{"x"}, Slots: 1}, "no slot": {Servers: []string{"x"}, Workers: 1},
	} {
		if f, err := fleet.Start(t.Context(), c); err == nil {
			f.Stop()
			t.Errorf("%s: it was started", name)
		}
	}
}
