package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/runlog"
)

// logChunk is the most output in one message.
const logChunk = 64 << 10

// ReadLog sends an attempt's output. It is about one attempt from beginning to
// end: with attempt 0 that is the latest when the call begins, or, when it
// follows a run that has none yet, the first one to come. The last message says
// whether more may come; it has no data when there were none left to send.
func (s runService) ReadLog(req *schedv1.ReadLogRequest, stream grpc.ServerStreamingServer[schedv1.ReadLogResponse]) error {
	c := request()
	id := c.in("run_id").runID(req.GetRunId())
	if req.GetLimit() < 0 {
		c.in("limit").failf("is %d; it has to be positive, or 0 for all", req.GetLimit())
	}
	if req.GetAttempt() > math.MaxInt32 {
		c.in("attempt").failf("is %d, and no run has so many", req.GetAttempt())
	}
	if err := c.err(); err != nil {
		return err
	}
	ctx, end := s.untilClose(stream.Context())
	defer end()
	watch := s.watchRun(id)
	defer watch.cancel()
	key, err := s.findAttempt(ctx, watch, int(req.GetAttempt()), req.GetFollow())
	if err != nil {
		return err
	}
	r := &logReader{Server: s.Server, watch: watch, key: key, left: math.MaxInt64, send: stream.Send}
	if req.GetLimit() > 0 {
		r.left = req.GetLimit()
	}
	if err := r.begin(ctx, req.GetOffset(), req.GetFollow()); err != nil {
		return err
	}
	if req.GetFollow() {
		err = r.follow(ctx)
	} else {
		err = r.rest()
	}
	if err != nil {
		return err
	}
	return r.end()
}

// runWatch is told when a run changes.
type runWatch struct {
	id     state.RunID
	nudge  chan struct{} // it changed; holds at most one
	cancel func()
}

// watchRun watches a run until cancel is called. Changes of workers count, too:
// who has the rest of a log may go.
func (s *Server) watchRun(id state.RunID) runWatch {
	w := runWatch{id: id, nudge: make(chan struct{}, 1)}
	w.cancel = s.Store.Subscribe(func(changes []state.Change) {
		hit := changes == nil
		for _, c := range changes {
			hit = hit || c.Run == id || c.Worker != ""
		}
		if !hit {
			return
		}
		select {
		case w.nudge <- struct{}{}:
		default: // it has been told already
		}
	})
	return w
}

// wait waits until the run may have changed.
func (w runWatch) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-w.nudge:
		return nil
	}
}

// findAttempt names the log of the attempt that is asked for, which it waits for if
// it is to follow and the attempt may yet come.
func (s *Server) findAttempt(ctx context.Context, w runWatch, number int, follow bool) (runlog.Key, error) {
	for {
		r, err := s.findRun(ctx, w.id)
		if err != nil {
			return runlog.Key{}, err
		}
		n := len(r.Attempts)
		if number == 0 && n > 0 {
			return logKey(r.ID, &r.Attempts[n-1]), nil
		}
		if 0 < number && number <= n {
			return logKey(r.ID, &r.Attempts[number-1]), nil
		}
		if err := noAttempt(r, number, follow); err != nil {
			return runlog.Key{}, err
		}
		if err := w.wait(ctx); err != nil {
			return runlog.Key{}, err
		}
	}
}

// noAttempt says that there is no such attempt; nil when it may yet come and
// somebody waits for it.
func noAttempt(r *state.Run, number int, follow bool) error {
	n := len(r.Attempts)
	switch {
	case !r.Phase.Final() && follow:
		return nil
	case n > 0:
		return status.Errorf(codes.NotFound, "run %v has %d attempts, and no attempt %d", r.ID, n, number)
	case r.Phase.Final():
		return status.Errorf(codes.FailedPrecondition, "run %v has no log: it was %v before any worker had it (%s)", r.ID, r.Phase, r.Reason)
	}
	return status.Errorf(codes.FailedPrecondition, "run %v has no log yet: no worker has it; follow the log to wait for it", r.ID)
}

// logReader is one call of ReadLog, about one attempt.
type logReader struct {
	*Server
	watch runWatch
	key   runlog.Key
	off   int64 // of the next byte to send
	left  int64 // how many may be sent
	send  func(*schedv1.ReadLogResponse) error
}

// Why following a log ends before the log does.
var (
	errEnough = errors.New("all that was asked for has been sent")
	errNoMore = errors.New("nobody has the rest of the log")
)

