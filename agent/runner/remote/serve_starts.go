package remote

import (
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc"

	"github.com/schedd/schedd/agent/crew"
	"github.com/schedd/schedd/agent/runner"
	runnerv1 "github.com/schedd/schedd/proto/schedd/runner/v1"
)

// Starts implements the RPC. Each start has a goroutine, since it may take as long as a
// file system does.
func (s *service) Starts(stream grpc.BidiStreamingServer[runnerv1.StartsRequest, runnerv1.StartsResponse]) error {
	hands := crew.New(crewSize)
	defer hands.Rest()
	var sending sync.Mutex
	for {
		m, err := stream.Recv()
		if err != nil {
			return nil //nolint:nilerr // the agent has gone
		}
		for _, req := range m.GetStarts() {
			hands.Go(func() {
				if refused := s.startAmong(m.GetLink(), req); refused != nil {
					sending.Lock()
					defer sending.Unlock()
					_ = stream.Send(refused) // else it asks again
				}
			})
		}
	}
}

// startAmong starts an attempt, which is then told by Watch, or returns why not.
func (s *service) startAmong(link uint64, req *runnerv1.StartRequest) *runnerv1.StartsResponse {
	refused := &runnerv1.StartsResponse{Id: req.GetId()}
	spec := readSpec(req)
	if err := s.checkStart(req, spec.Env); err != nil {
		refused.Error = sentence(fmt.Sprintf("starting attempt %.40q: %v", req.GetId(), err))
		return refused
	}
	a, err := s.start(asker{life: req.GetLife(), link: link}, spec)
	switch {
	case errors.Is(err, errNotLink):
		return nil // nobody waits for that any more
	case errors.Is(err, errNotAgent):
		refused.Replaced = true
		return refused
	case err != nil:
		refused.Error, refused.Unable = sentence(err.Error()), errors.Is(err, runner.ErrUnable)
		return refused
	}
	s.noteStarted(a.id)
	return nil
}
