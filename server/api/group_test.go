package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	"google.golang.org/grpc/test/bufconn"

	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/proto/wire"
	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/peer"
	"github.com/schedd/schedd/server/plan"
)

// real is primaries whose group is a real one.
type real struct {
	*testing.T
	net     *raftstore.Network
	members map[string]*member
}

// member is one of them.
type member struct {
	*raftstore.Store
	w      *real
	id     string
	server *Server
	ports  [2]*bufconn.Listener // for people, and for other primaries
	served [2]*grpc.Server
	conn   *grpc.ClientConn
	conns  map[string]*grpc.ClientConn // to other primaries
	stop   context.CancelFunc
	tasks  sync.WaitGroup
}

// inARealGroup tells a story of a, b and c, and of d, which waits to be added.
func inARealGroup(t *testing.T, tell func(t *testing.T, w *real)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &real{T: t, net: raftstore.NewNetwork(), members: map[string]*member{}}
		for _, id := range []string{"a", "b", "c", "d"} {
			w.members[id] = w.start(id)
		}
		for _, m := range w.members {
			m.serve()
		}
		defer func() {
			for _, m := range w.members {
				m.close()
			}
		}()
		var group []raftstore.Server
		for _, id := range []string{"a", "b", "c"} {
			group = append(group, raftstore.Server{ID: id, Address: id + ":1", Voter: true})
		}
		w.fine(w.members["a"].Form(t.Context(), group))
		w.leader()
		tell(t, w)
	})
}

func (w *real) start(id string) *member {
	s, err := raftstore.Open(raftstore.Config{
		NodeID: id, Memory: raftstore.NewMemory(), Transport: w.net.TransportAt(id, id+":1"), Join: true, Log: slog.New(slog.DiscardHandler),
		Levels: func() map[string]uint32 {
			return map[string]uint32{"a": raftstore.Level, "b": raftstore.Level, "c": raftstore.Level, "d": raftstore.Level}
		},
	})
	if err != nil {
		w.Fatal(err)
	}
	m := &member{Store: s, w: w, id: id, conns: map[string]*grpc.ClientConn{}}
	m.server = New(Config{
		History: noPast{}, Store: s, Presence: &crew{}, Decider: decider{s, plan.DefaultBounds}, Gateway: &crew{}, Cluster: s, Group: m, Primaries: m,
		NodeID: id, Version: "v", Sessions: func() int { return 0 }, Condition: noCondition, Log: slog.New(slog.DiscardHandler),
	})
	ctx, stop := context.WithCancel(w.Context())
	m.stop = stop
	m.tasks.Go(func() {
		_ = s.Lead(ctx, func(ctx context.Context) error {
			<-ctx.Done()
			return nil
		})
	})
	return m
}

func (m *member) serve() {
	options := slices.Concat(wire.ServerOptions(), ServerOptions(m.server.Log, func(string, codes.Code, time.Duration) {}))
	m.served = [2]*grpc.Server{
		grpc.NewServer(slices.Concat(options, m.server.Forwarding())...), grpc.NewServer(slices.Concat(options, m.server.Leading())...),
	}
	peerv1.RegisterGroupServiceServer(m.served[1], readIndexer{s: m.Store})
	for i, g := range m.served {
		m.server.Register(g)
		port := bufconn.Listen(64 << 10)
		m.ports[i] = port
		m.tasks.Go(func() { _ = g.Serve(port) })
	}
	m.conn = m.w.dial(m.id, 0)
	for id := range m.w.members {
		m.conns[id] = m.w.dial(id, 1)
	}
}

func (w *real) dial(id string, port int) *grpc.ClientConn {
	conn, err := grpc.NewClient("passthrough:///bubble", append(wire.DialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return w.members[id].ports[port].DialContext(ctx)
		}))...)
	if err != nil {
		w.Fatal(err)
	}
	return conn
}

