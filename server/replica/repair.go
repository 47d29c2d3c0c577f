package replica

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/schedd/schedd/server/runlog"
)

const (
	// compareAfter is how long after a log was sealed its holders compare what
	// they have of it: by then it has been pushed, if all is well.
	compareAfter = 3 * time.Second
	// sweepEvery is how often they compare all of them, and sweepSoon how long
	// after the start, a change of the group or the return of a primary they do; but
	// after the last only if the last time was sweepRest ago. That is also how often
	// what is missing is looked for.
	sweepEvery = 10 * time.Minute
	sweepSoon  = 5 * time.Second
	sweepRest  = time.Minute
	// allEvery is how often they compare those of attempts that ended long ago, too,
	// when nothing has changed.
	allEvery = 6 * time.Hour
	// repairs is how many logs are repaired at a time.
	repairs = 4
)

// sealing is a log that was sealed.
type sealing struct {
	length int64
	due    time.Time // when it is compared
}

// want is a log that this primary should have.
type want struct {
	key    runlog.Key
	length int64 // where it ends; -1: not known
}

// compareSoon notes a log that was sealed, unless its holders are known to have
// all of it.
func (s *Store) compareSoon(k runlog.Key, length int64) {
	g := s.group.Load()
	info, _ := s.logs.Stat(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[k]; e != nil {
		e.length = length
		if e.safe >= length {
			s.whole.Put(k, struct{}{})
		}
		if e.asked > 0 && e.known >= length && s.pushedLocked(e, g) {
			if e.users == 0 {
				s.forgetLocked(e)
			}
			return
		}
	}
	whole := s.whole.Has(k)
	_, noted := s.sealed[k]
	if !noted && (!whole || !info.Complete) && slices.Contains(Holders(k, g.members), g.self) {
		s.sealed[k] = sealing{length, time.Now().Add(compareAfter)}
		signal(s.noted)
	}
}

// heardOf takes note of what the gateway of a log, which has pushed a piece of it
// here, says of all of it.
func (s *Store) heardOf(k runlog.Key, info runlog.Info, safe int64) {
	if info.Complete && safe >= info.Length {
		s.mu.Lock()
		s.whole.Put(k, struct{}{})
		s.mu.Unlock()
		return
	}
	if safe > 0 {
		e := s.use(k)
		s.raise(e, safe)
		s.leave(e)
	}
	if info.Complete {
		s.compareSoon(k, info.Length)
	}
}

// compareSealed compares logs soon after they were sealed.
func (s *Store) compareSealed(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.noted:
			if pause(ctx, compareAfter) {
				s.compareAll(ctx, s.due(time.Now()))
			}
		}
	}
}

// sweepAll compares all logs from time to time, and soon after the group or all
// that is remembered has changed, or a primary is back. What is missing after that
// is looked for again sooner than all is.
func (s *Store) sweepAll(ctx context.Context) {
	var last time.Time // when all were compared
	due := time.Now().Add(sweepSoon)
	next := time.NewTimer(sweepSoon)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.news:
			if at := s.sweepAt(last); at.Before(due) {
				due = at
			}
		case <-next.C:
			if time.Now().Before(due) {
				s.compareAll(ctx, s.missing())
				break
			}
			s.sweep(ctx)
			last = time.Now()
			due = last.Add(sweepEvery - time.Duration(rand.Int64N(int64(sweepEvery/5))))
		}
		wait := time.Until(due)
		if len(s.missing()) > 0 {
			wait = min(wait, sweepRest)
		}
		next.Reset(wait)
	}
}

// sweepAt returns when all logs are compared after there was news, if they were
// last. A primary that comes and goes may not have it done all the time; but one
// that has to keep what it lacks must not wait, since people go on by then.
func (s *Store) sweepAt(last time.Time) time.Time {
	soon := time.Now().Add(sweepSoon)
	s.mu.Lock()
	defer s.mu.Unlock()
	if rested := last.Add(sweepRest); !s.urgent && rested.After(soon) {
		return rested
	}
	return soon
}

// due takes out the sealed logs whose time has come.
func (s *Store) due(now time.Time) []want {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ws []want
	for k, at := range s.sealed {
		if !now.Before(at.due) {
			ws = append(ws, want{k, at.length})
			delete(s.sealed, k)
		}
	}
	return ws
}

// sweep compares all logs that this primary should have, those that it lacks first.
// What it has and nobody remembers is left alone: it is about to be removed, and
// others may have done so.
func (s *Store) sweep(ctx context.Context) {
	all, round := s.allDue(time.Now())
	if s.now().alone {
		s.lackNothing(round)
		return
	}
	missing := s.survey(all, round)
	s.compareAll(ctx, missing)
	done := make(map[runlog.Key]bool, len(missing))
	for _, w := range missing {
		done[w.key] = true
	}
	g := s.now()
	var some []want
	for k, length := range s.known(all) {
		if done[k] || !slices.Contains(Holders(k, g.members), g.self) {
			continue
		}
		if some = append(some, want{k, length}); len(some) == maxKeys {
			s.compareAll(ctx, some)
			some = some[:0]
		}
		if ctx.Err() != nil {
			return
		}
	}
	s.compareAll(ctx, some)
}

