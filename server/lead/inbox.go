package lead

import (
	"strings"
	"sync"
	"time"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/peer"
)

// Inbox takes what gateways tell the leader. It outlives the terms: between
// them it keeps who is connected and drops what is said, since workers say it
// again when the next leader asks for their inventory. It is a [peer.Leader]. It also
// takes what people ask of the leader, see [Inbox.Ask].
type Inbox struct {
	nudge  chan struct{} // something was told; holds at most one
	asked  chan struct{} // something was asked; likewise
	enough chan struct{} // so many attempts have ended as are waited for; likewise

	mu       sync.Mutex // guards the following
	sessions map[state.WorkerID]presence
	leading  bool
	items    []item
	ends     int    // how many of them tell of an attempt that has ended
	awaited  int    // with how many of these enough is told
	taken    []item // what take returned, until it is called again
	asks     []*asked
}

type presence struct {
	session peer.Session
	seen    time.Time
	trouble string // why the worker takes no attempts
}

// item is one thing that was told. One of its fields is set.
type item struct {
	attach *peer.Session
	detach state.WorkerID
	report *agentv1.AgentMessage

	worker state.WorkerID // of report
	epoch  uint64         // of detach and report
}

var _ peer.Leader = (*Inbox)(nil)

// NewInbox returns an empty inbox.
func NewInbox() *Inbox {
	return &Inbox{nudge: make(chan struct{}, 1), asked: make(chan struct{}, 1), enough: make(chan struct{}, 1), sessions: map[state.WorkerID]presence{}}
}

// Attach implements [peer.Leader].
func (b *Inbox) Attach(s peer.Session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := state.WorkerID(s.Worker)
	if old, ok := b.sessions[w]; ok && old.session.Epoch >= s.Epoch {
		return
	}
	b.sessions[w] = presence{session: s, seen: s.Connected}
	b.put(item{attach: &s})
}

// Detach implements [peer.Leader].
func (b *Inbox) Detach(worker string, epoch uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := state.WorkerID(worker)
	if b.sessions[w].session.Epoch != epoch {
		return // a newer session took its place
	}
	delete(b.sessions, w)
	b.put(item{detach: w, epoch: epoch})
}

// Report implements [peer.Leader].
func (b *Inbox) Report(worker string, epoch uint64, m *agentv1.AgentMessage) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := state.WorkerID(worker)
	p, ok := b.sessions[w]
	if !ok || p.session.Epoch != epoch {
		return
	}
	if i := m.GetInventory(); i != nil {
		p.trouble = clipped(i.GetTrouble())
		b.sessions[w] = p
	}
	b.put(item{report: m, worker: w, epoch: epoch})
}

// maxTrouble bounds what a worker says of its trouble, in bytes.
const maxTrouble = 1000

func clipped(s string) string { return strings.ToValidUTF8(s[:min(len(s), maxTrouble)], "") }

// Seen implements [peer.Leader].
func (b *Inbox) Seen(worker string, epoch uint64, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := state.WorkerID(worker)
	if p, ok := b.sessions[w]; ok && p.session.Epoch == epoch {
		p.seen = at
		b.sessions[w] = p
	}
}

// Session returns a worker's live session and when it was last heard of.
func (b *Inbox) Session(worker string) (s peer.Session, seen time.Time, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, ok := b.sessions[state.WorkerID(worker)]
	return p.session, p.seen, ok
}

// Trouble returns why a worker that is connected takes no attempts at present, by its
// own word, or "".
func (b *Inbox) Trouble(worker string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sessions[state.WorkerID(worker)].trouble
}

// Len returns how many workers are connected.
func (b *Inbox) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.sessions)
}

// begin starts to keep what is said, and returns who is connected.
func (b *Inbox) begin() []peer.Session {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leading, b.items, b.taken, b.ends = true, nil, nil, 0
	all := make([]peer.Session, 0, len(b.sessions))
	for _, p := range b.sessions {
		all = append(all, p.session)
	}
	return all
}

// end drops what is said from here on, and turns away who asks.
func (b *Inbox) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	turnAway(b.asks)
	b.leading, b.items, b.taken, b.asks = false, nil, nil, nil
}

// take returns what was told since it was last called, in order, until it is called again.
func (b *Inbox) take() []item {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.items, b.taken, b.ends = emptied(b.taken), b.items, 0
	settle(b.nudge)
	settle(b.enough)
	return b.taken
}

// await returns what tells that n attempts have ended of which nobody has taken note, at once
// if they have already. It is for who takes them alone.
func (b *Inbox) await(n int) (told <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.awaited = n
	settle(b.enough)
	if b.ends >= n {
		signal(b.enough)
	}
	return b.enough
}

// ended is how many attempts have ended of which nobody has taken note.
func (b *Inbox) ended() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ends
}

// put keeps an item while somebody leads. The caller holds mu.
func (b *Inbox) put(i item) {
	if !b.leading {
		return
	}
	b.items = append(b.items, i)
	signal(b.nudge)
	if i.report.GetResult() == nil {
		return
	}
	if b.ends++; b.ends >= b.awaited {
		signal(b.enough)
	}
}

// signal puts a token where at most one is, and settle takes it out, if there is one: who
// takes all there is need not be told of it again.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it has been told already
	}
}

func settle(c chan struct{}) {
	select {
	case <-c:
	default:
	}
}
