package api

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/runlog"
)

// append adds to a log.
// logKey names the log of a run's last attempt.
func (p *primary) logKey(r *schedv1.Run) (k runlog.Key) {
	p.t.Helper()
	p.store.View(func(s *state.State) {
		run := s.Run(p.id(r))
		k = logKey(run.ID, &run.Attempts[len(run.Attempts)-1])
	})
	return k
}

func (p *primary) append(k runlog.Key, off int64, data string) {
	p.t.Helper()
	if _, err := p.logs.Append(k, off, []byte(data), runlog.Checksum([]byte(data))); err != nil {
		p.t.Fatal(err)
	}
}

// reading is what one call of ReadLog has sent.
type reading struct {
	off      int64 // of the first byte
	data     string
	attempt  uint32
	complete bool
	err      error
}

func (p *primary) read(ctx context.Context, req *schedv1.ReadLogRequest) (got reading) {
	p.t.Helper()
	stream, err := p.runs.ReadLog(ctx, req)
	if err != nil {
		p.t.Fatal(err)
	}
	for first := true; ; first = false {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return got
		}
		if err != nil {
			got.err = err
			return got
		}
		if first {
			got.off = m.GetOffset()
		}
		if m.GetOffset() != got.off+int64(len(got.data)) || len(m.GetData()) > 64<<10 || got.complete {
			p.t.Errorf("%d bytes at %d, after %d; complete: %v", len(m.GetData()), m.GetOffset(), got.off+int64(len(got.data)), got.complete)
		}
		got.data += string(m.GetData())
		got.attempt, got.complete = m.GetAttempt(), m.GetComplete()
	}
}

// follow is read beside the story: what it returns waits for the end.
func (p *primary) follow(req *schedv1.ReadLogRequest) func() reading {
	req.Follow = true
	got := make(chan reading, 1)
	go func() { got <- p.read(p.t.Context(), req) }()
	synctest.Wait()
	return func() reading {
		p.t.Helper()
		synctest.Wait()
		select {
		case r := <-got:
			return r
		default:
			p.t.Fatal("it goes on")
			return reading{}
		}
	}
}

func (r reading) is(t *testing.T, off int64, data string, attempt uint32, complete bool) {
	t.Helper()
	if r.err != nil || r.off != off || r.data != data || r.attempt != attempt || r.complete != complete {
		t.Errorf("read %.60q at %d of attempt %d, complete %v, error %v; want %.60q at %d of %d, %v", r.data, r.off, r.attempt, r.complete, r.err, data, off, attempt, complete)
	}
}

func TestReadLog(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		ctx := t.Context()
		p.put(aJob("j", allow))
		p.worker("w")
		r := p.run("j")
		id := r.GetId()
		fence := p.start(r, "w")
		long := strings.Repeat("0123456789", 20000)
		p.append(p.logKey(r), 0, long)
		n := int64(len(long))
		p.read(ctx, &schedv1.ReadLogRequest{RunId: id}).is(t, 0, long, 1, false)
		p.finish(r, fence, state.Attempt{Outcome: state.OutcomeFailed, LogBytes: n}, state.Pending)
		for _, tt := range []struct {
			req      *schedv1.ReadLogRequest
			off      int64
			data     string
			complete bool
		}{
			{&schedv1.ReadLogRequest{}, 0, long, true},
			{&schedv1.ReadLogRequest{Attempt: 1, Follow: true}, 0, long, true},
			{&schedv1.ReadLogRequest{Limit: 70000}, 0, long[:70000], false},
			{&schedv1.ReadLogRequest{Limit: 70000, Follow: true}, 0, long[:70000], false},
			{&schedv1.ReadLogRequest{Limit: n}, 0, long, true},
			{&schedv1.ReadLogRequest{Offset: 5, Limit: 7}, 5, long[5:12], false},
			{&schedv1.ReadLogRequest{Offset: -7}, n - 7, long[n-7:], true},
			{&schedv1.ReadLogRequest{Offset: -7, Limit: 2, Follow: true}, n - 7, long[n-7 : n-5], false},
			{&schedv1.ReadLogRequest{Offset: -n - 1}, 0, long, true},
			{&schedv1.ReadLogRequest{Offset: n}, n, "", true},
			{&schedv1.ReadLogRequest{Offset: n, Follow: true}, n, "", true},
		} {
			tt.req.RunId = id
			p.read(ctx, tt.req).is(t, tt.off, tt.data, 1, tt.complete)
		}
		says(t, p.read(ctx, &schedv1.ReadLogRequest{RunId: id, Offset: n + 1}).err, codes.OutOfRange)
		says(t, p.read(ctx, &schedv1.ReadLogRequest{RunId: id, Attempt: 2}).err, codes.NotFound)
		says(t, p.read(ctx, &schedv1.ReadLogRequest{RunId: "x", Limit: -1}).err, codes.InvalidArgument, "run_id", "limit")
		says(t, p.read(ctx, &schedv1.ReadLogRequest{RunId: state.RunID{}.String()}).err, codes.NotFound)
	})
}

