package raftstore

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/schedd/schedd/raftstore/raftstoretest"
	"github.com/schedd/schedd/raftstore/state"
)

func parseHeader(line []byte) (h savedHeader) {
	_ = json.Unmarshal(line, &h)
	return h
}

// sealed puts a first line, what follows and a checksum that fits together.
func sealed(h savedHeader, content []byte) []byte {
	line, err := json.Marshal(h)
	if err != nil {
		panic(err)
	}
	b := append(append(line, '\n'), content...)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// Whatever the bytes of a saved snapshot are, reading it gives an error, or a state
// of which the same can be saved.
func FuzzInspectSnapshot(f *testing.F) {
	s := state.New()
	k := state.JobKey{Namespace: "default", Name: "a"}
	s.Apply(1, state.Entry{Now: raftstoretest.Start, Commands: []state.Command{
		state.InitCluster{ClusterID: "c"},
		state.PutJob{Key: k, Effective: raftstoretest.Start, Definition: &state.Definition{Policy: &state.Policy{}, Triggers: []*state.Trigger{{ID: "t", Every: &state.Every{Interval: time.Second}}}}},
		state.PutWorker{ID: "w", Says: state.WorkerInfo{Slots: 1}},
		state.SetStandby{ID: "z", Standby: true},
		state.SetDirect{Address: "10.0.0.7:7422"},
		state.ClockJumped{Was: raftstoretest.Start, Is: raftstoretest.Start.Add(time.Hour)},
	}})
	f.Add(savedOf(f, s))
	f.Add(savedOf(f, state.New()))
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if line, rest, ok := bytes.Cut(data, []byte("\n")); ok {
			// With a size and checksums that fit, so that fuzzing gets past them.
			h := parseHeader(line)
			content := resealed(rest)
			h.Format, h.Size = savedFormat, int64(len(content))
			inspect(t, sealed(h, content))
		}
		inspect(t, data)
	})
}

func inspect(t *testing.T, data []byte) {
	info, n, err := readSaved(bytes.NewReader(data), MaxSnapshot)
	if err != nil {
		return
	}
	if info.Jobs != len(n.Jobs) || info.Index != n.Index || info.Size > int64(len(data)) {
		t.Fatalf("info %+v of %d bytes", info, len(data))
	}
	again, err := InspectSnapshot(bytes.NewReader(savedOf(t, n.Restore())))
	if err != nil {
		t.Fatalf("what was read can't be saved: %v", err)
	}
	again.Size, again.Term, again.Taken, again.Servers = info.Size, info.Term, info.Taken, info.Servers
	if diff := cmp.Diff(info, again); diff != "" {
		t.Fatalf("it came back otherwise:\n%s", diff)
	}
}
