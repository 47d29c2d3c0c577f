package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/proto/wire"
	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/history"
	"github.com/schedd/schedd/server/lead"
	"github.com/schedd/schedd/server/peer"
	"github.com/schedd/schedd/server/plan"
	"github.com/schedd/schedd/server/runlog"
)

// memory is a store without a log: a real state, and the rules of one.
type memory struct {
	mu      sync.RWMutex
	state   *state.State
	index   uint64
	archive raftstore.Archive // nil: none
	subs    map[int]func([]state.Change)
	next    int
	ahead   time.Duration // the leader's clock goes faster than ours by that
	err     error         // of each Propose
	before  func()        // called once before the next Propose
	moved   chan struct{} // closed when index has grown
}

func newMemory() *memory {
	m := &memory{state: state.New(), subs: map[int]func([]state.Change){}, moved: make(chan struct{})}
	m.apply(state.InitCluster{ClusterID: "test"})
	return m
}

// A store without a log is a group of one.
func (m *memory) Leads() bool { return true }

func (m *memory) Leader() (string, grpc.ClientConnInterface, error) {
	return "p1", nil, errors.New("it is this primary")
}
func (m *memory) WatchLeader() (<-chan struct{}, func())    { return nil, func() {} }
func (m *memory) ReadIndex(context.Context) (uint64, error) { return m.AppliedIndex(), nil }
func (m *memory) Primaries() map[string]peer.Primary        { return nil }

func (m *memory) AppliedIndex() uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.index
}

func (m *memory) WaitApplied(ctx context.Context, index uint64) error {
	for {
		m.mu.RLock()
		there, moved := m.index >= index, m.moved
		m.mu.RUnlock()
		if there {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-moved:
		}
	}
}

func (m *memory) Propose(ctx context.Context, commands ...state.Command) ([]state.Result, error) {
	m.mu.Lock()
	before, err := m.before, m.err
	m.before = nil
	m.mu.Unlock()
	if before != nil {
		before()
	}
	if err != nil {
		return nil, err
	}
	return m.apply(commands...), ctx.Err()
}

func (m *memory) apply(commands ...state.Command) []state.Result {
	m.mu.RLock()
	e := state.Entry{Now: time.Now().Add(m.ahead).UTC().Round(0), Commands: commands}
	m.mu.RUnlock()
	return m.enter(e)
}

// enter applies an entry.
func (m *memory) enter(e state.Entry) []state.Result {
	m.mu.Lock()
	m.index++
	results := m.state.Apply(m.index, e)
	close(m.moved)
	m.moved = make(chan struct{})
	changes := m.state.TakeChanges()
	if m.archive != nil {
		m.archive.Ended(raftstore.Point{Index: m.index, Now: m.state.Now(), Cluster: m.state.ClusterID()}, m.state.TakeEnded())
	}
	var tell []func([]state.Change)
	for _, f := range m.subs {
		tell = append(tell, f)
	}
	m.mu.Unlock()
	if len(changes) > 0 {
		for _, f := range tell {
			f(changes)
		}
	}
	return results
}

// restore tells that everything may have changed.
func (m *memory) restore() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.subs {
		f(nil)
	}
}

func (m *memory) View(f func(*state.State)) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	f(m.state)
}

func (m *memory) Subscribe(f func([]state.Change)) func() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next++
	n := m.next
	m.subs[n] = f
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.subs, n)
	}
}

// subscribers is how many follow the changes.
func (m *memory) subscribers() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.subs)
}

// noPast is a history of nothing.
type noPast struct{}

func (noPast) Run(context.Context, state.RunID) (*state.Run, error)      { return nil, nil }
func (noPast) List(context.Context, history.Query) ([]*state.Run, error) { return nil, nil }
func (noPast) Missing() string                                           { return "" }
func (noPast) Lost(time.Time) string                                     { return "" }

// decider is a leader that decides on nothing else than what is asked for by hand.
type decider struct {
	Store
	bounds plan.Bounds
}

func (d decider) Ask(ctx context.Context, a plan.Ask) (lead.Answer, error) {
	for {
		var c state.Request
		var known lead.Answer
		d.View(func(s *state.State) {
			c, known.Run, known.Err = plan.Request(plan.NewOutlook(s, d.bounds), a, time.Now().UTC().Round(0))
		})
		if known != (lead.Answer{}) {
			return known, nil
		}
		results, err := d.Propose(ctx, c)
		if err != nil {
			return lead.Answer{}, err
		}
		if !errors.Is(results[0].Err, state.ErrStale) {
			return lead.Answer{Run: results[0].Run, Agreed: true, Err: results[0].Err}, nil
		}
	}
}

// crew is who is connected, and who was cut off.
type crew struct {
	mu       sync.Mutex
	sessions map[string]peer.Session
	cut      []string
	trouble  map[string]string
}

