package plan

import (
	"fmt"
	"time"

	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/schedule"
)

// Why occurrences are missed. They are few, so that the ledger's spans stay
// long.
const (
	missedSuperseded  = "came due while nobody decided; only the latest of them counts"
	missedNone        = "came due while nobody decided; the job does not catch up"
	missedQuarantined = "came due while the job was quarantined"
	missedTooOld      = "came due while nobody decided, longer ago than the job's catch_up_window"
	missedTooMany     = "came due while nobody decided, and more than 100 others came after it"
)

// Settle returns the commands that decide all occurrences of a job that came
// due up to now, by what holds now. They go before a command that changes what
// decides, in the same proposal. The error is [state.ErrNotFound].
func Settle(s *state.State, k state.JobKey, bounds Bounds, now time.Time) ([]state.Command, error) {
	return settle(NewOutlook(s, bounds), k, now)
}

func settle(o *Outlook, k state.JobKey, now time.Time) ([]state.Command, error) {
	s := o.state
	j := s.Job(k)
	if j == nil {
		return nil, fmt.Errorf("job %v: %w", k, state.ErrNotFound)
	}
	b := o.of(j)
	var cmds []state.Command
	for _, t := range j.Definition.Triggers {
		if d, ok := decide(s, b, compiled(j, t), t.ID, now); ok {
			cmds = append(cmds, d)
		}
	}
	return cmds, nil
}

// compiled returns the trigger's schedule, or nil when it has no occurrences
// that anybody could name: it is out of service, or can't be computed.
func compiled(j *state.Job, t *state.Trigger) *schedule.Trigger {
	if t.Disabled {
		return nil
	}
	c, err := Compile(j.Key, t)
	if err != nil {
		return nil
	}
	return c
}

// decide returns the command that decides what came due of one trigger up to
// now; ok is false when it is decided already.
func decide(s *state.State, b *beside, c *schedule.Trigger, trigger string, now time.Time) (d state.Decide, ok bool) {
	track := s.Track(b.job.UID, trigger)
	if track == nil || !track.DecidedUntil.Before(now) {
		return state.Decide{}, false
	}
	d = state.Decide{
		Key: b.job.Key, UID: b.job.UID, Version: b.job.Version, Activity: b.activity,
		Trigger: trigger, After: track.DecidedUntil, Until: now,
	}
	p := pass{b: b, c: c, trigger: trigger, policy: b.job.Definition.Policy}
	if c != nil {
		d.Until = p.classify(d.After, now)
	}
	d.Decisions = p.ledger.decided
	return d, true
}

// pass is one look at the occurrences of one trigger in the order of time.
type pass struct {
	b       *beside
	c       *schedule.Trigger
	trigger string
	policy  *state.Policy
	ledger  ledger

	late []time.Time // not decided yet: they may be caught up with
	gone int64       // how many were missed since the last run
}

// classify says what becomes of each occurrence in (after, now]. It is the same
// for a tick as for the end of an outage: what came due within [Grace] just
// runs, and what is older is caught up with. It returns up to when all is
// classified: now, unless that would be more than one command may hold.
func (p *pass) classify(after, now time.Time) (until time.Time) {
	for t := p.c.Next(after); !t.IsZero() && !t.After(now); t = p.c.Next(t) {
		if len(p.ledger.decided) >= maxDecided {
			p.catchUp(true) // others follow: they are looked at next
			p.ledger.bear()
			return after
		}
		after = t
		switch {
		case p.b.job.Quarantine != "":
			p.miss(t, missedQuarantined)
		case pausedAt(p.b.job, t):
			p.ledger.add(state.DecidedSkipped, t, pauseReason(p.b.job.Pause))
		case now.Sub(t) <= Grace:
			p.catchUp(true)
			p.run(t)
		case p.policy.CatchUp == state.CatchUpNone:
			p.miss(t, missedNone)
		case now.Sub(t) > p.policy.CatchUpWindow:
			p.miss(t, missedTooOld)
		default:
			p.late = append(p.late, t)
			if len(p.late) > MaxCatchUp {
				p.miss(p.late[0], p.tooMany())
				p.late = p.late[1:]
			}
		}
	}
	p.catchUp(false)
	p.ledger.bear()
	return now
}

