// Package group is how primaries come to be a group, and stay one: they form it
// together, join one that there is, tell the leader when their address has
// changed, and are let vote when they have caught up.
//
// It never removes a primary: whether one that is silent is gone for good,
// people have to say.
//
// # Forming
//
// Those that form a group are told each other's addresses, all of them, and how
// many they are. Each asks all others who they are, and the one with the least
// id forms the group when all have answered, none has data, and all expect the
// same number; the others get the group from it by Raft. Each also says whether
// it has found the other through its own list, and must have, so that no two
// sets that share a primary can both be complete. One that finds others in a
// group, when it has no data, joins that.
package group

import (
	"cmp"
	"context"
	cryptorand "crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/server/peer"
)

const (
	// askEvery is how often a primary that is in no group yet asks around.
	askEvery = time.Second
	// askWithin bounds one question.
	askWithin = 3 * time.Second
	// lookEvery is how often a primary looks whether the group has its address.
	lookEvery = 10 * time.Second
	// formedWithin is how long those that formed a group take at most to learn of it.
	formedWithin = 5 * time.Second
	// tellEvery is how often the operator is told what forming waits for.
	tellEvery = 10 * time.Second
	// warnEvery is how often the operator is told of a namesake.
	warnEvery = time.Minute
)

// Store is what the group is on record in; [raftstore.Store] is one.
type Store interface {
	Formed() bool
	Form(ctx context.Context, group []raftstore.Server) error
	Status() raftstore.Status
	Leader() (id, address string)
	Leads() bool
	AppliedIndex() uint64
	AddServer(ctx context.Context, v raftstore.Server) error
	ReadIndex(ctx context.Context) (uint64, error)
}

// Config is what a member is made of. All of it but Others is required.
type Config struct {
	// Self is this primary: its id, and the address that the others dial.
	Self raftstore.Server
	// Expect is how many primaries form the first group; 1 with a list in Others
	// means to join one that there is.
	Expect int
	// Others lists the addresses of the other primaries. This one's own may be among
	// them.
	Others []string
	// Store holds the group.
	Store Store
	// Conn returns a connection to the cluster port at an address.
	Conn func(address string) (grpc.ClientConnInterface, error)
	// Heard returns what was heard of the primaries by id, while this one leads.
	Heard func() map[string]peer.Primary
	// Redirect is told where Raft finds primaries that are not where the group has them,
	// by where it has them: of all of those, whenever it changes.
	Redirect func(moved map[string]string)
	// Version of schedd, for the others to see.
	Version string
	// Log is told how the group comes to be.
	Log *slog.Logger
}

// Member is this primary's part in the group. It serves the others as
// [peerv1.GroupServiceServer].
type Member struct {
	peerv1.UnimplementedGroupServiceServer
	Config
	instance string            // drawn anew in each life
	passed   time.Time         // when others were first seen in a group; for enter alone
	moved    map[string]string // what Redirect was last told; for stay alone
	noted    bool              // the leader has noted a new address; for stay alone

	mu      sync.Mutex           // guards what follows
	found   map[string]bool      // ids of primaries that answered from our own list, and whether in a group at first
	taken   map[string]time.Time // when this primary, as the leader, last took in who had no data, by id
	warned  time.Time            // when the operator was last told of a namesake
	trouble error
}

// errNamesake is that another primary, which lives and is in a group, has the id of
// this one.
var errNamesake = errors.New("the name is taken")

// errNotYet is while a group is being formed.
var errNotYet = errors.New("not in a group yet")

// Instance is by which this process is known from others of the same id.
func (m *Member) Instance() string { return m.instance }

// Trouble tells why this primary is in no group, or what it heard from the others when
// it last asked them because it knows of no leader; nil when neither is so.
func (m *Member) Trouble() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.trouble
}

func (m *Member) setTrouble(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.trouble = err
}

// NewMember returns a member that does nothing before it is run.
func NewMember(c Config) *Member {
	return &Member{Config: c, instance: cryptorand.Text(), found: map[string]bool{}, taken: map[string]time.Time{}}
}

