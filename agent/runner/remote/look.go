package remote

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	runnerv1 "github.com/schedd/schedd/proto/schedd/runner/v1"
)

// look asks the runner again and again how it is, until ctx is done. One that stands still
// is noticed by nothing else: its connection stays.
func (r *Runner) look(ctx context.Context) {
	for rest(ctx, checkEvery) {
		why := r.check(ctx)
		if ctx.Err() == nil {
			r.noteTrouble(why)
		}
	}
}

// check returns why nothing should be started at present, or "".
func (r *Runner) check(ctx context.Context) (why string) {
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	var l *link
	for {
		var err error
		if l, err = r.await(ctx, l); errors.Is(err, errGoodbye) {
			return "" // it says so itself
		} else if err != nil {
			return fmt.Sprintf("there has been no runner for %v: %v", checkWithin, err)
		}
		resp, err := l.client.Check(ctx, &runnerv1.CheckRequest{})
		switch status.Code(err) {
		case codes.OK:
			return resp.GetTrouble()
		case codes.Unavailable:
			continue
		case codes.DeadlineExceeded:
			return fmt.Sprintf("the worker's runner, process %d, has not answered for %v: see whether it is stopped, or its disk hangs", l.pid, checkWithin)
		default: // one of an older version does not know the question, and has answered
			return ""
		}
	}
}

func (r *Runner) noteTrouble(why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if why != r.trouble {
		r.trouble = why
		close(r.troubled)
		r.troubled = make(chan struct{})
	}
}

// Trouble implements runner.Lasting.
func (r *Runner) Trouble() (why string, changed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.trouble, r.troubled
}
