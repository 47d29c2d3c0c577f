package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
)

func (n *node) group() schedv1.ClusterServiceClient { return schedv1.NewClusterServiceClient(n.conn) }

func (n *node) add(ctx context.Context, id, address string, voter bool) error {
	_, err := n.group().AddPrimary(ctx, &schedv1.AddPrimaryRequest{Id: id, ClusterAddress: address, Voter: voter})
	return err
}

func (n *node) remove(ctx context.Context, id string) error {
	_, err := n.group().RemovePrimary(ctx, &schedv1.RemovePrimaryRequest{Id: id})
	return err
}

func (n *node) handTo(ctx context.Context, id string) (*schedv1.ClusterStatus, error) {
	r, err := n.group().TransferLeadership(ctx, &schedv1.TransferLeadershipRequest{Id: id})
	return r.GetStatus(), err
}

// members returns the group: "a b -d@d:2" for a and b, and d without a vote at an
// address of its own.
func (w *trio) members() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []string
	for _, v := range w.servers {
		m := v.ID
		if !v.Voter {
			m = "-" + m
		}
		if v.Address != v.ID+":7420" {
			m += "@" + v.Address
		}
		list = append(list, m)
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

func (w *trio) isGroup(want string) {
	w.Helper()
	if is := w.members(); is != want {
		w.Errorf("the group is %q, want %q", is, want)
	}
}

func (w *trio) standbys() (list []string) {
	w.a.View(func(s *state.State) { list = s.Standbys() })
	return list
}

func TestClusterStatus(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		w.fine(w.a.add(t.Context(), "d", "d:7420", false)) // the leader has not heard of it
		sleep(time.Second)
		r, err := w.c.group().GetStatus(t.Context(), &schedv1.GetStatusRequest{})
		want := &schedv1.ClusterStatus{}
		unmarshal(t, want, `{"cluster_id":"test","leader_id":"a","term":"3","applied_index":"2","primaries":[
			{"id":"a","cluster_address":"a:7420","role":"PRIMARY_ROLE_LEADER","voter":true,"applied_index":"2","sessions":5,"version":"v-a","logs_missing":3},
			{"id":"b","cluster_address":"b:7420","role":"PRIMARY_ROLE_FOLLOWER","voter":true,"applied_index":"1","sessions":7,"version":"v-b","logs_missing":3,
			 "last_contact":"2000-01-01T00:00:00Z","clock_offset":"0.001s"},
			{"id":"c","cluster_address":"c:7420","role":"PRIMARY_ROLE_FOLLOWER","voter":true,"applied_index":"1","sessions":7,"version":"v-c","logs_missing":3,
			 "last_contact":"2000-01-01T00:00:00Z","clock_offset":"0.001s"},
			{"id":"d","cluster_address":"d:7420"}]}`)
		if d := cmp.Diff(want, r.GetStatus(), protocmp.Transform()); err != nil || d != "" {
			t.Error(err, d)
		}
	})
}

// What a primary lacked of the logs when others kept copies as well is not what it
// lacks now, and one without a vote keeps none.
func TestLogsMissing(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		show := func() (all []string) {
			r, err := w.c.group().GetStatus(t.Context(), &schedv1.GetStatusRequest{})
			w.fine(err)
			for _, p := range r.GetStatus().GetPrimaries() {
				is := p.GetId() + " ?"
				if p.LogsMissing != nil {
					is = fmt.Sprint(p.GetId(), " ", p.GetLogsMissing())
				}
				all = append(all, is)
			}
			return all
		}
		w.hear()
		if got, want := show(), []string{"a 3", "b 3", "c 3"}; !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		w.fine(w.a.add(t.Context(), "c", "c:7420", false))
		w.hear()
		if got, want := show(), []string{"a ?", "b ?", "c ?"}; !slices.Equal(got, want) {
			t.Errorf("when c votes no more: %v, want %v", got, want)
		}
	})
}

