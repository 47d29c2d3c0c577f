package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore"
)

// No method can be forgotten: each of the API has a home, and each that has one
// is of the API and is served.
func TestEveryMethodHasAHome(t *testing.T) {
	g := grpc.NewServer()
	New(Config{}).Register(g)
	served := g.GetServiceInfo()
	left := map[string]bool{}
	for name := range homes {
		left[name] = true
	}
	protoregistry.GlobalFiles.RangeFilesByPackage(apiPackage, func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			service := f.Services().Get(i)
			for j := range service.Methods().Len() {
				d := service.Methods().Get(j)
				name := string(service.Name()) + "/" + string(d.Name())
				m := methods["/schedd.v1."+name]
				if m.home == 0 || m.home != homes[name] {
					t.Errorf("%s has no home: add it to homes", name)
				}
				if m.in.Descriptor() != d.Input() || m.out.Descriptor() != d.Output() {
					t.Errorf("%s takes %v and gives %v, want those of %v", name, m.in, m.out, d)
				}
				if d.IsStreamingClient() && d.IsStreamingServer() && m.home != local {
					t.Errorf("%s has streams both ways, which no primary hands on", name)
				}
				if !slices.ContainsFunc(served[string(service.FullName())].Methods, func(i grpc.MethodInfo) bool { return i.Name == string(d.Name()) }) {
					t.Errorf("%s is not served", name)
				}
				delete(left, name)
			}
		}
		return true
	})
	for name := range left {
		t.Errorf("homes has %s, which the API has not", name)
	}
	if n := len(methods); n != len(homes) || n < 25 {
		t.Errorf("%d methods have %d homes", n, len(homes))
	}
}

// Whichever method is called on a follower, it is carried out where it belongs,
// and on the leader nothing is handed on.
func TestEachMethodIsCarriedOutAtHome(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		for name, m := range methods {
			for _, n := range w.all() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				w.lead("a") // again, if that was what was asked for
				before := len(w.a.handedOn())
				if _, err := n.try(ctx, m); status.Code(err) == codes.Unavailable || status.Code(err) == codes.Unimplemented {
					t.Errorf("%s on %s: %v", name, n.id, err)
				}
				cancel()
				want := 0
				if n != w.a && m.home != local {
					want = 1
				}
				if got := len(w.a.handedOn()) - before; got != want {
					t.Errorf("%s on %s was handed on %d times, want %d", name, n.id, got, want)
				}
			}
		}
		if n := len(w.b.handedOn()) + len(w.c.handedOn()); n != 0 {
			t.Errorf("%d calls were handed on to followers", n)
		}
	})
}

// try calls a method with an empty message, and waits for its first answer.
func (n *node) try(ctx context.Context, m method) (proto.Message, error) {
	n.setStreams()
	answer := m.out.New().Interface()
	if !m.stream.ClientStreams && !m.stream.ServerStreams {
		return answer, n.conn.Invoke(ctx, m.name, m.in.New().Interface(), answer)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := n.conn.NewStream(ctx, &m.stream, m.name)
	if err != nil {
		return answer, err
	}
	if err := s.SendMsg(m.in.New().Interface()); err != nil && !errors.Is(err, io.EOF) { // it was answered already
		return answer, err
	}
	if err := s.CloseSend(); err != nil {
		return answer, err
	}
	return answer, s.RecvMsg(answer)
}

// What a primary tells when it does not lead, on its cluster port: nothing is done,
// and nothing handed on.
func TestClusterPortHandsNothingOn(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		for name, m := range methods {
			if m.home == local {
				continue
			}
			c := &node{conn: w.a.toLeader["b"], trio: w}
			_, err := c.try(t.Context(), m)
			w.reason(err, reasonNotLeader)
			if n := len(w.a.handedOn()); n != 0 {
				t.Fatalf("%s was handed on", name)
			}
		}
	})
}

// What is written through a follower is done by the leader, and what goes with a
// call goes along both ways.
func TestHandingOn(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "x-trace", "1", "x-trace", "2", "x-bin", "\x00\xff"), 7*time.Second)
		defer cancel()
		var header, trailer metadata.MD
		w.fine(w.b.put(ctx, "j", grpc.Header(&header), grpc.Trailer(&trailer)))
		if !w.a.has("j") || !w.b.has("j") {
			t.Errorf("the leader has the job: %v, the follower: %v", w.a.has("j"), w.b.has("j"))
		}
		if got := header.Get(indexKey); len(got) != 1 || got[0] != "2" {
			t.Errorf("%s is %q", indexKey, got)
		}
		if header.Get("x-header")[0] != "a" || trailer.Get("x-trailer")[0] != "a" {
			t.Errorf("the leader's header and trailer are %v and %v", header, trailer)
		}
		calls := w.a.handedOn()
		if len(calls) != 1 || calls[0].method != "/schedd.v1.JobService/PutJob" {
			t.Fatalf("handed on was %v", calls)
		}
		if md := calls[0].md; !slices.Equal(md.Get("x-trace"), []string{"1", "2"}) || md.Get("x-bin")[0] != "\x00\xff" {
			t.Errorf("metadata: %v", md)
		}
		if left := time.Until(calls[0].deadline); left > 7*time.Second || left < 6*time.Second {
			t.Errorf("the deadline is in %v, want in 7s", left)
		}

		// The leader's refusal comes back as it said it, with all details.
		bad := &schedv1.PutJobRequest{Job: aJob("Not a name", func(j *schedv1.Job) { j.Task = nil })}
		_, there := schedv1.NewJobServiceClient(w.a.conn).PutJob(t.Context(), bad)
		_, here := schedv1.NewJobServiceClient(w.b.conn).PutJob(t.Context(), bad)
		says(t, here, codes.InvalidArgument, "job.name", "job.task")
		if !proto.Equal(status.Convert(there).Proto(), status.Convert(here).Proto()) {
			t.Errorf("the leader says %v, the follower %v", there, here)
		}
	})
}

