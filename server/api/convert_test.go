package api

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"github.com/schedd/schedd/raftstore/state"
	"github.com/schedd/schedd/server/plan"
)

func unmarshal(t testing.TB, m proto.Message, text string) {
	t.Helper()
	if err := protojson.Unmarshal([]byte(text), m); err != nil {
		t.Fatal(err)
	}
}

// definitions draws definitions that are right and filled in.
func definitions(t *rapid.T) *state.Definition {
	word := rapid.StringMatching(`[a-z][a-z0-9]{0,8}`)
	words := rapid.MapOfN(word, word, 0, 3)
	seconds := func(label string, least, most int) time.Duration {
		return time.Duration(rapid.IntRange(least, most).Draw(t, label)) * time.Second
	}
	d := &state.Definition{
		Description: rapid.String().Filter(func(s string) bool { return len(s) < 100 && cleanText(s) }).Draw(t, "description"),
		Labels:      state.PairsOf(words.Draw(t, "labels")),
		Target:      state.Target{Selector: rapid.SampledFrom([]string{"", "zone=eu,!spot", "disk in (ssd,nvme)"}).Draw(t, "selector"), Strategy: rapid.SampledFrom([]state.Strategy{0, 1, 2, 3, 4}).Draw(t, "strategy")},
		Task:        state.Task{Env: state.PairsOf(words.Draw(t, "env")), User: rapid.SampledFrom([]string{"", "root"}).Draw(t, "user"), WorkingDir: rapid.SampledFrom([]string{"", "/srv"}).Draw(t, "dir"), Stdin: rapid.SampledFrom([]string{"", "a\x00b"}).Draw(t, "stdin"), Limits: someLimits(t)},
		Policy: &state.Policy{
			Overlap:       rapid.SampledFrom([]state.Overlap{0, 1, 2, 3}).Draw(t, "overlap"),
			MaxConcurrent: rapid.IntRange(1, 1000).Draw(t, "max_concurrent"),
			CatchUp:       rapid.SampledFrom([]state.CatchUp{0, 1, 2}).Draw(t, "catch_up"),
			CatchUpWindow: seconds("window", 0, 31*86400), Timeout: seconds("timeout", 0, 1e6), KillGrace: seconds("grace", 0, 3600),
			QueueTimeout: seconds("queue", 1, 1e6), StartWithin: seconds("within", 1, 1e6),
			Retry: state.Retry{
				MaxAttempts: rapid.IntRange(1, 100).Draw(t, "attempts"), InitialDelay: seconds("initial", 0, 100), MaxDelay: seconds("max", 100, 1000),
				Multiplier: rapid.Float64Range(1, 10).Draw(t, "multiplier"),
			},
			OnLost: rapid.SampledFrom([]state.OnLost{0, 1, 2}).Draw(t, "on_lost"), LostAfter: seconds("lost", 60, 1e6),
			LogLimit: rapid.Int64Range(64<<10, 16<<30).Draw(t, "log_limit"),
		},
	}
	if rapid.Bool().Draw(t, "leases") {
		d.Policy.KillAfter = seconds("kill_after", 30, 1e6)
		d.Policy.LostAfter += plan.LeastLostAfter(d.Policy.KillAfter, d.Policy.KillGrace)
	}
	if codes := rapid.SliceOfN(rapid.IntRange(1, 255), 0, 3).Draw(t, "codes"); len(codes) > 0 {
		d.Policy.Retry.ExitCodes = codes
	}
	if rapid.Bool().Draw(t, "script") {
		d.Task.Script, d.Task.Interpreter = "echo", rapid.SampledFrom([][]string{{"/bin/sh", "-e"}, {"python3"}}).Draw(t, "interpreter")
	} else {
		d.Task.Argv = rapid.SliceOfN(word, 1, 4).Draw(t, "argv")
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "triggers") {
		d.Triggers = append(d.Triggers, aTrigger(t, i))
	}
	return d
}

