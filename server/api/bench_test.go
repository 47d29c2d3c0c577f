package api

import (
	"testing"
	"time"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore/state"
)

// BenchmarkListRuns lists runs of a history of 200,000: the latest ones, and
// those that a filter has to look for.
func BenchmarkListRuns(b *testing.B) {
	store := newMemory()
	definition := &state.Definition{Policy: &state.Policy{Overlap: state.OverlapAllow}}
	for i, name := range []string{"often", "rare"} {
		k := state.JobKey{Namespace: "default", Name: name}
		j := store.apply(state.PutJob{Key: k, Definition: definition, Effective: time.Now()})[0].Job
		for n := range []int{200000, 10}[i] {
			r := state.Request{
				Key: k, UID: j.UID, Version: j.Version, Activity: store.state.Activity(j.UID),
				ID: state.OccurrenceRunID(j.UID, "t", time.Unix(int64(n), 0)), Birth: state.Birth{Phase: state.Pending, Nominal: time.Unix(int64(n), 0)},
			}
			store.apply(r, state.Cancel{Run: r.ID})
		}
	}
	s := New(Config{Store: store, History: noPast{}, Group: store})
	for _, filter := range []string{"", "job=often", "job=rare", "phase=PHASE_FAILED,worker=w"} {
		b.Run(filter, func(b *testing.B) {
			for b.Loop() {
				if _, err := (runService{Server: s}).ListRuns(b.Context(), &schedv1.ListRunsRequest{Filter: filter}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
