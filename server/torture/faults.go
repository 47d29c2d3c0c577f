package torture

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/server/torture/verdict"
)

// scene is how the cluster stands: who leads, and by name who is well.
type scene struct {
	cluster            string // its id
	leader             string // empty when nobody is known to
	primaries, workers map[string]bool
	addresses          map[string]string   // of primaries, for each other
	voters             int                 // how many primaries vote
	ids                map[string][]string // of workers, by name
}

// part returns those that a victim may be among.
func (s scene) part(p Part) map[string]bool {
	if p == Primary {
		return s.primaries
	}
	return s.workers
}

// ready returns who of a lane may be harmed now. One primary is harmed at a time,
// when the others have recovered, so that a majority of three or more is always there;
// of the workers, those that are connected.
func (s scene) ready(lane []Victim) (ready []Victim) {
	for _, v := range lane {
		ill := v.Part == Primary && slices.Contains(slices.Collect(maps.Values(s.primaries)), false)
		if s.leader != "" && !ill && s.part(v.Part)[v.Name] {
			ready = append(ready, v)
		}
	}
	return ready
}

// mostVoters is how many primaries may vote when none of them can be spared.
const mostVoters = 2

// consequences are what harming victims does to a cluster that is of use to somebody,
// each in a sentence.
func (s scene) consequences(victims []Victim) (all []string) {
	if s.voters <= mostVoters && slices.ContainsFunc(victims, func(v Victim) bool { return v.Part == Primary }) {
		all = append(all, fmt.Sprintf("%d of the primaries vote, so there is no majority while one of them is down, and nothing is decided until it is back", s.voters))
	}
	for _, v := range victims {
		if v.Part == Runner {
			all = append(all, fmt.Sprintf("when the runner of %s is killed, all jobs on that worker end, yours too", v.Name))
		}
	}
	return all
}

// links are the addresses between which those of a primary run.
func (s scene) links(name string) (own string, others []string) {
	for id, address := range s.addresses {
		if id != name {
			others = append(others, address)
		}
	}
	return s.addresses[name], others
}

// look asks how the cluster stands.
func (t *torture) look(ctx context.Context) (s scene, err error) {
	err = t.group.ask(ctx, "ask for the status of the group", func(ctx context.Context, at *server) error {
		group, err := at.cluster.GetStatus(ctx, &schedv1.GetStatusRequest{})
		if err != nil {
			return err
		}
		s = scene{cluster: group.GetStatus().GetClusterId(), leader: group.GetStatus().GetLeaderId(), primaries: map[string]bool{}, workers: map[string]bool{}, addresses: map[string]string{}, ids: map[string][]string{}}
		for _, p := range group.GetStatus().GetPrimaries() {
			s.addresses[p.GetId()] = p.GetClusterAddress()
			if p.GetVoter() {
				s.voters++
			}
			s.primaries[p.GetId()] = p.GetRole() == schedv1.PrimaryRole_PRIMARY_ROLE_LEADER || p.GetRole() == schedv1.PrimaryRole_PRIMARY_ROLE_FOLLOWER
		}
		for page := ""; ; {
			resp, err := at.workers.ListWorkers(ctx, &schedv1.ListWorkersRequest{PageToken: page})
			if err != nil {
				return err
			}
			for _, w := range resp.GetWorkers() {
				online := w.GetPhase() == schedv1.WorkerPhase_WORKER_PHASE_ONLINE && w.GetConnectedTime() != nil
				s.ids[w.GetName()] = append(s.ids[w.GetName()], w.GetId())
				s.workers[w.GetName()] = s.workers[w.GetName()] || online
			}
			if page = resp.GetNextPageToken(); page == "" {
				return nil
			}
		}
	})
	return s, err
}

// harm injects faults until end: to primaries and to workers at the same time, one
// after the other in each lane.
func (t *torture) harm(ctx context.Context, start, end time.Time) error {
	lanes := map[string][]Victim{}
	for _, v := range t.Victims {
		name := "workers"
		if v.Part == Primary {
			name = "primaries"
		}
		lanes[name] = append(lanes[name], v)
	}
	g, ctx := errgroup.WithContext(ctx)
	for name, victims := range lanes {
		g.Go(func() error {
			until(ctx, start)
			for d := range draws(t.Seed, name) {
				if !t.inPeace(ctx, victims, end) || !rest(ctx, d.gap) || time.Now().After(end) {
					break
				}
				if err := t.strike(ctx, d, victims, start, end); err != nil {
					return err
				}
			}
			return ctx.Err()
		})
	}
	return g.Wait()
}

// lookAgain is how often to look whether the last fault is over.
const lookAgain = 200 * time.Millisecond

// inPeace waits until a fault may begin. It tells whether that is before the end.
func (t *torture) inPeace(ctx context.Context, victims []Victim, end time.Time) bool {
	for time.Now().Before(end) {
		s, err := t.look(ctx)
		if err == nil && len(s.ready(victims)) > 0 {
			return true
		}
		if !rest(ctx, lookAgain) {
			return false
		}
	}
	return false
}

// strike carries out what was drawn. On a cluster of somebody else no crash of all
// primaries is: that one is to stay of use.
func (t *torture) strike(ctx context.Context, d draw, victims []Victim, start, end time.Time) error {
	s, err := t.look(ctx)
	if err != nil {
		return ctx.Err() // the next one will do
	}
	d.crash = d.crash && t.Closed
	var all sync.WaitGroup
	for _, b := range aim(d, s.ready(victims), s.leader, behind(time.Now(), start, end, t.leaderKills(), t.aimedKills())) {
		all.Go(func() { t.note(t.deal(ctx, b, d.span, s)) })
	}
	all.Wait()
	return ctx.Err()
}

// deal deals one blow.
func (t *torture) deal(ctx context.Context, b blow, span time.Duration, s scene) verdict.Fault {
	f := verdict.Fault{Kind: b.kind, Role: b.role, Name: b.victim.Name, At: time.Now()}
	if err := t.recognize(ctx, b.victim, s); err != nil {
		f.Until, f.Failed = time.Now(), err.Error()
		t.say("the %s %s is not harmed: %v", b.role, b.victim.Name, err)
		return f
	}
	var err error
	switch b.kind {
	case verdict.Kill:
		t.say("kill -9 of the %s %s", b.role, b.victim.Name)
		err = b.victim.Kill(ctx, span)
	case verdict.Halt:
		t.say("SIGSTOP of the %s %s, for %v", b.role, b.victim.Name, span.Round(time.Millisecond))
		err = b.victim.Halt(ctx, span)
	case verdict.Cut:
		t.say("links of the %s %s cut for %v", b.role, b.victim.Name, span.Round(time.Millisecond))
		own, others := s.links(b.victim.Name)
		err = b.victim.Process.(Cutter).Cut(ctx, span, own, others)
	}
	if f.Until = time.Now(); err != nil {
		f.Failed = err.Error()
		t.say("that failed: %v", err)
	}
	return f
}

func (t *torture) note(f verdict.Fault) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults = append(t.faults, f)
}

// leaderKills is how often the leader was killed so far.
func (t *torture) leaderKills() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.faults {
		if f.Role == verdict.Leader && f.Kind == verdict.Kill && f.Failed == "" {
			n++
		}
	}
	return n
}

// aimedKills is how often the leader should be killed, which a slow machine may not
// get to.
func (c Config) aimedKills() int {
	if c.KillEach == 0 {
		return c.LeaderKills
	}
	return max(c.LeaderKills, int(c.For/c.KillEach))
}

// String names a victim in an error.
func (v Victim) String() string { return fmt.Sprintf("%s %s", v.Part, v.Name) }