// A primary is added, moves, is made a standby, and gets its vote back.
func TestAddPrimary(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		ctx := t.Context()
		w.fine(w.b.add(ctx, "d", "10.0.0.4:7420", true))
		w.isGroup("-d@10.0.0.4:7420 a b c") // it votes when it has caught up, which others see to
		w.fine(w.b.add(ctx, "d", "d:7420", true))
		w.isGroup("-d a b c")
		w.fine(w.b.add(ctx, "e", "[fe80::1%eth0]:7420", false))
		w.isGroup("-d -e@[fe80::1%eth0]:7420 a b c")
		if is := w.standbys(); !slices.Equal(is, []string{"e"}) {
			t.Errorf("standbys: %v", is)
		}
		w.fine(w.b.add(ctx, "e", "e:7420", true))
		w.fine(w.b.add(ctx, "c", "c:1", true))
		w.isGroup("-d -e a b c@c:1")
		if is := w.standbys(); len(is) != 0 {
			t.Errorf("standbys: %v", is)
		}
		w.fine(w.b.add(ctx, "b", "b:7420", false))
		w.isGroup("-b -d -e a c@c:1")
		before := len(w.entries())
		w.fine(w.b.add(ctx, "b", "b:7420", false)) // again: nothing to do
		if n := len(w.entries()); n != before {
			t.Errorf("%d entries were written for nothing", n-before)
		}

		says(t, w.b.add(ctx, "f", "c:1", true), codes.AlreadyExists)
		says(t, w.b.add(ctx, "", "", true), codes.InvalidArgument, "id", "cluster_address")
		for _, bad := range []string{"x", ":7420", "0.0.0.0:7420", "[::]:7420", "h:0", "h:65536", "h:http", "a b:1", "http://h:1", "h:1:2", "-h:1", strings.Repeat("h", 254) + ":1"} {
			says(t, w.b.add(ctx, "f", bad, true), codes.InvalidArgument, "cluster_address")
		}
		for _, bad := range []string{"a b", "-a", ".", "ä", strings.Repeat("a", 254)} {
			says(t, w.b.add(ctx, bad, "f:1", true), codes.InvalidArgument, "id")
		}
	})
}

// A group never loses its majority by request.
func TestRemovePrimary(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		ctx := t.Context()
		says(t, w.b.remove(ctx, ""), codes.InvalidArgument, "id")
		err := w.b.remove(ctx, "x")
		if says(t, err, codes.NotFound); !strings.Contains(err.Error(), "there are a, b, c") {
			t.Error(err)
		}

		// c is dead: b can't be removed, c can.
		sleep(time.Minute)
		w.hear()
		delete(w.heard, "c")
		began := time.Now()
		err = w.b.remove(ctx, "b")
		if says(t, err, codes.FailedPrecondition); !strings.Contains(err.Error(), "nothing is heard of c") {
			t.Error(err)
		}
		w.took(began, hearFor)
		w.hear()
		delete(w.heard, "c")
		w.fine(w.b.remove(ctx, "c"))
		w.isGroup("a b")

		// One of two can be removed while both live, and then the last one can't.
		w.hear()
		w.fine(w.b.remove(ctx, "b"))
		w.isGroup("a")
		began = time.Now()
		for _, err := range []error{w.a.remove(ctx, "a"), w.a.add(ctx, "a", "a:7420", false)} {
			if says(t, err, codes.FailedPrecondition); !strings.Contains(err.Error(), "it is the only one that votes") {
				t.Error(err)
			}
		}
		w.isGroup("a")
		w.took(began, 0) // there is nobody to listen for

		// One without a vote can always be, and what was said of it goes with it.
		w.fine(w.a.add(ctx, "d", "d:7420", false))
		w.fine(w.a.remove(ctx, "d"))
		w.isGroup("a")
		if is := w.standbys(); len(is) != 0 {
			t.Errorf("standbys: %v", is)
		}
		// So it does if that was all that a first try did not come to.
		w.agree(state.SetStandby{ID: "e", Standby: true})
		says(t, w.a.remove(ctx, "e"), codes.NotFound)
		if is := w.standbys(); len(is) != 0 {
			t.Errorf("standbys: %v", is)
		}
	})
}

// The leader can be removed, whichever primary is asked: it hands over first. So
// it is with its vote.
func TestRemoveLeader(t *testing.T) {
	for _, asked := range []string{"a", "b", "c"} {
		together(t, func(t *testing.T, w *trio) {
			w.fine(w.node(asked).remove(t.Context(), "a"))
			w.isGroup("b c")
			if !w.b.leads() {
				t.Error("b does not lead")
			}
		})
		together(t, func(t *testing.T, w *trio) {
			w.fine(w.node(asked).add(t.Context(), "a", "a:7420", false))
			w.isGroup("-a b c")
		})
	}
	together(t, func(t *testing.T, w *trio) {
		w.a.transfer = func(string) error { return errors.New("nobody takes over") }
		says(t, w.b.remove(t.Context(), "a"), codes.Aborted)
		w.isGroup("a b c")
	})
}

