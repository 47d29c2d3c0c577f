// Package session is one conversation of a worker with a gateway, from the hello
// to the hang-up.
//
// It owns no attempt and keeps nothing: whatever it could not say, the next
// session says again, since what there is to say comes from [Attempts] and
// [Logs], which outlive it. It never starts or ends a process, never writes to
// the disk, and reads from it only in the goroutine that ships logs.
//
// Three goroutines serve a session: one receives and only hands on, one sends,
// the most urgent first, and one cuts logs into chunks.
package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
	"github.com/schedd/schedd/proto/wire"
)

// diskPatience is how long a session that has ended waits for its shipper, which may wait for
// the disk.
const diskPatience = time.Second

// farewell is how long a session that was ended on purpose waits for the
// gateway to end the stream as well; what the gateway says until then counts.
const farewell = 5 * time.Second

// urgentMax bounds what waits with the highest priority: answers to pings. A
// gateway that pings faster than we can answer gets fewer answers.
const urgentMax = 16

// ErrSilent is returned for a session in which nothing was heard for
// [wire.DeadAfter], or for three intervals of a gateway that pings slowly.
var ErrSilent = errors.New("the gateway has been silent for too long")

// Stream is the worker's end of the stream, whoever opened it. It ends with the
// context that it was made with, which wakes who waits in it.
type Stream interface {
	Send(*agentv1.AgentMessage) error
	Recv() (*agentv1.GatewayMessage, error)
	CloseSend() error
}

// Attempts are the worker's attempts, as a session needs them. All methods
// return at once, and may be called by several sessions at a time.
type Attempts interface {
	// Handle takes a Launch, Kill or ResultAck. A Launch was sent [wire.DeadAfter] ago at
	// most, or three intervals of a gateway that pings slowly.
	Handle(*agentv1.GatewayMessage)
	// Inventory returns the attempts that the worker may not forget yet.
	Inventory() []*agentv1.AttemptStatus
	// Trouble returns why the worker takes no attempts at present, or "". When that
	// changes it calls [Outbox.AskInventory].
	Trouble() string
	// Message returns the Started or Result that holds for an attempt now, or
	// nil if there is nothing to say.
	Message(Key) *agentv1.AgentMessage
	// Watch has the outbox told of every change from now on, until stop.
	Watch(*Outbox) (stop func())
}

// Logs are the logs of the worker's attempts, as a session needs them. They may
// be called by several sessions at a time.
type Logs interface {
	// Unshipped returns the attempts with a log that is not durable.
	Unshipped() []Key
	// LogSize returns the length so far. It is false when the log is gone or
	// nobody wants it, and returns at once.
	LogSize(Key) (size int64, ok bool)
	// LogFence returns the fence that the attempt was launched with, 0 when the log
	// is gone, and whether nobody can have any of the log yet. It returns at once.
	LogFence(Key) (fence uint64, fresh bool)
	// ReadLog reads from the disk, as io.ReaderAt does, one part after the other.
	ReadLog(k Key, offset int64, parts ...[]byte) (int, error)
	// LogDurable tells how many bytes are safe elsewhere. It returns at once.
	LogDurable(k Key, durable int64)
	// LogRefused tells that the log of the attempt with this fence will never be
	// taken, and why. It returns at once, and nobody wants the log after it.
	LogRefused(k Key, fence uint64, reason string)
}

// Session is a session that the gateway has welcomed. Run it once.
type Session struct {
	stream  Stream
	hangUp  context.CancelFunc // ends the stream at once
	welcome *agentv1.Welcome
	log     *slog.Logger

	interval time.Duration    // between two pings, before the spread
	replace  chan Replacement // holds one: why the session should be replaced
	drain    *time.Timer      // the receiver's: the moment chosen in a Drain's spread

	box     *Outbox
	urgent  chan *agentv1.AgentMessage
	pages   []*agentv1.AgentMessage    // the sender's: the rest of an inventory
	chunks  chan *agentv1.AgentMessage // from the shipper
	shipper *shipper
	pinger  *pinger
	pulse   *pulse

	silence *time.Timer
	silent  atomic.Bool
}

func newSession(stream Stream, hangUp context.CancelFunc, w *agentv1.Welcome, log *slog.Logger) *Session {
	return &Session{
		stream: stream, hangUp: hangUp, welcome: w, log: log,
		interval: bounded(w.GetPingInterval().AsDuration(), wire.PingInterval, time.Second),
		replace:  make(chan Replacement, 1),
		box:      newOutbox(),
		urgent:   make(chan *agentv1.AgentMessage, urgentMax),
		chunks:   make(chan *agentv1.AgentMessage),
	}
}

