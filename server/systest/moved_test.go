package systest

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// All primaries get new addresses at the same time. They find each other by their
// lists, and then the group has the new addresses. One of them that moves once more,
// by itself, is found too.
func TestAllPrimariesMove(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		w.startWorker("shop-1", nil, 10)
		w.awaitOnline()
		w.does("j", talker(time.Second, 0))
		w.define(job("j", every(10*time.Second), overlapAllowed))
		w.wait(time.Minute)
		for _, m := range w.group {
			m.kill()
			m.move(m.id + "-new")
		}
		for _, m := range w.group {
			m.start()
		}
		w.wait(30 * time.Second)
		w.areWhereTheyAre()
		m := w.group[2]
		m.leave()
		m.move(m.id + "-newer")
		m.start()
		w.wait(30 * time.Second)
		w.areWhereTheyAre()
		w.settle(time.Hour)
		w.all(w.runsOf("j"), phaseSucceeded)
	})
}

// areWhereTheyAre holds what each primary says of the addresses of all against where
// they are.
func (w *world) areWhereTheyAre() {
	w.Helper()
	for _, asked := range w.alive() {
		list := must[*schedv1.GetStatusResponse](w)(asked.own.clusters.GetStatus(w.Context(), &schedv1.GetStatusRequest{})).GetStatus().GetPrimaries()
		if len(list) != len(w.group) {
			w.Errorf("%s sees the group %v", asked.id, list)
			continue
		}
		for i, m := range w.group {
			if p := list[i]; p.GetId() != m.id || p.GetClusterAddress() != m.address() || !p.GetVoter() {
				w.Errorf("%s sees %v, want %s with a vote at %s", asked.id, p, m.id, m.address())
			}
		}
	}
}

// One of three is started where another one was, and the others are away. Raft goes by
// addresses, and must not take itself for that one.
func TestOwnVoiceCountsOnce(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		before := must[*schedv1.GetStatusResponse](w)(w.group[0].own.clusters.GetStatus(w.Context(), &schedv1.GetStatusRequest{})).GetStatus()
		for _, m := range w.group {
			m.kill()
		}
		w.group[0].move("p2")
		w.group[1].move("p1")
		w.group[0].start()
		w.wait(time.Minute)
		after := must[*schedv1.GetStatusResponse](w)(w.group[0].own.clusters.GetStatus(w.Context(), &schedv1.GetStatusRequest{})).GetStatus()
		if after.GetTerm() != before.GetTerm() || after.GetLeaderId() != "" {
			w.Errorf("of one of three the status was %v, and is %v", before, after)
		}
	})
}

// A new primary is started under the name of one that lives, the leader even. The
// group goes on as if nothing had happened.
func TestNamesakeOfThePrimary(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		w.startWorker("shop-1", nil, 10)
		w.awaitOnline()
		w.does("j", talker(time.Second, 0))
		w.define(job("j", every(10*time.Second), overlapAllowed))
		w.wait(30 * time.Second)
		leader := w.awaitLeader()
		status := func() *schedv1.ClusterStatus {
			return must[*schedv1.GetStatusResponse](w)(leader.own.clusters.GetStatus(w.Context(), &schedv1.GetStatusRequest{})).GetStatus()
		}
		before := status()
		second := leader.namesake("p4")
		w.wait(5 * time.Minute)
		if after := status(); after.GetTerm() != before.GetTerm() || after.GetLeaderId() != leader.id {
			w.Errorf("the group was %v, and is %v", before, after)
		}
		w.areWhereTheyAre()
		second.kill()
		w.settle(time.Hour)
		w.all(w.runsOf("j"), phaseSucceeded)
	})
}

// A primary that was removed is given no calls any more, soon.
func TestRemovedPrimaryIsNotReady(t *testing.T) {
	story(t, func(w *world) {
		w.startGroup(3)
		w.wait(30 * time.Second)
		m := w.group[0]
		if m == w.awaitLeader() {
			m = w.group[1]
		}
		must[*schedv1.RemovePrimaryResponse](w)(w.awaitLeader().own.clusters.RemovePrimary(w.Context(), &schedv1.RemovePrimaryRequest{Id: m.id}))
		w.wait(4 * time.Second)
		r := must[*grpc_health_v1.HealthCheckResponse](w)(grpc_health_v1.NewHealthClient(m.own.conn).Check(w.Context(), &grpc_health_v1.HealthCheckRequest{}))
		if r.GetStatus() != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
			w.Errorf("%s was removed 4 s ago, and is %v", m.id, r.GetStatus())
		}
		if log := w.tail.String(); strings.Contains(log, "another primary leads") || !strings.Contains(log, "no leader is known any more") {
			w.Errorf("another one leads:\n%s", log)
		}
	})
}
