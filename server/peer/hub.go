package peer

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
)

const (
	// beatEvery is how often the leader asks a gateway for a sign of life, if nobody
	// said otherwise.
	beatEvery = time.Second
	// linkDeadAfter is how long either end of a link may be silent before the
	// other gives it up. Links run between primaries that Raft holds to the
	// second, so it is much shorter than for workers' sessions.
	linkDeadAfter = 5 * time.Second
	// settleWithin is how long after a term began the gateways have made their
	// links, those that will.
	settleWithin = 3 * time.Second
	// balanceEvery is how often the leader looks whether the gateways have their
	// share of the sessions.
	balanceEvery = time.Minute
)

// HubConfig is what a hub is made of. All of it is required.
type HubConfig struct {
	// PrimaryID names this primary.
	PrimaryID string
	// Leader hears what all gateways tell.
	Leader Leader
	// Admit tells why the link of a primary is not taken, or nil. It is asked
	// with the context of the call, and must not block.
	Admit func(ctx context.Context, primaryID string) error
	// Term and Applied are those of this primary.
	Term, Applied func() uint64
	// Clock reads the wall clock, with which those of the others are compared; nil:
	// time.Now.
	Clock func() time.Time
	// Beat is how often the leader asks a gateway for a sign of life; 0: each second.
	Beat time.Duration
	// Log is told of links.
	Log *slog.Logger
}

// Hub is the leader's end of all links, while this primary leads: it knows which
// gateway holds which worker's session, and is the [Gateway] of them all.
// Otherwise it refuses links.
type Hub struct {
	peerv1.UnimplementedLinkServiceServer
	HubConfig

	tasks sync.WaitGroup // of all links; grows only while open

	mu      sync.Mutex // guards the following
	open    bool
	settled bool               // it has been open for a while
	all     map[*link]struct{} // from the first byte to the last
	links   map[string]*link   // by primary, once it said who it is
	routes  map[string]route   // by worker
	levels  map[string]uint32  // by primary, as said in its last hello
	directs []string
}

// route is the way to a worker: its newest session.
type route struct {
	*link
	Session
}

var _ Gateway = (*Hub)(nil)

// NewHub returns a hub that takes no links yet.
func NewHub(c HubConfig) *Hub {
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Beat == 0 {
		c.Beat = beatEvery
	}
	return &Hub{HubConfig: c, all: map[*link]struct{}{}, links: map[string]*link{}, routes: map[string]route{}, levels: map[string]uint32{}}
}

// During takes links while f runs, which is as long as a term. When it returns,
// all of them have ended, and [Leader.Detach] was called for each session.
func (h *Hub) During(ctx context.Context, f func(context.Context)) {
	h.mu.Lock()
	h.open = true
	h.mu.Unlock()
	work, stop := context.WithCancel(ctx)
	var working sync.WaitGroup
	working.Go(func() { h.balance(work) })
	settled := time.AfterFunc(settleWithin, h.settle)

	f(ctx)

	stop()
	working.Wait()
	settled.Stop()
	h.mu.Lock()
	h.open, h.settled = false, false
	for l := range h.all {
		l.end(errNotLeading)
	}
	h.mu.Unlock()
	h.tasks.Wait()
}

// errNotLeading ends links, or keeps them from being opened.
var errNotLeading = status.Error(codes.FailedPrecondition, "this primary does not lead")

// Link is one link, called by gRPC.
func (h *Hub) Link(stream grpc.BidiStreamingServer[peerv1.LinkRequest, peerv1.LinkResponse]) error {
	admit := func(id string) error { return h.Admit(stream.Context(), id) }
	return h.serve(stream, admit)
}

// Open opens the link of this primary to itself. The stream ends with ctx.
func (h *Hub) Open(ctx context.Context) (Stream, error) {
	ctx, end := context.WithCancel(ctx)
	p := newPipe(ctx)
	l, err := h.enter(leaderEnd{p}, func(string) error { return nil })
	if err != nil {
		end()
		return nil, err
	}
	h.tasks.Go(func() {
		defer end()
		_ = l.serve() // its own gateway is told by the end of the pipe
	})
	h.tasks.Done() // enter's: serve has taken its place
	return gatewayEnd{p}, nil
}

