package main

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	scheddv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/proto/wire"
)

// demoTimeout bounds the wait for the primary to lead.
const demoTimeout = 30 * time.Second

// defineDemo defines a few jobs worth looking at, by the same API that users
// have.
func defineDemo(ctx context.Context, addr string) error {
	options := append(wire.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	conn, err := grpc.NewClient("passthrough:///"+addr, options...)
	if err != nil {
		return fmt.Errorf("reach the API at %s: %w", addr, err)
	}
	defer func() { _ = conn.Close() }() // nothing is under way by then
	ctx, cancel := context.WithTimeout(ctx, demoTimeout)
	defer cancel()
	jobs := scheddv1.NewJobServiceClient(conn)
	for _, j := range demoJobs() {
		if _, err := jobs.PutJob(ctx, &scheddv1.PutJobRequest{Job: j}, grpc.WaitForReady(true)); err != nil {
			return fmt.Errorf("define the demo job %s: %w", j.GetName(), err)
		}
	}
	return nil
}

func demoJobs() []*scheddv1.Job {
	return []*scheddv1.Job{
		{
			Name: "hello", Description: "Says hello every ten seconds.", Labels: map[string]string{"demo": "yes"},
			Triggers: []*scheddv1.Trigger{every("often", 10*time.Second)},
			Task:     script(`echo "hello from $SCHEDD_JOB, due at $SCHEDD_SCHEDULED_AT, attempt $SCHEDD_ATTEMPT, fence $SCHEDD_FENCE"`),
		},
		{
			Name: "nightly-report", Description: "Half past two in Berlin, once on each day, also when the clocks change.",
			Labels: map[string]string{"demo": "yes", "team": "data"},
			Triggers: []*scheddv1.Trigger{{Id: "nightly", When: &scheddv1.Trigger_Cron{
				Cron: &scheddv1.Cron{Expression: "30 2 * * *", TimeZone: "Europe/Berlin"},
			}}},
			Task:   script("echo collecting; sleep 2; echo done"),
			Target: &scheddv1.Target{Selector: "zone=here"},
		},
		{
			Name: "slow", Description: "Takes 45 seconds and is due each 30: every other one is skipped.",
			Labels:   map[string]string{"demo": "yes"},
			Triggers: []*scheddv1.Trigger{every("half-a-minute", 30*time.Second)},
			Task:     script("for i in 1 2 3 4 5 6 7 8 9; do echo step $i of 9; sleep 5; done"),
			Policy:   &scheddv1.Policy{Overlap: scheddv1.Overlap_OVERLAP_SKIP},
		},
		{
			Name: "flaky", Description: "Fails at first, and succeeds at its second attempt.", Labels: map[string]string{"demo": "yes"},
			Triggers: []*scheddv1.Trigger{every("minutely", time.Minute)},
			Task:     script(`echo "attempt $SCHEDD_ATTEMPT"; [ "$SCHEDD_ATTEMPT" -ge 2 ] || exit 75`),
			Policy: &scheddv1.Policy{Retry: &scheddv1.Retry{
				MaxAttempts: 3, InitialDelay: durationpb.New(2 * time.Second), ExitCodes: []int32{75},
			}},
		},
	}
}

func every(id string, d time.Duration) *scheddv1.Trigger {
	return &scheddv1.Trigger{Id: id, When: &scheddv1.Trigger_Every{Every: &scheddv1.Every{Interval: durationpb.New(d)}}}
}

func script(body string) *scheddv1.Task {
	return &scheddv1.Task{Do: &scheddv1.Task_Script{Script: &scheddv1.Script{Body: body}}}
}
