package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
)

const (
	// seenEvery is how often the leader is told of whom something was heard.
	seenEvery = 5 * time.Second
	// openWithin is how long the leader may take to welcome a link.
	openWithin = 3 * time.Second
	// linkAgain is how long a gateway rests before it tries again to link to a
	// leader that did not take it, or was not there.
	linkAgain = 50 * time.Millisecond
)

// UplinkConfig is what an uplink is made of. All of it is required.
type UplinkConfig struct {
	// PrimaryID and Version are what the leader is told of this primary.
	PrimaryID, Version string
	// Instance is drawn anew by each process, so that the leader knows it from others
	// of the same id.
	Instance string
	// Level is up to which this primary can apply commands of the log.
	Level uint32
	// Leader returns the id of who leads, "" when that is not known.
	Leader func() string
	// Watch returns a channel that receives when somebody else may lead.
	Watch func() (news <-chan struct{}, cancel func())
	// Open opens a stream to the leader of that id.
	Open func(ctx context.Context, leader string) (Stream, error)
	// Applied returns the index of the last log entry applied here.
	Applied func() uint64
	// Condition returns how this primary is. It must not block.
	Condition func() Condition
	// Clock reads the wall clock, which the leader is told; nil: time.Now.
	Clock func() time.Time
	// Log is told of the link.
	Log *slog.Logger
}

// Uplink is a gateway's end of its link to whoever leads. It is the [Leader] that
// the gateway talks to.
type Uplink struct {
	UplinkConfig
	gateway  Local         // of this primary; set by Run
	abreast  sync.Once     // guards the closing of caughtUp
	caughtUp chan struct{} // closed when this primary was as far as the leader
	others   atomic.Bool   // the disk of another gateway takes output, as last heard

	mu       sync.Mutex // guards the following
	sessions map[string]Session
	seen     map[string]sighting         // since it was last told
	out      *queue[*peerv1.LinkRequest] // nil: no link
	since    time.Time                   // when the link was made, or lost
}

type sighting struct {
	epoch uint64
	at    time.Time
}

var _ Leader = (*Uplink)(nil)

// NewUplink returns an uplink without a link.
func NewUplink(c UplinkConfig) *Uplink {
	if c.Clock == nil {
		c.Clock = time.Now
	}
	return &Uplink{
		UplinkConfig: c, caughtUp: make(chan struct{}),
		sessions: map[string]Session{}, seen: map[string]sighting{}, since: time.Now(),
	}
}

// Attach implements [Leader].
func (u *Uplink) Attach(s Session) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if old, ok := u.sessions[s.Worker]; ok && old.Epoch >= s.Epoch {
		return
	}
	u.sessions[s.Worker] = s
	u.tell(attach(s))
}

// Detach implements [Leader].
func (u *Uplink) Detach(worker string, epoch uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.sessions[worker].Epoch != epoch {
		return // a newer session took its place
	}
	delete(u.sessions, worker)
	delete(u.seen, worker)
	u.tell(detach(worker, epoch))
}

// Report implements [Leader].
func (u *Uplink) Report(worker string, epoch uint64, m *agentv1.AgentMessage) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.sessions[worker].Epoch == epoch {
		u.tell(report(worker, epoch, m))
	}
}

// Seen implements [Leader].
func (u *Uplink) Seen(worker string, epoch uint64, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.seen[worker] = sighting{epoch, at}
}

// tell queues a message if there is a link. A queue that is full ends it. The
// caller holds the lock.
func (u *Uplink) tell(m *peerv1.LinkRequest) {
	if u.out != nil {
		u.out.put(m)
	}
}

// Len returns how many workers' sessions this primary holds.
func (u *Uplink) Len() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.sessions)
}

// Linked tells whether there is a link, and for how long there has been or has
// not been one.
func (u *Uplink) Linked() (linked bool, since time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.out != nil, time.Since(u.since)
}

// OthersKeep tells whether the disk of another primary takes the output of runs, as
// the leader said last: workers are better off there than with one whose disk does
// not.
func (u *Uplink) OthersKeep() bool { return u.others.Load() }