func (c *crew) Session(worker string) (peer.Session, time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.sessions[worker]
	return s, s.Connected.Add(time.Second), ok
}

func (c *crew) Trouble(worker string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.trouble[worker]
}

func (c *crew) Cut(worker, _ string, permanent bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if permanent {
		worker += " for ever"
	}
	c.cut = append(c.cut, worker)
	delete(c.sessions, worker)
}

func (c *crew) connect(worker string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sessions[worker] = peer.Session{
		Worker: worker, Epoch: 7, Hello: &agentv1.Hello{}, Gateway: "p1", ObservedAddress: "192.0.2.1:4000", Connected: time.Now().UTC(),
	}
}

// cluster is a group of one, which stays so and has no snapshots.
type cluster struct{}

func (cluster) AddServer(context.Context, raftstore.Server) error { return raftstore.ErrNotLeader }

func (cluster) RemoveServer(context.Context, string) error { return raftstore.ErrUnknownServer }

func (cluster) TransferTo(context.Context, string) error { return raftstore.ErrNotLeader }

func (cluster) SaveSnapshot(context.Context, io.Writer) error { return raftstore.ErrNotLeader }

func (cluster) RestoreSnapshot(_ context.Context, r io.Reader) error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	return raftstore.ErrNotLeader
}

func (cluster) Status() raftstore.Status {
	return raftstore.Status{
		ID: "p1", Role: "leader", LeaderID: "p1", Term: 3,
		Servers: []raftstore.Server{{ID: "p1", Address: "a:1", Voter: true}},
	}
}

// buffer is a log that can be read while it is written.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// primary is a server and clients of it.
type primary struct {
	t       *testing.T
	server  *Server
	store   *memory
	past    *history.Store
	logs    *runlog.Store
	others  func(k runlog.Key) error // gets what other primaries have of a log; nil: nothing
	crew    *crew
	log     *buffer
	mu      sync.Mutex
	calls   []string // what the observer was told
	conn    *grpc.ClientConn
	jobs    schedv1.JobServiceClient
	runs    schedv1.RunServiceClient
	workers schedv1.WorkerServiceClient
	cluster schedv1.ClusterServiceClient
}

// story tells a story in a bubble: a gRPC server, and clients over a wire.
func story(t *testing.T, tell func(t *testing.T, p *primary)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		p := newPrimary(t, dir)
		listener := bufconn.Listen(64 << 10)
		g := grpc.NewServer(slices.Concat(wire.ServerOptions(), ServerOptions(p.server.Log, p.observe), p.server.Forwarding())...)
		p.server.Register(g)
		var serving sync.WaitGroup
		serving.Go(func() {
			if err := g.Serve(listener); err != nil {
				t.Errorf("serve: %v", err)
			}
		})
		conn, err := grpc.NewClient("passthrough:///bubble", append(wire.DialOptions(),
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			conn.Close()
			p.server.Close()
			g.GracefulStop()
			serving.Wait()
			p.logs.Close()
			p.past.Close()
			if n := p.store.subscribers(); n != 0 {
				t.Errorf("%d subscriptions are left", n)
			}
		})
		p.conn = conn
		p.jobs, p.runs = schedv1.NewJobServiceClient(conn), schedv1.NewRunServiceClient(conn)
		p.workers, p.cluster = schedv1.NewWorkerServiceClient(conn), schedv1.NewClusterServiceClient(conn)
		tell(t, p)
	})
}