// A follower may come before the attempt, and stays until its log is complete,
// which may be after its result.
func TestFollowLog(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		p.put(aJob("j", allow))
		p.worker("w")
		r := p.run("j")
		says(t, p.read(t.Context(), &schedv1.ReadLogRequest{RunId: r.GetId()}).err, codes.FailedPrecondition)
		early := p.follow(&schedv1.ReadLogRequest{RunId: r.GetId()})
		second := p.follow(&schedv1.ReadLogRequest{RunId: r.GetId(), Attempt: 2})
		fence := p.start(r, "w")
		key := p.logKey(r)
		tail := p.follow(&schedv1.ReadLogRequest{RunId: r.GetId(), Offset: -3})
		p.append(key, 0, "hello ")
		sleep(time.Hour)
		p.finish(r, fence, state.Attempt{Outcome: state.OutcomeFailed, LogBytes: 11}, state.Pending)
		sleep(time.Hour)
		p.append(key, 6, "world")
		early().is(t, 0, "hello world", 1, true)
		tail().is(t, 0, "hello world", 1, true)

		fence = p.start(p.get(r), "w")
		p.finish(r, fence, state.Attempt{Outcome: state.OutcomeSucceeded}, state.Succeeded)
		second().is(t, 0, "", 2, true)
	})
}

func TestFollowNoLog(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		p.put(aJob("j", allow))
		r := p.run("j")
		got := p.follow(&schedv1.ReadLogRequest{RunId: r.GetId()})
		p.do(state.Cancel{Run: p.id(r), Note: "enough"})
		says(t, got().err, codes.FailedPrecondition)

		gone := p.run("j")
		got = p.follow(&schedv1.ReadLogRequest{RunId: gone.GetId()})
		p.do(state.Cancel{Run: p.id(gone)}, state.Prune{Runs: []state.RunID{p.id(gone)}})
		says(t, got().err, codes.FailedPrecondition) // the history knows it

		p.worker("w")
		r = p.run("j")
		p.start(r, "w")
		got = p.follow(&schedv1.ReadLogRequest{RunId: r.GetId()})
		p.server.Close()
		says(t, got().err, codes.Unavailable)
	})
}

// Of what is lost, nobody waits for the rest.
func TestFollowLostLog(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		p.put(aJob("j", allow))
		p.worker("w")
		r := p.run("j")
		fence := p.start(r, "w")
		p.append(p.logKey(r), 0, "hello")
		got := p.follow(&schedv1.ReadLogRequest{RunId: r.GetId()})
		p.finish(r, fence, state.Attempt{Outcome: state.OutcomeLost}, state.Lost)
		got().is(t, 0, "hello", 1, false)
		p.read(t.Context(), &schedv1.ReadLogRequest{RunId: r.GetId(), Follow: true}).is(t, 0, "hello", 1, false)
		// The worker comes back.
		p.finish(r, fence, state.Attempt{Outcome: state.OutcomeSucceeded, LogBytes: 6}, state.Succeeded)
		got = p.follow(&schedv1.ReadLogRequest{RunId: r.GetId()})
		p.append(p.logKey(r), 5, "!")
		got().is(t, 0, "hello!", 1, true)

		// A worker is removed before it has sent the rest.
		r = p.run("j")
		fence = p.start(r, "w")
		p.append(p.logKey(r), 0, "hello")
		p.finish(r, fence, state.Attempt{Outcome: state.OutcomeSucceeded, LogBytes: 9}, state.Succeeded)
		got = p.follow(&schedv1.ReadLogRequest{RunId: r.GetId()})
		p.do(state.RemoveWorker{ID: "w"})
		got().is(t, 0, "hello", 1, false)
	})
}

// A log that is longer than its worker said ends where it ends.
func TestFollowLongerLog(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		p.put(aJob("j", allow))
		p.worker("w")
		r := p.run("j")
		fence := p.start(r, "w")
		p.append(p.logKey(r), 0, "hello")
		p.finish(r, fence, state.Attempt{Outcome: state.OutcomeFailed, LogBytes: 3}, state.Failed)
		p.read(t.Context(), &schedv1.ReadLogRequest{RunId: r.GetId(), Follow: true}).is(t, 0, "hello", 1, false)
	})
}

func TestRemovedLog(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		p.put(aJob("j", allow))
		p.worker("w")
		r := p.run("j")
		p.start(r, "w")
		p.append(p.logKey(r), 0, "hello")
		got := p.follow(&schedv1.ReadLogRequest{RunId: r.GetId()})
		if err := p.logs.Remove(p.logKey(r)); err != nil {
			t.Fatal(err)
		}
		says(t, got().err, codes.NotFound)
	})
}

// A log is read whole on a primary that has a part of it, or nothing: the others
// have the rest.
func TestReadLogOfOthers(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		ctx := t.Context()
		p.put(aJob("j", allow))
		p.worker("w")
		r := p.run("j")
		id := r.GetId()
		fence := p.start(r, "w")
		gone := errors.New("b does not answer")
		p.others = func(runlog.Key) error { return gone }
		err := p.read(ctx, &schedv1.ReadLogRequest{RunId: id}).err
		if status.Code(err) != codes.Unavailable || reasonOf(err) != reasonLog || !strings.Contains(err.Error(), gone.Error()) {
			t.Errorf("without any copy: %v", err)
		}
		p.append(p.logKey(r), 0, "one ")
		p.read(ctx, &schedv1.ReadLogRequest{RunId: id}).is(t, 0, "one ", 1, false)

		p.finish(r, fence, state.Attempt{Outcome: state.OutcomeSucceeded, LogBytes: 7}, state.Succeeded)
		p.read(ctx, &schedv1.ReadLogRequest{RunId: id}).is(t, 0, "one ", 1, false)
		p.others = func(k runlog.Key) error {
			p.append(k, 4, "two")
			return nil
		}
		p.read(ctx, &schedv1.ReadLogRequest{RunId: id, Offset: -2}).is(t, 5, "wo", 1, true)
		p.read(ctx, &schedv1.ReadLogRequest{RunId: id}).is(t, 0, "one two", 1, true)
	})
}
