package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
	"github.com/schedd/schedd/proto/settings"
	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/api"
	"github.com/schedd/schedd/server/clusternet"
	"github.com/schedd/schedd/server/group"
	"github.com/schedd/schedd/server/lead"
	"github.com/schedd/schedd/server/peer"
	"github.com/schedd/schedd/server/runlog"
)

// primaries is the group as the other packages need it: who is in it, who leads,
// and how to reach them.
type primaries struct {
	*raftstore.Store
	self string
	net  *clusternet.Network // nil: this primary listens to no others
}

var (
	errNoLeader = errors.New("no leader is known at the moment")
	errNoPort   = errors.New("this primary has no cluster address, so it reaches no others")
)

// Leader implements [api.Group].
func (p *primaries) Leader() (id string, conn grpc.ClientConnInterface, err error) {
	id, address := p.Store.Leader()
	if id == "" {
		return "", nil, errNoLeader
	}
	conn, err = p.conn(address)
	return id, conn, err
}

// conn returns a connection to the primary at an address.
func (p *primaries) conn(address string) (grpc.ClientConnInterface, error) {
	if p.net == nil {
		return nil, errNoPort
	}
	return p.net.Conn(address)
}

// Self implements [replica.Peers].
func (p *primaries) Self() string { return p.self }

// Members implements [replica.Peers]: the primaries that vote.
func (p *primaries) Members() []string {
	var ids []string
	for _, v := range p.Status().Servers {
		if v.Voter {
			ids = append(ids, v.ID)
		}
	}
	return ids
}

// LogConn implements [replica.Peers].
func (p *primaries) LogConn(id string) (grpc.ClientConnInterface, error) {
	if p.net == nil {
		return nil, errNoPort
	}
	for _, v := range p.Status().Servers {
		if v.ID == id {
			return p.net.BulkConn(v.Address)
		}
	}
	return nil, fmt.Errorf("primary %s is not in the group", id)
}

// several tells whether there are other primaries in the group.
func (p *primaries) several() bool { return len(p.Status().Servers) > 1 }

// openNet opens the cluster port.
func (s *Server) openNet(seams Seams) error {
	c := s.config.Cluster
	if s.clusterListener == nil {
		return nil
	}
	var key []byte
	if c.Key != "" {
		text, err := os.ReadFile(c.Key)
		if err == nil {
			key, err = clusternet.ParseKey(text)
		}
		if err != nil {
			return fmt.Errorf("--cluster-key: %w", err)
		}
	}
	var err error
	s.net, err = clusternet.Open(clusternet.Config{
		NodeID: s.config.NodeID, Listener: s.clusterListener, Advertise: s.advertised(), Key: key,
		Dial: seams.DialCluster, Log: s.log,
	})
	if err != nil {
		return fmt.Errorf("open the cluster port: %w", err)
	}
	return nil
}

// advertised returns what other primaries dial; with port 0, which is for tests,
// the one that was given.
func (s *Server) advertised() string {
	if a := s.config.Cluster.advertised(); s.clusterListener == nil || !endsWithPort0(a) {
		return a
	}
	return s.clusterListener.Addr().String()
}

func endsWithPort0(address string) bool {
	_, port, err := net.SplitHostPort(address)
	return err == nil && port == "0"
}

// openLinks builds what connects this primary with the others: both ends of the
// link, its part in the group, and the copies of logs.
func (s *Server) openLinks(seams Seams) {
	s.hub = peer.NewHub(peer.HubConfig{
		PrimaryID: s.config.NodeID, Leader: s.inbox, Admit: s.admitLink, Clock: s.clock, Beat: seams.Heartbeat / 2, Log: s.log,
		Term: func() uint64 { return s.store.Status().Term }, Applied: s.store.AppliedIndex,
	})
	s.member = group.NewMember(group.Config{
		Self:   raftstore.Server{ID: s.config.NodeID, Address: s.advertised()},
		Expect: s.config.Cluster.BootstrapExpect, Others: s.config.Cluster.others(),
		Store: s.store, Conn: s.primaries.conn, Heard: s.hub.Primaries, Redirect: s.redirect, Version: settings.Version(), Log: s.log,
	})
	s.uplink = peer.NewUplink(peer.UplinkConfig{
		PrimaryID: s.config.NodeID, Version: settings.Version(), Level: cmp.Or(seams.Level, raftstore.Level), Instance: s.member.Instance(),
		Leader: func() string { id, _ := s.store.Leader(); return id },
		Watch:  s.store.WatchLeader, Open: s.openLink, Applied: s.store.AppliedIndex, Condition: s.condition, Clock: s.clock, Log: s.log,
	})
}

