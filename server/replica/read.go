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
