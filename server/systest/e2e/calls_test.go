//go:build e2e

package e2e_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// again makes a call until the primary is able to answer it: while its disk is slow, or
// it has just started, it says that it can't at the moment. Each call can be repeated;
// see run.
func again(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	wait := time.NewTicker(look)
	defer wait.Stop()
	for {
		err := call(ctx, method, req, reply, cc, opts...)
		if status.Code(err) != codes.Unavailable || ctx.Err() != nil {
			return err
		}
		<-wait.C
	}
}

// put defines a job.
func (p *primary) put(t *testing.T, j *schedv1.Job) *schedv1.Job {
	t.Helper()
	resp, err := p.jobs.PutJob(t.Context(), &schedv1.PutJobRequest{Job: j})
	if err != nil {
		t.Fatalf("put job %s: %v %v", j.GetName(), err, violations(err))
	}
	return resp.GetJob()
}

// violations are the fields that a refusal names, with what it says of each.
func violations(err error) map[string]string {
	found := map[string]string{}
	for _, d := range status.Convert(err).Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok {
			for _, v := range bad.GetFieldViolations() {
				found[v.GetField()] = v.GetDescription()
			}
		}
	}
	return found
}

// run runs a job by hand.
func (p *primary) run(t *testing.T, job string) *schedv1.Run {
	t.Helper()
	resp, err := p.jobs.RunJob(t.Context(), &schedv1.RunJobRequest{Name: job, RequestId: rand.Text()})
	if err != nil {
		t.Fatalf("run job %s: %v", job, err)
	}
	return resp.GetRun()
}

// putAndRun defines a job and runs it to its end.
func (p *primary) putAndRun(t *testing.T, j *schedv1.Job) *schedv1.Run {
	t.Helper()
	p.put(t, j)
	return p.awaitEnd(t, p.run(t, j.GetName()))
}

// awaitRuns watches the runs of a job until what they are together holds. A
// primary that goes away meanwhile is waited for.
func (p *primary) awaitRuns(t *testing.T, job, what string, holds func(map[string]*schedv1.Run) bool) map[string]*schedv1.Run {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	again := time.NewTicker(look)
	defer again.Stop()
	runs := map[string]*schedv1.Run{}
	for {
		err := p.watch(ctx, job, func(r *schedv1.Run) bool {
			if r != nil {
				runs[r.GetId()] = r
			}
			return holds(runs)
		})
		switch {
		case err == nil:
			return runs
		case ctx.Err() != nil:
			t.Fatalf("waited in vain: %s\nlast seen: %s", what, describe(runs))
		case status.Code(err) != codes.Unavailable:
			t.Fatalf("watch the runs of %s: %v", job, err)
		}
		<-again.C
	}
}

func describe(runs map[string]*schedv1.Run) string {
	var b strings.Builder
	for _, r := range values(runs) {
		fmt.Fprintf(&b, "\n  %v", r)
	}
	return b.String()
}

// watch calls see for each run that WatchRuns sends, and with nil when all were
// sent that were there, until see says that it has seen enough.
func (p *primary) watch(ctx context.Context, job string, see func(*schedv1.Run) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := p.runs.WatchRuns(ctx, &schedv1.WatchRunsRequest{Filter: "job=" + job})
	if err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return status.Error(codes.Unavailable, "the stream ended") // never by itself
		}
		if err != nil {
			return err
		}
		if see(m.GetRun()) {
			return nil
		}
	}
}

// awaitRun watches one run until what it is holds.
func (p *primary) awaitRun(t *testing.T, r *schedv1.Run, what string, holds func(*schedv1.Run) bool) *schedv1.Run {
	t.Helper()
	runs := p.awaitRuns(t, r.GetJob(), "the run "+what, func(runs map[string]*schedv1.Run) bool {
		return runs[r.GetId()] != nil && holds(runs[r.GetId()])
	})
	return runs[r.GetId()]
}

func (p *primary) awaitEnd(t *testing.T, r *schedv1.Run) *schedv1.Run {
	t.Helper()
	return p.awaitRun(t, r, "has ended", over)
}

