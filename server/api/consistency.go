package api

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	peerv1 "github.com/schedd/schedd/proto/schedd/peer/v1"
	"github.com/schedd/schedd/raftstore"
)

// Metadata of calls and answers.
const (
	// indexKey of an answer tells how far the primary had come that gave it.
	indexKey = "schedd-index"
	// minIndexKey of a call asks for an answer from a state that has come so far.
	minIndexKey = "schedd-min-index"
	// consistencyKey of a call may ask for an answer that is linearizable.
	consistencyKey = "schedd-consistency"
	linearizable   = "linearizable"
)

const (
	// reachWithin is how long a call waits for the state that it asks for.
	reachWithin = 10 * time.Second
	// seenWithin is how long reads wait for what was done through this primary: after
	// that, whoever wants to be sure says so.
	seenWithin = 5 * time.Second
)

// errBehind is returned when a primary has not come to what a call asks for.
var errBehind = errors.New("this primary is behind")

// want is what a call asks of the state that it is answered from.
type want struct {
	index        uint64
	linearizable bool
}

// wanted reads what the metadata of a call asks for.
func wanted(ctx context.Context) (want, error) {
	var w want
	c := request()
	if at := metadata.ValueFromIncomingContext(ctx, minIndexKey); len(at) > 0 {
		var err error
		if w.index, err = strconv.ParseUint(at[0], 10, 64); err != nil || len(at) > 1 {
			c.in(minIndexKey).failf("%s is not one whole number, as the header %s of an answer tells it", quote(at[0]), indexKey)
		}
	}
	if how := metadata.ValueFromIncomingContext(ctx, consistencyKey); len(how) > 0 {
		if w.linearizable = len(how) == 1 && how[0] == linearizable; !w.linearizable {
			c.in(consistencyKey).failf("%s is not known; it can be %s, or be left out", quote(how[0]), linearizable)
		}
	}
	return w, c.err()
}

// reach waits until the state here is as a call wants it, and shows what was done
// through this primary. now tells how far it has to have come for a read that
// begins now to see all.
func (s *Server) reach(ctx context.Context, w want, now func(context.Context) (uint64, error)) error {
	s.keep(ctx)
	if w.linearizable {
		index, err := now(ctx)
		if err != nil {
			return err
		}
		w.index = max(w.index, index)
	}
	if w.index <= s.Group.AppliedIndex() {
		return nil
	}
	ctx, end := s.untilClose(ctx)
	defer end()
	within, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	err := s.Group.WaitApplied(within, w.index)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("waiting for log entry %d to be applied here: %w", w.index, context.Cause(ctx))
	case within.Err() != nil:
		return fmt.Errorf("%w: it has come to log entry %d within %v, and %d was asked for; ask another primary, or try again", errBehind, s.Group.AppliedIndex(), reachWithin, w.index)
	}
	return err
}

// readIndex asks whoever leads how far a read has to see.
func (s *Server) readIndex(ctx context.Context) (index uint64, err error) {
	err = s.led(ctx, true, func() (how fate, err error) {
		if s.Group.Leads() {
			index, err = s.Group.ReadIndex(ctx)
			return fateOf(err), err
		}
		index, how, err = s.askIndex(ctx)
		return how, err
	})
	return index, err
}

func (s *Server) askIndex(ctx context.Context) (uint64, fate, error) {
	id, conn, err := s.leader()
	if err != nil {
		return 0, untouched, err
	}
	ctx, cancel, stop := s.whileLeads(ctx, id)
	defer stop()
	defer cancel()
	r, err := peerv1.NewGroupServiceClient(conn).ReadIndex(ctx, &peerv1.ReadIndexRequest{})
	if status.Code(err) == codes.FailedPrecondition {
		return 0, untouched, fmt.Errorf("%s says that it is %w", id, raftstore.ErrNotLeader)
	}
	how, err := method{home: leaderReads}.judge(ctx, id, true, err)
	return r.GetIndex(), how, err
}

// indexHere is the header that tells how far this primary has come.
func (s *Server) indexHere() metadata.MD {
	return metadata.Pairs(indexKey, strconv.FormatUint(s.Group.AppliedIndex(), 10))
}

// promise is how far the state here has to come to show what was done by calls
// that this primary has handed on. Who makes such a call has its answer before
// the state here has come so far: that takes until the leader has something to
// say to its followers, which is long when there is little to do. So whoever reads
// waits for it, and whoever only writes does not.
type promise struct {
	mu    sync.Mutex
	index uint64
	until time.Time // a primary that lags for longer answers from what it has
}

// make is told the index that an answer of the leader came with.
func (p *promise) make(answer metadata.MD) {
	at := answer.Get(indexKey)
	if len(at) == 0 {
		return
	}
	index, err := strconv.ParseUint(at[0], 10, 64)
	if err != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.index, p.until = max(p.index, index), time.Now().Add(seenWithin)
}

// made returns the index of the promise.
func (p *promise) made() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.index
}

// keep waits until the promise is kept, or it has waited for too long. It leaves
// the caller time to get an answer.
func (s *Server) keep(ctx context.Context) {
	s.promise.mu.Lock()
	index, within := s.promise.index, time.Until(s.promise.until)
	s.promise.mu.Unlock()
	if index <= s.Group.AppliedIndex() || within <= 0 {
		return
	}
	if deadline, ok := ctx.Deadline(); ok {
		within = min(within, time.Until(deadline)/2)
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	_ = s.Group.WaitApplied(ctx, index) // it may be late, and is right
}
