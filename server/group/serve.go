package group

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
	"github.com/schedd/schedd/raftstore"
)

// Introduce implements [peerv1.GroupServiceServer].
func (m *Member) Introduce(_ context.Context, req *peerv1.IntroduceRequest) (*peerv1.IntroduceResponse, error) {
	if req.GetPrimaryId() != m.Self.ID || req.GetInstance() == m.instance {
		return m.answer(req.GetPrimaryId()), nil
	}
	m.warnOf(req.GetClusterAddress())
	code := codes.FailedPrecondition // it may yet be mended here
	if m.Store.Formed() {
		code = codes.AlreadyExists
	}
	return nil, status.Error(code, twoAreCalled(m.Self.ID, m.Self.Address, req.GetClusterAddress()))
}

// answer says who this primary is to one of that id.
func (m *Member) answer(to string) *peerv1.IntroduceResponse {
	leader, _ := m.Store.Leader()
	return &peerv1.IntroduceResponse{
		PrimaryId: m.Self.ID, ClusterAddress: m.Self.Address, Expect: uint32(m.Expect), Instance: m.instance,
		Found: m.hasFound(to), Formed: m.Store.Formed(), LeaderId: leader, Version: m.Version, RecordedAddress: m.recorded(m.Self.ID),
	}
}

// warnOf tells the operator of a namesake, once a minute at most.
func (m *Member) warnOf(address string) {
	m.mu.Lock()
	due := time.Since(m.warned) >= warnEvery
	if due {
		m.warned = time.Now()
	}
	m.mu.Unlock()
	if due {
		m.Log.Warn("another primary has the name of this one: give each a --node-id of its own", "primary", m.Self.ID, "other", address)
	}
}

func (m *Member) hasFound(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, found := m.found[id]
	return found
}

// Join implements [peerv1.GroupServiceServer].
func (m *Member) Join(ctx context.Context, req *peerv1.JoinRequest) (*peerv1.JoinResponse, error) {
	if m.Store.Leads() {
		return m.take(ctx, req)
	}
	id, address := m.Store.Leader()
	if id == "" || id == m.Self.ID {
		return nil, status.Errorf(codes.Unavailable, "%s knows of no leader at the moment: try again", m.Self.ID)
	}
	if req.GetHandedOn() { // or two that take each other for the leader would go on for ever
		return nil, status.Errorf(codes.Unavailable, "%s does not lead, and takes %s for the leader: try again", m.Self.ID, id)
	}
	conn, err := m.Conn(address)
	if err != nil {
		return nil, status.Errorf(codes.Unavailable, "reach the leader %s at %s: %v", id, address, err)
	}
	next := proto.CloneOf(req)
	next.HandedOn = true
	return peerv1.NewGroupServiceClient(conn).Join(ctx, next)
}

// take takes a primary into the group that this one leads, or notes its address.
func (m *Member) take(ctx context.Context, req *peerv1.JoinRequest) (*peerv1.JoinResponse, error) {
	if req.GetPrimaryId() == "" || req.GetClusterAddress() == "" {
		return nil, status.Error(codes.InvalidArgument, "who joins has to say its id and address")
	}
	c := m.inquire(ctx, req)
	v, err := admit(c)
	if err != nil {
		return nil, err
	}
	if c.empty {
		m.tookIn(v.ID)
	}
	if !slices.Contains(c.servers, v) {
		m.tell(c, v)
		if err := m.Store.AddServer(ctx, v); err != nil {
			return nil, leaderStatus(err)
		}
	}
	return &peerv1.JoinResponse{LeaderId: m.Self.ID}, nil
}

// tell tells the operator what admitting v changes.
func (m *Member) tell(c claim, v raftstore.Server) {
	log := m.Log.With("primary", v.ID, "address", v.Address, "voter", v.Voter)
	switch {
	case c.asked == "":
		log.Info("taking a primary into the group")
	case c.empty:
		log.Warn("a primary has come back without data, and has no vote until it has caught up")
	default:
		log.Info("a primary has another address now")
	}
}

// inquire finds out what there is to know about who asks to be in the group. The group
// is looked at last, so that it is not changed by what is old.
func (m *Member) inquire(ctx context.Context, req *peerv1.JoinRequest) claim {
	c := claim{
		id: req.GetPrimaryId(), address: req.GetClusterAddress(), instance: req.GetInstance(), empty: req.GetEmpty(),
		asked: m.recorded(req.GetPrimaryId()),
	}
	if c.id == m.Self.ID {
		c.there = m.answer(c.id) // who has it is here
		if c.instance == m.instance {
			c.here = c.there
		}
	} else {
		c.here, c.there = m.askBoth(ctx, c.address, c.asked)
		if p := m.Heard()[c.id]; time.Since(p.LastContact) <= fresh {
			c.heard = p.Instance
		}
	}
	c.servers = m.Store.Status().Servers
	return c
}

// askBoth asks at two addresses at once who is there. Who does not answer is nil.
func (m *Member) askBoth(ctx context.Context, a, b string) (atA, atB *peerv1.IntroduceResponse) {
	var wg sync.WaitGroup
	if b != "" && b != a {
		wg.Go(func() { atB, _ = m.ask(ctx, b) })
	}
	atA, _ = m.ask(ctx, a)
	wg.Wait()
	if b == a {
		atB = atA
	}
	return atA, atB
}

// tookIn has the time begin anew for which a primary has to be caught up before it
// votes.
func (m *Member) tookIn(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.taken[id] = time.Now()
}

// ReadIndex implements [peerv1.GroupServiceServer].
func (m *Member) ReadIndex(ctx context.Context, _ *peerv1.ReadIndexRequest) (*peerv1.ReadIndexResponse, error) {
	index, err := m.Store.ReadIndex(ctx)
	if err != nil {
		return nil, leaderStatus(err)
	}
	return &peerv1.ReadIndexResponse{Index: index}, nil
}

// leaderStatus is an error of the store in gRPC's words.
func leaderStatus(err error) error {
	switch {
	case errors.Is(err, raftstore.ErrNotLeader):
		return status.Error(codes.FailedPrecondition, err.Error())
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return status.FromContextError(err).Err()
	}
	return status.Error(codes.Unavailable, err.Error())
}