// redirect has Raft look for primaries where they are now, by where the group has them.
func (s *Server) redirect(moved map[string]string) {
	if s.net != nil {
		s.net.Streams().Redirect(moved)
	}
}

// admitLink holds a primary that links to what its certificate says.
func (s *Server) admitLink(ctx context.Context, id string) error {
	if proved, ok := clusternet.PeerID(ctx); ok && proved != id {
		return fmt.Errorf("the certificate is of primary %s, and the link of %s", proved, id)
	}
	return nil
}

// openLink opens a link to the primary that leads.
func (s *Server) openLink(ctx context.Context, leader string) (peer.Stream, error) {
	if leader == s.config.NodeID {
		return s.hub.Open(ctx)
	}
	id, conn, err := s.primaries.Leader()
	if err != nil {
		return nil, err
	}
	if id != leader {
		return nil, fmt.Errorf("%s leads, and no longer %s", id, leader)
	}
	return peerv1.NewLinkServiceClient(conn).Link(ctx)
}

// serveCluster puts what primaries ask of each other on the cluster port's gRPC
// server: the API too, for calls that another primary hands on to the leader.
func (s *Server) serveCluster() {
	if s.net == nil {
		return
	}
	s.clusterGRPC = grpc.NewServer(slices.Concat(s.net.ServerOptions(), api.ServerOptions(s.log, s.metrics.called), s.api.Leading())...)
	grpc_health_v1.RegisterHealthServer(s.clusterGRPC, s.health)
	peerv1.RegisterLinkServiceServer(s.clusterGRPC, s.hub)
	peerv1.RegisterGroupServiceServer(s.clusterGRPC, s.member)
	peerv1.RegisterLogServiceServer(s.clusterGRPC, s.replica.Service())
	peerv1.RegisterHistoryServiceServer(s.clusterGRPC, s.history.Service())
	s.api.Register(s.clusterGRPC)
}

// lead is one term of this primary.
func (s *Server) lead(ctx context.Context) error {
	s.hub.During(ctx, func(ctx context.Context) {
		var beside sync.WaitGroup
		beside.Go(func() { s.member.Steward(ctx, s.standby) })
		beside.Go(func() { s.clockWatch().run(ctx) })
		stop := s.store.Subscribe(func(changes []state.Change) {
			if changes == nil || slices.ContainsFunc(changes, func(c state.Change) bool { return c.Group }) {
				s.hub.Direct(s.directs())
			}
		})
		s.hub.Direct(s.directs())
		lead.Run(ctx, s.leader())
		stop()
		beside.Wait()
	})
	return nil
}

// clockWatch watches this primary's clock while it leads.
func (s *Server) clockWatch() *clockWatch {
	return &clockWatch{
		self: s.config.NodeID, primaries: s.hub.Primaries, size: func() int { return len(s.store.Status().Servers) },
		voters: s.primaries.Members, transfer: s.store.TransferTo, log: s.log,
	}
}

// standby tells whether a primary shall never vote.
func (s *Server) standby(id string) (is bool) {
	s.store.View(func(st *state.State) { is = st.Standby(id) })
	return is
}

// directs returns the addresses of workers in direct mode.
func (s *Server) directs() (list []string) {
	s.store.View(func(st *state.State) { list = st.Directs() })
	return list
}

// watchGroup tells the copies of logs when the group may have changed, and drops
// the connections to who has left it: at once when there is news, and every now and
// then in case there was none.
func (s *Server) watchGroup(ctx context.Context) {
	news, cancel := s.store.WatchLeader()
	defer cancel()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	var members []raftstore.Server
	for {
		select {
		case <-ctx.Done():
			return
		case <-news:
		case <-look.C:
		}
		s.replica.MembersChanged()
		members = s.forgetLeft(members)
	}
}

