package api

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/proto/wire"
	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/peer"
	"github.com/schedd/schedd/server/plan"
)

// trio is three primaries a, b and c: real servers of the API that talk over real
// gRPC, in a group that is made up. What it agrees on is real.
type trio struct {
	*testing.T
	a, b, c *node

	mu      sync.Mutex // guards the following
	leader  string     // "": there is none
	log     []state.Entry
	servers []raftstore.Server
	heard   map[string]peer.Primary
}

// node is one primary.
type node struct {
	*trio
	*memory
	id     string
	server *Server
	logged *buffer

	public, cluster *bufconn.Listener
	grpc            []*grpc.Server // on both
	conn            *grpc.ClientConn
	toLeader        map[string]*grpc.ClientConn

	// What happens on it; all are guarded by trio.mu.
	sees     string // who leads, as it believes
	down     bool   // nobody can connect to its cluster port
	lags     bool   // it applies nothing
	news     map[chan struct{}]struct{}
	proposed func(ctx context.Context) error // called first when it is to propose; nil: nothing
	save     func(ctx context.Context, w io.Writer) error
	restore  func(ctx context.Context, r io.Reader) error
	transfer func(to string) error
	calls    []call // that came to its cluster port
}

// call is one that came to a cluster port.
type call struct {
	method   string
	md       metadata.MD
	deadline time.Time
}

// together tells a story of three primaries in a bubble; a leads.
func together(t *testing.T, tell func(t *testing.T, w *trio)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &trio{T: t, heard: map[string]peer.Primary{}}
		w.a, w.b, w.c = newNode(w, "a"), newNode(w, "b"), newNode(w, "c")
		for _, n := range w.all() {
			w.servers = append(w.servers, raftstore.Server{ID: n.id, Address: n.id + ":7420", Voter: true})
		}
		w.lead("a")
		w.hear()
		for _, n := range w.all() {
			n.serve()
		}
		defer func() {
			for _, n := range w.all() {
				n.release()
			}
		}()
		tell(t, w)
	})
}

func (w *trio) all() []*node { return []*node{w.a, w.b, w.c} }

func newNode(w *trio, id string) *node {
	n := &node{trio: w, memory: newMemory(), id: id, logged: &buffer{}, news: map[chan struct{}]struct{}{}, toLeader: map[string]*grpc.ClientConn{}}
	log := slog.New(slog.NewTextHandler(n.logged, nil))
	n.server = New(Config{
		History: noPast{}, Store: n, Presence: &crew{}, Decider: decider{n, plan.DefaultBounds}, Gateway: &crew{}, Cluster: n, Group: n, Primaries: n,
		NodeID: id, Version: "v-" + id, Sessions: func() int { return 5 }, Condition: n.condition, Log: log,
	})
	return n
}

// serve has n listen, as package server does.
func (n *node) serve() {
	options := slices.Concat(wire.ServerOptions(), ServerOptions(n.server.Log, func(string, codes.Code, time.Duration) {}))
	n.public, n.cluster = bufconn.Listen(64<<10), bufconn.Listen(64<<10)
	public := grpc.NewServer(slices.Concat(options, n.server.Forwarding())...)
	n.server.Register(public)
	// What is seen of a call on the cluster port, and what goes back with it.
	seen := []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			n.note(ctx, info.FullMethod)
			_ = grpc.SetHeader(ctx, metadata.Pairs("x-header", n.id))
			_ = grpc.SetTrailer(ctx, metadata.Pairs("x-trailer", n.id))
			return next(ctx, req)
		}),
		grpc.ChainStreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			n.note(stream.Context(), info.FullMethod)
			_ = stream.SetHeader(metadata.Pairs("x-header", n.id))
			stream.SetTrailer(metadata.Pairs("x-trailer", n.id))
			return next(srv, stream)
		}),
	}
	cluster := grpc.NewServer(slices.Concat(options, seen, n.server.Leading())...)
	n.server.Register(cluster)
	peerv1.RegisterGroupServiceServer(cluster, reader{n: n})
	for g, l := range map[*grpc.Server]net.Listener{public: n.public, cluster: n.cluster} {
		go func() { _ = g.Serve(l) }()
	}
	n.grpc = []*grpc.Server{public, cluster}
	n.conn = n.dial(func(ctx context.Context) (net.Conn, error) { return n.public.DialContext(ctx) })
	for _, o := range n.all() {
		n.toLeader[o.id] = n.dial(func(ctx context.Context) (net.Conn, error) {
			o.trio.mu.Lock()
			down := o.down
			o.trio.mu.Unlock()
			if down {
				return nil, errors.New("connection refused")
			}
			return o.cluster.DialContext(ctx)
		})
	}
}

func (n *node) dial(f func(ctx context.Context) (net.Conn, error)) *grpc.ClientConn {
	conn, err := grpc.NewClient("passthrough:///bubble", append(wire.DialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return f(ctx) }))...)
	if err != nil {
		n.Fatal(err)
	}
	return conn
}