func (h *Hub) serve(stream leaderStream, admit func(string) error) error {
	l, err := h.enter(stream, admit)
	if err != nil {
		return err
	}
	defer h.tasks.Done()
	return l.serve()
}

// enter counts a link in, whose task the caller ends.
func (h *Hub) enter(stream leaderStream, admit func(string) error) (*link, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.open {
		return nil, errNotLeading
	}
	l := newLink(h, stream, admit)
	h.tasks.Add(1)
	h.all[l] = struct{}{}
	return l, nil
}

// join makes l the link of its primary. The one before is over: its primary
// would not make another.
func (h *Hub) join(l *link) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if old := h.links[l.id]; old != nil {
		old.end(status.Error(codes.Aborted, "the primary has made another link"))
		h.forget(old)
	}
	h.links[l.id] = l
	h.levels[l.id] = l.primary().Level
	h.share()
}

// leave counts a link out. What its gateway holds can't be reached any more.
func (h *Hub) leave(l *link) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.all, l)
	if h.links[l.id] == l {
		delete(h.links, l.id)
		h.forget(l)
		h.share()
	}
}

// forget detaches the sessions of a link. The caller holds the lock, as it does
// wherever the leader is told of sessions, so that all hear it in one order.
func (h *Hub) forget(l *link) {
	for w, r := range h.routes {
		if r.link == l {
			delete(h.routes, w)
			h.Leader.Detach(w, r.Epoch)
		}
	}
}

// attach makes s the worker's session if it is the newest, and ends the other
// one. It is the same rule as within one gateway.
func (h *Hub) attach(l *link, s Session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.links[l.id] != l {
		return
	}
	old, there := h.routes[s.Worker]
	if there && (s.Epoch < old.Epoch || s.Epoch == old.Epoch && old.link != l) {
		// One that was told when the link was made may just be old, and its stream
		// dead for long. A new one below the newest is another agent's.
		l.supersede(s, old.Session, l.isSynced() && s.Hello.GetInstance() != old.Hello.GetInstance())
		return
	}
	h.routes[s.Worker] = route{l, s}
	h.Leader.Attach(s)
	if there && s.Epoch > old.Epoch && old.link != l {
		old.supersede(old.Session, s, false)
	}
}

// detach takes a session off.
func (h *Hub) detach(l *link, worker string, epoch uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r := h.routes[worker]; r.link == l && r.Epoch == epoch {
		delete(h.routes, worker)
		h.Leader.Detach(worker, epoch)
	}
}

// holds tells whether a link has that session of a worker.
func (h *Hub) holds(l *link, worker string, epoch uint64) bool {
	r, ok := h.route(worker)
	return ok && r.link == l && r.Epoch == epoch
}

func (h *Hub) route(worker string) (route, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r, ok := h.routes[worker]
	return r, ok
}

// Send implements [Gateway]: true says that the message is on its way to the
// gateway.
func (h *Hub) Send(worker string, epoch uint64, m *agentv1.GatewayMessage) bool {
	r, ok := h.route(worker)
	return ok && r.Epoch == epoch && r.put(deliver(worker, epoch, m))
}

// Sessions implements [Gateway].
func (h *Hub) Sessions() []Session {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]Session, 0, len(h.routes))
	for _, r := range h.routes {
		all = append(all, r.Session)
	}
	return all
}

// Cut implements [Gateway]. All gateways are told: one may have a session that
// it could not tell of yet.
func (h *Hub) Cut(worker, reason string, permanent bool) {
	h.each(func(l *link) {
		l.put(&peerv1.LinkResponse{Body: &peerv1.LinkResponse_Cut{
			Cut: &peerv1.Cut{WorkerId: worker, Reason: reason, Permanent: permanent},
		}})
	})
}