// catchUp decides the late occurrences, when those that follow are known:
// superseded says that one follows that just runs.
func (p *pass) catchUp(superseded bool) {
	for i, t := range p.late {
		switch {
		case p.policy.CatchUp == state.CatchUpAll:
			p.runLate(t)
		case i == len(p.late)-1 && !superseded:
			p.run(t)
		default:
			p.miss(t, missedSuperseded)
		}
	}
	p.late = nil
}

func (p *pass) tooMany() string {
	if p.policy.CatchUp == state.CatchUpAll {
		return missedTooMany
	}
	return missedSuperseded
}

func (p *pass) miss(t time.Time, reason string) {
	p.ledger.add(state.DecidedMissed, t, reason)
	p.gone++
}

// run makes a run of an occurrence, or skips it when the overlap policy forbids
// it, or there are too many.
func (p *pass) run(t time.Time) { p.runUnless(p.b.admit(), t) }

// runLate makes a run of an occurrence beside all that are active, as long as there is
// room. Under CatchUpAll that is asked for; the queue lets one after the other go.
func (p *pass) runLate(t time.Time) { p.runUnless(p.b.full(), t) }

func (p *pass) runUnless(reason string, t time.Time) {
	if reason != "" {
		p.ledger.add(state.DecidedSkipped, t, reason)
		p.ledger.last().Run = &state.Birth{Phase: state.Skipped, Nominal: t, Reason: reason}
		return
	}
	p.ledger.add(state.DecidedRun, t, "")
	p.ledger.last().Run = &state.Birth{
		Phase: state.Pending, Nominal: t, NotBefore: jittered(p.c, t), Missed: p.gone,
		Replaces: p.b.add(state.OccurrenceRunID(p.b.job.UID, p.trigger, t)),
	}
	p.gone = 0
}

// jittered returns when the run of an occurrence may begin: zero when at once.
func jittered(c *schedule.Trigger, nominal time.Time) time.Time {
	if due := c.Due(nominal); due.After(nominal) {
		return due
	}
	return time.Time{}
}

// pausedAt reports whether the job's pause covers the instant.
func pausedAt(j *state.Job, t time.Time) bool {
	p := j.Pause
	return p != nil && t.After(p.Since) && (p.Until.IsZero() || !t.After(p.Until))
}

func pauseReason(p *state.Pause) string {
	if p.Note == "" {
		return "the job was paused"
	}
	return "the job was paused: " + p.Note
}

// ledger gathers decisions. Those that make no run are joined while they are
// alike.
type ledger struct{ decided []state.Decided }

func (l *ledger) last() *state.Decided { return &l.decided[len(l.decided)-1] }

func (l *ledger) add(d state.Decision, t time.Time, reason string) {
	if n := len(l.decided); n > 0 {
		last := l.last()
		if last.Run == nil && d != state.DecidedRun && last.Decision == d && last.Reason == reason && last.Count < state.MaxSpan {
			last.Last, last.Count, last.Digest = t, last.Count+1, last.Digest+state.Mix(t)
			return
		}
	}
	l.decided = append(l.decided, state.Decided{Decision: d, First: t, Last: t, Count: 1, Digest: state.Mix(t), Reason: reason})
}

// bear puts a run on record for each stretch that was missed, so that it is
// seen among the runs; it stands for all of the stretch.
func (l *ledger) bear() {
	for i := range l.decided {
		d := &l.decided[i]
		if d.Decision == state.DecidedMissed {
			d.Run = &state.Birth{Phase: state.Missed, Nominal: d.Last, Reason: d.Reason, Missed: d.Count - 1}
		}
	}
}