func newPrimary(t *testing.T, dir string) *primary {
	p := &primary{t: t, store: newMemory(), crew: &crew{sessions: map[string]peer.Session{}}, log: &buffer{}}
	log := slog.New(slog.NewTextHandler(p.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	if p.logs, err = runlog.Open(dir, log); err != nil {
		t.Fatal(err)
	}
	p.past = history.New(history.Config{Dir: dir, Keep: history.DefaultRetention, Clock: time.Now, Filled: func() {}, Log: log})
	p.store.archive = p.past
	p.past.Start(p.store.View)
	p.server = New(Config{
		Store: p.store, History: p.past, Logs: copies{p.logs, p}, Presence: p.crew, Decider: decider{p.store, plan.DefaultBounds}, Gateway: p.crew, Cluster: cluster{}, Group: p.store, Primaries: p.store,
		NodeID: "p1", Version: "v1", Sessions: func() int { return 5 }, Condition: noCondition, Log: log,
	})
	return p
}

// reopen closes the history, and opens it in another place.
func (p *primary) reopen(dir string) {
	p.t.Helper()
	if err := p.past.Close(); err != nil {
		p.t.Fatal(err)
	}
	p.past = history.New(history.Config{Dir: dir, Keep: history.DefaultRetention, Clock: time.Now, Filled: func() {}, Log: p.server.Log})
	p.store.mu.Lock()
	p.store.archive = p.past
	p.store.mu.Unlock()
	p.server.History = p.past
	p.past.Start(p.store.View)
}

// copies is logs of which other primaries may have more.
type copies struct {
	*runlog.Store
	p *primary
}

func (c copies) Fetch(_ context.Context, k runlog.Key) error {
	if c.p.others == nil {
		return nil
	}
	return c.p.others(k)
}

func (c copies) Durable(_ context.Context, k runlog.Key) int64 {
	i, _ := c.Stat(k)
	return i.Durable
}

func (p *primary) observe(method string, code codes.Code, _ time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, method+" "+code.String())
}

// do applies commands behind the API's back; each must be accepted.
func (p *primary) do(commands ...state.Command) state.Result {
	p.t.Helper()
	var last state.Result
	for i, r := range p.store.apply(commands...) {
		if r.Err != nil {
			p.t.Fatalf("%T: %v", commands[i], r.Err)
		}
		last = r
	}
	return last
}

// aJob is a job that is right, and runs every minute.
func aJob(name string, edit ...func(*schedv1.Job)) *schedv1.Job {
	j := &schedv1.Job{
		Name: name,
		Triggers: []*schedv1.Trigger{
			{When: &schedv1.Trigger_Every{Every: &schedv1.Every{Interval: durationpb.New(time.Minute)}}},
		},
		Task: &schedv1.Task{Do: &schedv1.Task_Exec{Exec: &schedv1.Exec{Argv: []string{"true"}}}},
	}
	for _, f := range edit {
		f(j)
	}
	return j
}

// put stores a job, which must be right.
func (p *primary) put(j *schedv1.Job) *schedv1.Job {
	p.t.Helper()
	r, err := p.jobs.PutJob(p.t.Context(), &schedv1.PutJobRequest{Job: j})
	if err != nil {
		p.t.Fatalf("put %s: %v", j.GetName(), err)
	}
	return r.GetJob()
}

// run asks for a run of a job by hand.
func (p *primary) run(job string) *schedv1.Run {
	p.t.Helper()
	r, err := p.runs1(job, "")
	if err != nil {
		p.t.Fatalf("run %s: %v", job, err)
	}
	return r
}

func (p *primary) runs1(job, request string) (*schedv1.Run, error) {
	r, err := p.jobs.RunJob(p.t.Context(), &schedv1.RunJobRequest{Name: job, RequestId: request})
	return r.GetRun(), err
}

// id returns the id of a run as the state has it.
func (p *primary) id(r *schedv1.Run) state.RunID {
	p.t.Helper()
	id, err := state.ParseRunID(r.GetId())
	if err != nil {
		p.t.Fatal(err)
	}
	return id
}

// worker makes a worker known.
func (p *primary) worker(id string) {
	p.t.Helper()
	p.do(state.PutWorker{ID: state.WorkerID(id), Says: state.WorkerInfo{Name: "name-" + id, Slots: 10, Labels: map[string]string{"zone": "eu"}}})
}

// start lets a worker have a run, and starts it.
func (p *primary) start(r *schedv1.Run, worker string) (fence uint64) {
	p.t.Helper()
	id := p.id(r)
	res := p.do(state.Assign{Run: id, Attempt: len(r.GetAttempts()) + 1, Worker: state.WorkerID(worker)})
	fence = res.Run.Live().Fence
	p.do(state.Start{Run: id, Fence: fence, Time: time.Now().UTC()})
	return fence
}

// finish ends an attempt.
func (p *primary) finish(r *schedv1.Run, fence uint64, a state.Attempt, phase state.Phase) {
	p.t.Helper()
	p.do(state.Finish{Run: p.id(r), Fence: fence, Attempt: a, Phase: phase})
}

// says fails the test unless the error has the code, and its fields are just
// these.
func says(t *testing.T, err error, code codes.Code, fields ...string) {
	t.Helper()
	if got := status.Code(err); got != code {
		t.Fatalf("code %v, want %v: %v", got, code, err)
	}
	var got []string
	for _, d := range status.Convert(err).Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok {
			for _, v := range bad.GetFieldViolations() {
				got = append(got, v.GetField())
			}
		}
	}
	if !sameSet(got, fields) {
		t.Fatalf("fields %q, want %q: %v", got, fields, err)
	}
}

func sameSet(a, b []string) bool {
	in := map[string]int{}
	for _, s := range a {
		in[s]++
	}
	for _, s := range b {
		in[s]--
	}
	for _, n := range in {
		if n != 0 {
			return false
		}
	}
	return true
}

// sleep lets time pass in the bubble.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// noCondition is that of a primary that has not looked yet.
func noCondition() peer.Condition { return peer.Condition{} }