func (p *primary) awaitRunning(t *testing.T, r *schedv1.Run) *schedv1.Run {
	t.Helper()
	return p.awaitRun(t, r, "has a process", func(r *schedv1.Run) bool { return r.GetPhase() == schedv1.Phase_PHASE_RUNNING })
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

// phase asserts where a run stands.
func phase(t *testing.T, r *schedv1.Run, want schedv1.Phase) {
	t.Helper()
	if r.GetPhase() != want {
		t.Errorf("job %s: the run is %v (%s), want %v: %v", r.GetJob(), r.GetPhase(), r.GetReason(), want, r)
	}
}

// last is the latest attempt of a run.
func last(r *schedv1.Run) *schedv1.Attempt {
	if n := len(r.GetAttempts()); n > 0 {
		return r.GetAttempts()[n-1]
	}
	return nil
}

// log reads the whole log of a run, following it to its end. It goes on where it
// was when the primary goes away meanwhile.
func (p *primary) readLog(t *testing.T, run string) []byte {
	t.Helper()
	log, err := p.followLog(t.Context(), run, func([]byte) bool { return false })
	if err != nil {
		t.Fatalf("read the log of run %s: %v, after %d bytes", run, err, len(log))
	}
	return log
}

// followLog follows a log to its end, or until enough says so.
func (p *primary) followLog(ctx context.Context, run string, enough func(log []byte) bool) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	again := time.NewTicker(look)
	defer again.Stop()
	var log []byte
	for {
		done, err := p.readOn(ctx, run, &log, enough)
		if done || err != nil && status.Code(err) != codes.Unavailable {
			return log, err
		}
		<-again.C
	}
}

// readOn reads what comes after log, as one call gives it.
func (p *primary) readOn(ctx context.Context, run string, log *[]byte, enough func([]byte) bool) (done bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := p.runs.ReadLog(ctx, &schedv1.ReadLogRequest{RunId: run, Offset: int64(len(*log)), Follow: true})
	if err != nil {
		return false, err
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if len(m.GetData()) > 0 && m.GetOffset() != int64(len(*log)) {
			return false, fmt.Errorf("the log goes on at %d, want %d", m.GetOffset(), len(*log))
		}
		*log = append(*log, m.GetData()...)
		if m.GetComplete() || enough(*log) {
			return true, nil
		}
	}
}

// sameBytes compares what may be long.
func sameBytes(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	show := func(b []byte) []byte { return b[max(0, at-40):min(len(b), at+40)] }
	t.Errorf("%s: %d bytes, want %d; they differ at %d:\n got %q\nwant %q", what, len(got), len(want), at, show(got), show(want))
}

// pauseAll holds the triggers of a job and waits until none of its runs is
// active, so that file, ledger and runs can be compared at leisure.
func (p *primary) pauseAll(t *testing.T, job string) map[string]*schedv1.Run {
	t.Helper()
	if _, err := p.jobs.PauseJob(t.Context(), &schedv1.PauseJobRequest{Name: job, Note: "the test looks at what was done"}); err != nil {
		t.Fatalf("pause job %s: %v", job, err)
	}
	// The pause is on record, so runs are made no more: those that are listed
	// are all.
	all := p.listRuns(t, "job="+job)
	return p.awaitRuns(t, job, "all runs of "+job+" have ended", func(runs map[string]*schedv1.Run) bool {
		return len(runs) >= len(all) && !slices.ContainsFunc(values(runs), func(r *schedv1.Run) bool { return !over(r) })
	})
}

// listRuns returns all runs, in pages.
func (p *primary) listRuns(t *testing.T, filter string) []*schedv1.Run {
	t.Helper()
	var all []*schedv1.Run
	for token := ""; ; {
		resp, err := p.runs.ListRuns(t.Context(), &schedv1.ListRunsRequest{Filter: filter, PageSize: 50, PageToken: token})
		if err != nil {
			t.Fatalf("list runs: %v", err)
		}
		all = append(all, resp.GetRuns()...)
		if token = resp.GetNextPageToken(); token == "" {
			return all
		}
	}
}

// verify asks for the proof that each occurrence was decided once.
func (p *primary) verify(t *testing.T, job string) *schedv1.VerifyLedgerResponse {
	t.Helper()
	resp, err := p.jobs.VerifyLedger(t.Context(), &schedv1.VerifyLedgerRequest{Name: job})
	if err != nil {
		t.Fatalf("verify the ledger of %s: %v", job, err)
	}
	for _, v := range resp.GetTriggers() {
		if len(v.GetDifferences()) > 0 {
			t.Errorf("the ledger of %s trigger %s differs: %v", job, v.GetTriggerId(), v.GetDifferences())
		}
	}
	if !resp.GetOk() {
		t.Errorf("the ledger of %s is not ok: %v", job, resp)
	}
	return resp
}