// compareAll compares logs with what others have, and repairs what is to be
// repaired: here, and there.
func (s *Store) compareAll(ctx context.Context, ws []want) {
	g := s.now()
	for batch := range slices.Chunk(ws, maxKeys) {
		if g.alone || ctx.Err() != nil {
			return
		}
		keys := make([]runlog.Key, len(batch))
		all := make([]map[string]have, len(batch))
		for i, w := range batch {
			keys[i] = w.key
			all[i] = map[string]have{g.self: s.own(ctx, w)}
		}
		for id, has := range s.askMany(ctx, keys) {
			for i, h := range has {
				all[i][id] = h
			}
		}
		s.repairAll(ctx, g, batch, all)
	}
}

// own returns what this primary has of a log, which it seals and syncs if that
// is still to be done.
func (s *Store) own(ctx context.Context, w want) have {
	h := s.has(w.key)
	if h.whole() || w.length < 0 {
		return h
	}
	if err := s.logs.Seal(w.key, w.length); err != nil && !errors.Is(err, runlog.ErrSealed) {
		s.log.Warn("a log can't be sealed", "run", w.key.Run, "attempt", w.key.Attempt, "err", err)
	}
	if h = s.has(w.key); h.sealed && h.known >= h.length && !h.whole() {
		if _, err := s.logs.Sync(ctx, w.key); err != nil {
			s.log.Warn("a log can't be synced", "run", w.key.Run, "attempt", w.key.Attempt, "err", err)
		}
		h = s.has(w.key)
	}
	return h
}

// askMany asks all members that answer what they have of some logs.
func (s *Store) askMany(ctx context.Context, keys []runlog.Key) map[string][]have {
	s.mu.Lock()
	var links []*link
	for _, l := range s.links {
		if l.err == nil {
			links = append(links, l)
		}
	}
	s.mu.Unlock()
	var wg sync.WaitGroup
	var mu sync.Mutex // guards all
	all := map[string][]have{}
	for _, l := range links {
		wg.Go(func() {
			has, err := l.ask(ctx, readWithin, keys)
			if err != nil {
				if ctx.Err() == nil {
					l.fail(err) // when it is back, all is compared
				}
				return
			}
			mu.Lock()
			defer mu.Unlock()
			all[l.id] = has
		})
	}
	wg.Wait()
	return all
}

// repairAll does what is to be done about logs, a few at a time of all that there
// are.
func (s *Store) repairAll(ctx context.Context, g *group, ws []want, all []map[string]have) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for i, w := range ws {
		todo := compare(w, Holders(w.key, g.members), g.self, all[i])
		s.note(w, todo)
		if !todo.pull && len(todo.push) == 0 {
			continue
		}
		select {
		case s.repairs <- struct{}{}:
		case <-ctx.Done():
			return
		}
		wg.Go(func() {
			s.mend(ctx, g, w, all[i], todo)
			<-s.repairs
		})
	}
}

// todo is what this primary does about a log.
type todo struct {
	safe  bool     // all of it is durable
	lacks bool     // this primary lacks something of it, or can't tell
	pull  bool     // others have more
	push  []string // who has less
}

// compare decides what this primary does about a log, by what those that have
// answered have of it, and itself. Each holder pulls what it lacks; only one
// pushes, so that a primary which has lost all is not sent everything twice.
func compare(w want, holders []string, self string, has map[string]have) (t todo) {
	var copies []have
	for _, id := range holders {
		copies = append(copies, has[id])
	}
	t.safe = w.length >= 0 && durable(copies) >= w.length

	var longest int64
	for _, h := range has {
		longest = max(longest, h.known)
	}
	own := has[self]
	if own.sealed {
		longest = min(longest, own.length)
	}
	if own.known < longest {
		t.pull, t.lacks = true, true
		return t
	}
	answered := 0
	for _, id := range holders {
		if _, ok := has[id]; ok {
			answered++
		}
	}
	unsynced := own.sealed && own.known >= own.length
	t.lacks = !own.whole() && (unsynced || answered < sureFor(len(holders)))
	first := slices.IndexFunc(holders, func(id string) bool { h, answered := has[id]; return answered && h.known >= longest })
	if first < 0 || holders[first] != self {
		return t
	}
	for _, id := range holders {
		if h, answered := has[id]; answered && id != self && h.lacks(longest) {
			t.push = append(t.push, id)
		}
	}
	return t
}

// mend does what is to be done about one log. What fails is done by the next
// sweep.
func (s *Store) mend(ctx context.Context, g *group, w want, has map[string]have, t todo) {
	k := w.key
	e := s.use(k)
	defer s.leave(e)
	for id, h := range has {
		if id != g.self {
			s.learn(e, g, id, h)
		}
	}
	if t.pull && s.pullLater(ctx, e, g, has) {
		s.note(w, todo{})
	}
	for _, id := range t.push {
		s.mu.Lock()
		l := s.links[id]
		s.mu.Unlock()
		for more := l != nil; more && ctx.Err() == nil; {
			var err error
			if more, err = l.ship(ctx, k); err != nil {
				s.log.Debug("a copy of a log is not repaired yet", "primary", id, "run", k.Run, "attempt", k.Attempt, "err", err)
				break
			}
		}
	}
}

// pullLater pulls what a holder lacks, and syncs it. It reports whether all that
// others had is here.
func (s *Store) pullLater(ctx context.Context, e *entry, g *group, has map[string]have) bool {
	select {
	case e.turn <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	defer func() { <-e.turn }()
	delete(has, g.self)
	err := s.pull(ctx, e, has)
	if err == nil {
		_, err = s.logs.Sync(ctx, e.key)
	}
	if err != nil && ctx.Err() == nil {
		s.log.Warn("a log is not repaired yet", "run", e.key.Run, "attempt", e.key.Attempt, "err", err)
	}
	return err == nil
}