func (m *member) close() {
	_ = m.conn.Close()
	for _, c := range m.conns {
		_ = c.Close()
	}
	m.server.Close()
	for _, g := range m.served {
		g.Stop()
	}
	m.stop()
	m.tasks.Wait()
	if err := m.Close(); err != nil {
		m.w.Error(err)
	}
}

// readIndexer is the part of the cluster port that package group serves.
type readIndexer struct {
	peerv1.UnimplementedGroupServiceServer
	s *raftstore.Store
}

func (r readIndexer) ReadIndex(ctx context.Context, _ *peerv1.ReadIndexRequest) (*peerv1.ReadIndexResponse, error) {
	index, err := r.s.ReadIndex(ctx)
	return &peerv1.ReadIndexResponse{Index: index}, toStatus(nil, "", err)
}

// Leader implements [Group].
func (m *member) Leader() (string, grpc.ClientConnInterface, error) {
	id, _ := m.Store.Leader()
	if id == "" {
		return "", nil, errors.New("nobody is known to lead")
	}
	return id, m.conns[id], nil
}

// Primaries implements [Primaries]: whoever is in the process is heard of.
func (m *member) Primaries() map[string]peer.Primary {
	all := map[string]peer.Primary{}
	for id, o := range m.w.members {
		all[id] = peer.Primary{LastContact: time.Now(), AppliedIndex: o.AppliedIndex()}
	}
	return all
}