func (n *node) release() {
	_ = n.conn.Close()
	for _, c := range n.toLeader {
		_ = c.Close()
	}
	n.server.Close()
	for _, g := range n.grpc {
		g.Stop()
	}
	synctest.Wait() // Stop leaves calls alone that have not come back yet
	if l := n.subscribers(); l != 0 {
		n.Errorf("%d subscriptions are left on %s", l, n.id)
	}
	n.trio.mu.Lock()
	defer n.trio.mu.Unlock()
	if l := len(n.news); l != 0 {
		n.Errorf("%d calls still watch the leader on %s", l, n.id)
	}
}

func (n *node) note(ctx context.Context, method string) {
	md, _ := metadata.FromIncomingContext(ctx)
	deadline, _ := ctx.Deadline()
	n.trio.mu.Lock()
	defer n.trio.mu.Unlock()
	n.calls = append(n.calls, call{method, md, deadline})
}

// handedOn returns the calls that came to n's cluster port.
func (n *node) handedOn() []call {
	n.trio.mu.Lock()
	defer n.trio.mu.Unlock()
	return slices.Clone(n.calls)
}

// kill takes a primary down, with all that is under way on its cluster port. One
// that calls it waits for its connection to be tried again.
func (n *node) kill() {
	n.trio.mu.Lock()
	n.down = true
	n.trio.mu.Unlock()
	n.grpc[1].Stop()
}

// lead makes a primary the leader, and all know it; "": there is none.
func (w *trio) lead(id string) { w.leadSeenBy(id, "a", "b", "c") }

// leadSeenBy makes a primary the leader, and these know it.
func (w *trio) leadSeenBy(id string, by ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.leader = id
	for _, n := range w.all() {
		if slices.Contains(by, n.id) {
			n.sees = id
			for c := range n.news {
				select {
				case c <- struct{}{}:
				default:
				}
			}
		}
	}
}

// condition is that of a primary which lacks 3 logs, as long as a, b and c keep
// copies.
func (n *node) condition() peer.Condition {
	return peer.Condition{LogsMissing: 3, LogsAmong: []string{"a", "b", "c"}}
}

// hear has the leader hear of all others now.
func (w *trio) hear() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.all() {
		w.heard[n.id] = peer.Primary{
			Version: "v-" + n.id, LastContact: time.Now(), AppliedIndex: n.AppliedIndex(), Sessions: 7, ClockOffset: time.Millisecond, Condition: n.condition(),
		}
	}
}

// agree puts commands in the log, whoever proposes them, and returns what the
// leader's state says to them.
func (w *trio) agree(commands ...state.Command) (results []state.Result) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e := state.Entry{Now: time.Now().UTC().Round(0), Commands: commands}
	w.log = append(w.log, e)
	for _, n := range w.all() {
		if n.lags {
			continue
		}
		if r := n.enter(e); n.id == w.leader {
			results = r
		}
	}
	return results
}

// lag stops n from applying anything, or has it catch up.
func (n *node) lag(is bool) {
	n.trio.mu.Lock()
	defer n.trio.mu.Unlock()
	n.lags = is
	for !is && int(n.AppliedIndex()) <= len(n.log) {
		n.enter(n.log[n.AppliedIndex()-1])
	}
}

// Propose implements [Store].
func (n *node) Propose(ctx context.Context, commands ...state.Command) ([]state.Result, error) {
	n.trio.mu.Lock()
	first := n.proposed
	n.trio.mu.Unlock()
	if first != nil {
		if err := first(ctx); err != nil {
			return nil, err
		}
	}
	if !n.leads() {
		return nil, raftstore.ErrNotLeader
	}
	return n.agree(commands...), nil
}

// on sets what happens first when n is to propose.
func (n *node) on(f func(ctx context.Context) error) {
	n.trio.mu.Lock()
	defer n.trio.mu.Unlock()
	n.proposed = f
}

// leads tells whether n does, whatever it believes.
func (n *node) leads() bool {
	n.trio.mu.Lock()
	defer n.trio.mu.Unlock()
	return n.leader == n.id
}

// Leads implements [Group], and so on.
func (n *node) Leads() bool {
	n.trio.mu.Lock()
	defer n.trio.mu.Unlock()
	return n.sees == n.id
}

func (n *node) Leader() (string, grpc.ClientConnInterface, error) {
	n.trio.mu.Lock()
	defer n.trio.mu.Unlock()
	if n.sees == "" {
		return "", nil, errors.New("nobody is known to lead")
	}
	return n.sees, n.toLeader[n.sees], nil
}

func (n *node) WatchLeader() (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	n.trio.mu.Lock()
	defer n.trio.mu.Unlock()
	n.news[c] = struct{}{}
	return c, func() {
		n.trio.mu.Lock()
		defer n.trio.mu.Unlock()
		delete(n.news, c)
	}
}

func (n *node) ReadIndex(context.Context) (uint64, error) {
	n.trio.mu.Lock()
	defer n.trio.mu.Unlock()
	if n.leader != n.id {
		return 0, raftstore.ErrNotLeader
	}
	return uint64(len(n.log)) + 1, nil
}

