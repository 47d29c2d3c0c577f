package torture

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/server/torture/verdict"
)

// label marks the jobs that were made here.
const label = "schedd-torture"

// trigger is the id of the only trigger of each job.
const trigger = "torture"

// load returns the jobs: short ones each second, long ones that live through
// several faults, long output, and some that have to be tried again.
func load(id string, start, end time.Time) []verdict.Job {
	job := func(name string, interval time.Duration, w verdict.Work) verdict.Job {
		return verdict.Job{Name: id + "-" + name, Interval: interval, Start: start, End: end, Work: w}
	}
	return []verdict.Job{
		job("tick", time.Second, verdict.Work{Lines: 2}),
		job("tock", time.Second, verdict.Work{Lines: 1}),
		job("again", 3*time.Second, verdict.Work{Lines: 1, Fails: 1}),
		job("burst", 5*time.Second, verdict.Work{Lines: 1500, Padding: 80}),
		job("long", 10*time.Second, verdict.Work{Lines: 20, Pause: time.Second}),
	}
}

// definition is a job for the API. Its policy lets nothing be left out: it runs
// beside itself, catches up on what no leader decided, and is tried again when a
// worker is lost.
func (t *torture) definition(j verdict.Job) *schedv1.Job {
	when := &schedv1.Trigger{Id: trigger, StartTime: timestamppb.New(j.Start), EndTime: timestamppb.New(j.End)}
	if j.Interval == time.Second && j == t.jobs[0] {
		when.When = &schedv1.Trigger_Cron{Cron: &schedv1.Cron{Expression: "* * * * * *"}}
	} else {
		when.When = &schedv1.Trigger_Every{Every: &schedv1.Every{Interval: durationpb.New(j.Interval)}}
	}
	task := &schedv1.Task{Do: &schedv1.Task_Script{Script: &schedv1.Script{Body: j.Work.Script()}}, WorkingDir: "/", User: t.User}
	if t.Effects != "" {
		task.Env = map[string]string{verdict.EffectsVariable: t.effectsDir()}
	}
	return &schedv1.Job{
		Namespace: t.Namespace, Name: j.Name, Labels: map[string]string{label: t.id},
		Description: "Made by schedd torture, which removes it.",
		Triggers:    []*schedv1.Trigger{when},
		Task:        task,
		Target:      &schedv1.Target{Selector: t.Selector},
		Policy: &schedv1.Policy{
			Overlap: schedv1.Overlap_OVERLAP_ALLOW,
			CatchUp: schedv1.CatchUp_CATCH_UP_ALL, CatchUpWindow: durationpb.New(time.Hour),
			Retry:  &schedv1.Retry{MaxAttempts: 100, InitialDelay: durationpb.New(time.Second), Multiplier: 1},
			OnLost: schedv1.OnLost_ON_LOST_RETRY,
		},
	}
}

func (t *torture) putJobs(ctx context.Context) error {
	for _, j := range t.jobs {
		err := t.group.ask(ctx, "define the job "+j.Name, func(ctx context.Context, s *server) error {
			_, err := s.jobs.PutJob(ctx, &schedv1.PutJobRequest{Job: t.definition(j)})
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// removal bounds how long what was made is removed after all is over.
const removal = 2 * time.Minute

// removeAll removes what this torture made, also when ctx is done.
func (t *torture) removeAll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removal)
	defer cancel()
	var all error
	for _, j := range t.jobs {
		all = errors.Join(all, t.removeJob(ctx, j.Name))
	}
	if t.Effects != "" {
		all = errors.Join(all, os.RemoveAll(t.effectsDir()))
	}
	return all
}

func (t *torture) removeJob(ctx context.Context, name string) error {
	return t.group.ask(ctx, "remove the job "+name, func(ctx context.Context, s *server) error {
		_, err := s.jobs.DeleteJob(ctx, &schedv1.DeleteJobRequest{Namespace: t.Namespace, Name: name})
		if status.Code(err) == codes.NotFound {
			return nil // removed already
		}
		return err
	})
}

// leftAfter is how long after its end a torture has removed its jobs, if it ever
// does.
const leftAfter = time.Hour

// removeOld removes the jobs of a former torture that was killed, or that found
// something and left them to be looked at.
func (t *torture) removeOld(ctx context.Context, now time.Time) error {
	var old []string
	err := t.group.ask(ctx, "look for the jobs of a former torture", func(ctx context.Context, s *server) error {
		old = nil
		for page := ""; ; {
			resp, err := s.jobs.ListJobs(ctx, &schedv1.ListJobsRequest{Filter: "namespace=" + t.Namespace, PageToken: page})
			if err != nil {
				return err
			}
			for _, j := range resp.GetJobs() {
				if leftOver(j, now) {
					old = append(old, j.GetName())
				}
			}
			if page = resp.GetNextPageToken(); page == "" {
				return nil
			}
		}
	})
	for _, name := range old {
		t.say("removing %s, which a former torture left behind", name)
		err = errors.Join(err, t.removeJob(ctx, name))
	}
	return err
}

// leftOver tells whether a job is one of ours, and none that somebody still
// tortures with.
func leftOver(j *schedv1.Job, now time.Time) bool {
	if j.GetLabels()[label] == "" {
		return false
	}
	for _, t := range j.GetTriggers() {
		if t.GetEndTime() == nil || t.GetEndTime().AsTime().Add(leftAfter).After(now) {
			return false
		}
	}
	return true
}

func (t *torture) effectsDir() string { return filepath.Join(t.Effects, t.id) }

// makeEffects makes the directory in which jobs write, whoever their user is.
func (t *torture) makeEffects() error {
	if t.Effects == "" {
		return nil
	}
	const anybody = 0o777 | os.ModeSticky
	err := errors.Join(os.MkdirAll(t.Effects, 0o755), os.Mkdir(t.effectsDir(), 0o700), os.Chmod(t.effectsDir(), anybody))
	if err != nil {
		return fmt.Errorf("make a directory for what jobs write down: %w; choose another one with --effects", err)
	}
	return nil
}