// The leader changes while it has a call: it says that it did nothing, and the next
// one does it, once. It makes no difference which primary was asked.
func TestLeaderChangesMeanwhile(t *testing.T) {
	for _, asked := range []string{"a", "b", "c"} {
		together(t, func(t *testing.T, w *trio) {
			w.a.on(func(context.Context) error {
				w.lead("b")
				return raftstore.ErrNotLeader
			})
			began := time.Now()
			n := w.node(asked)
			w.fine(n.put(t.Context(), "j"))
			w.took(began, 0)
			if !w.c.has("j") || len(w.entries()) != 1 {
				t.Errorf("asked %s: the log has %d entries", asked, len(w.entries()))
			}
		})
	}
}

func (w *trio) node(id string) *node { return map[string]*node{"a": w.a, "b": w.b, "c": w.c}[id] }

// entries returns the log.
func (w *trio) entries() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []string
	for _, e := range w.log {
		list = append(list, fmt.Sprintf("%T", e.Commands))
	}
	return list
}

// Nobody leads for three seconds: the call takes three seconds.
func TestNoLeaderForAWhile(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		w.lead("")
		began := time.Now()
		time.AfterFunc(3*time.Second, func() { w.lead("c") })
		w.fine(w.b.put(t.Context(), "j"))
		w.took(began, 3*time.Second)

		// The leader that a follower still believes in knows better.
		w.leadSeenBy("", "c")
		began = time.Now()
		time.AfterFunc(2*time.Second, func() { w.lead("a") })
		w.fine(w.b.workers(t.Context()))
		w.took(began, 2*time.Second)
	})
}

// Nobody leads for ever: calls are given up after ten seconds, or when the caller
// has had enough, and reads of what is agreed go on.
func TestNoLeader(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		w.fine(w.a.put(t.Context(), "j"))
		w.lead("")
		began := time.Now()
		w.reason(w.b.put(t.Context(), "k"), reasonNotLeader)
		w.took(began, patience)
		w.reason(w.a.workers(t.Context()), reasonNotLeader)
		w.fine(w.b.get(t.Context(), "j"))

		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		began = time.Now()
		if err := w.b.put(ctx, "k"); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("err = %v", err)
		}
		w.took(began, 2*time.Second)
	})
}

// A primary that stops does not keep its callers waiting for long.
func TestNoLeaderWhileStopping(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		w.lead("")
		began := time.Now()
		time.AfterFunc(time.Second, w.b.server.Close)
		w.reason(w.b.put(t.Context(), "k"), reasonNotLeader)
		w.took(began, time.Second+lastPatience)
	})
}

// The outcome is unknown: what changes something is not done again, unless it is
// named by its request; what only reads is.
func TestUnknownOutcome(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		w.fine(w.a.put(t.Context(), "j"))
		for _, n := range []*node{w.a, w.b} {
			proposals := 0
			lost := func(context.Context) error {
				if proposals++; proposals == 1 {
					return fmt.Errorf("proposing: %w", raftstore.ErrUnknown)
				}
				return nil
			}
			w.a.on(lost)
			w.reason(n.put(t.Context(), "k"), reasonUnknown)
			proposals = 0
			w.reason(n.run(t.Context(), "j", ""), reasonUnknown)
			if proposals != 1 {
				t.Errorf("it was proposed %d times", proposals)
			}
			proposals = 0
			w.fine(n.run(t.Context(), "j", "on-"+n.id))
			if proposals != 2 {
				t.Errorf("it was proposed %d times", proposals)
			}
		}
		if n := w.c.runs(); n != 2 {
			t.Errorf("there are %d runs, want 2", n)
		}
	})
}

// The leader is killed in the midst of a call.
func TestLeaderIsKilled(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		w.fine(w.b.put(t.Context(), "j"))
		w.a.on(func(ctx context.Context) error {
			go w.a.kill()
			<-ctx.Done()
			return ctx.Err()
		})
		began := time.Now()
		time.AfterFunc(2*time.Second, func() { w.lead("c") })
		err := w.b.put(t.Context(), "k")
		w.reason(err, reasonUnknown)
		w.took(began, 0)
		if !strings.Contains(err.Error(), "the leader a was lost") {
			t.Error(err)
		}
		// Nobody can connect to it: nothing is done, and the next one does it.
		w.fine(w.b.put(t.Context(), "l"))
		w.took(began, 2*time.Second)
	})
}

