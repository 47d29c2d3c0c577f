package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
	"github.com/schedd/schedd/server/runlog"
)

const (
	// pushes is how many logs are pushed to a primary at a time.
	pushes = 16
	// piece is the most that one call pushes, in bytes, and pushWithin how long
	// it may take.
	piece      = 256 << 10
	pushWithin = 10 * time.Second
	// complainEvery is how often it is logged that logs can't be pushed to a
	// primary that answers: a full disk fails for each.
	complainEvery = time.Minute
)

// pushAll pushes what is in the queue, several logs at a time.
func (l *link) pushAll(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, pushes)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		k, ok := l.next(ctx)
		if !ok {
			return
		}
		wg.Go(func() {
			l.push(ctx, k)
			<-slots
		})
	}
}

// next waits for a log to push. While the primary fails there is none.
func (l *link) next(ctx context.Context) (runlog.Key, bool) {
	for ctx.Err() == nil {
		l.store.mu.Lock()
		k, ok := runlog.Key{}, false
		if l.err == nil {
			k, ok = l.queue.take()
		}
		l.store.mu.Unlock()
		if ok {
			return k, true
		}
		select {
		case <-ctx.Done():
		case <-l.work:
		}
	}
	return runlog.Key{}, false
}

// push pushes one piece of a log, and puts it in the queue again if there is
// more. A log that the primary can't take, for a reason of its own such as a full
// disk, keeps its slot for a while: if it is so for all, the primary rests.
func (l *link) push(ctx context.Context, k runlog.Key) {
	more, err := l.ship(ctx, k)
	switch code := status.Code(err); {
	case err == nil || ctx.Err() != nil:
	case code == codes.FailedPrecondition || code == codes.InvalidArgument || errors.Is(err, errLocal):
		more = false
		l.complain(k, err)
	case code == codes.Internal:
		l.complain(k, err)
		more = pause(ctx, restMax)
	default:
		more = true
		l.fail(err)
	}
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	if l.queue.done(k) || more {
		l.addLocked(k)
	}
}

// complain logs that a log can't be pushed, once for many.
func (l *link) complain(k runlog.Key, err error) {
	now := time.Now()
	l.store.mu.Lock()
	due := now.Sub(l.said) >= complainEvery
	if due {
		l.said = now
	}
	l.store.mu.Unlock()
	if due {
		l.store.log.Warn("a copy of a log can't be pushed at present", "primary", l.id, "run", k.Run, "attempt", k.Attempt, "err", err)
	}
}

// errLocal marks what went wrong on this primary's disk.
var errLocal = errors.New("it can't be read here")

// ship pushes one piece of a log to the primary, and returns whether there is
// more. With nothing to push it has the primary sync what it has, and say so.
func (l *link) ship(ctx context.Context, k runlog.Key) (more bool, err error) {
	s := l.store
	s.mu.Lock()
	e := s.entries[k]
	if e == nil {
		s.mu.Unlock()
		return false, nil
	}
	e.users++
	h, sure := e.at[l.id]
	safe := e.safe
	s.mu.Unlock()
	defer s.leave(e)

	g := s.now()
	info, _ := s.logs.Stat(k)
	s.learnEnd(e, g, info)
	if sure && !h.lacks(info.Known) {
		return false, nil
	}
	req, err := s.cut(k, h, sure, info.Known)
	if err != nil {
		return false, err
	}
	req.Safe = safe
	ctx, cancel := context.WithTimeout(ctx, pushWithin)
	defer cancel()
	client, err := l.client()
	if err != nil {
		return true, err
	}
	resp, err := client.Append(ctx, req)
	if err != nil {
		return true, err
	}
	got := haveOf(resp)
	s.learn(e, g, l.id, got)
	more = got.lacks(info.Known)
	if more && sure && got == h {
		return true, status.Error(codes.Internal, "it took nothing, and did not say why")
	}
	return more, nil
}

// cut makes the request that carries the next piece of a log for a primary that
// has h of it; an empty one, if that is not sure or there is nothing.
func (s *Store) cut(k runlog.Key, h have, sure bool, known int64) (*peerv1.AppendRequest, error) {
	if h.sealed {
		known = min(known, h.length)
	}
	req := &peerv1.AppendRequest{Key: wireKey(k), Offset: min(h.known, known)}
	n := min(known-req.Offset, piece)
	if !sure || n <= 0 {
		return req, nil
	}
	req.Data = make([]byte, n)
	if got, err := s.logs.Read(k, req.Data, req.Offset); got < len(req.Data) {
		return nil, fmt.Errorf("%w: %w", errLocal, err)
	}
	req.Crc32C = runlog.Checksum(req.Data)
	return req, nil
}
