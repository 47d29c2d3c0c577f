package torture

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/proto/wire"
)

// How long a call is repeated, how long one try may take, and how long to wait
// before the next: a primary itself waits 10 seconds for a leader.
const (
	patience   = 5 * time.Minute
	tryTimeout = 15 * time.Second
	tryAgain   = 250 * time.Millisecond
)

// server is one address of the API.
type server struct {
	address string
	conn    *grpc.ClientConn
	jobs    schedv1.JobServiceClient
	runs    schedv1.RunServiceClient
	workers schedv1.WorkerServiceClient
	cluster schedv1.ClusterServiceClient
}

// group is all of them.
type group struct {
	servers []*server
	last    atomic.Int64 // the one that answered last
}

func dial(addresses []string) (*group, error) {
	g := &group{}
	for _, address := range addresses {
		conn, err := grpc.NewClient(address, append(wire.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
		if err != nil {
			g.close()
			return nil, fmt.Errorf("reach the API at %s: %w", address, err)
		}
		g.servers = append(g.servers, &server{
			address: address, conn: conn,
			jobs: schedv1.NewJobServiceClient(conn), runs: schedv1.NewRunServiceClient(conn),
			workers: schedv1.NewWorkerServiceClient(conn), cluster: schedv1.NewClusterServiceClient(conn),
		})
	}
	return g, nil
}

func (g *group) close() {
	for _, s := range g.servers {
		_ = s.conn.Close() // nothing is under way by then
	}
}

// ask asks the servers, the one that answered last before the others, again and
// again until one answers. What is asked has to bear being asked twice.
func (g *group) ask(ctx context.Context, what string, f func(context.Context, *server) error) error {
	first := g.last.Load()
	return persist(ctx, what, func(ctx context.Context, try int) error {
		at := (first + int64(try)) % int64(len(g.servers))
		err := f(ctx, g.servers[at])
		if err == nil {
			g.last.Store(at)
		}
		return err
	})
}

// askOne asks one server, until it answers.
func askOne(ctx context.Context, s *server, what string, f func(context.Context, *server) error) error {
	return persist(ctx, what+" at "+s.address, func(ctx context.Context, _ int) error { return f(ctx, s) })
}

// persist tries again while a try fails in a way that may pass, up to [patience].
// Reads see all that was done before.
func persist(ctx context.Context, what string, f func(ctx context.Context, try int) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for try := 0; ; try++ {
		once, done := context.WithTimeout(ctx, tryTimeout)
		err := f(metadata.AppendToOutgoingContext(once, "schedd-consistency", "linearizable"), try)
		done()
		if err == nil {
			return nil
		}
		if !passing(err) || !rest(ctx, tryAgain) {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
}

// errNotYet is what has to be asked again, although there was an answer.
var errNotYet = errors.New("not yet")

// passing tells whether a failure says nothing about the next try.
func passing(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Aborted, codes.Canceled, codes.ResourceExhausted:
		return true
	default:
		return errors.Is(err, errNotYet)
	}
}