// A read is asked again when its leader is killed, and so is a run that is named.
func TestLeaderIsKilledAmidAReadOrANamedRun(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		w.fine(w.b.put(t.Context(), "j"))
		w.a.on(func(ctx context.Context) error {
			go w.a.kill()
			<-ctx.Done()
			return ctx.Err()
		})
		began := time.Now()
		time.AfterFunc(2*time.Second, func() { w.lead("c") })
		w.fine(w.b.run(t.Context(), "j", "once"))
		w.took(began, 2*time.Second)
		if n := w.c.runs(); n != 1 {
			t.Errorf("there are %d runs", n)
		}
	})
}

// The leader's host is gone without a word, which its connections learn only much
// later. Another one leads, so nothing is hoped for from it.
func TestLeaderFallsSilent(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		w.fine(w.b.put(t.Context(), "j"))
		w.a.on(func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		})
		began := time.Now()
		time.AfterFunc(3*time.Second, func() { w.lead("c") })
		err := w.b.put(t.Context(), "k")
		w.reason(err, reasonUnknown)
		w.took(began, 3*time.Second+deposedFor)

		w.lead("a")
		began = time.Now()
		time.AfterFunc(time.Second, func() { w.lead("") })
		time.AfterFunc(4*time.Second, func() { w.lead("c") })
		w.fine(w.b.run(t.Context(), "j", "once"))
		w.took(began, 4*time.Second+deposedFor)

		// One that comes back in time may answer.
		w.lead("a")
		w.a.on(func(context.Context) error {
			time.Sleep(4 * time.Second)
			return nil
		})
		time.AfterFunc(time.Second, func() { w.lead("c") })
		time.AfterFunc(2*time.Second, func() { w.lead("a") })
		w.fine(w.b.put(t.Context(), "l"))
	})
}

// A follower believes for long in a leader that is none any more.
func TestFollowerLearnsLate(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		w.leadSeenBy("c", "a", "c")
		began := time.Now()
		time.AfterFunc(5*time.Second, func() { w.lead("c") })
		w.fine(w.b.put(t.Context(), "j"))
		w.took(began, 5*time.Second)
		if n := len(w.a.handedOn()); n < 2 || n > 60 {
			t.Errorf("it was handed on to the old leader %d times", n)
		}
	})
}

// A panic on the leader is an answer, and the log of the leader tells of it.
func TestPanicOnTheLeader(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		w.a.on(func(context.Context) error { panic("oh") })
		for _, n := range w.all() {
			err := n.put(t.Context(), "j")
			if status.Code(err) != codes.Internal {
				t.Errorf("asked %s: %v", n.id, err)
			}
		}
		if !strings.Contains(w.a.logged.String(), "panic in a handler") {
			t.Errorf("the log of the leader: %s", w.a.logged)
		}
	})
}

// The caller goes away: so does the call on the leader.
func TestCallerGoesAway(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		var gone error
		w.a.on(func(ctx context.Context) error {
			<-ctx.Done()
			gone = ctx.Err()
			return gone
		})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		err := w.b.put(ctx, "j")
		synctest.Wait()
		if status.Code(err) != codes.Canceled || !errors.Is(gone, context.Canceled) {
			t.Errorf("the caller got %v, the leader %v", err, gone)
		}
	})
}

// The status is the leader's, while it answers; else what is known here.
func TestStatusFromWhoeverCanTell(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		ask := func(want time.Duration) *schedv1.ClusterStatus {
			t.Helper()
			began := time.Now()
			r, err := schedv1.NewClusterServiceClient(w.b.conn).GetStatus(t.Context(), &schedv1.GetStatusRequest{})
			w.fine(err)
			w.took(began, want)
			return r.GetStatus()
		}
		if v := ask(0).GetPrimaries()[2]; v.GetVersion() != "v-c" {
			t.Errorf("the leader says of c: %v", v)
		}
		w.a.kill()
		if s := ask(0); s.GetLeaderId() != "a" || s.GetPrimaries()[2].GetVersion() != "" || s.GetPrimaries()[1].GetVersion() != "v-b" {
			t.Errorf("b says while the leader is gone: %v", s)
		}
		w.lead("")
		if s := ask(0); s.GetLeaderId() != "" || s.GetPrimaries()[0].GetRole() != 0 {
			t.Errorf("b says without a leader: %v", s)
		}
		w.c.lag(true) // and b is ahead, so c waits before it answers
		w.agree()
		w.lead("c")
		if s := ask(statusWithin); s.GetLeaderId() != "c" || s.GetPrimaries()[1].GetVersion() != "v-b" {
			t.Errorf("b says while the leader is busy: %v", s)
		}
		w.c.lag(false)
	})
}

// indexOf is how far the primary had come that answered.
func indexOf(t *testing.T, header metadata.MD) uint64 {
	t.Helper()
	at := header.Get(indexKey)
	if len(at) != 1 {
		t.Fatalf("%s is %q", indexKey, at)
	}
	index, err := strconv.ParseUint(at[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return index
}
