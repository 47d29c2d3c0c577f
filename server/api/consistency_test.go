package api

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
)

// What was written through a follower is read there, however it lags, and the
// writing does not wait for that. When it lags for long reads don't either.
func TestReadYourWrites(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		ctx := t.Context()
		began := time.Now()
		passed := func(want time.Duration) {
			t.Helper()
			w.took(began, want)
			began = time.Now()
		}
		w.b.lag(true)
		time.AfterFunc(2*time.Second, func() { w.b.lag(false) })
		w.fine(w.b.put(ctx, "j"))
		passed(0)
		w.fine(w.b.get(ctx, "j"))
		passed(2 * time.Second)

		w.b.lag(true)
		var header metadata.MD
		w.fine(w.b.put(ctx, "k", grpc.Header(&header)))
		passed(0)
		if is, want := indexOf(t, header), w.a.AppliedIndex(); is != want {
			t.Errorf("the answer is of index %d, want %d", is, want)
		}
		missing := func(ctx context.Context, name string) {
			t.Helper()
			if err := w.b.get(ctx, name); status.Code(err) != codes.NotFound {
				t.Errorf("a primary that lags says %v", err)
			}
		}
		missing(ctx, "k")
		passed(seenWithin)
		missing(ctx, "k")
		passed(0)

		// A caller that has to hear soon does.
		short, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		w.fine(w.b.put(ctx, "l"))
		missing(short, "l")
		passed(time.Second)

		// What was refused is seen as well: the job that was there already.
		w.fine(w.a.put(ctx, "m"))
		none := uint64(0)
		_, err := schedv1.NewJobServiceClient(w.b.conn).PutJob(ctx, &schedv1.PutJobRequest{Job: aJob("m"), ExpectedVersion: &none})
		says(t, err, codes.Aborted)
		time.AfterFunc(time.Second, func() { w.b.lag(false) })
		w.fine(w.b.get(ctx, "m"))
		passed(time.Second)

		// Streams see it, too.
		w.b.lag(true)
		w.fine(w.b.run(ctx, "m", ""))
		runs, err := schedv1.NewRunServiceClient(w.b.conn).WatchRuns(ctx, &schedv1.WatchRunsRequest{})
		w.fine(err)
		time.AfterFunc(time.Second, func() { w.b.lag(false) })
		if r, err := runs.Recv(); err != nil || r.GetRun().GetJob() != "m" {
			t.Errorf("the first run is %v, %v", r, err)
		}
		passed(time.Second)
	})
}

// atLeast asks for an answer from a state that has come so far.
func atLeast(ctx context.Context, index any) context.Context {
	return metadata.AppendToOutgoingContext(ctx, minIndexKey, fmt.Sprint(index))
}

// What one primary has answered is seen through another one: the caller carries
// the index over.
func TestMinIndex(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		ctx := t.Context()
		w.c.lag(true)
		var header metadata.MD
		w.fine(w.b.put(ctx, "j", grpc.Header(&header)))
		index := indexOf(t, header)
		if err := w.c.get(ctx, "j"); status.Code(err) != codes.NotFound {
			t.Errorf("a primary that lags says %v", err)
		}
		began := time.Now()
		time.AfterFunc(4*time.Second, func() { w.c.lag(false) })
		w.fine(w.c.get(atLeast(ctx, index), "j", grpc.Header(&header)))
		w.took(began, 4*time.Second)
		if is := indexOf(t, header); is < index {
			t.Errorf("it answers from index %d, asked for %d", is, index)
		}

		// One that nobody has come to.
		for _, n := range w.all() {
			began := time.Now()
			err := n.get(atLeast(ctx, index+1), "j", grpc.Header(&header))
			w.reason(err, reasonBehind)
			w.took(began, reachWithin)
			if is := indexOf(t, header); is != index {
				t.Errorf("it says that it is at index %d, and is at %d", is, index)
			}
			w.reason(n.workers(atLeast(ctx, index+1)), reasonBehind)
			short, cancel := context.WithTimeout(atLeast(ctx, index+1), time.Second)
			if err := n.get(short, "j"); status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("err = %v", err)
			}
			cancel()
		}

		// A stream waits, too, and tells in its trailer.
		runs, err := schedv1.NewRunServiceClient(w.b.conn).WatchRuns(atLeast(ctx, index+1), &schedv1.WatchRunsRequest{})
		w.fine(err)
		began = time.Now()
		time.AfterFunc(time.Second, func() { w.agree(state.InitCluster{}) })
		_, err = runs.Recv()
		w.fine(err)
		w.took(began, time.Second)
		w.b.server.Close()
		_, err = runs.Recv()
		w.reason(err, reasonStopping)
		if is := indexOf(t, runs.Trailer()); is != index+1 {
			t.Errorf("the trailer says %d, want %d", is, index+1)
		}
	})
}

// linear asks for an answer that is linearizable.
func linear(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, consistencyKey, linearizable)
}