func aTrigger(t *rapid.T, i int) *state.Trigger {
	instant := func(label string, from, to int64) time.Time {
		return time.Unix(rapid.Int64Range(from, to).Draw(t, label), 0).UTC()
	}
	tr := &state.Trigger{
		ID: string(rune('a' + i)), Disabled: rapid.Bool().Draw(t, "disabled"),
		Jitter: time.Duration(rapid.IntRange(0, 3600).Draw(t, "jitter")) * time.Second,
	}
	if rapid.Bool().Draw(t, "bounded") {
		tr.Start, tr.End = instant("start", 2e9, 3e9), instant("end", 6e9, 7e9)
	}
	switch rapid.IntRange(0, 2).Draw(t, "kind") {
	case 0:
		tr.Cron = &state.Cron{
			Expression: "H 3 * * *", TimeZone: rapid.SampledFrom([]string{"UTC", "Europe/Berlin"}).Draw(t, "zone"),
			Gap: rapid.SampledFrom([]state.Gap{0, 1}).Draw(t, "gap"), Overlap: rapid.SampledFrom([]state.DSTOverlap{0, 1, 2}).Draw(t, "dst"),
		}
	case 1:
		tr.Every = &state.Every{Interval: time.Duration(rapid.IntRange(1000, 1e6).Draw(t, "interval")) * time.Millisecond}
		tr.Every.Phase = rapid.SampledFrom([]time.Duration{0, tr.Every.Interval / 2}).Draw(t, "phase").Truncate(time.Millisecond)
	default:
		tr.At = instant("at", 4e9, 5e9)
	}
	if rapid.Bool().Draw(t, "excluded") {
		tr.Exclude = []state.Exclusion{{Date: "2030-12-25"}, {From: instant("from", 1e9, 1e9+99), To: instant("to", 1e9+100, 1e9+200)}}
	}
	return tr
}

func cleanText(s string) bool {
	for _, r := range s {
		if r == 0 || r == '\uFFFD' {
			return false
		}
	}
	return true
}

// A definition that is filled in comes back as it was, and so does the job that
// shows it: what is exported can be applied again and changes nothing.
func TestDefinitionRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := state.JobKey{Namespace: "default", Name: "j"}
		d := definitions(t)
		shown := showDefinition(k, d)
		c := request()
		read := readJob(c.in("job"), shown)
		if err := c.err(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(d, read.definition); diff != "" {
			t.Fatal(diff)
		}
		if diff := cmp.Diff(shown, showDefinition(read.key, read.definition), protocmp.Transform()); diff != "" {
			t.Fatal(diff)
		}
	})
}

// Every value of an enumeration has a counterpart, and only one.
func TestEnumsAreWhole(t *testing.T) {
	whole(t, gaps, 2)
	whole(t, dstOverlaps, 3)
	whole(t, strategies, 5, "STRATEGY_ALL")
	whole(t, overlaps, 4)
	whole(t, catchUps, 3)
	whole(t, onLosts, 3)
	whole(t, phases, int(state.Missed)+1)
	whole(t, outcomes, int(state.OutcomeLeaseExpired)+1)
	whole(t, decisions, 3)
}

func whole[S ~int, P protoEnum](t *testing.T, e enum[S, P], inside int, unserved ...protoreflect.Name) {
	t.Helper()
	seen := map[P]bool{}
	for _, p := range e {
		if seen[p.api] {
			t.Errorf("%v stands for two", p.api)
		}
		seen[p.api] = true
		if e.show(p.inside) != p.api {
			t.Errorf("%v is shown as %v, want %v", p.inside, e.show(p.inside), p.api)
		}
		if c := request(); e.read(c, p.api) != p.inside || c.err() != nil {
			t.Errorf("%v is not read as %v", p.api, p.inside)
		}
	}
	if len(e) != inside {
		t.Errorf("%d pairs, want %d", len(e), inside)
	}
	var zero P
	values := zero.Descriptor().Values()
	for i := range values.Len() {
		v := values.Get(i)
		if v.Number() != 0 && !seen[P(v.Number())] && (len(unserved) == 0 || v.Name() != unserved[0]) {
			t.Errorf("%v has no counterpart", v.Name())
		}
	}
}

func TestClip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, n := rapid.String().Draw(t, "s"), rapid.IntRange(3, 20).Draw(t, "n")
		if got := clip(s, n); len(got) > max(n, 0) || len(s) <= n && cleanText(s) && got != s {
			t.Fatalf("clip(%q, %d) = %q", s, n, got)
		}
	})
}

// someLimits are any that are allowed.
func someLimits(t *rapid.T) state.Limits {
	if rapid.Bool().Draw(t, "unlimited") {
		return state.Limits{}
	}
	return state.Limits{
		Memory: rapid.Int64Range(leastMemory, mostMemory).Draw(t, "memory"), CPUMillis: rapid.Int64Range(10, 1000*mostCPUs).Draw(t, "cpu"),
		PIDs: rapid.Int64Range(0, mostPIDs).Draw(t, "pids"),
	}
}