// A leader that has just been elected has heard of nobody. It listens before it
// says that others are silent.
func TestNewLeaderListensBeforeItRefuses(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		sleep(time.Minute)
		began := time.Now()
		time.AfterFunc(time.Second-hearEvery/2, w.hear)
		w.fine(w.a.remove(t.Context(), "b"))
		w.isGroup("a c")
		w.took(began, time.Second)
		sleep(time.Minute)
		began = time.Now()
		w.fine(w.a.remove(t.Context(), "c")) // one is left, and that is itself
		w.took(began, 0)
	})
}

// Whatever the group is like, what is let go leaves a majority that lives, and
// nothing else is refused.
func TestEnoughWithout(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		voters := rapid.IntRange(1, 7).Draw(t, "voters")
		standbys := rapid.IntRange(0, 3).Draw(t, "standbys")
		var servers []raftstore.Server
		silent := map[string]bool{}
		for i := range voters + standbys {
			id := fmt.Sprint(i)
			servers = append(servers, raftstore.Server{ID: id, Voter: i < voters})
			silent[id] = rapid.Bool().Draw(t, "silent")
		}
		gone := rapid.IntRange(0, voters-1).Draw(t, "gone")
		live := 0
		for i := range voters {
			if i != gone && !silent[fmt.Sprint(i)] {
				live++
			}
		}
		e := without(servers, fmt.Sprint(gone), func(id string) bool { return silent[id] })
		if fine := 2*live > voters-1; fine != (e.problem() == "") {
			t.Errorf("of %d others with a vote %d live, and it says %q", voters-1, live, e.problem())
		}
	})
}

func TestTransferLeadership(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		ctx := t.Context()
		for _, to := range []string{"c", "b", "b", ""} { // b twice: there is nothing to do
			s, err := w.a.handTo(ctx, to)
			w.fine(err)
			if to == "" {
				to = "c"
			}
			if s.GetLeaderId() != to || !w.node(to).leads() {
				t.Errorf("asked for %s: %v", to, s)
			}
			w.hear()
		}
		w.lead("a")
		refused := func(id string, code codes.Code, why string) {
			t.Helper()
			_, err := w.b.handTo(ctx, id)
			if says(t, err, code); !strings.Contains(err.Error(), why) {
				t.Errorf("to %q: %v, want %q", id, err, why)
			}
		}
		refused("x", codes.NotFound, "there are a, b, c")
		w.fine(w.a.add(ctx, "d", "d:7420", true))
		refused("d", codes.FailedPrecondition, "has no vote")
		for range farBehind + 1 {
			w.agree()
		}
		refused("b", codes.FailedPrecondition, "is 251 log entries behind")
		w.hear()
		w.a.transfer = func(string) error { return errors.New("timed out") }
		refused("b", codes.Aborted, "timed out: a goes on leading")
		w.a.transfer = func(string) error { return fmt.Errorf("hand over: %w", raftstore.ErrUnknown) }
		_, err := w.b.handTo(ctx, "b")
		w.reason(err, reasonUnknown)
		w.a.transfer = nil
		sleep(time.Minute)
		refused("b", codes.FailedPrecondition, "nothing is heard of primary b")
		w.hear()
		_, err = w.b.handTo(ctx, "a b")
		says(t, err, codes.InvalidArgument, "id")

		// The answer waits until somebody is known to lead.
		w.a.transfer = func(string) error {
			w.lead("")
			time.AfterFunc(time.Second, func() { w.lead("b") })
			return nil
		}
		s, err := w.a.handTo(ctx, "b")
		w.fine(err)
		if s.GetLeaderId() != "b" {
			t.Errorf("it says %v", s)
		}
	})
	story(t, func(t *testing.T, p *primary) {
		_, err := p.cluster.TransferLeadership(t.Context(), &schedv1.TransferLeadershipRequest{})
		says(t, err, codes.FailedPrecondition)
	})
}

