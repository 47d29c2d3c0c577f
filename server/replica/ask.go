package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
	"github.com/schedd/schedd/server/runlog"
)

const (
	// linger is how long others are waited for when as many as it takes have
	// answered. Who did not answer an earlier question for so long is not.
	linger = time.Second
	// askAgain is how long nobody is asked about a log again after asking failed.
	askAgain = time.Second
	// stall is how long a primary that sends a log may be silent.
	stall = 5 * time.Second
)

// settle sees to it that what others know of a log is known here: if anew, in any
// case, or else if it was not since the group changed. It takes five seconds at
// most.
func (s *Store) settle(ctx context.Context, e *entry, g *group, anew bool) error {
	s.mu.Lock()
	fine := !anew && e.asked == g.epoch
	s.mu.Unlock()
	if fine {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	select {
	case e.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("what others have of it is still being fetched: %w", ctx.Err())
	}
	defer func() { <-e.turn }()

	s.mu.Lock()
	asked, failed, since := e.asked, e.failed, e.since
	s.mu.Unlock()
	switch {
	case failed != nil && time.Since(since) < askAgain:
		return failed
	case failed == nil && !anew && asked == g.epoch:
		return nil // somebody else has, meanwhile
	}
	err := s.gather(ctx, e, g, sureFor)
	s.mu.Lock()
	defer s.mu.Unlock()
	e.failed, e.since = err, time.Now()
	if err == nil {
		e.asked = g.epoch
	}
	return err
}

// gather asks the others what they have of a log, and pulls what is missing
// here. It is an error when fewer holders answer than needFor their number, or
// not all could be pulled. The turn is held.
func (s *Store) gather(ctx context.Context, e *entry, g *group, needFor func(n int) int) error {
	holders := Holders(e.key, g.members)
	need := needFor(len(holders))
	answers := s.question(ctx, e.key, g, holders, need)
	for id, h := range answers {
		s.learn(e, g, id, h)
	}
	if err := s.pull(ctx, e, answers); err != nil {
		return err
	}
	if heard(g, holders, answers) < need {
		return fmt.Errorf("%w%s", ErrUnreachable, s.silent(g, holders))
	}
	return nil
}

// heard counts the holders that have said what they have, this primary included.
func heard(g *group, holders []string, answers map[string]have) int {
	n := 0
	for _, id := range holders {
		if _, ok := answers[id]; ok || id == g.self {
			n++
		}
	}
	return n
}

// question asks all members what they have of a log, and not only its holders:
// others may have been that before, or its gateway. It waits until as many
// holders have answered as it takes, and a little for the others, but at most for
// five seconds.
func (s *Store) question(ctx context.Context, k runlog.Key, g *group, holders []string, needed int) map[string]have {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	replies := make(chan reply, len(g.members))
	answers, asked := map[string]have{}, map[string]bool{}
	for _, id := range g.members {
		if s.put(k, id, replies) {
			asked[id] = true
		}
	}
	lingered := time.NewTimer(linger)
	defer lingered.Stop()
	for len(asked) > 0 {
		var late <-chan time.Time
		short := needed - heard(g, holders, answers)
		if short <= 0 {
			if !s.quick(asked) {
				break
			}
			late = lingered.C
		}
		select {
		case r := <-replies:
			switch {
			case r.err == nil:
				answers[r.id] = r.have
				delete(asked, r.id)
			case short <= 0 || !s.put(k, r.id, replies):
				delete(asked, r.id)
			}
		case <-late:
			return answers
		case <-ctx.Done():
			return answers
		}
	}
	return answers
}

// put asks one member about a log, unless it is lost.
func (s *Store) put(k runlog.Key, id string, replies chan<- reply) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.links[id]
	if l == nil || l.lostLocked() {
		return false
	}
	l.askLocked(question{k, replies})
	return true
}

// quick tells whether an answer of any of these can be expected soon.
func (s *Store) quick(ids map[string]bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range ids {
		if l := s.links[id]; l != nil && l.quickLocked() {
			return true
		}
	}
	return false
}

// pull makes the log here as long as the longest of those in answers, and no
// longer than it is sealed at. The turn is held.
func (s *Store) pull(ctx context.Context, e *entry, answers map[string]have) error {
	var failed error
	var most int64 // what the one with the longest has
	for _, id := range longestFirst(answers) {
		info, _ := s.logs.Stat(e.key)
		goal := answers[id].known
		if info.Sealed {
			goal = min(goal, info.Length)
		}
		most = max(most, goal)
		if info.Known >= goal {
			break
		}
		if err := s.read(ctx, id, e.key, info.Known, goal); err != nil {
			failed = fmt.Errorf("pull log %v from %s: %w", e.key, id, err)
			continue
		}
		if goal == most {
			failed = nil
		}
	}
	return failed
}

// longestFirst orders primaries by how much they have.
func longestFirst(answers map[string]have) []string {
	ids := make([]string, 0, len(answers))
	for id := range answers {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b string) int {
		switch x, y := answers[a].known, answers[b].known; {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return 0
	})
	return ids
}

// read reads a part of a log from another primary and appends it here. What
// there is of it when it fails stays.
func (s *Store) read(ctx context.Context, id string, k runlog.Key, from, to int64) error {
	conn, err := s.peers.LogConn(id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(stall, func() { cancel(fmt.Errorf("nothing came for %v", stall)) })
	defer silence.Stop()
	stream, err := peerv1.NewLogServiceClient(conn).Read(ctx, &peerv1.ReadRequest{Key: wireKey(k), Offset: from, Limit: to - from})
	if err != nil {
		return because(ctx, err)
	}
	for {
		m, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return fmt.Errorf("it has %d bytes, and said that it has %d", from, to)
		case err != nil:
			return because(ctx, err)
		}
		silence.Reset(stall)
		known, err := s.logs.Append(k, m.GetOffset(), m.GetData(), m.GetCrc32C())
		switch {
		case errors.Is(err, runlog.ErrSealed): // meanwhile, and all of it is here
			return nil
		case err != nil:
			return err
		case known >= to:
			return nil
		case known <= from:
			return fmt.Errorf("it sent %d bytes at %d, and %d are known here", len(m.GetData()), m.GetOffset(), known)
		}
		from = known
	}
}

// because says why a call failed, if it is because it was given up.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return fmt.Errorf("%w (%w)", cause, err)
	}
	return err
}