// Run forms or joins the group if this primary is in none, and then keeps its
// address right, until ctx is done. Who finds that its id is another one's, which
// lives, asks for nothing any more: as soon as that one is away for a moment, it would
// take its place.
func (m *Member) Run(ctx context.Context) {
	err := m.enter(ctx)
	if err == nil {
		err = m.stay(ctx)
	}
	if err != nil && ctx.Err() == nil {
		m.setTrouble(err)
		m.Log.Error("another primary has the name of this one, which asks to be in the group no more: stop it, and start it "+
			"under a name of its own, with an empty data directory", "primary", m.Self.ID, "err", err)
	}
}

// pause waits for about d, and reports whether to go on.
func (m *Member) pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d*3/4 + rand.N(d/2))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// enter returns when this primary is in a group, or with [errNamesake]. One that
// began without data, and found others in a group already, also waits until the
// leader knows that: if it had a vote once, it does not remember how it voted.
func (m *Member) enter(ctx context.Context) error {
	if m.Store.Formed() {
		return nil
	}
	var told time.Time
	for ctx.Err() == nil {
		late := m.isLate()
		var err error
		if late || !m.Store.Formed() {
			err = m.tryEnter(ctx)
		}
		switch {
		case errors.Is(err, errNamesake):
			return err
		case err == nil && m.Store.Formed() && late == m.isLate():
			m.setTrouble(nil)
			m.Log.Info("in the group", "address", m.Self.Address)
			return nil
		case err != nil && ctx.Err() == nil && time.Since(told) >= tellEvery:
			told = time.Now()
			m.Log.Info("not in a group yet; trying again", "expect", m.Expect, "join", strings.Join(m.Others, ","), "err", err)
		}
		m.setTrouble(cmp.Or(err, errNotYet))
		m.pause(ctx, askEvery)
	}
	return nil
}

// isLate tells whether this primary has met another one that was in a group when
// they first met: then it has no part in forming it.
func (m *Member) isLate() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, formed := range m.found {
		if formed {
			return true
		}
	}
	return false
}

// tryEnter tries once to form a group or to join one.
func (m *Member) tryEnter(ctx context.Context) error {
	others, err := m.askAll(ctx)
	if errors.Is(err, errNamesake) {
		return err
	}
	if o, formed := entrance(others); formed {
		if m.Expect > 1 && o.GetLeaderId() == "" {
			return errors.Join(errors.New("there is a group, which has no leader yet"), err)
		}
		if m.passed.IsZero() {
			m.passed = time.Now()
		}
		if !m.isLate() && time.Since(m.passed) < formedWithin {
			return nil // it has just been formed, most likely with this one: then Raft tells
		}
		return m.join(ctx, []string{o.address}, true)
	}
	if m.Expect == 1 {
		return errors.Join(errors.New("none of the others is in a group; start one of them with --bootstrap-expect"), err)
	}
	if err != nil {
		return err
	}
	group, err := complete(m.Self, m.Expect, others)
	if err != nil {
		return err
	}
	if group[0].ID != m.Self.ID {
		return nil // it forms the group, and Raft tells
	}
	m.Log.Info("forming a group", "primaries", names(group))
	return m.Store.Form(ctx, group)
}

// other is what another primary answered.
type other struct {
	*peerv1.IntroduceResponse
	address string // at which it was asked
}

// entrance returns through whom to join a group, if one is formed: one who knows its leader, if
// anybody does, since any of them may be cut off from it. It is pure.
func entrance(others []other) (o other, formed bool) {
	for _, x := range others {
		if x.GetFormed() && (!formed || o.GetLeaderId() == "" && x.GetLeaderId() != "") {
			o, formed = x, true
		}
	}
	return o, formed
}

