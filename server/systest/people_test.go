package systest

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
)

// doubt is what somebody asked for, without an answer: that a job is put, or deleted, or
// else that it is paused or resumed. It came about or did not.
type doubt struct {
	put     *put
	deletes bool
}

// someJob names one of the jobs that have triggers.
func (c *groupChaos) someJob() string { return fmt.Sprint("c-", 1+c.dice.IntN(c.n)) }

// change puts another definition in the place of one, or of one that was deleted.
func (c *groupChaos) change() { c.putAs(c.someJob()) }

// putAgain makes a job that has the name of one that was deleted, if there is one.
func (c *groupChaos) putAgain() {
	var free []string
	for n := range c.n {
		if name := fmt.Sprint("c-", 1+n); c.asked.jobs[name] == nil {
			free = append(free, name)
		}
	}
	if len(free) > 0 {
		c.putAs(one(c.dice, free...))
	}
}

// putAs puts a job. When a leader's clock was set forward, or none answers for a while, that
// may be too late for an instant that it names. While primaries ail it may come to nothing,
// and nobody knows: then the job is left alone until all is mended.
func (c *groupChaos) putAs(name string) {
	c.Helper()
	if _, unsure := c.unsure[name]; unsure {
		return
	}
	j, asked := c.anyJob(name), time.Now()
	c.redefine(j, func(err error) bool {
		if len(c.ails) > 0 && noAnswer(err) {
			c.unsure[name] = doubt{put: &put{asked, j}}
			return true
		}
		return status.Code(err) == codes.InvalidArgument && (c.clocksWereWrong(asked) || slices.ContainsFunc(j.GetTriggers(), func(t *schedv1.Trigger) bool {
			return c.overtaken(t.GetAt().GetTime(), asked)
		}))
	})
}

// clocksWereWrong tells whether who led since an instant may have seen no occurrence ahead where
// there is one.
func (c *groupChaos) clocksWereWrong(since time.Time) bool {
	return c.terms.wrongs().mistimed(since, time.Now()) > 0
}

// overtaken tells whether an instant that was named in a call, if one was, has passed, or who
// led since then may have taken it for one that has.
func (c *groupChaos) overtaken(at *timestamppb.Timestamp, asked time.Time) bool {
	now := time.Now()
	return at != nil && at.AsTime().Before(now.Add(c.terms.wrongs().mistimed(asked, now)))
}

// pauseSome pauses a job, for some minutes or until somebody resumes it.
func (c *groupChaos) pauseSome() {
	until := one(c.dice, nil, stamp(time.Now().Add(time.Minute+upTo(c.dice, 10*time.Minute))))
	c.tryWith(doubt{}, until, func(name string) error { return c.pauseJob(name, "amid faults", until) })
}

func (c *groupChaos) resumeSome() { c.tryWith(doubt{}, nil, c.resumeJob) }
func (c *groupChaos) deleteSome() { c.tryWith(doubt{deletes: true}, nil, c.removeJob) }

// tryWith does something to a job until then, if it is known how that is, which may be refused
// when the job was deleted, or the time is over by a clock that was set. It may come to
// nothing as a put may, and what says then that there is no such job may be the answer to
// having asked again.
func (c *groupChaos) tryWith(what doubt, until *timestamppb.Timestamp, do func(name string) error) {
	c.Helper()
	name := c.someJob()
	if _, unsure := c.unsure[name]; unsure {
		return
	}
	asked := time.Now()
	switch err := do(name); {
	case err == nil:
	case status.Code(err) == codes.NotFound && c.asked.jobs[name] == nil:
	case status.Code(err) == codes.NotFound && what.deletes, len(c.ails) > 0 && noAnswer(err):
		c.unsure[name] = what
	case status.Code(err) == codes.InvalidArgument && c.overtaken(until, asked):
	default:
		c.Fatalf("the API refused: %v", err)
	}
}

// noAnswer tells whether an error leaves open what became of the call.
func noAnswer(err error) bool {
	return slices.Contains([]codes.Code{codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Aborted, codes.Unknown}, status.Code(err))
}

// learn looks at what became of what had no answer, when all is mended, and holds the jobs
// against what people were told.
func (c *groupChaos) learn() {
	c.Helper()
	jobs := c.jobs()
	for _, name := range slices.Sorted(maps.Keys(c.unsure)) {
		var is *schedv1.Job
		if i := slices.IndexFunc(jobs, func(j *schedv1.Job) bool { return j.GetName() == name }); i >= 0 {
			is = jobs[i]
		}
		switch d := c.unsure[name]; {
		case is == nil && d.deletes:
			c.asked.deleted(name)
		case is != nil && d.put != nil:
			c.learnPut(is, d.put)
		case is != nil && is.GetPause() != nil:
			c.asked.isPaused(name, is.GetPause().GetUntil())
		case is != nil:
			c.asked.held[name] = false
		}
	}
	clear(c.unsure)
	c.checkJobs(jobs)
}

// learnPut takes note of how a job is that was put without an answer: as it was put then, or
// as somebody was told before.
func (c *groupChaos) learnPut(is *schedv1.Job, asked *put) {
	c.Helper()
	was := c.asked.jobs[is.GetName()]
	if is.GetUid() == was.GetUid() && is.GetVersion() == was.GetVersion() {
		return
	}
	if !slices.EqualFunc(is.GetTriggers(), asked.job.GetTriggers(), filledIn) || is.GetVersion() != was.GetVersion()+1 || was != nil && is.GetUid() != was.GetUid() {
		c.Errorf("%s is\n%v\nand was put, without an answer, as\n%v", is.GetName(), is, asked.job)
	}
	c.isPut(put{asked.at, is})
}

// filledIn tells whether a trigger is what was asked for, with defaults filled in.
func filledIn(is, asked *schedv1.Trigger) bool {
	both := proto.CloneOf(is)
	proto.Merge(both, asked)
	return proto.Equal(both, is)
}
