package replica

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
	"github.com/schedd/schedd/server/runlog"
)

const (
	// pushes is how many logs are pushed to a primary at a time.
	pushes = 16
	// piece is the most that one call pushes, in bytes.
	piece = 256 << 10
	// maxKeys is the most that one question asks about.
	maxKeys = 1000
	// pushWithin and askWithin bound a call.
	pushWithin = 10 * time.Second
	askWithin  = 5 * time.Second
	// A primary that fails rests for restBase, twice as long each time, up to
	// restMax.
	restBase = 100 * time.Millisecond
	restMax  = 5 * time.Second
)

var errStopped = errors.New("this primary is stopping")

// link is what this primary has to do with another one: what to push to it, and
// what to ask it. What is asked while a question is under way waits for the next.
type link struct {
	store *Store
	id    string
	work  chan struct{} // holds a token when there may be something to push
	asks  chan struct{} // holds a token when there may be something to ask

	// Guarded by Store.mu.
	queue     queue
	questions []question
	err       error     // why the last call failed; nil: it did not
	since     time.Time // when calls began to fail
	failures  int       // in a row, of questions
	ended     bool
}

// question asks what the other primary has of a log.
type question struct {
	key   runlog.Key
	reply chan<- reply // has room
}

// reply is the answer to a question, or why there is none.
type reply struct {
	id   string
	have have
	err  error
}

func newLink(s *Store, id string) *link {
	return &link{
		store: s, id: id, work: make(chan struct{}, 1), asks: make(chan struct{}, 1),
		queue: queue{state: map[runlog.Key]turn{}},
	}
}

// lostLocked tells whether the primary has not answered for so long that nobody
// should wait for it.
func (l *link) lostLocked() bool { return l.ended || l.err != nil && time.Since(l.since) >= within }

// addLocked puts a log in the queue.
func (l *link) addLocked(k runlog.Key) {
	l.queue.add(k)
	signal(l.work)
}

// askLocked asks about a log.
func (l *link) askLocked(q question) {
	if l.ended {
		q.reply <- reply{id: l.id, err: errStopped}
		return
	}
	l.questions = append(l.questions, q)
	signal(l.asks)
}

// run pushes and asks until ctx is done.
func (l *link) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { l.pushAll(ctx) })
	wg.Go(func() { l.askAll(ctx) })
	wg.Wait()
	l.store.mu.Lock()
	l.ended = true
	l.store.mu.Unlock()
	l.answer(l.take(), nil, errStopped)
}

// fail notes that a call has failed: the primary rests, and is asked anew how
// far it is before it is pushed to again.
func (l *link) fail(err error) {
	l.store.mu.Lock()
	first := l.err == nil
	if first {
		l.since = time.Now()
	}
	l.err = err
	l.store.mu.Unlock()
	signal(l.asks)
	if first {
		l.store.log.Warn("a primary does not take copies of logs; what it lacks waits", "primary", l.id, "err", err)
	}
}

// failing returns how long to rest before the next question; 0: no call has
// failed.
func (l *link) failing() time.Duration {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	if l.err == nil {
		return 0
	}
	return backoff(l.failures)
}

// backoff returns how long to rest after some failures in a row.
func backoff(failures int) time.Duration {
	d := min(restBase<<min(failures, 10), restMax)
	return d - time.Duration(rand.Int64N(int64(d)/5))
}

// askAll asks what there is to ask. A primary that fails is asked again and
// again, about nothing if need be: so it is found out when it is back.
func (l *link) askAll(ctx context.Context) {
	for {
		rest := l.failing()
		if rest > 0 {
			if !pause(ctx, rest) {
				return
			}
		} else {
			select {
			case <-ctx.Done():
				return
			case <-l.asks:
			}
		}
		questions := l.take()
		if len(questions) == 0 && rest == 0 {
			continue
		}
		keys := make([]runlog.Key, len(questions))
		for i, q := range questions {
			keys[i] = q.key
		}
		all, err := l.ask(ctx, keys)
		if err == nil && rest > 0 {
			err = l.relearn(ctx)
		}
		switch {
		case ctx.Err() != nil:
			err = errStopped
		case err != nil:
			l.fail(err)
			l.store.mu.Lock()
			l.failures++
			l.store.mu.Unlock()
		}
		l.answer(questions, all, err)
	}
}