// A linearizable read sees what anybody has written through any primary before it.
func TestLinearizable(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		ctx := t.Context()
		w.b.lag(true)
		w.fine(w.a.put(ctx, "j"))
		if err := w.b.get(ctx, "j"); status.Code(err) != codes.NotFound {
			t.Errorf("a primary that lags says %v", err)
		}
		began := time.Now()
		time.AfterFunc(3*time.Second, func() { w.b.lag(false) })
		w.fine(w.b.get(linear(ctx), "j"))
		w.took(began, 3*time.Second)
		w.fine(w.a.get(linear(ctx), "j"))
		w.fine(w.b.workers(linear(ctx)))

		// It asks who leads: one that only believes so does not count.
		w.leadSeenBy("c", "c")
		began = time.Now()
		time.AfterFunc(3*time.Second, func() { w.lead("c") })
		w.fine(w.a.get(linear(ctx), "j"))
		w.took(began, 3*time.Second)
		w.leadSeenBy("a", "a")
		time.AfterFunc(3*time.Second, func() { w.lead("a") })
		w.fine(w.b.get(linear(ctx), "j"))
		w.took(began, 6*time.Second)

		w.lead("")
		w.reason(w.b.get(linear(ctx), "j"), reasonNotLeader)
		w.fine(w.b.get(ctx, "j"))
	})
}

// What can't be read is refused by whoever is asked.
func TestBadMetadata(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		for _, n := range w.all() {
			for _, index := range []string{"", "-1", "1.5", "x", "18446744073709551616"} {
				says(t, n.get(atLeast(t.Context(), index), "j"), codes.InvalidArgument, minIndexKey)
				says(t, n.put(atLeast(t.Context(), index), "j"), codes.InvalidArgument, minIndexKey)
			}
			says(t, n.get(atLeast(atLeast(t.Context(), 1), 2), "j"), codes.InvalidArgument, minIndexKey)
			bad := metadata.AppendToOutgoingContext(t.Context(), consistencyKey, "strong", minIndexKey, "x")
			says(t, n.workers(bad), codes.InvalidArgument, consistencyKey, minIndexKey)
			runs, err := schedv1.NewRunServiceClient(n.conn).WatchRuns(bad, &schedv1.WatchRunsRequest{})
			w.fine(err)
			_, err = runs.Recv()
			says(t, err, codes.InvalidArgument, consistencyKey, minIndexKey)
		}
		if n := len(w.a.handedOn()); n != 0 {
			t.Errorf("%d calls were handed on", n)
		}
	})
}

// A new leader has not yet applied what the one before acknowledged. It must not
// say that there is no such thing.
func TestNewLeaderIsBehind(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		ctx := t.Context()
		w.c.lag(true)
		w.fine(w.b.put(ctx, "j"))
		w.lead("c")
		time.AfterFunc(time.Second, func() { w.c.lag(false) })
		w.fine(w.c.run(ctx, "j", ""))

		// What a follower has seen, or has had done, the leader that it hands a call
		// on to knows, too.
		workers := schedv1.NewWorkerServiceClient(w.b.conn)
		w.lead("a")
		w.c.lag(true)
		w.agree(state.PutWorker{ID: "w"})
		w.lead("c")
		time.AfterFunc(time.Second, func() { w.c.lag(false) })
		_, err := workers.GetWorker(ctx, &schedv1.GetWorkerRequest{Id: "w"})
		w.fine(err)
		w.lead("a")
		w.b.lag(true)
		w.c.lag(true)
		_, err = workers.UpdateWorker(ctx, &schedv1.UpdateWorkerRequest{Id: "w", SetLabels: map[string]string{"x": "y"}})
		w.fine(err)
		w.lead("c")
		time.AfterFunc(time.Second, func() { w.c.lag(false) })
		r, err := workers.GetWorker(ctx, &schedv1.GetWorkerRequest{Id: "w"})
		if w.fine(err); r.GetWorker().GetLabels()["x"] != "y" {
			t.Errorf("the new leader says %v", r)
		}
		w.b.lag(false)
	})
}

// Who led before does not know yet that it does no longer: it must not refuse what
// the new leader would take.
func TestOldLeaderRefusesNothing(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		w.a.lag(true)
		w.leadSeenBy("c", "b", "c")
		w.fine(w.b.put(t.Context(), "j"))
		time.AfterFunc(time.Second, func() { w.lead("c") })
		w.fine(w.a.run(t.Context(), "j", ""))
		w.a.lag(false)
	})
}

// A store that is closed or has failed does nothing, so that another may.
func TestFates(t *testing.T) {
	for err, want := range map[error]fate{
		nil:                    answered,
		raftstore.ErrNotLeader: untouched,
		raftstore.ErrStopped:   untouched,
		raftstore.ErrUnknown:   unknown,
		state.ErrNotFound:      answered,
		context.Canceled:       answered,
		raftstore.ErrTooLarge:  answered,
		errBehind:              answered,
		status.Error(codes.Unavailable, "a handler's own"): answered,
	} {
		if is := fateOf(err); is != want {
			t.Errorf("%v: %v, want %v", err, is, want)
		}
	}
	both := fmt.Errorf("%w: %w", raftstore.ErrNotLeader, raftstore.ErrUnknown)
	if fateOf(both) != untouched || reasonOf(toStatus(nil, "", both)) != reasonNotLeader {
		t.Errorf("a leader that could not confirm that it leads has done nothing: %v", both)
	}
}
