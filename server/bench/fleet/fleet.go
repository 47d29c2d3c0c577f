// Package fleet is many workers in one process, as a benchmark needs them: they keep
// sessions as agents do, each over a connection and with a key of its own, and end
// what they are given at once.
//
// They speak the protocol of schedd.agent.v1 and nothing else. There is no journal, no
// process and no output, and what they know is gone with this process: so the fleet
// shows what primaries cost and never what workers do. It decides nothing and judges
// nothing; who uses it counts what it is told.
package fleet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
)

// Config is the fleet to have.
type Config struct {
	// Servers are the addresses that workers dial, one after the other in turn, each
	// worker beginning with another one.
	Servers []string
	// Workers is how many there are, and Slots how many attempts each of them takes.
	Workers, Slots int
	// Name begins the names of the workers; the number of each follows.
	Name string
	// Labels of all of them.
	Labels map[string]string
	// TLS to dial with; nil: without.
	TLS *tls.Config
	// Opening bounds how many sessions are opened at the same time in the beginning;
	// 0 means no bound. Workers that come back later are not held up.
	Opening int
	// Launched is told of each attempt that begins, unless it is nil. It is called by
	// many goroutines, and must not wait.
	Launched func(l *agentv1.Launch, at time.Time)
	// Acked is told of each result that is on record, likewise.
	Acked func(a *agentv1.ResultAck, at time.Time)
	// Dial opens connections; nil: by TCP.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

// Counts is what a fleet has seen up to now.
type Counts struct {
	// Online is how many workers have a session at present, Opened how many sessions
	// there ever were, Failed how many tries to open one came to nothing.
	Online, Opened, Failed int64
	// Launched is how many attempts began, Again how often one was launched that the
	// worker knew already, Acked how many results are on record.
	Launched, Again, Acked int64
}

// Fleet is workers that keep their sessions until it is stopped.
type Fleet struct {
	config Config
	stop   context.CancelFunc
	wg     sync.WaitGroup
	turn   chan struct{} // holds one for each session that is being opened; nil: no bound

	online, opened, failed atomic.Int64
	launched, again, acked atomic.Int64
	mu                     sync.Mutex // guards what follows
	lastFailure            error
}

// Start lets the workers of a fleet come. [Fleet.Stop] has to be called; the end of
// ctx is a sudden one, without goodbyes.
func Start(ctx context.Context, c Config) (*Fleet, error) {
	if len(c.Servers) == 0 || c.Workers < 1 || c.Slots < 1 {
		return nil, fmt.Errorf("start a fleet: %d servers, %d workers and %d slots, want at least one of each", len(c.Servers), c.Workers, c.Slots)
	}
	if c.Dial == nil {
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		}
	}
	ctx, stop := context.WithCancel(ctx)
	f := &Fleet{config: c, stop: stop}
	if c.Opening > 0 {
		f.turn = make(chan struct{}, c.Opening)
	}
	for i := range c.Workers {
		m, err := newMember(f, i)
		if err != nil {
			f.Stop()
			return nil, err
		}
		f.wg.Go(func() { m.keep(ctx) })
	}
	return f, nil
}

// Stop ends all sessions, and returns when the last worker has left.
func (f *Fleet) Stop() {
	f.stop()
	f.wg.Wait()
}

// Counts returns what the fleet has seen up to now.
func (f *Fleet) Counts() Counts {
	return Counts{
		Online: f.online.Load(), Opened: f.opened.Load(), Failed: f.failed.Load(),
		Launched: f.launched.Load(), Again: f.again.Load(), Acked: f.acked.Load(),
	}
}

// lookAgain is how often somebody who waits looks at the counts.
const lookAgain = 20 * time.Millisecond

// Await waits until the counts are as they should be, or ctx is done. Then the error
// says what they are, and what went wrong last.
func (f *Fleet) Await(ctx context.Context, what string, holds func(Counts) bool) error {
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for !holds(f.Counts()) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("wait until %s: %w; the fleet has seen %+v", what, context.Cause(ctx), f.Counts()), f.failure())
		}
	}
	return nil
}

// AwaitOnline waits until all workers have a session at the same time.
func (f *Fleet) AwaitOnline(ctx context.Context) error {
	return f.Await(ctx, fmt.Sprintf("%d workers are online", f.config.Workers), func(c Counts) bool {
		return c.Online == int64(f.config.Workers)
	})
}

// failure is why a session could not be opened, or ended, last.
func (f *Fleet) failure() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lastFailure
}

func (f *Fleet) failedWith(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lastFailure = err
}
