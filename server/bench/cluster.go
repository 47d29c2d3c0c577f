package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/proto/wire"
	"github.com/schedd/schedd/server/local"
)

// Cluster is one that is measured.
type Cluster struct {
	// Local has its processes; nil when it ran before.
	Local *local.Cluster
	// Clients talk to one primary each, in the order of Local.Primaries.
	Clients []*Client
	each    time.Duration // how long is reckoned with to define a job; 0: none was yet
	stopped bool
}

// Client is the API of one primary, over a connection of its own.
type Client struct {
	Address string
	Jobs    schedv1.JobServiceClient
	Runs    schedv1.RunServiceClient
	Workers schedv1.WorkerServiceClient
	Cluster schedv1.ClusterServiceClient
	conn    *grpc.ClientConn
}

// Dial makes a client. Whoever dials has to Close.
func Dial(address string) (*Client, error) {
	conn, err := grpc.NewClient(address, append(wire.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		return nil, fmt.Errorf("reach the API at %s: %w", address, err)
	}
	return &Client{
		Address: address, conn: conn,
		Jobs: schedv1.NewJobServiceClient(conn), Runs: schedv1.NewRunServiceClient(conn),
		Workers: schedv1.NewWorkerServiceClient(conn), Cluster: schedv1.NewClusterServiceClient(conn),
	}, nil
}

// Close ends the connection.
func (c *Client) Close() { _ = c.conn.Close() } // nothing is under way by then

// Client is that of the first primary.
func (c *Cluster) Client() *Client { return c.Clients[0] }

// DialMany makes that many more clients, spread over the primaries, each with a
// connection of its own, and what closes them.
func (c *Cluster) DialMany(n int) (all []*Client, closeAll func(), err error) {
	closeAll = func() {
		for _, client := range all {
			client.Close()
		}
	}
	for i := range n {
		client, err := Dial(c.Clients[i%len(c.Clients)].Address)
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		all = append(all, client)
	}
	return all, closeAll, nil
}

func (c *Cluster) dial(servers []string) error {
	for _, address := range servers {
		client, err := Dial(address)
		if err != nil {
			return err
		}
		c.Clients = append(c.Clients, client)
	}
	return nil
}

// How long a cluster may take until it can be used, one call of that, and how often to
// look.
const (
	patience  = time.Minute
	oneCall   = 10 * time.Second
	lookAgain = 50 * time.Millisecond
)

// ready waits until each primary knows a leader, and so many workers are online.
func (c *Cluster) ready(ctx context.Context, workers int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := c.incomplete(ctx, workers)
		if err == nil {
			return nil
		}
		if !rest(ctx, lookAgain) {
			return err
		}
	}
}

// incomplete tells what is missing.
func (c *Cluster) incomplete(ctx context.Context, workers int) error {
	ctx, cancel := context.WithTimeout(ctx, oneCall)
	defer cancel()
	for _, client := range c.Clients {
		s, err := client.Cluster.GetStatus(ctx, &schedv1.GetStatusRequest{})
		if err != nil {
			return fmt.Errorf("ask %s: %w", client.Address, err)
		}
		if s.GetStatus().GetLeaderId() == "" {
			return fmt.Errorf("%s knows no leader", client.Address)
		}
	}
	online, err := c.Client().Workers.ListWorkers(ctx, &schedv1.ListWorkersRequest{PageSize: 1000, Filter: "phase=WORKER_PHASE_ONLINE"})
	if err != nil {
		return fmt.Errorf("ask for the workers: %w", err)
	}
	if n := len(online.GetWorkers()); n < workers {
		return fmt.Errorf("%d workers are online, and %d are needed", n, workers)
	}
	return nil
}

// stop ends it, unless it ran before.
func (c *Cluster) stop(ctx context.Context) error {
	if c.stopped {
		return nil
	}
	c.stopped = true
	for _, client := range c.Clients {
		client.Close()
	}
	if c.Local == nil {
		return nil
	}
	crashed := c.crashed()
	return errors.Join(crashed, c.Local.Stop(ctx))
}
