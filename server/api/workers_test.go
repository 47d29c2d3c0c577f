package api

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/lead"
	"github.com/schedd/schedd/server/peer"
)

var (
	_ Presence  = (*lead.Inbox)(nil)
	_ Primaries = (*peer.Hub)(nil)
	_ Cluster   = (*raftstore.Store)(nil)
	_ Gateway   = (*peer.Hub)(nil)
)

func (p *primary) getWorker(id string) *schedv1.Worker {
	p.t.Helper()
	w, err := p.workers.GetWorker(p.t.Context(), &schedv1.GetWorkerRequest{Id: id})
	if err != nil {
		p.t.Fatal(err)
	}
	return w.GetWorker()
}

func TestWorkerPhases(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		p.worker("w")
		phase := func(want string) *schedv1.Worker {
			t.Helper()
			w := p.getWorker("w")
			if got := strings.TrimPrefix(w.GetPhase().String(), "WORKER_PHASE_"); got != want {
				t.Errorf("phase %s, want %s", got, want)
			}
			return w
		}
		if w := phase("OFFLINE"); w.GetGateway() != "" || w.GetConnectedTime() != nil || w.GetLastSeenTime() != nil {
			t.Errorf("not connected: %v", w)
		}
		p.crew.connect("w")
		w := phase("ONLINE")
		want := &schedv1.Worker{}
		unmarshal(t, want, `{"id":"w","name":"name-w","labels":{"zone":"eu"},"slots":10,"phase":"WORKER_PHASE_ONLINE","advertise":{},"gateway":"p1",
			"observed_address":"192.0.2.1:4000","session_epoch":"7","mode":"REVERSE","first_seen_time":"2000-01-01T00:00:00Z",
			"connected_time":"2000-01-01T00:00:00Z","last_seen_time":"2000-01-01T00:00:01Z"}`)
		if d := cmp.Diff(want, w, protocmp.Transform()); d != "" {
			t.Error(d)
		}
		p.crew.trouble = map[string]string{"w": "the disk is full"}
		if w := phase("ONLINE"); w.GetTrouble() != "the disk is full" {
			t.Errorf("in trouble: %v", w)
		}
		p.crew.trouble = nil
		drain := func(undo bool) {
			if _, err := p.workers.DrainWorker(t.Context(), &schedv1.DrainWorkerRequest{Id: "w", Undo: undo, Note: "disk"}); err != nil {
				t.Fatal(err)
			}
		}
		drain(false)
		if w := phase("DRAINING"); w.GetDraining().GetNote() != "disk" {
			t.Errorf("draining: %v", w)
		}
		drain(true)
		phase("ONLINE")
		p.crew.Cut("w", "", false)
		sleep(time.Minute)
		p.do(state.SetOffline{ID: "w"})
		if w := phase("OFFLINE"); !w.GetLastSeenTime().AsTime().Equal(time.Now()) {
			t.Errorf("offline: %v", w)
		}
		_, err := p.workers.GetWorker(t.Context(), &schedv1.GetWorkerRequest{Id: "x"})
		says(t, err, codes.NotFound)
		_, err = p.workers.GetWorker(t.Context(), &schedv1.GetWorkerRequest{})
		says(t, err, codes.InvalidArgument, "id")
	})
}

