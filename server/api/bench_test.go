package api

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore/state"
)

// BenchmarkListRuns lists runs of 200,000 that are in memory, as after a minute of many
// jobs that are due each second: the latest ones, and those that a filter has to look
// for. The baseline is the latest.
func BenchmarkListRuns(b *testing.B) {
	const jobs = 5_000
	s := withRuns(200_000, jobs)
	for _, filter := range []string{"", "job=report-%d", "job=nothing-%d", "phase=PHASE_FAILED", "worker=worker-7", "phase=PHASE_FAILED,worker=w"} {
		b.Run(filter, func(b *testing.B) {
			began := cpuTime()
			for n := 0; b.Loop(); n++ {
				req := &schedv1.ListRunsRequest{Filter: filter}
				if filter != "" && filter[len(filter)-1] == 'd' {
					req.Filter = fmt.Sprintf(filter, n*7919%jobs+1)
				}
				if _, err := (runService{Server: s}).ListRuns(b.Context(), req); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric((cpuTime()-began).Seconds()*1e3/float64(b.N), "cpu-ms/op")
		})
	}
}

// withRuns returns a server that has runs in memory which have ended, of so many jobs in
// turn, from report-1 on, and of a hundred workers.
func withRuns(runs, jobs int) *Server {
	const workers = 100
	snap := &state.Snapshot{Now: time.Now()}
	for n := range runs {
		uid := uint64(n%jobs + 1)
		r := &state.Run{
			Job: state.JobKey{Namespace: "default", Name: fmt.Sprint("report-", uid)}, UID: uid, Version: 1, Trigger: "t",
			Phase: state.Succeeded, Serial: uint64(n + 1), Created: snap.Now.Add(time.Duration(n-runs) * time.Millisecond),
		}
		r.Nominal, r.Finished = r.Created, r.Created.Add(time.Second)
		r.ID = state.OccurrenceRunID(uid, r.Trigger, r.Nominal)
		r.Attempts = []state.Attempt{{
			Number: 1, Fence: r.Serial, Worker: state.WorkerID(fmt.Sprint("w-", n%workers)), WorkerName: fmt.Sprint("worker-", n%workers),
			Assigned: r.Created, Started: r.Created, Finished: r.Finished, Outcome: state.OutcomeSucceeded,
		}}
		snap.Runs = append(snap.Runs, r)
	}
	store := newMemory()
	store.state = snap.Restore()
	return New(Config{Store: store, History: noPast{}, Group: store})
}

// cpuTime returns how much of the processors this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