// bounded returns what the gateway chose, or the default if it chose nothing or
// what would be a busy loop.
func bounded(chosen, byDefault, least time.Duration) time.Duration {
	if chosen < least {
		return byDefault
	}
	return chosen
}

// Welcome returns what the gateway said of the session.
func (s *Session) Welcome() *agentv1.Welcome { return s.welcome }

// Replace tells once that it is time to open the next session while this one goes
// on: its life is over, or the gateway asked.
func (s *Session) Replace() <-chan Replacement { return s.replace }

// Replacement is a wish for the next session.
type Replacement struct {
	// Reason is for the log.
	Reason string
	// Stops says that the other end is about to stop, whatever becomes of this worker:
	// it would be left by any other as well.
	Stops bool
}

// Run talks until the stream ends or ctx is done; then it says goodbye, for the
// reason that is the cause of ctx, hears the gateway out for some seconds and
// returns nil. Otherwise it returns why the session ended: [*Rejected] is the
// gateway's word, [ErrSilent] and all others say nothing but that this stream
// is over.
func (s *Session) Run(ctx context.Context, attempts Attempts, logs Logs, leases Leases) error {
	defer s.hangUp()
	s.pinger = newPinger(s.interval, leases, s.pulse)
	defer s.pinger.timer.Stop()
	s.shipper = newShipper(logs, s.box, s.welcome.GetLogCredit(), s.log)
	s.silence = time.AfterFunc(s.deadAfter(), func() {
		s.silent.Store(true)
		s.hangUp()
	})
	defer s.silence.Stop()
	life := bounded(s.welcome.GetStreamLife().AsDuration(), wire.StreamLife, 10*time.Second)
	ageing := time.AfterFunc(wire.Spread(life, wire.StreamLifeSpread, rand.Float64()), func() {
		s.offer(Replacement{Reason: "the stream has reached its age"})
	})
	defer ageing.Stop()

	// The inventory is taken after the outbox watches, so no change is missed.
	stop := attempts.Watch(s.box)
	defer stop()
	s.box.AskInventory()

	err := s.converse(ctx, attempts)
	switch {
	case isRejected(err):
		return err
	case ctx.Err() != nil:
		return nil
	case s.silent.Load():
		return fmt.Errorf("%w: nothing came for %v", ErrSilent, s.deadAfter())
	}
	return err
}

// converse runs the three goroutines until the receiver has ended. The shipper ends with it,
// unless it waits for the disk: then it ends by itself when that has answered, since the
// next session must not wait for that.
func (s *Session) converse(ctx context.Context, attempts Attempts) error {
	talk, end := context.WithCancel(ctx)
	defer end()
	var received error
	var wg sync.WaitGroup
	wg.Go(func() {
		defer end()
		received = s.receive(attempts)
	})
	shipped := make(chan struct{})
	go func() {
		defer close(shipped)
		s.shipper.run(talk, s.chunks)
	}()

	sent := s.send(talk, attempts)
	end()
	if ctx.Err() != nil && sent == nil {
		sent = s.goodbye(context.Cause(ctx))
	}
	// A stream on which nothing can be sent has ended, or ends soon: why, the
	// receiver is told.
	last := time.AfterFunc(farewell, s.hangUp)
	wg.Wait()
	last.Stop()
	hung := time.NewTimer(diskPatience)
	defer hung.Stop()
	select {
	case <-shipped:
	case <-hung.C:
	}
	if s.drain != nil {
		s.drain.Stop()
	}
	return ending(received, sent)
}

// ending returns why the stream ended. If the receiver knows, it knows best.
func ending(received, sent error) error {
	switch {
	case isRejected(received):
		return received
	case errors.Is(received, io.EOF):
		return errors.New("the stream ended without a word")
	case received != nil:
		return fmt.Errorf("receive: %w", received)
	}
	return sent
}

// deadAfter leaves room for a lost ping, whatever interval the gateway chose.
func (s *Session) deadAfter() time.Duration { return max(wire.DeadAfter, 3*s.interval) }

// offer asks for the session to be replaced, once.
func (s *Session) offer(r Replacement) {
	select {
	case s.replace <- r:
	default:
	}
}

// goodbye ends our half of the stream.
func (s *Session) goodbye(cause error) error {
	m := &agentv1.AgentMessage{Body: &agentv1.AgentMessage_Goodbye{
		Goodbye: &agentv1.Goodbye{Reason: cause.Error()},
	}}
	if err := s.stream.Send(m); err != nil {
		return fmt.Errorf("say goodbye: %w", err)
	}
	if err := s.stream.CloseSend(); err != nil {
		return fmt.Errorf("close the sending half: %w", err)
	}
	return nil
}
