package replica

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/schedd/schedd/server/runlog"
)

const (
	// tidyEvery is how often entries are looked at that nobody uses.
	tidyEvery = 10 * time.Second
	// keepDone is how long an entry is kept of a log that is durable to its end,
	// and keepIdle of another one, if nothing is left to push. What a primary that
	// is away lacks of the former it pulls itself when it is back; of the latter,
	// the next Append asks again.
	keepDone = time.Minute
	keepIdle = 10 * time.Minute
)

// have is what a primary has of a log.
type have struct {
	known, durable int64
	length         int64 // where it ends, if sealed
	sealed         bool
}

// whole tells whether all of the log is on that primary's disk.
func (h have) whole() bool { return h.sealed && h.durable >= h.length }

// lacks tells whether there is something to do until the first n bytes are on
// that primary's disk. It takes none beyond the end that it knows of.
func (h have) lacks(n int64) bool {
	if h.sealed {
		n = min(n, h.length)
	}
	return h.durable < n
}

// entry is what is in memory of one log: how far each primary is, as far as
// known. All but the turn is guarded by Store.mu.
type entry struct {
	key  runlog.Key
	turn chan struct{} // held, by having sent to it, by whoever asks and pulls

	users int
	used  time.Time // when the last of them left

	asked  uint64 // the epoch of the group in which others were asked; 0: they were not
	failed error  // why asking failed last
	since  time.Time

	known   int64           // here, when last looked at
	own     int64           // durable here
	length  int64           // where the log ends; -1: not known
	safe    int64           // durable on as many primaries as it takes
	at      map[string]have // what others have; who is not in it is to be asked
	changed chan struct{}   // closed at the next change of what is durable; nil: nobody waits
}

// use returns the entry of k and keeps it in memory until leave.
func (s *Store) use(k runlog.Key) *entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[k]
	if e == nil {
		e = &entry{key: k, turn: make(chan struct{}, 1), length: -1, at: map[string]have{}}
		s.entries[k] = e
	}
	e.users++
	return e
}

func (s *Store) leave(e *entry) {
	g := s.group.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	e.users--
	e.used = time.Now()
	if e.users == 0 && (e.blankLocked() && e.failed == nil || e.length >= 0 && s.pushedLocked(e, g)) {
		s.forgetLocked(e)
	}
}

// blankLocked tells whether the entry knows nothing that others would have to be
// asked for again.
func (e *entry) blankLocked() bool { return e.asked == 0 && e.safe == 0 }

// tidy forgets entries that nobody has used for a while, and has pushed again
// what should have been by then.
func (s *Store) tidy(now time.Time) {
	g := s.group.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entries {
		keep := keepIdle
		switch {
		case e.blankLocked():
			keep = 0
		case e.length >= 0 && e.safe >= e.length:
			keep = keepDone
		case e.asked > 0 && !s.pushedLocked(e, g):
			if e.users == 0 && now.Sub(e.used) >= tidyEvery {
				s.pushLocked(e, g)
			}
			continue
		}
		if e.users == 0 && now.Sub(e.used) >= keep {
			s.forgetLocked(e)
		}
	}
}

func (s *Store) forgetLocked(e *entry) {
	if s.entries[e.key] == e {
		delete(s.entries, e.key)
	}
}

// pushedLocked tells whether nobody lacks anything of what is here.
func (s *Store) pushedLocked(e *entry, g *group) bool {
	for _, id := range Holders(e.key, g.members) {
		if h, ok := e.at[id]; id != g.self && (!ok || h.lacks(e.known)) {
			return false
		}
	}
	return true
}

// push has everything that holders lack of a log sent to them.
func (s *Store) push(e *entry, g *group, known int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.known = max(e.known, known)
	s.pushLocked(e, g)
}

