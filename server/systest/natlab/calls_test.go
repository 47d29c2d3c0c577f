//go:build e2e && linux

package natlab_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// ask asks primaries that run, in any order, until one of them has answered. That
// a primary is not able to at the moment is no answer.
func (l *lab) ask(t *testing.T, what string, call func(context.Context, *primary) error) {
	t.Helper()
	askOne(t, what, l.primaries, call)
}

func askOne(t *testing.T, what string, of []*primary, call func(context.Context, *primary) error) {
	t.Helper()
	await(t, what, func() (bool, any) {
		var faults []error
		for _, i := range rand.Perm(len(of)) {
			if !of[i].running() {
				continue
			}
			ctx, cancel := context.WithTimeout(t.Context(), callWithin)
			err := call(ctx, of[i])
			cancel()
			switch status.Code(err) {
			case codes.OK:
				return true, nil
			case codes.Unavailable, codes.DeadlineExceeded, codes.Aborted, codes.Canceled:
				faults = append(faults, fmt.Errorf("%s: %w", of[i].id, err))
			default:
				t.Fatalf("%s: %s says %v %v", what, of[i].id, err, status.Convert(err).Details())
			}
		}
		return false, errors.Join(faults...)
	})
}

// seen is how far those who call primaries have seen the state: what one of them
// has answered, they want to find at the others.
type seen struct{ index atomic.Uint64 }

// ask asks for a state that has come as far as was seen.
func (s *seen) ask(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "schedd-min-index", fmt.Sprint(s.index.Load()))
}

// note notes how far the primary was that has answered.
func (s *seen) note(header metadata.MD) {
	for _, text := range header.Get("schedd-index") {
		index, _ := strconv.ParseUint(text, 10, 64) // 0 tells nothing
		for {
			old := s.index.Load()
			if index <= old || s.index.CompareAndSwap(old, index) {
				break
			}
		}
	}
}

func (s *seen) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	var header metadata.MD
	err := call(s.ask(ctx), method, req, reply, cc, append(opts, grpc.Header(&header))...)
	s.note(header)
	return err
}

func (s *seen) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return open(s.ask(ctx), desc, cc, method, opts...)
}

func (l *lab) put(t *testing.T, j *schedv1.Job) {
	t.Helper()
	l.ask(t, "put job "+j.GetName(), func(ctx context.Context, p *primary) error {
		_, err := p.jobs.PutJob(ctx, &schedv1.PutJobRequest{Job: j})
		return err
	})
}

// run runs a job by hand.
func (l *lab) run(t *testing.T, job, request string) (r *schedv1.Run) {
	t.Helper()
	l.ask(t, "run job "+job, func(ctx context.Context, p *primary) error {
		resp, err := p.jobs.RunJob(ctx, &schedv1.RunJobRequest{Name: job, RequestId: job + "-" + request})
		r = resp.GetRun()
		return err
	})
	return r
}

func (l *lab) get(t *testing.T, run string) (r *schedv1.Run) {
	t.Helper()
	l.ask(t, "get run "+run, func(ctx context.Context, p *primary) error {
		resp, err := p.runs.GetRun(ctx, &schedv1.GetRunRequest{Id: run})
		r = resp.GetRun()
		return err
	})
	return r
}

// list returns all runs of a job.
func (l *lab) list(t *testing.T, job string) (all []*schedv1.Run) {
	t.Helper()
	for token := ""; ; {
		var page *schedv1.ListRunsResponse
		l.ask(t, "list the runs of "+job, func(ctx context.Context, p *primary) (err error) {
			page, err = p.runs.ListRuns(ctx, &schedv1.ListRunsRequest{Filter: "job=" + job, PageSize: 500, PageToken: token})
			return err
		})
		all = append(all, page.GetRuns()...)
		if token = page.GetNextPageToken(); token == "" {
			return all
		}
	}
}

// awaitList waits until what the runs of a job are together holds.
func (l *lab) awaitList(t *testing.T, job, what string, holds func([]*schedv1.Run) bool) (runs []*schedv1.Run) {
	t.Helper()
	await(t, "of "+job+" "+what, func() (bool, any) {
		runs = l.list(t, job)
		return holds(runs), describe(runs)
	})
	return runs
}

// describe shows the runs that are not done, or else the last ones.
func describe(runs []*schedv1.Run) string {
	text := fmt.Sprintf("%d runs", len(runs))
	shown := 0
	for _, r := range runs {
		if !over(r) && shown < 3 {
			text += fmt.Sprintf("\n  %v", r)
			shown++
		}
	}
	return text
}

// succeeded reports whether at least n runs have.
func succeeded(n int) func([]*schedv1.Run) bool {
	return func(runs []*schedv1.Run) bool {
		for _, r := range runs {
			if r.GetPhase() == schedv1.Phase_PHASE_SUCCEEDED {
				n--
			}
		}
		return n <= 0
	}
}

// over reports whether a run has ended.
func over(r *schedv1.Run) bool {
	switch r.GetPhase() {
	case schedv1.Phase_PHASE_PENDING, schedv1.Phase_PHASE_ASSIGNED, schedv1.Phase_PHASE_RUNNING:
		return false
	default:
		return true
	}
}

// ended reports whether all runs have.
func ended(runs []*schedv1.Run) bool {
	return !slices.ContainsFunc(runs, func(r *schedv1.Run) bool { return !over(r) })
}