const (
	// lookEvery is how often a primary looks at its own health.
	lookEvery = time.Second
	// leaderless is for how long a primary without a link to the leader still
	// counts as healthy: elections are over by then.
	leaderless = 15 * time.Second
	// askElsewhere is how often one that is cut off asks the others.
	askElsewhere = 5 * time.Second
	// evacuateWithin is how long workers get to leave one that is cut off. It is soon,
	// since to the leader they have been gone for a while. leaveDiskWithin is how long
	// they get to leave one whose disk fails: they keep what it does not take.
	evacuateWithin  = 5 * time.Second
	leaveDiskWithin = 20 * time.Second
)

// watchHealth says to load balancers and workers when this primary is not ready, as
// when it does not reach the leader, or its disk does not take the output of runs. Workers
// stay where they are while it is so on all primaries: their runs go on, and there is
// nowhere better. Otherwise they are sent away, and none is let in.
func (s *Server) watchHealth(ctx context.Context) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	caughtUp := s.knowing()
	var asked time.Time
	for {
		status := grpc_health_v1.HealthCheckResponse_SERVING
		if s.unready() != "" {
			status = grpc_health_v1.HealthCheckResponse_NOT_SERVING
		}
		for _, service := range []string{"", agentv1.AgentGateway_ServiceDesc.ServiceName} {
			s.health.SetServingStatus(service, status) // without effect after Shutdown
		}
		switch {
		case !s.cutOff():
			s.elsewhere.Store(false)
		case time.Since(asked) >= askElsewhere:
			asked = time.Now()
			s.gateway.Dial(nil) //nolint:contextcheck // the leader gives them to another one; what ends meanwhile is the gateway's
			s.elsewhere.Store(s.member.BetterElsewhere(ctx))
		}
		s.evacuate() //nolint:contextcheck // sessions have contexts of their own
		select {
		case <-ctx.Done():
			return
		case <-caughtUp:
			caughtUp = nil
		case <-look.C:
		}
	}
}

// evacuate asks workers to come back through other primaries, if they are better off
// there.
func (s *Server) evacuate() {
	why, spread := s.refuse(), leaveDiskWithin
	if s.elsewhere.Load() {
		spread = evacuateWithin
	}
	if why == "" {
		return
	}
	if n := s.gateway.Evacuate(spread, why); n > 0 {
		s.log.Warn("workers are asked to come back through other primaries", "workers", n, "reason", why)
	}
}

// refuse returns why workers should come in through another primary.
func (s *Server) refuse() string {
	switch {
	case s.elsewhere.Load():
		return "this primary does not reach the leader"
	case s.keptElsewhere() != nil:
		return "this primary can't keep the output of runs"
	}
	return ""
}

// behind returns why this primary does not know all that was acknowledged yet.
func (s *Server) behind() string {
	if err := s.member.Trouble(); err != nil {
		return strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return "catching up with the log"
}

// cutOff tells whether there was no link to the leader for too long.
func (s *Server) cutOff() bool {
	linked, since := s.uplink.Linked()
	return !linked && since > leaderless
}

// ownsWithin is how long a gateway waits to learn of an attempt whose worker
// sends output already: what the leader has agreed reaches the other primaries
// a little later.
const ownsWithin = time.Second

// owns tells whether an attempt was given to a worker. On a primary that does not
// lead it may wait for a moment.
func (s *Server) owns(ctx context.Context, worker string, k runlog.Key) bool {
	ctx, cancel := context.WithTimeout(ctx, ownsWithin)
	defer cancel()
	id, err := state.ParseRunID(k.Run)
	if err != nil {
		return false
	}
	past := s.attemptOfPast(ctx, id, k)
	for {
		index := s.store.AppliedIndex()
		a := past
		s.store.View(func(st *state.State) {
			if r := st.Run(id); r != nil {
				a = attemptOf(r, k)
			}
		})
		if a != nil || s.store.Leads() || s.store.WaitApplied(ctx, index+1) != nil {
			return a != nil && a.Worker == state.WorkerID(worker)
		}
	}
}
