// Package api serves jobs, runs, workers and the cluster over gRPC: it checks
// what is asked for, proposes it or looks it up, and puts the answer in the
// words of the API.
//
// Any primary takes any call. What only the leader can do is handed on to it, on
// its cluster port, which takes calls but hands none on; the table homes says what
// that is. The rest is answered from what is agreed, as far as it is known here.
//
// It never decides what runs when or where: package plan does, and the rules of
// package state have the last word. Between two calls it keeps nothing but how far
// it has to have come for the second to see what the first did. The .proto files
// beside the generated code of schedd.v1 say what each method promises.
package api

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/lead"
	"github.com/schedd/schedd/server/peer"
	"github.com/schedd/schedd/server/plan"
	"github.com/schedd/schedd/server/runlog"
)

// Store is what the primaries agree on; [raftstore.Store] is one.
type Store interface {
	// Propose asks for changes, which stay together and in order, and returns the
	// answer to each.
	Propose(ctx context.Context, commands ...state.Command) ([]state.Result, error)
	// View calls f with the state, which f must not keep.
	View(f func(*state.State))
	// Subscribe has f called with what changed, or nil when all may have, until
	// cancel is called. f must not block.
	Subscribe(f func([]state.Change)) (cancel func())
}

// Logs is the output of attempts as it is known here; the store of package replica is one.
type Logs interface {
	// Fetch makes a log as long here as it is on any primary that can be reached.
	// After an error there may be more of it than is here.
	Fetch(ctx context.Context, k runlog.Key) error
	Stat(k runlog.Key) (runlog.Info, bool)
	// Durable returns how much of a log is durable, by the word of those who keep it
	// if need be: for a second at most.
	Durable(ctx context.Context, k runlog.Key) int64
	Read(k runlog.Key, p []byte, off int64) (int, error)
	Follow(ctx context.Context, k runlog.Key, off int64, f func(off int64, chunk []byte) error) error
	Seal(k runlog.Key, length int64) error
}

// Presence knows which workers are connected, on the leader.
type Presence interface {
	// Session returns a worker's live session and when it was last heard of.
	Session(worker string) (s peer.Session, seen time.Time, ok bool)
	// Trouble returns why it takes no runs at present although it is connected, or "".
	Trouble(worker string) string
}

// Decider decides on runs that are asked for by hand, on the leader; [lead.Inbox] has it
// do so. Elsewhere it returns [raftstore.ErrNotLeader].
type Decider interface {
	Ask(ctx context.Context, a plan.Ask) (lead.Answer, error)
}

// Gateway ends sessions, on all primaries; [peer.Hub] does, on the leader.
type Gateway interface {
	// Cut ends all sessions of a worker, telling it why.
	Cut(worker, reason string, permanent bool)
}

// Cluster is the group of primaries as it is on record, and the whole of what they
// agree on; [raftstore.Store] knows both. All but the first and the last but one are
// for the leader, and return [raftstore.ErrNotLeader] elsewhere.
type Cluster interface {
	Status() raftstore.Status
	AddServer(ctx context.Context, v raftstore.Server) error
	RemoveServer(ctx context.Context, id string) error
	TransferTo(ctx context.Context, id string) error
	SaveSnapshot(ctx context.Context, w io.Writer) error
	RestoreSnapshot(ctx context.Context, r io.Reader) error
}

// Group is who leads, how to reach it, and how far this primary has come.
type Group interface {
	// Leads tells whether this primary does.
	Leads() bool
	// Leader returns who does, "" when that is not known, and a connection to its
	// cluster port. The error says why there is none.
	Leader() (id string, conn grpc.ClientConnInterface, err error)
	// WatchLeader gives news when another may lead. It may be late or in vain, but
	// the last one is never lost.
	WatchLeader() (news <-chan struct{}, cancel func())
	// AppliedIndex is the last log entry that the state here has seen.
	AppliedIndex() uint64
	// WaitApplied waits until it is index.
	WaitApplied(ctx context.Context, index uint64) error
	// ReadIndex returns how far the state has to have come for a read that begins
	// now to see all. On a primary that does not lead it returns
	// [raftstore.ErrNotLeader].
	ReadIndex(ctx context.Context) (uint64, error)
}

// Primaries is what the leader has heard of the others, by id; [peer.Hub] knows.
type Primaries interface {
	Primaries() map[string]peer.Primary
}

// Config is what a [Server] works with. All of it is required.
type Config struct {
	Store    Store
	History  History
	Logs     Logs
	Presence Presence
	Decider  Decider
	Gateway  Gateway

	Cluster   Cluster
	Group     Group
	Primaries Primaries
	// NodeID is this primary's, and Version the schedd that it runs.
	NodeID  string
	Version string
	// Clock reads the wall clock; nil: time.Now.
	Clock func() time.Time
	// Bounds limit the runs that have not ended; zero: [plan.DefaultBounds].
	Bounds plan.Bounds
	// Sessions returns how many workers' sessions this primary holds.
	Sessions func() int
	// Condition returns how this primary is.
	Condition func() peer.Condition
	Log       *slog.Logger
}

// Server is the API of one primary.
type Server struct {
	Config

	closing   chan struct{} // closed by Close
	close     sync.Once
	verifying chan struct{} // holds one: verifying a ledger takes a processor
	promise   promise
}

// New returns a server that is ready to be registered.
func New(c Config) *Server {
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Bounds == (plan.Bounds{}) {
		c.Bounds = plan.DefaultBounds
	}
	return &Server{Config: c, closing: make(chan struct{}), verifying: make(chan struct{}, 1)}
}

// Register adds the services to a gRPC server, which should have been made with
// [ServerOptions].
func (s *Server) Register(g *grpc.Server) {
	schedv1.RegisterJobServiceServer(g, jobService{Server: s})
	schedv1.RegisterRunServiceServer(g, runService{Server: s})
	schedv1.RegisterWorkerServiceServer(g, workerService{Server: s})
	schedv1.RegisterClusterServiceServer(g, clusterService{Server: s})
}

// Close ends the calls that would go on without end, those that watch runs and
// follow logs, with Unavailable. Call it before the gRPC server's GracefulStop,
// which waits for them. It returns at once.
func (s *Server) Close() { s.close.Do(func() { close(s.closing) }) }

// errClosing ends calls when this primary stops.
var errClosing = errors.New("this primary is stopping: call again, it may be another one that answers")

// untilClose returns a context that also ends with the server; its cause is
// errClosing then. The caller calls end.
func (s *Server) untilClose(ctx context.Context) (bounded context.Context, end func()) {
	bounded, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-s.closing:
			cancel(errClosing)
		case <-bounded.Done():
		}
	})
	return bounded, func() {
		cancel(nil)
		watching.Wait()
	}
}

// The services share a server; each is a type of its own since their generated
// code asks for that.
type (
	jobService struct {
		schedv1.UnimplementedJobServiceServer
		*Server
	}
	runService struct {
		schedv1.UnimplementedRunServiceServer
		*Server
	}
	workerService struct {
		schedv1.UnimplementedWorkerServiceServer
		*Server
	}
	clusterService struct {
		schedv1.UnimplementedClusterServiceServer
		*Server
	}
)