// awaitRun waits until what a run is holds.
func (l *lab) awaitRun(t *testing.T, r *schedv1.Run, what string, holds func(*schedv1.Run) bool) *schedv1.Run {
	t.Helper()
	await(t, "the run of "+r.GetJob()+" "+what, func() (bool, any) {
		r = l.get(t, r.GetId())
		return holds(r), r
	})
	return r
}

func (l *lab) awaitRunning(t *testing.T, r *schedv1.Run) *schedv1.Run {
	t.Helper()
	return l.awaitRun(t, r, "has a process", func(r *schedv1.Run) bool { return r.GetPhase() == schedv1.Phase_PHASE_RUNNING })
}

// last is the latest attempt of a run.
func last(r *schedv1.Run) *schedv1.Attempt {
	if n := len(r.GetAttempts()); n > 0 {
		return r.GetAttempts()[n-1]
	}
	return nil
}

// known returns the workers with such names, by name.
func (l *lab) known(t *testing.T, names ...string) map[string]*schedv1.Worker {
	t.Helper()
	found := map[string]*schedv1.Worker{}
	l.ask(t, "list the workers", func(ctx context.Context, p *primary) error {
		for _, name := range names {
			resp, err := p.workers.ListWorkers(ctx, &schedv1.ListWorkersRequest{Filter: "name=" + name})
			if err != nil {
				return err
			}
			for _, w := range resp.GetWorkers() {
				if found[name] != nil && found[name].GetId() != w.GetId() {
					t.Fatalf("there are two workers %s: %v, %v", name, found[name], w)
				}
				found[name] = w
			}
		}
		return nil
	})
	return found
}

// online waits until the primaries have a worker, in a session after the given
// one.
func (l *lab) online(t *testing.T, w *worker, after uint64) (found *schedv1.Worker) {
	t.Helper()
	await(t, fmt.Sprintf("worker %s is online, after session %x", w.name, after), func() (bool, any) {
		if !w.running() {
			t.Fatalf("worker %s ended with exit code %d", w.name, w.code)
		}
		found = l.known(t, w.name)[w.name]
		return found.GetPhase() == schedv1.WorkerPhase_WORKER_PHASE_ONLINE && found.GetConnectedTime() != nil &&
			found.GetSessionEpoch() > after, found
	})
	return found
}

// status is the group as one of the primaries sees it that has a leader.
func (l *lab) status(t *testing.T) (s *schedv1.ClusterStatus) {
	t.Helper()
	l.ask(t, "ask for the status", func(ctx context.Context, p *primary) error {
		resp, err := p.cluster.GetStatus(ctx, &schedv1.GetStatusRequest{})
		s = resp.GetStatus()
		if err == nil && s.GetLeaderId() == "" {
			return status.Error(codes.Unavailable, "there is no leader")
		}
		return err
	})
	return s
}

// leader is the primary that leads, and runs.
func (l *lab) leader(t *testing.T) (p *primary) {
	t.Helper()
	await(t, "somebody leads", func() (bool, any) {
		id := l.status(t).GetLeaderId()
		p = l.primary(id)
		return p != nil && p.running(), id
	})
	return p
}

func (l *lab) primary(id string) *primary {
	if i := slices.IndexFunc(l.primaries, func(p *primary) bool { return p.id == id }); i >= 0 {
		return l.primaries[i]
	}
	return nil
}

// others are all primaries but one.
func (l *lab) others(p *primary) []*primary {
	return slices.DeleteFunc(slices.Clone(l.primaries), func(o *primary) bool { return o == p })
}

// lead makes a primary the leader.
func (l *lab) lead(t *testing.T, to *primary) {
	t.Helper()
	await(t, to.id+" leads", func() (bool, any) {
		now := l.leader(t)
		if now == to {
			return true, nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), callWithin)
		defer cancel()
		_, err := now.cluster.TransferLeadership(ctx, &schedv1.TransferLeadershipRequest{Id: to.id})
		return false, err
	})
}

// readLog reads the log of a run from one primary, following it to its end. It
// goes on where it was when the primary can't at the moment.
func (p *primary) readLog(t *testing.T, run string) (log []byte) {
	t.Helper()
	await(t, p.id+" has the whole log of run "+run, func() (done bool, seen any) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		err := p.readOn(ctx, run, &log)
		switch status.Code(err) {
		case codes.OK:
			return true, nil
		case codes.Unavailable, codes.DeadlineExceeded:
			return false, err
		default:
			t.Fatalf("%s reads the log of run %s: %v, after %d bytes", p.id, run, err, len(log))
			return false, err
		}
	})
	return log
}

// readOn reads what comes after log, as one call gives it.
func (p *primary) readOn(ctx context.Context, run string, log *[]byte) error {
	stream, err := p.runs.ReadLog(ctx, &schedv1.ReadLogRequest{RunId: run, Offset: int64(len(*log)), Follow: true})
	if err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return status.Error(codes.Unavailable, "the stream ended before the log")
		}
		if err != nil {
			return err
		}
		if len(m.GetData()) > 0 && m.GetOffset() != int64(len(*log)) {
			return fmt.Errorf("the log goes on at %d, want %d", m.GetOffset(), len(*log))
		}
		*log = append(*log, m.GetData()...)
		if m.GetComplete() {
			return nil
		}
	}
}
