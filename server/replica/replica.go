package replica

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/schedd/schedd/server/runlog"
)

const (
	// within bounds what waits for other primaries: a question, and a Sync while
	// nothing gets on.
	within = 5 * time.Second

	// maxWhole is how many logs, at least, are remembered to be durable; there may be
	// twice as many. Older ones are compared again when somebody asks.
	maxWhole = 1 << 16
)

// ErrUnreachable is returned while too few of those who keep copies of a log
// answer. What is asked for may be asked for again later.
var ErrUnreachable = errors.New("copies of this log are on primaries that can't be reached")

// errNoGroup is returned by a primary that has not been taken in anywhere yet.
var errNoGroup = errors.New("this primary knows of no group of primaries that could keep the log")

// Peers is the group of primaries. Its methods may be called at any time, and
// must not block.
type Peers interface {
	// Self returns the node id of this primary.
	Self() string
	// Members returns the node ids of the primaries that vote, in any order.
	Members() []string
	// LogConn returns a connection to a member, on which
	// [github.com/schedd/schedd/proto/schedd/peer/v1.LogServiceServer] is served.
	LogConn(id string) (grpc.ClientConnInterface, error)
}

// Known returns the logs of all attempts that are remembered, and where they end: -1 if
// that is not known, since the attempt goes on or was lost. Those that printed nothing
// may be left out, and, unless all are wanted, those of attempts that ended long ago.
type Known func(all bool) iter.Seq2[runlog.Key, int64]

// Config is what a [Store] is made of. All of it is required.
type Config struct {
	// Logs are those on this primary's disk. They stay the caller's, who closes
	// them when Run has returned.
	Logs *runlog.Store
	// Peers is the group.
	Peers Peers
	// Known is what this primary knows of logs by the replicated state.
	Known Known
	// Log is told when another primary can't be reached, and of what was repaired.
	Log *slog.Logger
}

// Store is the logs of the group as one of its primaries has them. All methods
// may be called at any time from any goroutine. On a primary that is alone they
// are those of its [runlog.Store].
type Store struct {
	logs  *runlog.Store
	peers Peers
	known Known
	log   *slog.Logger

	stale  atomic.Bool           // the members may have changed
	group  atomic.Pointer[group] // as last looked at
	looked chan struct{}         // holds a token when the group has changed
	news   chan struct{}         // likewise when all logs are to be compared
	noted  chan struct{}         // likewise when a log was sealed

	repairs chan struct{} // holds a token for each log that is being repaired

	looking sync.Mutex // held while the group is looked at, so that looks don't overtake each other

	mu      sync.Mutex // guards all below, and all of entry and link as said there
	links   map[string]*link
	entries map[runlog.Key]*entry
	whole   runlog.Recent[struct{}] // logs that are complete here and known to be durable, the latest that were found to be so
	sealed  map[runlog.Key]sealing  // to be compared soon

	round    uint64               // grows when all logs are to be compared anew
	urgent   bool                 // they are, without a rest
	surveyed uint64               // the round in which lacking was last made
	walked   time.Time            // when all logs were last looked at, and not only younger ones
	lacking  map[runlog.Key]int64 // this primary should have them, and lacks something; where they end
}

// group is who is in it. It is replaced, never changed.
type group struct {
	epoch   uint64 // grows with each change
	self    string
	members []string // sorted
	alone   bool     // self is the only one
}

// New returns a store that pushes and repairs nothing before it is run.
func New(c Config) *Store {
	s := &Store{
		logs: c.Logs, peers: c.Peers, known: c.Known, log: c.Log,
		looked:  make(chan struct{}, 1),
		news:    make(chan struct{}, 1),
		noted:   make(chan struct{}, 1),
		repairs: make(chan struct{}, repairs),
		links:   map[string]*link{},
		entries: map[runlog.Key]*entry{},
		whole:   runlog.NewRecent[struct{}](maxWhole),
		sealed:  map[runlog.Key]sealing{},
		lacking: map[runlog.Key]int64{},
	}
	s.group.Store(&group{})
	s.look()
	return s
}

// MembersChanged tells that the group may have changed. It returns at once, and
// each call that begins later goes by the group as it is then.
func (s *Store) MembersChanged() {
	s.stale.Store(true)
	signal(s.looked)
}

// now returns the group.
func (s *Store) now() *group {
	if s.stale.Load() {
		s.look()
	}
	return s.group.Load()
}

// look looks at the group, and makes the links to its members.
func (s *Store) look() {
	s.looking.Lock()
	defer s.looking.Unlock()
	s.stale.Store(false)
	self, old := s.peers.Self(), s.group.Load()
	members := slices.Clone(s.peers.Members())
	slices.Sort(members)
	members = slices.Compact(members)
	if old.epoch > 0 && slices.Equal(members, old.members) {
		return
	}
	g := &group{epoch: old.epoch + 1, self: self, members: members, alone: len(members) == 1 && members[0] == self}
	s.mu.Lock()
	for id := range s.links {
		if !slices.Contains(members, id) {
			delete(s.links, id)
		}
	}
	for _, id := range members {
		if id != self && s.links[id] == nil {
			s.links[id] = newLink(s, id)
		}
	}
	s.group.Store(g)
	s.stirLocked(true)
	s.mu.Unlock()
	signal(s.looked)
}

