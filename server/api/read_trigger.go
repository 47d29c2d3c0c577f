package api

import (
	"cmp"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/plan"
	"github.com/schedd/schedd/server/schedule"
)

// triggers checks the triggers of a job.
func (c scope) triggers(k state.JobKey, ps []*schedv1.Trigger) ([]*state.Trigger, []*schedule.Trigger) {
	if len(ps) == 0 {
		return nil, nil
	}
	if len(ps) > maxTriggers {
		c.failf("has %d triggers, of %d allowed", len(ps), maxTriggers)
		return nil, nil
	}
	kinds := map[string]int{}
	for _, p := range ps {
		kinds[kindOf(p)]++
	}
	ts, compiled := make([]*state.Trigger, len(ps)), make([]*schedule.Trigger, len(ps))
	first := map[string]int{}
	for i, p := range ps {
		id, where := p.GetId(), c.at(i).in("id")
		switch kind := kindOf(p); {
		case id != "":
			where.name(id)
		case kinds[kind] > 1:
			where.failf("is required: the job has %d triggers of the kind %s", kinds[kind], kind)
		default:
			id = kind
		}
		if j, taken := first[id]; taken && id != "" {
			where.failf("%s is the id of triggers[%d] already", quote(id), j)
		}
		first[id] = i
		ts[i], compiled[i] = c.at(i).trigger(k, id, p)
	}
	return ts, compiled
}

// kindOf returns the kind of a trigger, which is also the id of one that has
// none.
func kindOf(p *schedv1.Trigger) string {
	switch p.GetWhen().(type) {
	case *schedv1.Trigger_Cron:
		return "cron"
	case *schedv1.Trigger_Every:
		return "every"
	case *schedv1.Trigger_At:
		return "at"
	}
	return ""
}

// trigger checks one trigger. What it finds wrong itself it replaces by
// something harmless, so that compiling it finds the rest.
func (c scope) trigger(k state.JobKey, id string, p *schedv1.Trigger) (*state.Trigger, *schedule.Trigger) {
	t := &state.Trigger{
		ID:       id,
		Jitter:   c.in("jitter").duration(p.GetJitter(), span{0, schedule.MaxJitter, 0}),
		Start:    c.in("start_time").instant(p.GetStartTime()),
		End:      c.in("end_time").instant(p.GetEndTime()),
		Disabled: p.GetDisabled(),
	}
	switch when := p.GetWhen().(type) {
	case *schedv1.Trigger_Cron:
		t.Cron = c.in("cron").cron(when.Cron)
	case *schedv1.Trigger_Every:
		t.Every = c.in("every").every(when.Every)
	case *schedv1.Trigger_At:
		t.At = c.in("at").in("time").required(when.At.GetTime())
	}
	t.Exclude = c.in("exclude").exclusions(p.GetExclude())
	return t, c.compile(k, t)
}

// required checks an instant that has to be given.
func (c scope) required(p *timestamppb.Timestamp) time.Time {
	t := c.instant(p)
	if t.IsZero() {
		c.failf("is required")
		return firstInstant
	}
	return t
}

func (c scope) cron(p *schedv1.Cron) *state.Cron {
	return &state.Cron{
		Expression: p.GetExpression(),
		TimeZone:   cmp.Or(p.GetTimeZone(), "UTC"),
		Gap:        gaps.read(c.in("dst_gap"), p.GetDstGap()),
		Overlap:    dstOverlaps.read(c.in("dst_overlap"), p.GetDstOverlap()),
	}
}

func (c scope) every(p *schedv1.Every) *state.Every {
	const harmless = time.Hour
	e := &state.Every{Interval: harmless}
	interval := c.in("interval")
	if p.GetInterval() == nil {
		interval.failf("is required")
	} else {
		e.Interval = interval.whole(interval.duration(p.GetInterval(), span{schedule.MinInterval, schedule.MaxInterval, harmless}))
	}
	phase := c.in("phase")
	e.Phase = phase.whole(phase.duration(p.GetPhase(), span{0, schedule.MaxInterval, 0}))
	if !interval.ok() && phase.ok() {
		e.Phase = 0 // it can't be compared
	}
	return e
}

// whole checks that a duration is whole milliseconds.
func (c scope) whole(d time.Duration) time.Duration {
	if d%time.Millisecond != 0 {
		c.failf("is %v; it has to be whole milliseconds", d)
	}
	return d
}

func (c scope) exclusions(ps []*schedv1.Exclusion) []state.Exclusion {
	if len(ps) == 0 {
		return nil
	}
	if len(ps) > schedule.MaxExclusions {
		c.failf("has %d entries, of %d allowed", len(ps), schedule.MaxExclusions)
		return nil
	}
	xs := make([]state.Exclusion, len(ps))
	for i, p := range ps {
		switch what := p.GetWhat().(type) {
		case *schedv1.Exclusion_Date:
			xs[i].Date = what.Date
		case *schedv1.Exclusion_Period:
			c := c.at(i).in("period")
			xs[i].From = c.in("start_time").required(what.Period.GetStartTime())
			xs[i].To = c.in("end_time").required(what.Period.GetEndTime())
		default:
			c.at(i).failf("excludes nothing: give a date or a period")
		}
		if !c.at(i).ok() {
			xs[i] = state.Exclusion{Date: "1970-01-02"} // harmless
		}
	}
	return xs
}

// compile checks what only the schedule knows.
func (c scope) compile(k state.JobKey, t *state.Trigger) *schedule.Trigger {
	compiled, err := plan.Compile(k, t)
	for _, e := range schedule.FieldErrors(err) {
		at := c
		if f := apiField(e.Field); f != "" {
			at = c.in(f)
		}
		if c.ok() || !strings.HasPrefix(e.Problem, "never fires") {
			at.failf("%s", e.Problem)
		}
	}
	if err != nil && c.ok() {
		c.failf("%v", err)
	}
	return compiled
}

// apiField returns how the API calls a field of a trigger that package schedule
// names.
func apiField(f string) string {
	if f == "at" {
		return "at.time"
	}
	if strings.HasPrefix(f, "exclude[") {
		f = strings.Replace(f, ".from", ".period.start_time", 1)
		f = strings.Replace(f, ".to", ".period.end_time", 1)
	}
	return f
}