// Addresses of workers to dial are put on a list, which any primary tells, and taken
// off it.
func TestDirectWorkers(t *testing.T) {
	together(t, func(t *testing.T, w *trio) {
		ctx := t.Context()
		workers := schedv1.NewWorkerServiceClient(w.b.conn)
		add := func(address string) ([]string, error) {
			r, err := workers.AddDirectWorker(ctx, &schedv1.AddDirectWorkerRequest{Address: address})
			return r.GetAddresses(), err
		}
		remove := func(address string) ([]string, error) {
			r, err := workers.RemoveDirectWorker(ctx, &schedv1.RemoveDirectWorkerRequest{Address: address})
			return r.GetAddresses(), err
		}
		is := func(want ...string) func([]string, error) {
			t.Helper()
			return func(list []string, err error) {
				t.Helper()
				r, err2 := workers.ListDirectWorkers(ctx, &schedv1.ListDirectWorkersRequest{})
				if err := errors.Join(err, err2); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(list, want) || !slices.Equal(r.GetAddresses(), want) {
					t.Errorf("the list is %q and %q, want %q", list, r.GetAddresses(), want)
				}
			}
		}
		is("shop:7430")(add("shop:7430"))
		is("shop:7430")(add("shop:7430"))
		is("10.0.0.1:7430", "shop:7430")(add("10.0.0.1:7430"))
		is("10.0.0.1:7430")(remove("shop:7430"))
		_, err := remove("shop:7430")
		says(t, err, codes.NotFound)
		for _, bad := range []string{"", "shop", "shop:0", ":7430", "0.0.0.0:7430"} {
			_, err := add(bad)
			says(t, err, codes.InvalidArgument, "address")
		}
		_, err = remove("")
		says(t, err, codes.InvalidArgument, "address")
		for i := range state.MaxTable {
			w.agree(state.SetDirect{Address: fmt.Sprintf("w%d:1", i)})
		}
		_, err = add("one-more:7430")
		says(t, err, codes.ResourceExhausted)
	})
}

// A worker that was dialled is told from one that has dialled.
func TestWorkerMode(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		for _, id := range []string{"dials", "listens"} {
			p.worker(id)
			p.crew.connect(id)
		}
		s := p.crew.sessions["listens"]
		s.Direct = true
		p.crew.sessions["listens"] = s
		if m := p.getWorker("listens").GetMode(); m != schedv1.Worker_DIRECT {
			t.Errorf("mode %v", m)
		}
		r, err := p.workers.ListWorkers(t.Context(), &schedv1.ListWorkersRequest{Filter: "mode=REVERSE"})
		if err != nil || len(r.GetWorkers()) != 1 || r.GetWorkers()[0].GetId() != "dials" {
			t.Errorf("%v, %v", r, err)
		}
	})
}

// What comes in pieces of any size is read as it was written.
func TestPieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var wrote, sent []byte
		var queue [][]byte
		w := &pieces{send: func(p []byte) error {
			if len(p) == 0 || len(p) > snapshotPiece {
				t.Errorf("a piece of %d bytes", len(p))
			}
			queue = append(queue, p)
			sent = append(sent, p...)
			return nil
		}}
		for _, n := range rapid.SliceOfN(rapid.IntRange(0, 2*snapshotPiece), 0, 3).Draw(t, "writes") {
			p := someBytes(n)
			wrote = append(wrote, p...)
			if n, err := w.Write(p); n != len(p) || err != nil {
				t.Fatalf("wrote %d of %d: %v", n, len(p), err)
			}
			clear(p) // it is the writer's again
		}
		if err := w.flush(); err != nil || string(sent) != string(wrote) {
			t.Fatalf("sent %d bytes, wrote %d, or they differ: %v", len(sent), len(wrote), err)
		}
		r := &received{next: func() ([]byte, error) {
			if len(queue) == 0 {
				return nil, io.EOF
			}
			p := queue[0]
			queue = queue[1:]
			return p, nil
		}}
		if got, err := io.ReadAll(r); err != nil || string(got) != string(wrote) {
			t.Errorf("read %d bytes, wrote %d, or they differ: %v", len(got), len(wrote), err)
		}
	})
}

// A send that fails ends the writing, and is told.
func TestPiecesFail(t *testing.T) {
	bad := status.Error(codes.Canceled, "gone")
	w := &pieces{send: func([]byte) error { return bad }}
	if n, err := w.Write(make([]byte, 2*snapshotPiece)); !errors.Is(err, bad) || n != snapshotPiece {
		t.Errorf("wrote %d, %v", n, err)
	}
}