// Direct has the workers that listen at these addresses dialled, each by one of
// the gateways, and no others.
func (h *Hub) Direct(addresses []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.directs = addresses
	h.share()
}

// settle begins to share out whom to dial.
func (h *Hub) settle() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.settled = h.open
	h.share()
}

// share tells each gateway whom to dial, if its disk takes the output of runs, once the links of a new leader are there:
// the first one would be told to dial all, and take workers from gateways that
// have them. The caller holds the lock.
func (h *Hub) share() {
	if !h.settled {
		return
	}
	lists := assign(h.directs, keys(h.keeping()))
	for g, l := range h.links {
		list := lists[g]
		l.put(&peerv1.LinkResponse{Body: &peerv1.LinkResponse_Dial{Dial: &peerv1.Dial{Addresses: list}}})
	}
}

// reshare shares out anew whom to dial.
func (h *Hub) reshare() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.share()
}

// keeping returns the links of the gateways that workers should be with: those whose
// disks take the output of runs, or all when there are none. The caller holds the lock.
func (h *Hub) keeping() map[string]*link {
	some := map[string]*link{}
	for g, l := range h.links {
		if !l.primary().Failing {
			some[g] = l
		}
	}
	if len(some) == 0 {
		return h.links
	}
	return some
}

// othersKeep tells whether the disk of another gateway takes the output of runs.
func (h *Hub) othersKeep(l *link) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, o := range h.links {
		if o != l && !o.primary().Failing {
			return true
		}
	}
	return false
}

// held returns how many sessions each gateway has that workers should be with. One
// with none counts, so that the others send it some; one that takes none does not.
func (h *Hub) held() map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	has := map[string]int{}
	for g := range h.keeping() {
		has[g] = 0
	}
	for _, r := range h.routes {
		if _, ok := has[r.Gateway]; ok {
			has[r.Gateway]++
		}
	}
	return has
}

// Primaries returns what was heard of the primaries that have a link, by id.
func (h *Hub) Primaries() map[string]Primary {
	all := map[string]Primary{}
	h.each(func(l *link) { all[l.id] = l.primary() })
	return all
}

// Levels returns up to which level each primary can apply commands of the log, by
// id, as it said in its last hello: one whose link has ended is still the one that
// it was, most likely, and must not keep the others from what they know. It is of
// this process; a new leader knows of nobody until their links are there.
func (h *Hub) Levels() map[string]uint32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.levels)
}

func (h *Hub) each(f func(*link)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range h.links {
		f(l)
	}
}

// balance has gateways with too many sessions shed some. Where that does not
// help, since the load balancer sends a worker back to where it was, it is tried
// ever more rarely.
func (h *Hub) balance(ctx context.Context) {
	timer := time.NewTimer(balanceEvery)
	defer timer.Stop()
	for wait := balanceEvery; ; timer.Reset(wait) {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		has := h.held()
		shed := excess(has)
		h.each(func(l *link) {
			if n := shed[l.id]; n > 0 {
				h.Log.Info("a gateway has more than its share of the sessions and sheds some", "gateway", l.id, "sessions", has[l.id], "sheds", n)
				l.put(&peerv1.LinkResponse{Body: &peerv1.LinkResponse_Shed{Shed: &peerv1.Shed{Count: uint32(n)}}})
			}
		})
		if wait = min(2*wait, maxBalance); len(shed) == 0 {
			wait = balanceEvery
		}
	}
}

// maxBalance is how long balancing rests at most, while it changes nothing.
const maxBalance = time.Hour

// supersede ends the gateway's session loser, since winner counts.
func (l *link) supersede(loser, winner Session, duplicate bool) {
	reason := fmt.Sprintf("superseded by the worker's session of epoch %#x at %s", winner.Epoch, winner.Gateway)
	if duplicate {
		reason = fmt.Sprintf("duplicate identity: another agent with the same key is connected to %s from %s; if that is a copy of this host, "+
			"remove the agent's data directory on one of them", winner.Gateway, winner.ObservedAddress)
	}
	l.put(supersede(loser.Worker, loser.Epoch, reason, duplicate))
}