// Append puts data, whose CRC-32C is crc, at offset of k's log, as
// [runlog.Store.Append] does, and has it pushed to who shall keep it. When
// another primary may know more of the log it is asked first, for at most five
// seconds; if too few answer nothing is taken, and the error is
// [ErrUnreachable].
func (s *Store) Append(k runlog.Key, offset int64, data []byte, crc uint32) (known int64, err error) {
	g := s.now()
	if g.alone {
		return s.logs.Append(k, offset, data, crc)
	}
	if err := k.Check(); err != nil {
		return 0, fmt.Errorf("append to log %v: %w", k, err)
	}
	e := s.use(k)
	defer s.leave(e)
	ctx := context.Background() // a session that ends does not wait for longer than settle does
	// A question begins a session, or comes after a silence: since the last one
	// another primary may have been the worker's gateway.
	if err := s.settle(ctx, e, g, len(data) == 0); err != nil {
		return 0, fmt.Errorf("append to log %v: %w", k, err)
	}
	known, err = s.logs.Append(k, offset, data, crc)
	if err == nil && offset > known && len(data) > 0 {
		if err := s.settle(ctx, e, g, true); err != nil {
			return known, fmt.Errorf("append to log %v at %d: %w", k, offset, err)
		}
		known, err = s.logs.Append(k, offset, data, crc)
	}
	if len(data) > 0 {
		s.push(e, g, known)
	}
	return known, err
}

// Sync returns when all that was known of k's log at the call is durable: synced
// by two of its holders. It returns how much is, which after an error may be
// less. The error is [ErrUnreachable] when nothing has got on for five seconds,
// or can't: it names who does not answer.
func (s *Store) Sync(ctx context.Context, k runlog.Key) (durable int64, err error) {
	g := s.now()
	if g.alone {
		return s.logs.Sync(ctx, k)
	}
	if err := k.Check(); err != nil {
		return 0, fmt.Errorf("sync log %v: %w", k, err)
	}
	e := s.use(k)
	defer s.leave(e)
	if err := s.settle(ctx, e, g, false); err != nil {
		return s.safe(e), fmt.Errorf("sync log %v: %w", k, err)
	}
	info, _ := s.logs.Stat(k)
	s.push(e, g, info.Known)
	if slices.Contains(Holders(k, g.members), g.self) {
		here, err := s.logs.Sync(ctx, k)
		s.learnOwn(e, g, here)
		if err != nil {
			return s.safe(e), err
		}
	}
	return s.await(ctx, e, info.Known)
}

// Stat returns what this primary has of k's log, as [runlog.Store.Stat] does, but
// Durable is what is known here to be durable on as many primaries as it takes. When
// that is not all of a log that is complete, the others are asked soon.
func (s *Store) Stat(k runlog.Key) (runlog.Info, bool) {
	info, ok := s.logs.Stat(k)
	if s.now().alone {
		return info, ok
	}
	info.Durable = s.surely(k, info)
	if info.Complete && info.Durable < info.Length {
		s.compareSoon(k, info.Length)
	}
	return info, ok
}

// surely returns how much of a log is known to be durable.
func (s *Store) surely(k runlog.Key, info runlog.Info) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.whole.Has(k) && info.Complete {
		return info.Length
	}
	if e := s.entries[k]; e != nil {
		return min(e.safe, info.Known)
	}
	return 0
}

// Read reads what this primary has of k's log, see [runlog.Store.Read].
// [Store.Fetch] gets what it lacks.
func (s *Store) Read(k runlog.Key, p []byte, off int64) (int, error) {
	return s.logs.Read(k, p, off)
}

// Seal tells where k's log ends, see [runlog.Store.Seal]. A holder compares what
// it has with the others soon after.
func (s *Store) Seal(k runlog.Key, length int64) error {
	err := s.logs.Seal(k, length)
	if err == nil && length > 0 && !s.now().alone {
		s.compareSoon(k, length)
	}
	return err
}

// Keys walks over the logs that this primary has something of, see
// [runlog.Store.Keys].
func (s *Store) Keys() iter.Seq2[runlog.Key, error] { return s.logs.Keys() }

// Remove deletes what this primary has of logs. Each primary does so by its own
// knowledge of which runs are forgotten.
func (s *Store) Remove(ks ...runlog.Key) error {
	err := s.logs.Remove(ks...)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range ks {
		delete(s.entries, k)
		s.whole.Remove(k)
		delete(s.sealed, k)
		delete(s.lacking, k)
	}
	return err
}

// Run pushes and repairs until ctx is done; then it waits for all that it has
// begun. It may be called once.
func (s *Store) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.compareSealed(ctx) })
	wg.Go(func() { s.sweepAll(ctx) })

	running := map[*link]context.CancelFunc{}
	tidy := time.NewTicker(tidyEvery)
	defer tidy.Stop()
	for ctx.Err() == nil {
		s.runLinks(ctx, &wg, running)
		select {
		case <-ctx.Done():
		case <-s.looked:
			s.now()
		case <-tidy.C:
			s.look() // nobody may have told
			s.tidy(time.Now())
		}
	}
}

// runLinks runs the links that are new and ends those whose primary has left.
func (s *Store) runLinks(ctx context.Context, wg *sync.WaitGroup, running map[*link]context.CancelFunc) {
	s.mu.Lock()
	links := make(map[*link]bool, len(s.links))
	for _, l := range s.links {
		links[l] = true
	}
	s.mu.Unlock()
	for l, end := range running {
		if !links[l] {
			end()
			delete(running, l)
		}
	}
	for l := range links {
		if running[l] == nil {
			ctx, end := context.WithCancel(ctx)
			running[l] = end
			wg.Go(func() { l.run(ctx) })
		}
	}
}

// signal puts a token in a channel that holds one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// pause waits for d, and tells whether it got to the end of it.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