// leader waits until a primary leads, and returns it.
func (w *real) leader() *member {
	for {
		for _, m := range w.members {
			if m.Leads() {
				return m
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// follower returns a primary that votes and does not lead.
func (w *real) follower() *member {
	l := w.leader()
	for _, v := range l.Status().Servers {
		if v.Voter && v.ID != l.id {
			return w.members[v.ID]
		}
	}
	w.Fatal("there is no follower")
	return nil
}

func (w *real) fine(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (m *member) jobs() schedv1.JobServiceClient { return schedv1.NewJobServiceClient(m.conn) }
func (m *member) cluster() schedv1.ClusterServiceClient {
	return schedv1.NewClusterServiceClient(m.conn)
}

func (m *member) put(name string) error {
	_, err := m.jobs().PutJob(m.w.Context(), &schedv1.PutJobRequest{Job: aJob(name, allow)})
	return err
}

func (m *member) get(name string) error {
	_, err := m.jobs().GetJob(m.w.Context(), &schedv1.GetJobRequest{Name: name})
	return err
}

// People ask one primary, and each run that they ask for is made, once, while the
// leadership moves about, by request and because leaders are cut off.
func TestNobodyNoticesWhenTheLeaderChanges(t *testing.T) {
	inARealGroup(t, func(t *testing.T, w *real) {
		ctx := t.Context()
		asked := w.follower()
		w.fine(asked.put("j"))
		done := make(chan struct{})
		var moving sync.WaitGroup
		stop := sync.OnceFunc(func() {
			close(done)
			moving.Wait()
		})
		defer stop()
		moving.Go(func() {
			every := time.NewTicker(3 * time.Second)
			defer every.Stop()
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				case <-every.C:
				}
				l := w.leader()
				if i%2 == 0 || l == asked {
					_, _ = asked.cluster().TransferLeadership(ctx, &schedv1.TransferLeadershipRequest{})
					continue
				}
				w.net.Isolate(l.id)
				time.Sleep(4 * time.Second)
				w.net.Heal()
			}
		})
		leaders := map[string]bool{}
		for i := range 200 {
			r, err := asked.jobs().RunJob(ctx, &schedv1.RunJobRequest{Name: "j", RequestId: fmt.Sprint(i)})
			if err != nil {
				t.Fatalf("run %d: %v", i, err)
			}
			if _, err := schedv1.NewRunServiceClient(asked.conn).GetRun(ctx, &schedv1.GetRunRequest{Id: r.GetRun().GetId()}); err != nil {
				t.Fatalf("run %d is not where it was asked for: %v", i, err)
			}
			leaders[w.leader().id] = true
			time.Sleep(100 * time.Millisecond)
		}
		stop()
		count := 0
		w.leader().View(func(s *state.State) {
			for range s.RunsBefore(0) {
				count++
			}
		})
		if count != 200 || len(leaders) < 2 {
			t.Errorf("there are %d runs, want 200; %d primaries have led", count, len(leaders))
		}
	})
}

// A primary is added, and the leader removed, through one that is neither.
func TestGroupChanges(t *testing.T) {
	inARealGroup(t, func(t *testing.T, w *real) {
		ctx := t.Context()
		asked, old := w.follower(), w.leader()
		_, err := asked.cluster().AddPrimary(ctx, &schedv1.AddPrimaryRequest{Id: "d", ClusterAddress: "d:1", Voter: true})
		w.fine(err)
		w.fine(w.members["d"].WaitApplied(ctx, old.AppliedIndex()))
		w.fine(old.AddServer(ctx, raftstore.Server{ID: "d", Address: "d:1", Voter: true})) // as the leader does

		r, err := asked.cluster().RemovePrimary(ctx, &schedv1.RemovePrimaryRequest{Id: old.id})
		w.fine(err)
		if _, there := findServer(w.leader().Status().Servers, old.id); there || w.leader() == old || len(r.GetStatus().GetPrimaries()) != 3 {
			t.Errorf("%s was removed, and the group is %v", old.id, r)
		}
		w.fine(asked.put("j"))
		w.fine(asked.get("j"))

		s, err := asked.cluster().TransferLeadership(ctx, &schedv1.TransferLeadershipRequest{Id: "d"})
		w.fine(err)
		if s.GetStatus().GetLeaderId() != "d" || !w.members["d"].Leads() {
			t.Errorf("d was to lead: %v", s)
		}
		w.fine(w.members["d"].put("k"))
	})
}

// A snapshot is saved through a follower, and restored through it: all is as it
// was, and the follower knows it at once.
func TestSaveAndRestore(t *testing.T) {
	inARealGroup(t, func(t *testing.T, w *real) {
		ctx := t.Context()
		asked := w.follower()
		for i := range 20 {
			w.fine(asked.put(fmt.Sprint("j", i)))
		}
		saved, _, err := (&node{conn: asked.conn}).saveAll(ctx)
		w.fine(err)
		info, err := raftstore.InspectSnapshot(bytes.NewReader(saved))
		if err != nil || info.Jobs != 20 || len(info.Servers) != 3 {
			t.Fatalf("%+v, %v", info, err)
		}
		_, err = asked.jobs().DeleteJob(ctx, &schedv1.DeleteJobRequest{Name: "j3"})
		w.fine(err)
		w.fine(asked.put("later"))

		_, _, err = (&node{conn: asked.conn}).restoreAll(ctx, saved[:len(saved)-1], 1000)
		says(t, err, codes.InvalidArgument)
		w.fine(asked.get("later"))
		status, trailer, err := (&node{conn: asked.conn}).restoreAll(ctx, saved, 1000)
		w.fine(err)
		w.fine(asked.get("j3"))
		says(t, asked.get("later"), codes.NotFound)
		if status.GetLeaderId() != w.leader().id {
			t.Errorf("the status is %v", status)
		}
		var header metadata.MD
		_, err = w.leader().jobs().GetJob(ctx, &schedv1.GetJobRequest{Name: "j3"}, grpc.Header(&header))
		w.fine(err)
		if a, b := indexOf(t, trailer), indexOf(t, header); a > b {
			t.Errorf("restoring came to index %d, and the leader is at %d", a, b)
		}
		w.fine(asked.put("later"))
	})
}

// A linearizable read on a follower sees what was written on the leader before it.
func TestLinearizableInARealGroup(t *testing.T) {
	inARealGroup(t, func(t *testing.T, w *real) {
		for i := range 50 {
			name := fmt.Sprint("j", i)
			w.fine(w.leader().put(name))
			_, err := w.follower().jobs().GetJob(linear(t.Context()), &schedv1.GetJobRequest{Name: name})
			w.fine(err)
		}
	})
}