func TestUpdateWorker(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		p.worker("w")
		update := func(req *schedv1.UpdateWorkerRequest) (*schedv1.Worker, error) {
			req.Id = "w"
			r, err := p.workers.UpdateWorker(t.Context(), req)
			return r.GetWorker(), err
		}
		w, err := update(&schedv1.UpdateWorkerRequest{SetLabels: map[string]string{"zone": "us", "gpu": ""}, Slots: proto.Uint32(3)})
		if err != nil || w.GetSlots() != 3 || w.GetLabels()["zone"] != "us" || len(w.GetLabels()) != 2 {
			t.Errorf("updated: %v, %v", w, err)
		}
		w, err = update(&schedv1.UpdateWorkerRequest{RemoveLabels: []string{"zone", "nope"}})
		if err != nil || w.GetSlots() != 3 || w.GetLabels()["zone"] != "eu" {
			t.Errorf("updated: %v, %v", w, err)
		}
		w, err = update(&schedv1.UpdateWorkerRequest{Slots: proto.Uint32(0)})
		if err != nil || w.GetSlots() != 10 {
			t.Errorf("updated: %v, %v", w, err)
		}
		_, err = update(&schedv1.UpdateWorkerRequest{SetLabels: map[string]string{"a b": "", "c": ""}, RemoveLabels: []string{"", "c"}, Slots: proto.Uint32(10001)})
		says(t, err, codes.InvalidArgument, `set_labels["a b"]`, "remove_labels[0]", "remove_labels[1]", "slots")
		many := map[string]string{}
		for i := range 64 {
			many[fmt.Sprint("n", i)] = ""
		}
		if _, err = update(&schedv1.UpdateWorkerRequest{SetLabels: many, RemoveLabels: []string{"gpu"}}); err != nil {
			t.Error(err)
		}
		_, err = update(&schedv1.UpdateWorkerRequest{SetLabels: map[string]string{"one-more": ""}})
		says(t, err, codes.InvalidArgument, "set_labels")
		_, err = p.workers.UpdateWorker(t.Context(), &schedv1.UpdateWorkerRequest{Id: "x"})
		says(t, err, codes.NotFound)
	})
}

func TestRemoveWorker(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		remove := func(force bool) error {
			_, err := p.workers.RemoveWorker(t.Context(), &schedv1.RemoveWorkerRequest{Id: "w", Force: force})
			return err
		}
		says(t, remove(true), codes.NotFound)
		p.worker("w")
		p.crew.connect("w")
		says(t, remove(false), codes.FailedPrecondition) // connected
		p.crew.Cut("w", "", false)
		p.crew.cut = nil
		p.put(aJob("j", allow))
		p.put(aJob("retries", allow, func(j *schedv1.Job) { j.Policy.OnLost = schedv1.OnLost_ON_LOST_RETRY }))
		r, again := p.run("j"), p.run("retries")
		p.start(r, "w")
		p.start(again, "w")
		says(t, remove(false), codes.FailedPrecondition) // busy
		p.crew.connect("w")
		p.store.before = func() { p.start(p.run("j"), "w") } // the leader gives it one more
		if err := remove(true); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]string{"w"}, p.crew.cut); d != "" {
			t.Error(d)
		}
		if got := p.get(r); got.GetPhase() != schedv1.Phase_PHASE_LOST || !strings.Contains(got.GetReason(), "removed by force") {
			t.Errorf("its run is %v", got)
		}
		if got := p.get(again); got.GetPhase() != schedv1.Phase_PHASE_PENDING {
			t.Errorf("its run that is retried when lost is %v", got)
		}
		p.worker("w")
		if err := remove(false); err != nil {
			t.Error(err)
		}
	})
}

func TestListWorkers(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		for _, w := range []struct{ id, name, zone string }{{"1", "c", "eu"}, {"2", "a", "eu"}, {"3", "b", "us"}, {"4", "a", "us"}} {
			p.do(state.PutWorker{ID: state.WorkerID(w.id), Says: state.WorkerInfo{Name: w.name, Labels: map[string]string{"zone": w.zone}}})
		}
		p.crew.connect("3")
		for filter, want := range map[string]string{
			"":                           "2 4 3 1",
			"phase=WORKER_PHASE_ONLINE":  "3",
			"phase!=WORKER_PHASE_ONLINE": "2 4 1",
			"labels.zone=eu":             "2 1",
			"name=a,id!=2":               "4",
		} {
			var got []string
			req := &schedv1.ListWorkersRequest{Filter: filter, PageSize: 1}
			for {
				r, err := p.workers.ListWorkers(t.Context(), req)
				if err != nil {
					t.Fatal(err)
				}
				for _, w := range r.GetWorkers() {
					got = append(got, w.GetId())
				}
				if req.PageToken = r.GetNextPageToken(); req.GetPageToken() == "" {
					break
				}
			}
			if d := cmp.Diff(want, strings.Join(got, " ")); d != "" {
				t.Errorf("%q: %s", filter, d)
			}
		}
		_, err := p.workers.ListWorkers(t.Context(), &schedv1.ListWorkersRequest{Filter: "phase=ONLINE"})
		says(t, err, codes.InvalidArgument, "filter")
	})
}