// CaughtUp is closed once this primary has applied what the leader had when it
// asked for a beat. A primary that joins a group knows nothing before.
func (u *Uplink) CaughtUp() <-chan struct{} { return u.caughtUp }

// Run keeps a link to whoever leads until ctx is done. What the leader says is
// for gateway, the one of this primary. It may be called once.
func (u *Uplink) Run(ctx context.Context, gateway Local) {
	u.gateway = gateway
	news, cancel := u.Watch()
	defer cancel()
	rest := time.NewTimer(0)
	defer rest.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-news:
		case <-rest.C:
		}
		if leader := u.Leader(); leader != "" {
			if err := u.link(ctx, leader, news); err != nil && ctx.Err() == nil {
				u.Log.Debug("no link to the leader; trying again", "leader", leader, "err", err)
			}
		}
		rest.Reset(linkAgain)
	}
}

// errOtherLeader ends a link to who led before.
var errOtherLeader = errors.New("another primary leads")

// errNoLeader ends a link when the leader is one no more, as far as this primary knows:
// it was lost, or this primary was removed from the group.
var errNoLeader = errors.New("no leader is known any more")

// link is one link, until it ends.
func (u *Uplink) link(ctx context.Context, leader string, news <-chan struct{}) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	late := time.AfterFunc(openWithin, func() { end(fmt.Errorf("no welcome within %v", openWithin)) })
	defer late.Stop()
	stream, err := u.greet(ctx, leader)
	if err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	late.Stop()

	out := newQueue[*peerv1.LinkRequest](within(stream))
	sessions := u.begin(out)
	u.Log.Info("linked to the leader", "leader", leader, "sessions", len(sessions))
	heard := newSilence(linkDeadAfter, func() { end(fmt.Errorf("nothing was heard of the leader for %v", linkDeadAfter)) })
	var wg sync.WaitGroup
	wg.Go(func() { end(u.send(ctx, stream, out, sessions)) })
	wg.Go(func() { end(u.receive(stream, out, heard)) })
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-news:
			switch u.Leader() {
			case leader:
			case "":
				end(errNoLeader)
			default:
				end(errOtherLeader)
			}
		}
	}
	wg.Wait()
	heard.stop()
	u.over()
	u.Log.Info("link to the leader ended", "leader", leader, "err", context.Cause(ctx))
	return context.Cause(ctx)
}

// greet opens a stream and is welcomed.
func (u *Uplink) greet(ctx context.Context, leader string) (Stream, error) {
	stream, err := u.Open(ctx, leader)
	if err != nil {
		return nil, fmt.Errorf("link to %s: %w", leader, err)
	}
	err = stream.Send(&peerv1.LinkRequest{Body: &peerv1.LinkRequest_Hello{
		Hello: &peerv1.LinkHello{PrimaryId: u.PrimaryID, Version: u.Version, Level: u.Level, Instance: u.Instance, Failing: u.Condition().Failing},
	}})
	var m *peerv1.LinkResponse
	if err == nil || errors.Is(err, io.EOF) {
		m, err = stream.Recv() // it knows better why
	}
	if err != nil {
		return nil, fmt.Errorf("link to %s: %w", leader, err)
	}
	if m.GetWelcome() == nil {
		return nil, fmt.Errorf("link to %s: %T first, want a welcome", leader, m.GetBody())
	}
	return stream, nil
}

// begin has what is told from here on queued, and returns what is to be told
// before it. The workers are asked what they have: what they said while there
// was no link was dropped.
func (u *Uplink) begin(out *queue[*peerv1.LinkRequest]) []Session {
	u.mu.Lock()
	u.out, u.since = out, time.Now()
	all := make([]Session, 0, len(u.sessions))
	for _, s := range u.sessions {
		all = append(all, s)
	}
	u.mu.Unlock()
	for _, s := range all {
		u.gateway.Send(s.Worker, s.Epoch, inventoryRequest)
	}
	return all
}