// errNoCopy is returned for a log of which nothing is here, and maybe something
// elsewhere.
var errNoCopy = errors.New("no copy of this log can be reached at the moment, try again")

// begin finds the first byte to send, and gets what other primaries have and this
// one has not. When some of them can't be reached, what is here is sent.
func (r *logReader) begin(ctx context.Context, offset int64, follow bool) error {
	if err := r.seal(ctx); err != nil && !errors.Is(err, errNoMore) {
		return err
	}
	missing := r.Logs.Fetch(ctx, r.key)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	info, _ := r.Logs.Stat(r.key)
	if missing != nil && info.Known == 0 && !follow {
		return fmt.Errorf("%w: %v", errNoCopy, missing) //nolint:errorlint // how it came about is not for a program
	}
	if offset < 0 {
		r.off = max(0, info.Known+offset)
		return nil
	}
	if info.Complete && offset > info.Length {
		return status.Errorf(codes.OutOfRange, "offset %d lies behind the end of the log, which has %d bytes", offset, info.Length)
	}
	r.off = offset
	return nil
}

// seal tells the log where it ends, once the attempt has ended: its result came
// with the length, and maybe before the last bytes of it. The error is errNoMore
// when nobody will ever tell, or send, the rest.
func (r *logReader) seal(ctx context.Context) error {
	run, err := r.findRun(ctx, r.watch.id)
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return err
	}
	var a *state.Attempt
	if run != nil {
		a = run.Fenced(r.key.Fence)
	}
	switch {
	case a == nil:
		return errNoMore // what is left of its log may be read as long as it is there
	case a.Outcome == state.OutcomeLost && a.Late == state.Unfinished:
		return errNoMore
	case a.Outcome == state.Unfinished:
		return nil
	}
	var alone bool
	r.Store.View(func(st *state.State) { alone = st.Worker(a.Worker) == nil })
	err = r.Logs.Seal(r.key, a.LogBytes)
	if errors.Is(err, runlog.ErrSealed) {
		return errNoMore // it is longer than its worker said: what is there is all
	}
	if err != nil {
		return err
	}
	if info, _ := r.Logs.Stat(r.key); alone && !info.Complete {
		return errNoMore
	}
	return nil
}

// deliver sends a piece of the log that begins at off.
func (r *logReader) deliver(_ int64, data []byte) error {
	data = data[:min(int64(len(data)), r.left)]
	err := r.send(&schedv1.ReadLogResponse{Offset: r.off, Data: data, Attempt: r.key.Attempt})
	if err != nil {
		return err
	}
	r.off += int64(len(data))
	r.left -= int64(len(data))
	if r.left == 0 {
		return errEnough
	}
	return nil
}

// rest sends what is there.
func (r *logReader) rest() error {
	info, _ := r.Logs.Stat(r.key)
	buf := make([]byte, logChunk)
	for r.off < info.Known && r.left > 0 {
		n, err := r.Logs.Read(r.key, buf[:min(logChunk, info.Known-r.off)], r.off)
		if n > 0 {
			if err := r.deliver(r.off, buf[:n]); err != nil && !errors.Is(err, errEnough) {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
	return nil
}

// follow sends the log as it grows, until it is complete, or nobody has more.
func (r *logReader) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	sealed := make(chan struct{})
	go func() {
		defer close(sealed)
		cancel(r.awaitEnd(ctx))
	}()
	err := r.Logs.Follow(ctx, r.key, r.off, r.deliver)
	cancel(errEnough) // ends the wait for the end
	<-sealed
	switch cause := context.Cause(ctx); {
	case err == nil, errors.Is(err, errEnough):
		return nil
	case ctx.Err() == nil || !errors.Is(err, context.Canceled):
		return err
	case errors.Is(cause, errNoMore):
		return r.rest()
	default:
		return cause
	}
}

// awaitEnd seals the log once the attempt has ended, and returns when nothing
// more is to come, or ctx ends.
func (r *logReader) awaitEnd(ctx context.Context) error {
	for {
		if err := r.seal(ctx); err != nil {
			return err
		}
		if err := r.watch.wait(ctx); err != nil {
			return err
		}
	}
}

// end sends the last message.
func (r *logReader) end() error {
	info, _ := r.Logs.Stat(r.key)
	return r.send(&schedv1.ReadLogResponse{Offset: r.off, Attempt: r.key.Attempt, Complete: info.Complete && r.off >= info.Length})
}
