package remote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	runnerv1 "github.com/schedd/schedd/proto/schedd/runner/v1"
)

// ErrNobody is returned by [Stop] when there is no runner.
var ErrNobody = errors.New("there is no runner")

// Stop ends the runner in dir, and all that it runs, each attempt with its grace. It
// returns how many ran, when none does any more.
func Stop(ctx context.Context, dir string) (ended int, err error) {
	// One that is about to end takes a connection and breaks it.
	pause := lookLeast
	for until := time.Now().Add(farewell); ; pause = min(2*pause, lookMost) {
		ended, err = askStop(ctx, dir)
		if status.Code(err) != codes.Unavailable || time.Now().After(until) || !rest(ctx, pause) {
			return ended, err
		}
	}
}

// askStop asks the runner once.
func askStop(ctx context.Context, dir string) (ended int, err error) {
	to := func(ctx context.Context) (net.Conn, error) { return dial(ctx, dir) }
	first, err := to(ctx)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return 0, fmt.Errorf("%w in %q", ErrNobody, dir)
	}
	if err != nil {
		return 0, fmt.Errorf("reach the runner in %q: %w", dir, err)
	}
	conn, err := dialed(first, to)
	if err != nil {
		return 0, errors.Join(fmt.Errorf("reach the runner in %q: %w", dir, err), first.Close())
	}
	defer func() { _ = conn.Close() }() // all was said
	resp, err := runnerv1.NewRunnerServiceClient(conn).Stop(ctx, &runnerv1.StopRequest{})
	if err != nil {
		return 0, fmt.Errorf("stop the runner in %q: %w", dir, err)
	}
	return int(resp.GetEnded()), nil
}