// take returns the questions for one call.
func (l *link) take() []question {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	n := min(len(l.questions), maxKeys)
	if l.ended {
		n = len(l.questions)
	}
	taken := l.questions[:n:n]
	l.questions = l.questions[n:]
	if len(l.questions) > 0 {
		signal(l.asks)
	}
	return taken
}

func (l *link) answer(questions []question, all []have, err error) {
	for i, q := range questions {
		r := reply{id: l.id, err: err}
		if err == nil {
			r.have = all[i]
		}
		q.reply <- r
	}
}

// ask asks the primary what it has of some logs.
func (l *link) ask(ctx context.Context, keys []runlog.Key) ([]have, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	client, err := l.client()
	if err != nil {
		return nil, err
	}
	req := &peerv1.AskRequest{Keys: make([]*agentv1.AttemptKey, len(keys))}
	for i, k := range keys {
		req.Keys[i] = wireKey(k)
	}
	resp, err := client.Ask(ctx, req)
	if err != nil {
		return nil, err
	}
	if len(resp.GetLogs()) != len(keys) {
		return nil, errors.New("it answered about other logs than it was asked about")
	}
	all := make([]have, len(keys))
	for i, in := range resp.GetLogs() {
		all[i] = haveOf(in)
	}
	return all, nil
}

func (l *link) client() (peerv1.LogServiceClient, error) {
	conn, err := l.store.peers.LogConn(l.id)
	if err != nil {
		return nil, err
	}
	return peerv1.NewLogServiceClient(conn), nil
}

// relearn asks a primary that answers again how far it is with all logs that are
// pushed from here: it may have lost something. Then it is pushed to again.
func (l *link) relearn(ctx context.Context) error {
	s := l.store
	s.mu.Lock()
	var all []*entry
	for _, e := range s.entries {
		if e.asked > 0 {
			all = append(all, e)
		}
	}
	s.mu.Unlock()
	for len(all) > 0 {
		some := all[:min(len(all), maxKeys)]
		all = all[len(some):]
		keys := make([]runlog.Key, len(some))
		for i, e := range some {
			keys[i] = e.key
		}
		has, err := l.ask(ctx, keys)
		if err != nil {
			return err
		}
		g := s.now()
		for i, e := range some {
			s.learn(e, g, l.id, has[i])
			s.push(e, g, 0)
		}
	}
	s.mu.Lock()
	l.err, l.failures = nil, 0
	s.mu.Unlock()
	signal(l.work)
	s.log.Info("a primary takes copies of logs again", "primary", l.id)
	return nil
}

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
		l.store.log.Warn("a copy of a log can't be pushed", "primary", l.id, "run", k.Run, "attempt", k.Attempt, "err", err)
	case code == codes.Internal:
		more = pause(ctx, restMax)
		l.store.log.Warn("a primary can't keep a copy of a log at present; trying again", "primary", l.id, "run", k.Run, "attempt", k.Attempt, "err", err)
	default:
		more = true
		l.fail(err)
	}
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	l.queue.done(k, more)
	signal(l.work)
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
	h, sure := e.at[l.id]
	safe := e.safe
	s.mu.Unlock()

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
	got := have{known: resp.GetKnown(), durable: resp.GetDurable(), length: resp.GetLength(), sealed: resp.GetSealed()}
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
		return nil, errors.Join(errLocal, err)
	}
	req.Crc32C = runlog.Checksum(req.Data)
	return req, nil
}
