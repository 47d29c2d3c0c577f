package replica

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
	"github.com/schedd/schedd/server/runlog"
)

const (
	// maxKeys is the most that one question asks about.
	maxKeys = 1000
	// askWithin is how long an answer may take, and readWithin how long if the
	// other primary may have to read the logs through first.
	askWithin  = 5 * time.Second
	readWithin = time.Minute
	// probeWithin is how long it may take to find out that a primary is back.
	probeWithin = 2 * time.Second
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
	asking    time.Time // since when an answer is waited for; zero: none is
	said      time.Time // when it was last logged that a copy can't be pushed
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

// quickLocked tells whether an answer can be expected soon.
func (l *link) quickLocked() bool {
	return l.err == nil && !l.ended && (l.asking.IsZero() || time.Since(l.asking) < linger)
}

// addLocked puts a log in the queue. While the primary fails there is none: when
// it is back, all it lacks is found by the entries.
func (l *link) addLocked(k runlog.Key) {
	if l.err == nil {
		l.queue.add(k)
		signal(l.work)
	}
}

// askLocked asks about a log. The link has not ended.
func (l *link) askLocked(q question) {
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
		l.queue.clear()
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

// askAll asks what there is to ask, until ctx is done. A primary that fails is
// tried again and again: so it is found out when it is back.
func (l *link) askAll(ctx context.Context) {
	for ctx.Err() == nil {
		if rest := l.failing(); rest > 0 {
			if pause(ctx, rest) {
				l.probe(ctx)
			}
			continue
		}
		select {
		case <-ctx.Done():
		case <-l.asks:
			if questions := l.take(); len(questions) > 0 {
				l.put(ctx, questions)
			}
		}
	}
}

// put puts questions to the primary.
func (l *link) put(ctx context.Context, questions []question) {
	keys := make([]runlog.Key, len(questions))
	for i, q := range questions {
		keys[i] = q.key
	}
	l.waits(time.Now())
	all, err := l.ask(ctx, askWithin, keys)
	l.waits(time.Time{})
	if err != nil && ctx.Err() == nil {
		l.fail(err)
	}
	l.answer(questions, all, err)
}

// probe finds out whether a primary that fails is back. Questions that came
// meanwhile are answered with what is wrong, if it is not.
func (l *link) probe(ctx context.Context) {
	l.again()
	_, err := l.ask(ctx, probeWithin, nil, grpc.WaitForReady(true))
	if err == nil {
		err = l.relearn(ctx)
	}
	if err == nil || ctx.Err() != nil {
		return
	}
	l.fail(err)
	l.store.mu.Lock()
	l.failures++
	l.store.mu.Unlock()
	l.answer(l.take(), nil, err)
}

// waits notes since when an answer is waited for.
func (l *link) waits(since time.Time) {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	l.asking = since
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
func (l *link) ask(ctx context.Context, within time.Duration, keys []runlog.Key, options ...grpc.CallOption) ([]have, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	client, err := l.client()
	if err != nil {
		return nil, err
	}
	req := &peerv1.AskRequest{Keys: make([]*agentv1.AttemptKey, len(keys))}
	for i, k := range keys {
		req.Keys[i] = wireKey(k)
	}
	resp, err := client.Ask(ctx, req, options...)
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

// again has a primary that failed dialled at once: when that is due is for the
// link to say, and not for its connection.
func (l *link) again() {
	conn, err := l.store.peers.LogConn(l.id)
	if c, ok := conn.(interface{ ResetConnectBackoff() }); ok && err == nil {
		c.ResetConnectBackoff()
	}
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
	for some := range slices.Chunk(all, maxKeys) {
		keys := make([]runlog.Key, len(some))
		for i, e := range some {
			keys[i] = e.key
		}
		has, err := l.ask(ctx, readWithin, keys)
		if err != nil {
			return err
		}
		for i, e := range some {
			s.learn(e, s.now(), l.id, has[i])
		}
	}
	g := s.now()
	s.mu.Lock()
	l.err, l.failures = nil, 0
	for _, e := range s.entries {
		if e.asked > 0 {
			s.pushLocked(e, g)
		}
	}
	s.stirLocked(false)
	s.mu.Unlock()
	s.log.Info("a primary takes copies of logs again", "primary", l.id)
	return nil
}
