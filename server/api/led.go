package api

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/schedd/schedd/raftstore"
)

const (
	// patience is how long a call waits for a leader that carries it out. An
	// election takes a second or two.
	patience = 10 * time.Second
	// lastPatience is how long it does when this primary stops: it hands over before,
	// and the new leader is there at once.
	lastPatience = 2 * time.Second
	// askAgain is how long a call rests that no leader took: one that is handing
	// over, and fails to, tells nobody.
	askAgain = 100 * time.Millisecond
	// deposedFor is how long another primary leads until nothing is hoped for from
	// the one before. One that lives finds out sooner, and answers.
	deposedFor = 2 * time.Second
)

// fate is what became of a call.
type fate int

const (
	answered  fate = iota // it was carried out, or refused
	untouched             // nothing was done: the next leader may do it
	unknown               // it may have been done, or yet be
)

// fateOf returns what became of a call that this primary took as the leader.
func fateOf(err error) fate {
	switch {
	case errors.Is(err, raftstore.ErrNotLeader), errors.Is(err, raftstore.ErrStopped):
		return untouched
	case errors.Is(err, raftstore.ErrUnknown):
		return unknown
	}
	return answered
}

var (
	// errNoLeader is returned while nobody leads, or can be reached who does.
	errNoLeader = errors.New("no leader")
	// errDeposed ends a call that waits for a leader which is one no longer.
	errDeposed = errors.New("another primary leads")
)

// led calls f, which has the leader do something, until that is answered: again
// while nothing was done, and, if it may be repeated, also when that is not known.
// It gives up when its patience is over, or ctx ends.
func (s *Server) led(ctx context.Context, repeatable bool, f func() (fate, error)) error {
	over := func(how fate) bool { return how == answered || how == unknown && !repeatable }
	how, err := f()
	if over(how) {
		return err
	}
	doubt := how == unknown // of one try, which a later one does not end
	news, cancel := s.Group.WatchLeader()
	defer cancel()
	enough, rest := time.NewTimer(patience), time.NewTimer(0) // there may have been news already
	defer enough.Stop()
	defer rest.Stop()
	closing := s.closing
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for a primary to lead: %w", ctx.Err())
		case <-closing:
			enough.Reset(lastPatience)
			closing = nil
			continue
		case <-enough.C:
			if doubt {
				return fmt.Errorf("%w, and since then no primary leads: %v", raftstore.ErrUnknown, err) //nolint:errorlint // what became of the last try is not what became of the call
			}
			return fmt.Errorf("no primary leads, try again: %w", err)
		case <-news:
		case <-rest.C:
		}
		if how, err = f(); over(how) {
			return err
		}
		doubt = doubt || how == unknown
		rest.Reset(askAgain)
	}
}

// leader returns the primary to hand calls on to.
func (s *Server) leader() (id string, conn grpc.ClientConnInterface, err error) {
	id, conn, err = s.Group.Leader()
	switch {
	case err != nil:
		return "", nil, fmt.Errorf("%w: %w", errNoLeader, err)
	case id == s.NodeID:
		return "", nil, fmt.Errorf("%w: this primary is just being elected, or steps down", errNoLeader)
	}
	return id, conn, nil
}

// whileLeads returns a context that also ends some time after another primary has
// come to lead in the place of id; its cause is errDeposed then. It ends calls to
// a primary whose host is gone long before the connection does. The caller calls
// stop, which takes the watch off and leaves the context as it is.
func (s *Server) whileLeads(ctx context.Context, id string) (bounded context.Context, cancel context.CancelFunc, stop func()) {
	bounded, end := context.WithCancelCause(ctx)
	watching, enough := context.WithCancel(bounded)
	news, forget := s.Group.WatchLeader()
	var watch sync.WaitGroup
	watch.Go(func() {
		defer forget()
		limit := time.NewTimer(deposedFor)
		defer limit.Stop()
		for running := true; ; {
			if is := s.replaced(id); is && !running {
				limit.Reset(deposedFor)
				running = true
			} else if !is {
				limit.Stop()
				running = false
			}
			select {
			case <-watching.Done():
				return
			case <-limit.C:
				end(errDeposed)
				return
			case <-news:
			}
		}
	})
	return bounded, func() { end(nil) }, func() {
		enough()
		watch.Wait()
	}
}

// replaced tells whether another primary than id is known to lead.
func (s *Server) replaced(id string) bool {
	leader, _, _ := s.Group.Leader() // whether it can be reached is another question
	return s.Group.Leads() || leader != "" && leader != id
}

// judge says what became of a call that was handed on to a leader, and what its
// caller is told. sent tells whether it may have come there.
func (m method) judge(ctx context.Context, leader string, sent bool, err error) (fate, error) {
	switch reasonOf(err) {
	case reasonNotLeader:
		return untouched, err
	case reasonUnknown:
		return unknown, err
	case "":
	default:
		return answered, err // the leader's own word
	}
	deposed := status.Code(err) == codes.Canceled && errors.Is(context.Cause(ctx), errDeposed)
	if !deposed && status.Code(err) != codes.Unavailable {
		return answered, err
	}
	why := status.Convert(err).Message()
	if deposed {
		why = errDeposed.Error()
	}
	switch {
	case !sent:
		return untouched, fmt.Errorf("%w: %s can't be reached: %s", errNoLeader, leader, why)
	case m.home == leaderWrites:
		return unknown, fmt.Errorf("%w: the leader %s was lost before it answered: %s; look whether it was done", raftstore.ErrUnknown, leader, why)
	}
	return unknown, fmt.Errorf("%w: %s was lost before it answered: %s", errNoLeader, leader, why)
}