// inventoryRequest asks a worker what it knows.
var inventoryRequest = &agentv1.GatewayMessage{
	Body: &agentv1.GatewayMessage_InventoryRequest{InventoryRequest: &agentv1.InventoryRequest{}},
}

func (u *Uplink) over() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.out, u.since = nil, time.Now()
}

// send tells of all sessions, and then what is queued.
func (u *Uplink) send(ctx context.Context, stream Stream, out *queue[*peerv1.LinkRequest], sessions []Session) error {
	for _, s := range sessions {
		if err := stream.Send(attach(s)); err != nil {
			return fmt.Errorf("tell of the sessions: %w", err)
		}
	}
	if err := stream.Send(&peerv1.LinkRequest{Body: &peerv1.LinkRequest_Synced{Synced: &peerv1.Synced{}}}); err != nil {
		return fmt.Errorf("tell of the sessions: %w", err)
	}
	seen := time.NewTicker(seenEvery)
	defer seen.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-seen.C:
			if s := u.takeSeen(); len(s) > 0 {
				out.put(heard(s))
			}
		case <-out.wake:
			all, ok := out.take()
			if !ok {
				return errors.New("too much waited for the leader")
			}
			for _, m := range all {
				if err := stream.Send(m); err != nil {
					return fmt.Errorf("tell the leader: %w", err)
				}
			}
		}
	}
}

func (u *Uplink) takeSeen() map[string]sighting {
	u.mu.Lock()
	defer u.mu.Unlock()
	seen := u.seen
	u.seen = make(map[string]sighting, len(seen))
	return seen
}

// receive does what the leader says.
func (u *Uplink) receive(stream Stream, out *queue[*peerv1.LinkRequest], s *silence) error {
	for {
		m, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("hear the leader: %w", err)
		}
		s.broken()
		u.handle(m, out)
	}
}

func (u *Uplink) handle(m *peerv1.LinkResponse, out *queue[*peerv1.LinkRequest]) {
	switch b := m.GetBody().(type) {
	case *peerv1.LinkResponse_Deliver:
		// A session that is gone has been, or will be, told of as such.
		u.gateway.Send(b.Deliver.GetWorkerId(), b.Deliver.GetEpoch(), b.Deliver.GetMessage())
	case *peerv1.LinkResponse_Cut:
		u.gateway.Cut(b.Cut.GetWorkerId(), b.Cut.GetReason(), b.Cut.GetPermanent())
	case *peerv1.LinkResponse_Supersede:
		u.gateway.Supersede(b.Supersede.GetWorkerId(), b.Supersede.GetEpoch(), b.Supersede.GetReason(), b.Supersede.GetDuplicate())
	case *peerv1.LinkResponse_Shed:
		u.gateway.Shed(int(b.Shed.GetCount()))
	case *peerv1.LinkResponse_Dial:
		u.gateway.Dial(b.Dial.GetAddresses())
	case *peerv1.LinkResponse_Beat:
		if u.Applied() >= b.Beat.GetAppliedIndex() {
			u.abreast.Do(func() { close(u.caughtUp) })
		}
		u.others.Store(b.Beat.GetOthersKeep())
		is := u.Condition()
		out.put(&peerv1.LinkRequest{Body: &peerv1.LinkRequest_Beat{Beat: &peerv1.Beat{
			Seq: b.Beat.GetSeq(), Time: timestamppb.New(u.Clock()), AppliedIndex: u.Applied(), Sessions: uint32(u.Len()),
			LogsMissing: uint32(is.LogsMissing), LogsAmong: is.LogsAmong, Failing: is.Failing,
		}}})
	}
}

// silence calls a function when nothing was heard for too long.
type silence struct {
	limit time.Duration
	timer *time.Timer
}

func newSilence(limit time.Duration, f func()) *silence {
	return &silence{limit, time.AfterFunc(limit, f)}
}

func (s *silence) broken() { s.timer.Reset(s.limit) }
func (s *silence) stop()   { s.timer.Stop() }
