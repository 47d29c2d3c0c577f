package remote

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/fakerunner"
	runnerv1 "github.com/schedd/schedd/proto/schedd/runner/v1"
)

// tape is a runner that says what was recorded, and does all that it is asked.
type tape struct {
	grpc.ServerStreamingClient[runnerv1.WatchResponse] // nothing but Recv is used
	runnerv1.RunnerServiceClient                       // nothing but EndStrays is used

	rest []byte
}

func (t *tape) Recv() (*runnerv1.WatchResponse, error) {
	size, n := binary.Uvarint(t.rest)
	if n <= 0 {
		return nil, io.EOF
	}
	size = min(size, uint64(len(t.rest)-n))
	m := new(runnerv1.WatchResponse)
	err := proto.Unmarshal(t.rest[n:n+int(size)], m)
	t.rest = t.rest[n+int(size):]
	return m, err
}

func (t *tape) EndStrays(context.Context, *runnerv1.EndStraysRequest, ...grpc.CallOption) (*runnerv1.EndStraysResponse, error) {
	return &runnerv1.EndStraysResponse{}, nil
}

// tapeOf writes what a tape says.
func tapeOf(f *testing.F, messages ...*runnerv1.WatchResponse) (b []byte) {
	f.Helper()
	for _, m := range messages {
		one, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		b = append(binary.AppendUvarint(b, uint64(len(one))), one...)
	}
	return b
}

// Whatever a runner says, its agent lives on; of what ran before it knows how it
// ended or that it runs, and how an attempt ended does not change.
func FuzzRunner(f *testing.F) {
	hello := &runnerv1.WatchResponse{Body: &runnerv1.WatchResponse_Hello{Hello: &runnerv1.Hello{Revision: 1, Instance: "i", Pid: -1}}}
	synced := &runnerv1.WatchResponse{Body: &runnerv1.WatchResponse_Synced{Synced: &runnerv1.Synced{}}}
	stopping := &runnerv1.WatchResponse{Body: &runnerv1.WatchResponse_Stopping{Stopping: &runnerv1.Stopping{}}}
	attempt := func(id string, exit *runnerv1.Exit) *runnerv1.WatchResponse {
		return &runnerv1.WatchResponse{Body: &runnerv1.WatchResponse_Attempt{Attempt: &runnerv1.Attempt{Id: id, Pid: 7, Exit: exit}}}
	}
	absurd := &runnerv1.Exit{
		Code: -1 << 31, Leftover: -1, MaxRssBytes: -1, CpuTime: &durationpb.Duration{Seconds: 1 << 62, Nanos: -1},
		StartedTime: &timestamppb.Timestamp{Seconds: -1 << 63}, FinishedTime: &timestamppb.Timestamp{Seconds: 1<<63 - 1},
	}
	f.Add(tapeOf(f, hello, attempt("ran", nil), synced, attempt("ran", absurd), attempt("ran", &runnerv1.Exit{}), stopping, stopping))
	f.Add(tapeOf(f, hello, attempt("", absurd), synced, hello, synced, attempt("new", nil)))
	f.Add(tapeOf(f, hello, synced))
	f.Add(tapeOf(f, hello, stopping, synced))
	f.Add(tapeOf(f, synced, hello))
	f.Add([]byte("nothing of the kind"))
	f.Fuzz(func(t *testing.T, said []byte) {
		r := &Runner{
			o: Options{Log: slog.New(slog.DiscardHandler)}, stopping: make(chan struct{}), relinked: make(chan struct{}),
			errands: make(chan struct{}, 1), processes: make(map[string]*process), forgotten: map[string]bool{"gone": true},
			until: func(time.Time) (context.Context, context.CancelFunc) { return context.WithCancel(t.Context()) },
			end:   func() {},
		}
		ran := r.take(&runnerv1.Attempt{Id: "ran", Pid: 1}, nil)
		had := r.take(&runnerv1.Attempt{Id: "had", Exit: &runnerv1.Exit{Code: 3}}, nil)
		r.listenTo(&tape{rest: said})
		r.Close()
		known := r.Known()
		if known["ran"] != ran || known["had"] != had || known["gone"] != nil {
			t.Errorf("it keeps %v", known)
		}
		if had.Exit().Code != 3 {
			t.Errorf("how it ended became %+v", had.Exit())
		}
		for id, p := range known {
			exit := p.Exit()
			if _, err := proto.Marshal(showExit(exit)); err != nil {
				t.Errorf("how %q ended can't be told: %v", id, err)
			}
		}
	})
}

