// Package torture has a cluster run jobs while it is harmed, and tells whether it
// kept its promises: [Run].
//
// It knows the cluster as any client does, by its API at one address or more, and
// harms nothing but the processes that it is given. All that it decides is made
// from a seed before it begins ([draws]); what a fault hits is settled when its
// time has come. The judgement is that of package verdict.
//
// It starts no process and sends no signal itself: see [Process]. Package local has
// those of a cluster of its own, package harm those of somebody else's.
package torture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/schedd/schedd/server/torture/verdict"
)

// Config is what to do, to whom.
type Config struct {
	// Servers are the addresses of the API, as host:port: of each primary, or of a
	// load balancer. Each is asked in the end; a call meanwhile goes to any.
	Servers []string
	// Namespace of the jobs that are made.
	Namespace string
	// Selector chooses the workers that the jobs may run on, by their labels. Empty: all.
	Selector string
	// User is whom the jobs run as. Empty: the worker's own user, or its policy's.
	User string
	// For is how long jobs are due; at most [MaxFor].
	For time.Duration
	// Settle is how long after that what runs may take to end.
	Settle time.Duration
	// Seed makes the faults: the same one draws the same.
	Seed uint64
	// Effects is an absolute directory that the workers share with this process, in
	// which jobs write down that they ran. Empty: they don't.
	Effects string
	// Victims may be harmed. None: there is only load, and the verdict.
	Victims []Victim
	// Ready is how many workers have to be online before it begins, which is waited
	// for. 0: one, and if that is not there nobody is waited for.
	Ready int
	// LeaderKills is how often the leader has to be killed, at least: else there is a
	// doubt.
	LeaderKills int
	// KillEach is how often it is to be killed if the cluster recovers in time: once for
	// each so long. 0: no more often than LeaderKills says.
	KillEach time.Duration
	// Closed tells that nobody else harms the cluster, so that each attempt that
	// did not come to its end needs a fault of ours that explains it.
	Closed bool
	// Crashes tells which processes of the cluster ended by themselves, each in a
	// sentence; nil where nobody watches that.
	Crashes func() []string
	// Out is told what happens, one line each.
	Out io.Writer
}

// MaxFor is the longest Config.For: a primary keeps 20,000 finished runs of each
// job, by default, and a job that is due each second is looked at in the end.
const MaxFor = 4 * time.Hour

// Part says what a victim is a part of.
type Part string

// All parts.
const (
	Primary Part = "primary"
	Worker  Part = "worker" // the agent
	Runner  Part = "runner" // what has the processes of a worker's jobs
)

// Victim is a process that may be harmed.
type Victim struct {
	Part Part
	// Name is the node id of a primary, or the name of a worker; a runner has that
	// of its worker.
	Name string
	Process
	// Stranger shows whether it is that process, and is asked before each fault; nil for
	// one that was started by whoever names it.
	Stranger Stranger
}

// Process is how a process is harmed. A fault that has begun is always ended, also
// when ctx is done first; only the wait is cut short.
type Process interface {
	// Kill kills it with SIGKILL, and returns when another one is in its place. That
	// is started after the time given, if starting it is the implementer's part.
	Kill(ctx context.Context, after time.Duration) error
	// Halt stops it with SIGSTOP, and lets it go on after the time given.
	Halt(ctx context.Context, span time.Duration) error
}

// Cutter is a [Process] of a primary whose links to the others can be cut.
type Cutter interface {
	// Cut lets nothing through between the primary, whose cluster address is own, and
	// those of the others, for the time given.
	Cut(ctx context.Context, span time.Duration, own string, others []string) error
}

// headStart is how long before the first occurrence jobs are defined.
const headStart = 5 * time.Second

// firstLook is how long a cluster that runs may take to answer at all.
const firstLook = 30 * time.Second

// torture is one that goes on.
type torture struct {
	Config
	id    string // part of the names of all that it makes
	group *group
	jobs  []verdict.Job

	mu     sync.Mutex // guards what follows, and Out
	faults []verdict.Fault
}