// Primaries implements [Primaries].
func (n *node) Primaries() map[string]peer.Primary {
	n.trio.mu.Lock()
	defer n.trio.mu.Unlock()
	if n.leader != n.id {
		return nil
	}
	return maps.Clone(n.heard)
}

// Status implements [Cluster], and so on.
func (n *node) Status() raftstore.Status {
	n.trio.mu.Lock()
	defer n.trio.mu.Unlock()
	role := map[bool]string{true: "leader", false: "follower"}[n.sees == n.id]
	return raftstore.Status{ID: n.id, Role: role, LeaderID: n.sees, Term: 3, Servers: slices.Clone(n.servers)}
}

func (n *node) AddServer(_ context.Context, v raftstore.Server) error {
	return n.change(v.ID, func(list []raftstore.Server) []raftstore.Server { return append(list, v) })
}

func (n *node) RemoveServer(_ context.Context, id string) error {
	if _, there := findServer(n.Status().Servers, id); !there && n.Leads() {
		return raftstore.ErrUnknownServer
	}
	return n.change(id, func(list []raftstore.Server) []raftstore.Server { return list })
}

func (n *node) change(id string, f func([]raftstore.Server) []raftstore.Server) error {
	n.trio.mu.Lock()
	defer n.trio.mu.Unlock()
	if n.leader != n.id {
		return raftstore.ErrNotLeader
	}
	n.servers = f(slices.DeleteFunc(slices.Clone(n.servers), func(o raftstore.Server) bool { return o.ID == id }))
	return nil
}

func (n *node) TransferTo(_ context.Context, id string) error {
	if !n.leads() {
		return raftstore.ErrNotLeader
	}
	if n.transfer != nil {
		return n.transfer(id)
	}
	if id == "" {
		id = map[string]string{"a": "b", "b": "c", "c": "a"}[n.id]
	}
	n.lead(id)
	return nil
}

func (n *node) SaveSnapshot(ctx context.Context, w io.Writer) error { return n.save(ctx, w) }

func (n *node) RestoreSnapshot(ctx context.Context, r io.Reader) error {
	if !n.Leads() { // as the real one, it may not know better
		return raftstore.ErrNotLeader
	}
	return n.restore(ctx, r)
}

// setStreams gives all primaries a small snapshot to save, and lets them restore any.
func (w *trio) setStreams() {
	for _, n := range w.all() {
		n.save = func(_ context.Context, out io.Writer) error {
			_, err := out.Write([]byte("snapshot of " + n.id))
			return err
		}
		n.restore = func(_ context.Context, in io.Reader) error {
			_, err := io.ReadAll(in)
			return err
		}
	}
}

// reader is the part of the cluster port that tells how far reads must see, as
// package group serves it.
type reader struct {
	peerv1.UnimplementedGroupServiceServer
	n *node
}

func (r reader) ReadIndex(ctx context.Context, _ *peerv1.ReadIndexRequest) (*peerv1.ReadIndexResponse, error) {
	index, err := r.n.ReadIndex(ctx)
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	return &peerv1.ReadIndexResponse{Index: index}, nil
}

// put stores a job through n.
func (n *node) put(ctx context.Context, name string, options ...grpc.CallOption) error {
	_, err := schedv1.NewJobServiceClient(n.conn).PutJob(ctx, &schedv1.PutJobRequest{Job: aJob(name, allow)}, options...)
	return err
}

// get looks a job up through n.
func (n *node) get(ctx context.Context, name string, options ...grpc.CallOption) error {
	_, err := schedv1.NewJobServiceClient(n.conn).GetJob(ctx, &schedv1.GetJobRequest{Name: name}, options...)
	return err
}

// run runs a job by hand through n.
func (n *node) run(ctx context.Context, name, request string) error {
	_, err := schedv1.NewJobServiceClient(n.conn).RunJob(ctx, &schedv1.RunJobRequest{Name: name, RequestId: request})
	return err
}

// workers lists the workers through n.
func (n *node) workers(ctx context.Context) error {
	_, err := schedv1.NewWorkerServiceClient(n.conn).ListWorkers(ctx, &schedv1.ListWorkersRequest{})
	return err
}

// has tells whether the state of n has a job.
func (n *node) has(name string) (is bool) {
	n.View(func(s *state.State) { is = s.Job(state.JobKey{Namespace: "default", Name: name}) != nil })
	return is
}

// runs is how many runs the state of n has.
func (n *node) runs() (count int) {
	n.View(func(s *state.State) {
		for range s.RunsBefore(0) {
			count++
		}
	})
	return count
}

// fine fails the test when there is an error.
func (w *trio) fine(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// reason fails the test unless the error says Unavailable for that reason.
func (w *trio) reason(err error, want string) {
	w.Helper()
	if code, is := status.Code(err), reasonOf(err); code != codes.Unavailable || is != want {
		w.Fatalf("it is %v for %q, want %v for %q: %v", code, is, codes.Unavailable, want, err)
	}
}

// took fails the test unless so much time has passed since then.
func (w *trio) took(since time.Time, want time.Duration) {
	w.Helper()
	if is := time.Since(since); is != want {
		w.Errorf("it took %v, want %v", is, want)
	}
}
