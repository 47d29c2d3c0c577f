package api

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/plan"
)

// Whatever a job says, PutJob answers with a status that it knows; and what it
// takes can be scheduled, and is shown as it was stored.
func FuzzPutJob(f *testing.F) {
	for _, j := range []*schedv1.Job{
		{},
		aJob("j"),
		aJob("j", func(j *schedv1.Job) {
			j.Triggers = append(j.Triggers, &schedv1.Trigger{When: cron("H H(1-5) * * *", "Europe/Berlin")})
		}),
		aJob("j", func(j *schedv1.Job) {
			j.Triggers[0].Exclude = []*schedv1.Exclusion{{What: &schedv1.Exclusion_Date{Date: "2030-01-01"}}}
			j.Policy = &schedv1.Policy{Retry: &schedv1.Retry{Multiplier: 3, ExitCodes: []int32{75}}, Timeout: durationpb.New(time.Hour)}
			j.Target = &schedv1.Target{Selector: "a in (b,c),!d", Strategy: schedv1.Strategy_STRATEGY_SPREAD}
			j.Task = &schedv1.Task{Do: &schedv1.Task_Script{Script: &schedv1.Script{Body: "echo"}}, Env: map[string]string{"A": "b"}}
		}),
	} {
		b, err := proto.Marshal(j)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	store := newMemory()
	s := New(Config{Store: store, History: noPast{}, Group: store})
	f.Fuzz(func(t *testing.T, b []byte) {
		var j schedv1.Job
		if proto.Unmarshal(b, &j) != nil {
			return
		}
		r, err := jobService{Server: s}.PutJob(t.Context(), &schedv1.PutJobRequest{Job: &j})
		switch code := status.Code(toStatus(nil, "", err)); code { // an error without a code panics: there is no log
		case codes.OK:
		case codes.InvalidArgument, codes.Unimplemented:
			return
		default:
			t.Fatalf("%v: %v", code, err)
		}
		k := state.JobKey{Namespace: r.GetJob().GetNamespace(), Name: r.GetJob().GetName()}
		var stored *state.Job
		store.View(func(s *state.State) { stored = s.Job(k) })
		for i := range stored.Definition.Triggers {
			if _, err := plan.Compile(k, stored.Definition.Triggers[i]); err != nil {
				t.Fatal(err)
			}
		}
		again, err := jobService{Server: s}.PutJob(t.Context(), &schedv1.PutJobRequest{Job: r.GetJob()})
		if err != nil || again.GetJob().GetVersion() != r.GetJob().GetVersion() {
			t.Fatalf("applied again: %v, %v", again, err)
		}
	})
}

// Whatever a filter or a token says, it is read or refused.
func FuzzList(f *testing.F) {
	f.Add("job=a,phase in (PHASE_FAILED),!active", "")
	f.Add("labels.x>1,paused", "eyJ2IjoxLCJxIjoiMSJ9")
	s := New(Config{Store: newMemory(), History: noPast{}})
	f.Fuzz(func(t *testing.T, filter, token string) {
		_, err := runService{Server: s}.ListRuns(t.Context(), &schedv1.ListRunsRequest{Filter: filter, PageToken: token})
		_, err2 := jobService{Server: s}.ListJobs(t.Context(), &schedv1.ListJobsRequest{Filter: filter, PageToken: token})
		for _, err := range []error{err, err2} {
			if code := status.Code(toStatus(nil, "", err)); code != codes.OK && code != codes.InvalidArgument {
				t.Fatalf("%v: %v", code, err)
			}
		}
	})
}
