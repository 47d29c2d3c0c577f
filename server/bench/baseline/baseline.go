// Package baseline measures what a machine does without schedd: how often it starts a
// program, and how fast it copies bytes over gRPC. Figures are shown beside that. It knows
// nothing of schedd.
package baseline

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"
)

// ForkExec is how many times per second the machine starts /bin/true and waits for its
// end, with a number of loops that do nothing else, for the time given.
func ForkExec(ctx context.Context, loops int, span time.Duration) (perSecond float64, err error) {
	program, err := exec.LookPath("true")
	if err != nil {
		return 0, fmt.Errorf("measure how often a program can be started: %w", err)
	}
	return Rate(ctx, loops, span, func() error { return exec.CommandContext(ctx, program).Run() })
}

// Rate is the same of any program: run starts it and waits for its end.
func Rate(ctx context.Context, loops int, span time.Duration, run func() error) (perSecond float64, err error) {
	begin := time.Now()
	var started atomic.Int64
	faults := make([]error, loops)
	var wg sync.WaitGroup
	for i := range loops {
		wg.Go(func() {
			for time.Since(begin) < span && ctx.Err() == nil {
				if faults[i] = run(); faults[i] != nil {
					return
				}
				started.Add(1)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errors.Join(faults...), ctx.Err()); err != nil {
		return 0, fmt.Errorf("measure how often a program can be started: %w", err)
	}
	return float64(started.Load()) / time.Since(begin).Seconds(), nil
}

// Run starts a program as ForkExec does, with these variables and no others, and waits
// for its end.
func Run(ctx context.Context, argv []string, env ...string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = env
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("run %s: %w", argv[0], err)
	}
	return nil
}
