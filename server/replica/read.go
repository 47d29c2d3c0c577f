package replica

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/schedd/schedd/server/runlog"
)

// chaseEvery is how often the others are asked about a log that somebody
// follows.
const chaseEvery = time.Second

// Fetch makes the log on this primary as long as it is on any that can be reached.
// It asks nobody about a log that is complete here. After an error what could be
// had is here; with [ErrUnreachable] there may be more that was durable.
func (s *Store) Fetch(ctx context.Context, k runlog.Key) error {
	g := s.now()
	if g.alone {
		return nil
	}
	if info, _ := s.logs.Stat(k); info.Complete {
		return nil
	}
	if err := k.Check(); err != nil {
		return fmt.Errorf("fetch log %v: %w", k, err)
	}
	e := s.use(k)
	defer s.leave(e)
	select {
	case e.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("fetch log %v: %w", k, ctx.Err())
	}
	defer func() { <-e.turn }()
	if err := s.gather(ctx, e, g, answersFor); err != nil {
		return fmt.Errorf("fetch log %v: %w", k, err)
	}
	return nil
}

// Durable returns how much of k's log is durable, as far as its holders say within
// a second: fewer bytes than there are when too few of them answer. It asks nobody
// about a log that is known here to be durable to its end.
func (s *Store) Durable(ctx context.Context, k runlog.Key) int64 {
	g := s.now()
	if info, _ := s.Stat(k); g.alone || info.Complete && info.Durable >= info.Length || k.Check() != nil {
		return info.Durable
	}
	ctx, cancel := context.WithTimeout(ctx, linger)
	defer cancel()
	holders := Holders(k, g.members)
	answers := s.question(ctx, k, g, holders, answersFor(len(holders)))
	here, _ := s.logs.Stat(k)
	answers[g.self] = have{here.Known, here.Durable, here.Length, here.Sealed}
	var copies []have
	known := int64(0)
	for _, id := range holders {
		copies = append(copies, answers[id])
		known = max(known, answers[id].known)
	}
	return min(durable(copies), known)
}

// Follow calls f with k's log as it becomes known on this primary, see
// [runlog.Store.Follow]. As long as it is not complete, what is known on others
// is fetched each second.
func (s *Store) Follow(ctx context.Context, k runlog.Key, off int64, f func(off int64, chunk []byte) error) error {
	if s.now().alone {
		return s.logs.Follow(ctx, k, off, f)
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { s.chase(ctx, k) })
	return s.logs.Follow(ctx, k, off, f)
}

// chase fetches a log until it is complete.
func (s *Store) chase(ctx context.Context, k runlog.Key) {
	for {
		if err := s.Fetch(ctx, k); err != nil && ctx.Err() == nil {
			s.log.Debug("following a log without all of its copies", "run", k.Run, "attempt", k.Attempt, "err", err)
		}
		if info, _ := s.logs.Stat(k); info.Complete {
			return
		}
		if !pause(ctx, chaseEvery*4/5+time.Duration(rand.Int64N(int64(chaseEvery*2/5)))) {
			return
		}
	}
}
