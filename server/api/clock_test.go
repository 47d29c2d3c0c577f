package api

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/plan"
)

// A clock that was a day ahead for a moment, and is right again, does not keep
// a new job from running today: nothing of it has been decided.
func TestNewJobAfterAClockThatWasAheadRunsToday(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		p.store.ahead = 24 * time.Hour
		p.store.apply(state.InitCluster{ClusterID: "x"}) // any entry
		p.store.ahead = 0
		j := p.put(aJob("j"))
		if in := time.Until(j.GetNextTime().AsTime()); in > 2*time.Minute {
			t.Errorf("a job that is due each minute comes next in %v", in)
		}
	})
}

// A clock was an hour ahead for a moment, and is right again. Who edits, pauses or
// resumes a job meanwhile does not have the hour decided that nobody has lived through,
// and what is to happen within that hour is not refused as past.
func TestChangeAfterAClockThatWasAhead(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		p.put(aJob("j"))
		p.store.ahead = time.Hour
		p.store.apply(state.InitCluster{ClusterID: "x"}) // any entry
		p.store.ahead = 0
		decided := func(what string) {
			t.Helper()
			p.store.View(func(s *state.State) {
				j := s.Job(state.JobKey{Namespace: "default", Name: "j"})
				if until := s.Track(j.UID, "every").DecidedUntil; until.After(time.Now()) {
					t.Errorf("after it was %s it is decided until %v, %v ahead", what, until, time.Until(until))
				}
			})
		}
		sleep(90 * time.Second)
		p.put(aJob("j", func(j *schedv1.Job) { j.Description = "x" }))
		decided("described")
		if _, err := p.jobs.PauseJob(t.Context(), &schedv1.PauseJobRequest{Name: "j"}); err != nil {
			t.Fatal(err)
		}
		decided("paused")
		sleep(time.Minute)
		if _, err := p.jobs.ResumeJob(t.Context(), &schedv1.ResumeJobRequest{Name: "j"}); err != nil {
			t.Fatal(err)
		}
		decided("resumed")
		soon := timestamppb.New(time.Now().Add(10 * time.Minute))
		j := p.put(aJob("j", func(j *schedv1.Job) {
			j.Triggers = append(j.Triggers, &schedv1.Trigger{Id: "once", When: &schedv1.Trigger_At{At: &schedv1.At{Time: soon}}})
		}))
		decided("given another trigger")
		if in := time.Until(j.GetNextTime().AsTime()); in > time.Minute {
			t.Errorf("it comes next in %v", in)
		}
		p.verify("j", 2)
	})
}

// What a trigger was to do in an hour that is decided already it never does under another
// definition either. Who asks for that is told, and not that the hour has passed.
func TestTriggerWithinWhatIsDecided(t *testing.T) {
	story(t, func(t *testing.T, p *primary) {
		p.put(aJob("j"))
		k := state.JobKey{Namespace: "default", Name: "j"}
		ahead := time.Now().Add(time.Hour).UTC()
		var decide []state.Command
		p.store.View(func(s *state.State) { decide, _ = plan.Settle(s, k, plan.DefaultBounds, ahead) })
		p.do(decide...)
		once := func(id string) *schedv1.PutJobRequest {
			at := &schedv1.At{Time: timestamppb.New(time.Now().Add(10 * time.Minute))}
			return &schedv1.PutJobRequest{Job: aJob("j", func(j *schedv1.Job) {
				j.Triggers = []*schedv1.Trigger{{Id: id, When: &schedv1.Trigger_At{At: at}}}
			})}
		}
		_, err := p.jobs.PutJob(t.Context(), once("every"))
		says(t, err, codes.InvalidArgument, "job.triggers[0].at.time")
		if !strings.Contains(err.Error(), "decided for this trigger already") {
			t.Errorf("why: %v", err)
		}
		if _, err := p.jobs.PutJob(t.Context(), once("once")); err != nil {
			t.Errorf("a trigger of another id: %v", err)
		}
	})
}