func (s *Store) pushLocked(e *entry, g *group) {
	for _, id := range Holders(e.key, g.members) {
		l := s.links[id]
		if h, ok := e.at[id]; l != nil && (!ok || h.lacks(e.known)) {
			l.addLocked(e.key)
		}
	}
}

// learn takes note of what another primary has.
func (s *Store) learn(e *entry, g *group, id string, h have) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.at[id] = h
	s.reckonLocked(e, g)
}

// learnOwn takes note of how much is durable here.
func (s *Store) learnOwn(e *entry, g *group, durable int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.own = max(e.own, durable)
	e.known = max(e.known, durable)
	s.reckonLocked(e, g)
}

// learnEnd takes note of where the log ends.
func (s *Store) learnEnd(e *entry, g *group, info runlog.Info) {
	if !info.Sealed {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e.length = info.Length
	s.reckonLocked(e, g)
}

// reckonLocked finds out how much is durable.
func (s *Store) reckonLocked(e *entry, g *group) {
	var copies []have
	for _, id := range Holders(e.key, g.members) {
		h := e.at[id]
		if id == g.self {
			h = have{durable: e.own, length: e.length, sealed: e.length >= 0}
		}
		copies = append(copies, h)
	}
	safe := min(durable(copies), e.known)
	if safe > e.safe {
		e.safe = safe
		if e.changed != nil {
			close(e.changed)
			e.changed = nil
		}
	}
	if e.length >= 0 && e.safe >= e.length {
		s.whole.Put(e.key, struct{}{})
	}
}

func (s *Store) safe(e *entry) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return e.safe
}

// raise takes another primary's word for how much is durable.
func (s *Store) raise(e *entry, safe int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.safe = max(e.safe, safe)
}

// await returns when the first target bytes of the log are durable, and how many
// are. It gives up when nothing has got on for a while, or nothing can.
func (s *Store) await(ctx context.Context, e *entry, target int64) (int64, error) {
	stuck := time.NewTimer(within)
	defer stuck.Stop()
	for {
		s.mu.Lock()
		safe := e.safe
		if e.changed == nil {
			e.changed = make(chan struct{})
		}
		changed := e.changed
		s.mu.Unlock()
		if safe >= target {
			return safe, nil
		}
		g := s.now()
		if err := s.hopeless(e, g); err != nil {
			return safe, err
		}
		select {
		case <-changed:
			stuck.Reset(within)
		case <-stuck.C:
			return s.safe(e), fmt.Errorf("sync log %v: %d of %d bytes are durable, and nothing has got on for %v: %w%s",
				e.key, safe, target, within, ErrUnreachable, s.silent(g, Holders(e.key, g.members)))
		case <-ctx.Done():
			return s.safe(e), fmt.Errorf("sync log %v: %w", e.key, ctx.Err())
		}
	}
}

// hopeless returns why what is not durable yet won't be soon: too many holders
// have not answered for too long. So a worker with many logs need not wait for
// each.
func (s *Store) hopeless(e *entry, g *group) error {
	holders := Holders(e.key, g.members)
	s.mu.Lock()
	alive := 0
	for _, id := range holders {
		if l := s.links[id]; id == g.self || l != nil && !l.lostLocked() {
			alive++
		}
	}
	s.mu.Unlock()
	if alive >= min(enough, len(holders)) && alive > 0 {
		return nil
	}
	return fmt.Errorf("sync log %v: %w%s", e.key, ErrUnreachable, s.silent(g, holders))
}

// silent says which of these primaries do not answer, and why, for the end of an
// error.
func (s *Store) silent(g *group, ids []string) string {
	if len(ids) == 0 {
		return ": " + errNoGroup.Error()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var said []string
	for _, id := range slices.Sorted(slices.Values(ids)) {
		if l := s.links[id]; id != g.self && l != nil && l.err != nil {
			said = append(said, fmt.Sprintf("%s (%v)", id, l.err))
		}
	}
	if len(said) == 0 {
		return ""
	}
	return ": " + strings.Join(said, ", ")
}
