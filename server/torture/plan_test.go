package torture

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"google.golang.org/protobuf/types/known/timestamppb"

	schedv1 "github.com/schedd/schedd/proto/schedd/v1"
	"github.com/schedd/schedd/server/torture/verdict"
)

// firm can be killed and halted, and loose can be cut off as well.
type firm struct{}

func (firm) Kill(context.Context, time.Duration) error { return nil }
func (firm) Halt(context.Context, time.Duration) error { return nil }

type loose struct{ firm }

func (loose) Cut(context.Context, time.Duration, string, []string) error { return nil }

func take(seed uint64, lane string, n int) (all []draw) {
	for d := range draws(seed, lane) {
		if all = append(all, d); len(all) == n {
			break
		}
	}
	return all
}

// A seed draws the same faults each time, and others in another lane; there are
// some of each kind, none takes longer than a worker may be silent, and the leader
// is meant in most.
func TestDraws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		all := take(seed, "primaries", 300)
		if !slices.Equal(all, take(seed, "primaries", 300)) || slices.Equal(all, take(seed, "workers", 300)) {
			t.Fatal("the faults are not those of the seed and the lane")
		}
		kinds, leaders := map[verdict.Kind]int{}, 0
		for _, d := range all {
			kinds[d.kind]++
			if d.leader {
				leaders++
			}
			if d.gap < leastGap || d.gap > mostGap || d.span < 0 || d.span > mostHalt {
				t.Fatalf("%+v", d)
			}
		}
		if len(kinds) != 3 || kinds[verdict.Kill] < 100 || leaders < 100 {
			t.Fatalf("%v, and the leader %d times", kinds, leaders)
		}
	})
}

// Whatever is drawn, somebody is hit by what he can suffer, and is called what he
// is; when the leader has to be killed, he is; when all crash, all of them do, and of
// the workers one host.
func TestAim(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var victims []Victim
		for _, name := range []string{"p1", "p2", "p3"}[:rapid.IntRange(0, 3).Draw(t, "primaries")] {
			victims = append(victims, Victim{Part: Primary, Name: name, Process: rapid.SampledFrom([]Process{firm{}, loose{}}).Draw(t, "process")})
		}
		primaries := len(victims)
		if rapid.Bool().Draw(t, "workers") {
			victims = append(victims, Victim{Part: Worker, Name: "w1", Process: firm{}}, Victim{Part: Runner, Name: "w1", Process: firm{}}, Victim{Part: Worker, Name: "w2", Process: firm{}}, Victim{Part: Runner, Name: "w2", Process: firm{}})
		}
		leader := rapid.SampledFrom([]string{"p1", "p2", "p3", "w1"}).Draw(t, "leader")
		must := rapid.Bool().Draw(t, "the leader must be killed")
		d := take(rapid.Uint64().Draw(t, "seed"), "lane", 1)[0]
		d.crash = rapid.Bool().Draw(t, "crash")
		blows := aim(d, victims, leader, must)
		there := slices.ContainsFunc(victims, func(v Victim) bool { return v.Part == Primary && v.Name == leader })
		hit := false
		for _, b := range blows {
			v := b.victim
			leads := v.Part == Primary && v.Name == leader
			hit = hit || leads && (b.kind == verdict.Kill || !must)
			want := map[Part]verdict.Role{Primary: verdict.Follower, Worker: verdict.Worker, Runner: verdict.Runner}[v.Part]
			if leads {
				want = verdict.Leader
			}
			if _, can := v.Process.(Cutter); b.role != want || b.kind == verdict.Cut && !can || d.crash && b.kind != verdict.Kill {
				t.Fatalf("%v of %v as %v", b.kind, v, b.role)
			}
			if v.Part != blows[0].victim.Part && v.Name != blows[0].victim.Name {
				t.Fatalf("%v and %v crash together", v, blows[0].victim)
			}
		}
		if there && (must || d.leader) && !hit {
			t.Fatalf("the leader was meant, and is not hit as he should be: %v", blows)
		}
		want := min(1, len(victims))
		switch {
		case d.crash && len(blows) > 0 && blows[0].victim.Part == Primary:
			want = primaries
		case d.crash && len(blows) > 0:
			want = 2
		}
		if len(blows) != want {
			t.Fatalf("%d are hit, want %d", len(blows), want)
		}
	})
}

// If each fault that has to kill the leader does, there are enough of them in the
// end, and no more.
func TestBehind(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		wanted, steps := rapid.IntRange(0, 20).Draw(t, "wanted"), rapid.IntRange(40, 100).Draw(t, "steps")
		start, killed := time.Unix(1_800_000_000, 0), 0
		end := start.Add(time.Duration(steps) * time.Second)
		for i := range steps {
			if behind(start.Add(time.Duration(i)*time.Second), start, end, killed, wanted) {
				killed++
			}
		}
		if killed != wanted {
			t.Fatalf("the leader is killed %d times, want %d", killed, wanted)
		}
	})
}

// More kills are aimed at than are needed: a machine that is slow proves less, and fails
// nothing.
func TestAimedKills(t *testing.T) {
	for _, test := range []struct {
		c    Config
		want int
	}{
		{Config{For: 5 * time.Minute}, 0},
		{Config{For: 5 * time.Minute, LeaderKills: 3}, 3},
		{Config{For: 5 * time.Minute, LeaderKills: 2, KillEach: 30 * time.Second}, 10},
		{Config{For: 5 * time.Minute, LeaderKills: 20, KillEach: 30 * time.Second}, 20},
		{Config{For: 20 * time.Second, KillEach: 30 * time.Second}, 0},
	} {
		if got := test.c.aimedKills(); got != test.want {
			t.Errorf("%+v: %d, want %d", test.c, got, test.want)
		}
	}
}