// listenTo lives through one link, as attend does on a connection.
func (r *Runner) listenTo(said *tape) {
	l := &link{client: said}
	if _, err := r.greet(l, said); err != nil {
		return
	}
	all, err := r.hear(said)
	if err != nil {
		return
	}
	r.adopt(l, all)
	_ = r.listen(l, said) // any end may be right
}

// Whatever an agent asks for, the runner lives on, keeps each attempt once, and can
// tell of it.
func FuzzAgent(f *testing.F) {
	ask := func(m proto.Message) []byte {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	f.Add(ask(&runnerv1.WatchRequest{Life: 2}), ask(&runnerv1.StartRequest{Life: 2, Id: "a", Argv: []string{"x"}}), ask(&runnerv1.KillRequest{Id: "a"}),
		ask(&runnerv1.ForgetRequest{Ids: []string{"a", "a", ""}}), ask(&runnerv1.EndStraysRequest{Id: "a"}))
	f.Add(ask(&runnerv1.WatchRequest{Life: 1<<64 - 1}), ask(&runnerv1.StartRequest{Life: 1<<64 - 1, Timeout: &durationpb.Duration{Seconds: 1<<63 - 1, Nanos: -7}, KillGrace: &durationpb.Duration{Seconds: 1<<63 - 1}}),
		ask(&runnerv1.KillRequest{Grace: &durationpb.Duration{Seconds: -1 << 63}}), ask(&runnerv1.ForgetRequest{}), ask(&runnerv1.EndStraysRequest{Env: [][]byte{nil, {0, '='}}}))
	f.Add([]byte{0}, []byte(nil), []byte(nil), []byte(nil), []byte{255})
	f.Fuzz(func(t *testing.T, watch, start, kill, forget, strays []byte) {
		s, fake := newFuzzed(t)
		var w runnerv1.WatchRequest
		if proto.Unmarshal(watch, &w) == nil {
			if watcher, err := s.take(w.GetLife(), w.GetLink()); err == nil {
				defer s.leave(watcher)
			}
		}
		var a runnerv1.StartRequest
		if proto.Unmarshal(start, &a) == nil {
			a.Output = nil // the fake one opens what it is told
			for range 2 {
				if _, err := s.Start(t.Context(), &a); err == nil && fake.Starts(a.GetId()) > 1 {
					t.Errorf("%q was started twice", a.GetId())
				}
			}
		}
		var e runnerv1.EndStraysRequest
		if proto.Unmarshal(strays, &e) == nil {
			if m, err := s.EndStrays(t.Context(), &e); err != nil || s.at(e.GetId()) != nil && m.GetError() == "" {
				t.Errorf("strays of %q, which is kept: %v, %v", e.GetId(), m, err)
			}
		}
		var d runnerv1.KillRequest
		if proto.Unmarshal(kill, &d) == nil {
			if _, err := s.Kill(t.Context(), &d); err != nil {
				t.Error(err)
			}
		}
		var g runnerv1.ForgetRequest
		if proto.Unmarshal(forget, &g) == nil {
			if _, err := s.Forget(t.Context(), &g); err != nil {
				t.Error(err)
			}
		}
		for _, m := range s.news(newWatcherOf(s.keeper)) {
			if _, err := proto.Marshal(m); err != nil {
				t.Errorf("%v can't be told: %v", m, err)
			}
		}
	})
}

// newFuzzed returns a runner that starts nothing real, and what it starts with.
func newFuzzed(t *testing.T) (*service, *fakerunner.Fake) {
	b, ended, left, err := openBook(t.TempDir(), "boot", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	fake := fakerunner.New(func(runner.Spec) fakerunner.Behaviour { return fakerunner.Behaviour{Duration: -1} })
	k := newKeeper(slog.New(slog.DiscardHandler), fake, b)
	k.resume(ended, left)
	t.Cleanup(func() {
		fake.Close()
		close(k.over)
		k.rest()
		if err := b.journal.Close(); err != nil {
			t.Error(err)
		}
	})
	return &service{keeper: k, end: make(chan struct{}, 1)}, fake
}

// askedTape is a stream of an agent that asks for starts, and hears which can't be.
type askedTape struct {
	grpc.BidiStreamingServer[runnerv1.StartsRequest, runnerv1.StartsResponse] // nothing but Recv and Send is used

	requests []*runnerv1.StartsRequest
	refused  map[string]bool
}

func (a *askedTape) Recv() (*runnerv1.StartsRequest, error) {
	if len(a.requests) == 0 {
		return nil, io.EOF
	}
	m := a.requests[0]
	a.requests = a.requests[1:]
	return m, nil
}

func (a *askedTape) Send(m *runnerv1.StartsResponse) error {
	a.refused[m.GetId()] = true
	return nil
}

// Whatever starts an agent asks for together, and whatever leases it tells of, each is
// started once, or refused by its name, or left to a later link.
func FuzzStarts(f *testing.F) {
	ask := func(m proto.Message) []byte {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	f.Add(uint64(2), uint64(1), ask(&runnerv1.StartsRequest{Link: 1, Starts: []*runnerv1.StartRequest{
		{Life: 2, Id: "a", Argv: []string{"x"}}, {Life: 2, Id: "b"}, {Life: 1, Id: "c", Argv: []string{"x"}}, {Life: 2, Id: "a", Argv: []string{"x"}}, {},
	}}), ask(&runnerv1.RenewRequest{Leases: []*runnerv1.Lease{{Id: "a", End: durationpb.New(-1)}, {Id: "a", End: durationpb.New(1<<63 - 1)}, {}}}))
	f.Add(uint64(1<<64-1), uint64(0), ask(&runnerv1.StartsRequest{Link: 1<<64 - 1, Starts: []*runnerv1.StartRequest{
		{Life: 1<<64 - 1, Id: "a", Argv: []string{""}, Timeout: &durationpb.Duration{Seconds: -1 << 63, Nanos: 1}, Env: [][]byte{{'='}, nil}},
	}}), ask(&runnerv1.RenewRequest{Leases: []*runnerv1.Lease{{Id: "a", End: &durationpb.Duration{Seconds: 1<<63 - 1, Nanos: -1}}}}))
	f.Add(uint64(0), uint64(0), []byte("no such thing"), []byte{255})
	f.Fuzz(func(t *testing.T, life, link uint64, starts, renew []byte) {
		s, fake := newFuzzed(t)
		watcher, err := s.take(life, link)
		if err == nil {
			defer s.leave(watcher)
		}
		var m runnerv1.StartsRequest
		if proto.Unmarshal(starts, &m) != nil {
			return
		}
		for _, a := range m.GetStarts() {
			if a != nil {
				a.Output = nil // the fake one opens what it is told
			}
		}
		stream := &askedTape{requests: []*runnerv1.StartsRequest{&m, &m}, refused: map[string]bool{}}
		if err := s.Starts(stream); err != nil {
			t.Error(err)
		}
		for _, a := range m.GetStarts() {
			if n := fake.Starts(a.GetId()); n > 1 || n == 0 && !stream.refused[a.GetId()] && (m.GetLink() == 0 || m.GetLink() == link) && s.at(a.GetId()) == nil {
				t.Errorf("%q was started %d times, and refused: %v", a.GetId(), n, stream.refused[a.GetId()])
			}
		}
		var leases runnerv1.RenewRequest
		if proto.Unmarshal(renew, &leases) == nil {
			if _, err := s.Renew(t.Context(), &leases); err != nil {
				t.Error(err)
			}
		}
		for _, m := range s.news(newWatcherOf(s.keeper)) {
			if _, err := proto.Marshal(m); err != nil {
				t.Errorf("%v can't be told: %v", m, err)
			}
		}
		if _, grace, _ := s.stop(false); grace < 0 || grace > runner.MaxKillGrace {
			t.Errorf("a stop waits for %v", grace)
		}
	})
}

// newWatcherOf returns one that is to be told of everything.
func newWatcherOf(k *keeper) *watcher {
	k.mu.Lock()
	defer k.mu.Unlock()
	w := newWatcher(0)
	for id := range k.attempts {
		w.noteLocked(id)
	}
	return w
}