// askAll asks all others who they are.
func (m *Member) askAll(ctx context.Context) ([]other, error) {
	answers, errs := make([]other, len(m.Others)), make([]error, len(m.Others))
	var wg sync.WaitGroup
	for i, address := range m.Others {
		wg.Go(func() {
			r, err := m.ask(ctx, address)
			answers[i], errs[i] = other{r, address}, err
		})
	}
	wg.Wait()
	answers = slices.DeleteFunc(answers, func(o other) bool {
		return o.IntroduceResponse == nil || o.GetInstance() == m.instance
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, o := range answers {
		if _, met := m.found[o.GetPrimaryId()]; !met {
			m.found[o.GetPrimaryId()] = o.GetFormed()
		}
	}
	return answers, errors.Join(errs...)
}

func (m *Member) ask(ctx context.Context, address string) (*peerv1.IntroduceResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	conn, err := m.Conn(address)
	if err != nil {
		return nil, fmt.Errorf("ask %s who it is: %w", address, err)
	}
	r, err := peerv1.NewGroupServiceClient(conn).Introduce(ctx, m.introduction())
	if status.Code(err) == codes.AlreadyExists {
		return nil, fmt.Errorf("%w: %s", errNamesake, status.Convert(err).Message())
	}
	if err != nil {
		return nil, fmt.Errorf("ask %s who it is: %w", address, err)
	}
	return r, nil
}

func (m *Member) introduction() *peerv1.IntroduceRequest {
	return &peerv1.IntroduceRequest{
		PrimaryId: m.Self.ID, ClusterAddress: m.Self.Address, Expect: uint32(m.Expect), Instance: m.instance,
	}
}

// complete returns the group that self forms with others, by id, or what is
// wrong or missing. It is pure.
func complete(self raftstore.Server, expect int, others []other) ([]raftstore.Server, error) {
	group := []raftstore.Server{{ID: self.ID, Address: self.Address, Voter: true}}
	for _, o := range others {
		if int(o.GetExpect()) != expect {
			return nil, fmt.Errorf("%s at %s has --bootstrap-expect %d, and this primary %d: give all the same", o.GetPrimaryId(), o.address, o.GetExpect(), expect)
		}
		if i := slices.IndexFunc(group, func(v raftstore.Server) bool { return v.ID == o.GetPrimaryId() }); i >= 0 {
			return nil, errors.New(twoAreCalled(o.GetPrimaryId(), group[i].Address, o.address))
		}
		if !o.GetFound() {
			return nil, fmt.Errorf("%s has not found %s through its own --join yet: name %s there, or wait a second", o.GetPrimaryId(), self.ID, self.Address)
		}
		group = append(group, raftstore.Server{ID: o.GetPrimaryId(), Address: o.GetClusterAddress(), Voter: true})
	}
	if len(group) != expect {
		return nil, fmt.Errorf("--join names %d other primaries, and --bootstrap-expect %d needs %d: name each of them once", len(others), expect, expect-1)
	}
	slices.SortFunc(group, func(a, b raftstore.Server) int { return strings.Compare(a.ID, b.ID) })
	return group, nil
}

func twoAreCalled(id, a, b string) string {
	return fmt.Sprintf("two primaries are called %s, at %s and %s: give each a --node-id of its own", id, a, b)
}

func names(group []raftstore.Server) string {
	var list []string
	for _, v := range group {
		list = append(list, v.ID)
	}
	return strings.Join(list, ",")
}

// BetterElsewhere asks the other primaries of the group, and reports whether a
// worker would be better off with one of them than here, where there is no link
// to a leader: when one of them knows of a leader, or so many can't be reached
// that those may have one. While most can be reached and none knows of a leader,
// it is the same everywhere.
func (m *Member) BetterElsewhere(ctx context.Context) bool {
	servers := m.Store.Status().Servers
	answers := make([]*peerv1.IntroduceResponse, len(servers))
	var wg sync.WaitGroup
	for i, v := range servers {
		if v.ID != m.Self.ID {
			wg.Go(func() { answers[i], _ = m.ask(ctx, v.Address) }) // who does not answer does not count
		}
	}
	wg.Wait()
	reached := 1 // itself
	for _, r := range answers {
		if r == nil {
			continue
		}
		reached++
		if r.GetLeaderId() != "" && r.GetLeaderId() != m.Self.ID {
			return true
		}
	}
	return reached <= len(servers)/2
}