// A primary is harmed when all of them are well, so that a majority is always
// there; of the workers those that are connected are, while somebody leads.
func TestReady(t *testing.T) {
	primaries := []Victim{{Part: Primary, Name: "p1"}, {Part: Primary, Name: "p2"}}
	workers := []Victim{{Part: Worker, Name: "w1"}, {Part: Runner, Name: "w1"}, {Part: Worker, Name: "w2"}}
	for name, test := range map[string]struct {
		scene
		lane []Victim
		want int
	}{
		"all is well":               {scene{leader: "p1", primaries: map[string]bool{"p1": true, "p2": true}, workers: nil}, primaries, 2},
		"nobody leads":              {scene{leader: "", primaries: map[string]bool{"p1": true, "p2": true}, workers: nil}, primaries, 0},
		"one is ill":                {scene{leader: "p1", primaries: map[string]bool{"p1": true, "p2": false}, workers: nil}, primaries, 0},
		"one that is not ours is":   {scene{leader: "p1", primaries: map[string]bool{"p1": true, "p2": true, "p3": false}, workers: nil}, primaries, 0},
		"workers are all there":     {scene{leader: "p1", primaries: map[string]bool{"p1": false}, workers: map[string]bool{"w1": true, "w2": true}}, workers, 3},
		"a worker is away":          {scene{leader: "p1", primaries: map[string]bool{"p1": true}, workers: map[string]bool{"w1": false, "w2": true}}, workers, 1},
		"workers, and nobody leads": {scene{leader: "", primaries: nil, workers: map[string]bool{"w1": true, "w2": true}}, workers, 0},
	} {
		if got := test.ready(test.lane); len(got) != test.want {
			t.Errorf("%s: %v, want %d", name, got, test.want)
		}
	}
}

// With one or two primaries, and with the runner of a worker, more ends than what was
// named; whoever names it is told.
func TestConsequences(t *testing.T) {
	p, w, r := Victim{Part: Primary, Name: "p1"}, Victim{Part: Worker, Name: "w1"}, Victim{Part: Runner, Name: "w1"}
	for name, test := range map[string]struct {
		voters  int
		victims []Victim
		want    []string
	}{
		"of three, one":      {3, []Victim{p, w}, nil},
		"of two, one":        {2, []Victim{p}, []string{"2 of the primaries vote"}},
		"alone":              {1, []Victim{w, p}, []string{"1 of the primaries vote"}},
		"alone, and spared":  {1, []Victim{w}, nil},
		"a runner":           {3, []Victim{w, r}, []string{"all jobs on that worker end"}},
		"alone, with runner": {1, []Victim{p, r}, []string{"no majority", "when the runner of w1 is killed"}},
	} {
		got := scene{voters: test.voters}.consequences(test.victims)
		for i, want := range test.want {
			if len(got) != len(test.want) || !strings.Contains(got[i], want) {
				t.Errorf("%s: %q, want %q", name, got, test.want)
			}
		}
		if len(got) != len(test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

// What a torture left behind is removed by the next, and nothing else.
func TestLeftOver(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	ends := func(ago time.Duration) []*schedv1.Trigger {
		return []*schedv1.Trigger{{EndTime: timestamppb.New(now.Add(-ago))}}
	}
	ours := map[string]string{label: "torture-1"}
	for name, test := range map[string]struct {
		job  *schedv1.Job
		want bool
	}{
		"long over":     {&schedv1.Job{Labels: ours, Triggers: ends(2 * leftAfter)}, true},
		"just over":     {&schedv1.Job{Labels: ours, Triggers: ends(time.Minute)}, false},
		"goes on":       {&schedv1.Job{Labels: ours, Triggers: ends(-time.Minute)}, false},
		"without end":   {&schedv1.Job{Labels: ours, Triggers: []*schedv1.Trigger{{}}}, false},
		"somebody's":    {&schedv1.Job{Triggers: ends(2 * leftAfter)}, false},
		"other's label": {&schedv1.Job{Labels: map[string]string{"team": "data"}, Triggers: ends(2 * leftAfter)}, false},
	} {
		if got := leftOver(test.job, now); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

// What is defined for the API is due when the verdict says so.
func TestDefinitions(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	tt := &torture{Config: Config{Namespace: "n", Effects: "/e", Selector: "torture=yes", User: "nobody"}, id: "torture-1"}
	tt.jobs = load(tt.id, start, start.Add(time.Minute))
	names := map[string]bool{}
	for _, j := range tt.jobs {
		d := tt.definition(j)
		when := d.GetTriggers()[0]
		interval := when.GetEvery().GetInterval().AsDuration()
		if when.GetCron().GetExpression() == "* * * * * *" {
			interval = time.Second
		}
		if interval != j.Interval || !when.GetStartTime().AsTime().Equal(j.Start) || !when.GetEndTime().AsTime().Equal(j.End) {
			t.Errorf("%s is due by %v", j.Name, when)
		}
		if d.GetNamespace() != "n" || d.GetLabels()[label] != "torture-1" || d.GetTask().GetEnv()[verdict.EffectsVariable] != "/e/torture-1" {
			t.Errorf("%s is %v", j.Name, d)
		}
		if d.GetTarget().GetSelector() != "torture=yes" || d.GetTask().GetUser() != "nobody" {
			t.Errorf("%s runs on %v as %q", j.Name, d.GetTarget(), d.GetTask().GetUser())
		}
		names[d.GetName()] = true
	}
	if len(names) != len(tt.jobs) {
		t.Errorf("%d names for %d jobs", len(names), len(tt.jobs))
	}
}