// Run tortures a cluster, and returns what came of it. The jobs that it made, and what
// they wrote down, are removed, but when a promise was broken: then they are left to be
// looked at. Their runs stay in any case until they are pruned, as those of any job. An
// error says why nothing can be told; ctx may end it at any time.
func Run(ctx context.Context, c Config) (rec verdict.Record, judgement verdict.Judgement, err error) {
	g, err := dial(c.Servers)
	if err != nil {
		return rec, judgement, err
	}
	defer g.close()
	t := &torture{Config: c, id: fmt.Sprintf("torture-%08x", rand.Uint32()), group: g}
	if err := t.reachable(ctx); err != nil {
		return rec, judgement, err
	}
	if err := t.recognizeAll(ctx); err != nil {
		return rec, judgement, err
	}
	if err := t.removeOld(ctx, time.Now()); err != nil {
		return rec, judgement, err
	}
	if err := t.makeEffects(); err != nil {
		return rec, judgement, err
	}
	defer func() {
		if len(judgement.Violations) == 0 {
			err = errors.Join(err, t.removeAll(ctx))
		}
	}()
	if rec, err = t.endure(ctx); err != nil {
		return rec, judgement, err
	}
	return rec, verdict.Judge(rec), nil
}

// reachable waits until the cluster is complete, and tells why it can't be
// tortured.
func (t *torture) reachable(ctx context.Context) error {
	span := patience // for one that was just started
	if t.Ready == 0 {
		span = firstLook
	}
	ctx, cancel := context.WithTimeout(ctx, span)
	defer cancel()
	for {
		s, err := t.look(ctx)
		if err != nil {
			return fmt.Errorf("look at the cluster: %w", err)
		}
		if err = t.incomplete(s); err == nil {
			return nil
		}
		if t.Ready == 0 || !rest(ctx, lookAgain) {
			return err
		}
	}
}

// incomplete tells what is missing.
func (t *torture) incomplete(s scene) error {
	online := 0
	for _, well := range s.workers {
		if well {
			online++
		}
	}
	if least := max(1, t.Ready); online < least {
		return fmt.Errorf("the cluster has %d workers online, and %d are needed: start more", online, least)
	}
	for _, v := range t.Victims {
		if _, there := s.part(v.Part)[v.Name]; !there {
			return fmt.Errorf("the cluster has no %v: name it as GetStatus and ListWorkers do", v)
		}
	}
	return nil
}

// endure defines the jobs, harms what it may while they are due, and returns what
// was seen when all has ended.
func (t *torture) endure(ctx context.Context) (verdict.Record, error) {
	start := time.Now().Add(headStart).Truncate(time.Second).UTC()
	end := start.Add(t.For)
	t.jobs = load(t.id, start, end)
	if err := t.putJobs(ctx); err != nil {
		return verdict.Record{}, err
	}
	t.say("%d jobs in the namespace %s, from %s to %s; seed %d", len(t.jobs), t.Namespace, start.Format(time.TimeOnly), end.Format(time.TimeOnly), t.Seed)
	if err := t.harm(ctx, start, end); err != nil {
		return verdict.Record{}, err
	}
	if !until(ctx, end) {
		return verdict.Record{}, context.Cause(ctx)
	}
	t.say("the last occurrence is due; waiting for what runs to end")
	if err := t.settle(ctx); err != nil {
		return verdict.Record{}, err
	}
	t.say("reading runs, ledgers and logs")
	rec := t.collect(ctx)
	return rec, ctx.Err()
}

// say tells what happens.
func (t *torture) say(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, _ = fmt.Fprintf(t.Out, "%s  %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...)) // nobody is left to tell
}

// rest waits, and tells whether ctx goes on.
func rest(ctx context.Context, d time.Duration) bool { return until(ctx, time.Now().Add(d)) }

// until waits for a moment, and tells whether ctx goes on.
func until(ctx context.Context, at time.Time) bool {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
