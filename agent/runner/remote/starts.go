package remote

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/schedd/schedd/agent/runner"
	runnerv1 "github.com/schedd/schedd/proto/schedd/runner/v1"
)

// starts is the agent's end of the call of Starts of one link. What is asked for at the
// same time shares a message; that it runs is told by Watch.
type starts struct {
	stream grpc.BidiStreamingClient[runnerv1.StartsRequest, runnerv1.StartsResponse]
	link   uint64

	mu      sync.Mutex // guards all below
	asked   map[string]*asked
	queue   []*runnerv1.StartRequest
	sending bool // somebody sends what is queued
	over    bool // nothing is sent or heard any more

	others sync.WaitGroup // who sends for others; nobody begins once it is over
}

// asked is an attempt that was asked for.
type asked struct {
	done chan struct{}

	// Written before done is closed, one of them.
	attempt *runnerv1.Attempt        // it runs, or has ended
	refused *runnerv1.StartsResponse // it could not be started
	lost    bool                     // the link was, before there was an answer
}

func openStarts(ctx context.Context, client runnerv1.RunnerServiceClient, link uint64) (*starts, error) {
	stream, err := client.Starts(ctx)
	if err != nil {
		return nil, err
	}
	return &starts{stream: stream, link: link, asked: make(map[string]*asked)}, nil
}

// askAmong asks the runner once to start an attempt, among others.
func (r *Runner) askAmong(all *starts, req *runnerv1.StartRequest, s runner.Spec) (runner.Process, error) {
	a := all.ask(req)
	<-a.done
	switch {
	case a.lost:
		return nil, errUnanswered
	case a.refused.GetReplaced():
		return nil, fmt.Errorf("starting attempt %q: %w", s.ID, runner.ErrLeft)
	case a.refused != nil:
		return nil, refusal(a.refused.GetError(), a.refused.GetUnable())
	}
	return r.take(a.attempt, s.Env), nil // also if it was forgotten before it was asked for
}

// ask has a start asked for.
func (l *starts) ask(req *runnerv1.StartRequest) *asked {
	a := &asked{done: make(chan struct{})}
	l.mu.Lock()
	if l.over {
		l.mu.Unlock()
		a.lost = true
		close(a.done)
		return a
	}
	l.asked[req.GetId()] = a
	l.queue = append(l.queue, req)
	first := !l.sending
	l.sending = true
	l.mu.Unlock()
	if first && l.send() {
		l.handOver()
	}
	return a
}

// send sends one message of what is queued, and reports whether there was anything to send.
// An error ends the call, which is heard.
func (l *starts) send() bool {
	runtime.Gosched() // whoever is about to ask does it first
	part := l.dequeue()
	if len(part) == 0 {
		return false
	}
	_ = l.stream.Send(&runnerv1.StartsRequest{Link: l.link, Starts: part})
	return true
}

// handOver has the rest sent by somebody else: whoever has sent its own start waits for that.
func (l *starts) handOver() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 || l.over {
		l.sending = false
		return
	}
	l.others.Go(func() { // until nothing is queued
		for l.send() {
		}
	})
}

// dequeue takes what may share a message.
func (l *starts) dequeue() []*runnerv1.StartRequest {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, size := 0, 0
	for n < len(l.queue) {
		if size += proto.Size(l.queue[n]); n > 0 && size > maxShared {
			break
		}
		n++
	}
	part := l.queue[:n:n]
	if l.queue = l.queue[n:]; len(l.queue) == 0 {
		l.queue = nil
	}
	l.sending = n > 0
	return part
}

// hear hears what could not be started, until the call ends.
func (l *starts) hear() {
	for {
		m, err := l.stream.Recv()
		if err != nil {
			l.end()
			return
		}
		l.answer(m.GetId(), nil, m)
	}
}

// told takes note that Watch has told of an attempt.
func (l *starts) told(m *runnerv1.Attempt) {
	if l != nil {
		l.answer(m.GetId(), m, nil)
	}
}

// answer says what became of an attempt: it is there, or was refused.
func (l *starts) answer(id string, there *runnerv1.Attempt, refused *runnerv1.StartsResponse) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.asked[id]; a != nil {
		delete(l.asked, id)
		a.attempt, a.refused = there, refused
		close(a.done)
	}
}

// end leaves it open what becomes of what was asked for.
func (l *starts) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	for _, a := range l.asked {
		a.lost = true
		close(a.done)
	}
	clear(l.asked)
}
