package remote

import (
	"context"
	"io"
	"log/slog"
	"testing"

	"google.golang.org/grpc"

	"github.com/schedd/schedd/agent/runner"
	runnerv1 "github.com/schedd/schedd/proto/schedd/runner/v1"
)

// teller is what a runner tells, one message after the other.
type teller struct {
	grpc.ServerStreamingClient[runnerv1.WatchResponse] // only Recv is used

	all []*runnerv1.WatchResponse
}

func (p *teller) Recv() (*runnerv1.WatchResponse, error) {
	if len(p.all) == 0 {
		return nil, io.EOF
	}
	m := p.all[0]
	p.all = p.all[1:]
	return m, nil
}

// pliant is a runner that forgets what it is told to, and starts nothing.
type pliant struct {
	runnerv1.RunnerServiceClient // only Forget is used
}

func (pliant) Forget(context.Context, *runnerv1.ForgetRequest, ...grpc.CallOption) (*runnerv1.ForgetResponse, error) {
	return &runnerv1.ForgetResponse{}, nil
}

// That an attempt has ended is told twice, and the second time comes when the agent has
// forgotten it, and its runner as well: it is nobody's, and is not kept, here or there. One
// that is asked for just now is somebody's.
func TestEndThatIsToldTwice(t *testing.T) {
	r := &Runner{
		o: Options{Log: slog.New(slog.DiscardHandler)}, errands: make(chan struct{}, 1), stopping: make(chan struct{}), relinked: make(chan struct{}),
		processes: map[string]*process{}, asking: map[string]int{}, forgotten: map[string]bool{}, gathering: true,
	}
	l := &link{client: pliant{}}
	ended := func(id string) *runnerv1.Attempt {
		return &runnerv1.Attempt{Id: id, Exit: showExit(runner.Exit{Code: 3})}
	}
	r.adopt(l, []*runnerv1.Attempt{ended("former/1")})
	if p := r.Known()["former/1"]; p == nil || p.Exit().Code != 3 {
		t.Fatalf("what a former life has left is %v", r.Known())
	}
	r.Forget("former/1")
	r.sendForgotten(t.Context(), l)
	r.beginAsking("young/1")
	var told []*runnerv1.WatchResponse
	for _, id := range []string{"former/1", "young/1"} {
		told = append(told, &runnerv1.WatchResponse{Body: &runnerv1.WatchResponse_Attempt{Attempt: ended(id)}})
	}
	if err := r.listen(l, &teller{all: told}); err != io.EOF { //nolint:errorlint // as the teller has it
		t.Fatal(err)
	}
	r.endAsking("young/1")
	r.adopt(l, []*runnerv1.Attempt{ended("former/1"), ended("young/1")})
	if known := r.Known(); len(known) != 1 || known["young/1"] == nil {
		t.Errorf("it knows of %v, want of what was asked for alone", known)
	}
	if len(r.forgotten) != 1 || !r.forgotten["former/1"] {
		t.Errorf("the runner is to forget %v, want what is nobody's", r.forgotten)
	}
	if r.sendForgotten(t.Context(), l); len(r.asking) != 0 || len(r.forgotten) != 0 {
		t.Errorf("left are %v and %v", r.asking, r.forgotten)
	}
}
