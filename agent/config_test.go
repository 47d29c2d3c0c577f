package agent

import (
	"log/slog"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/schedd/schedd/agent/runner"
	"github.com/schedd/schedd/agent/runner/policy"
	agentv1 "github.com/schedd/schedd/proto/schedd/agent/v1"
)

func TestDefaultConfigIsValid(t *testing.T) {
	c := DefaultConfig()
	c.Name = "a" // a container may have no name
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
}

func TestValidate(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*Config)
		want   []string // faults, in their order; none is valid
	}{
		{"several primaries", func(c *Config) { c.Server = "127.0.0.1:1, localhost:2,[::1]:3" }, nil},
		{"no server", func(c *Config) { c.Server = " , " }, []string{"server: is empty"}},
		{"listens only", func(c *Config) { c.Server, c.DirectListen = "", "127.0.0.1:7422" }, nil},
		{"listens too", func(c *Config) { c.DirectListen = "localhost:7422" }, nil},
		{"listens to all", func(c *Config) { c.DirectListen = ":7422" }, []string{"direct-listen: :7422 can be reached from other hosts"}},
		{"listens to all, knowingly", func(c *Config) { c.DirectListen, c.Insecure = "0.0.0.0:7422", true }, nil},
		{"listens nowhere", func(c *Config) { c.DirectListen = "7422" }, []string{"direct-listen: \"7422\" is not host:port"}},
		{"no port", func(c *Config) { c.Server = "localhost" }, []string{"is not host:port"}},
		{"port 0", func(c *Config) { c.Server = "localhost:0" }, []string{"is not host:port"}},
		{"another host", func(c *Config) { c.Server = "localhost:1,lb.example.com:7421" }, []string{"lb.example.com:7421 is another host"}},
		{"another host, knowingly", func(c *Config) { c.Server, c.Insecure = "lb.example.com:7421", true }, nil},
		{"looks like here", func(c *Config) { c.Server = "localhost.example.com:1" }, []string{"is another host"}},
		{"relative directory", func(c *Config) { c.DataDir = "data" }, []string{"data-dir: \"data\" is not absolute"}},
		{"a policy", func(c *Config) { c.Policy = "/etc/schedd/policy.yaml" }, nil},
		{"relative policy", func(c *Config) { c.Policy = "policy.yaml" }, []string{"policy: \"policy.yaml\" is not absolute"}},
		{"a policy for another's runner", func(c *Config) { c.Policy, c.StartRunner = "/p", false }, []string{"give it to schedagent runner"}},
		{"control groups", func(c *Config) { c.Cgroup = "/sys/fs/cgroup/schedd" }, nil},
		{"no control groups", func(c *Config) { c.Cgroup = CgroupNone }, nil},
		{"relative control group", func(c *Config) { c.Cgroup = "schedd" }, []string{"cgroup: \"schedd\" is neither auto, none nor"}},
		{"another's runner", func(c *Config) { c.RunnerDir, c.StartRunner = "/r", false }, nil},
		{"another's runner, relative", func(c *Config) { c.RunnerDir, c.StartRunner = "r", false }, []string{"runner-dir: \"r\" is not absolute"}},
		{"another's runner that it starts", func(c *Config) { c.RunnerDir = "/r" }, []string{"runner-dir: is for a runner that somebody else starts"}},
		{"labels", func(c *Config) { c.Labels = map[string]string{"zone": "eu", "example.com/gpu": ""} }, nil},
		{"bad labels", func(c *Config) { c.Labels = map[string]string{"": "x", "a b": "", "ok": "no/slash"} }, []string{"the key \"\"", "the key \"a b\"", "\"no/slash\""}},
		{
			"all at once", func(c *Config) { *c = Config{AdvertiseIP: "here", AdvertiseHostname: "\n"} },
			[]string{"server:", "data-dir:", "name:", "slots:", "advertise-hostname:", "advertise-ip:"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := DefaultConfig()
			c.Name = "a"
			test.change(&c)
			err := c.Validate()
			if (err == nil) != (test.want == nil) {
				t.Fatalf("error %v, want %q", err, test.want)
			}
			text := ""
			if err != nil {
				text = err.Error()
			}
			for _, want := range test.want {
				_, rest, found := strings.Cut(text, want)
				if !found {
					t.Fatalf("%q does not say %q in its place", err, want)
				}
				text = rest
			}
		})
	}
}

// A runner for the agent of another user needs a policy that says whom jobs may run
// as: without, that user could be root.
func TestRunnerForAnotherUser(t *testing.T) {
	c := RunnerConfig{DataDir: t.TempDir(), AgentUser: "nobody"}
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "agent-user: needs a policy") {
		t.Errorf("without a policy: %v", err)
	}
	c.Policy = filepath.Join(t.TempDir(), "policy.yaml")
	for text, want := range map[string]string{
		"programs: [/bin/true]\n": "lets jobs run as any user",
		"users: [nobody]\n":       "",
	} {
		if err := os.WriteFile(c.Policy, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := c.readPolicy()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if err := c.Validate(); err != nil {
		t.Errorf("with one: %v", err)
	}
	if _, err := (RunnerConfig{AgentUser: "no-such-user"}).guest(); err == nil || !strings.Contains(err.Error(), "create it, or name another") {
		t.Errorf("an unknown user: %v", err)
	}
	if g, err := (RunnerConfig{AgentUser: own(t)}).guest(); g != nil || err != nil {
		t.Errorf("the runner's own user is a guest: %v, %v", g, err)
	}
}

// A runner that is root does not begin in a directory of the agent's, whether it knows of
// the agent or not: half of what is to be installed may be missing.
func TestRootsRunnerInTheAgentsDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to have directories of other users")
	}
	dir := t.TempDir()
	if err := os.Chown(dir, 54321, 54321); err != nil {
		t.Fatal(err)
	}
	err := ServeRunner(t.Context(), RunnerConfig{DataDir: dir}, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "belongs to user number 54321") || !strings.Contains(err.Error(), "--runner-dir") {
		t.Errorf("it is told %v", err)
	}
	if in, err := os.ReadDir(dir); err != nil || len(in) > 0 {
		t.Errorf("it has made %v, %v", in, err)
	}
}

func own(t *testing.T) string {
	t.Helper()
	u, err := user.LookupId(strconv.Itoa(os.Geteuid()))
	if err != nil {
		t.Skip("needs a name for this user:", err)
	}
	return u.Username
}

// Labels read back as they were written.
func TestLabelsRoundTrip(t *testing.T) {
	label := rapid.StringMatching(`[a-z0-9]{1,8}`)
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.MapOf(label, rapid.OneOf(label, rapid.Just(""))).Draw(t, "labels")
		got, err := ParseLabels(FormatLabels(want))
		if err != nil || !maps.Equal(got, want) {
			t.Fatalf("%v became %v, %v", want, got, err)
		}
	})
	if _, err := ParseLabels("a=1,b,a=2"); err == nil {
		t.Error("a label may be given twice")
	}
}

// Whatever a job adds, the process finds what it was promised, each name once,
// and nothing of the agent.
func TestEnvironment(t *testing.T) {
	t.Setenv("SECRET_OF_THE_AGENT", "1")
	name := rapid.OneOf(rapid.StringMatching(`[A-Z_]{1,6}`), rapid.SampledFrom([]string{"PATH", "HOME", "SCHEDD_RUN_ID", "SCHEDD_WORKER"}))
	rapid.Check(t, func(t *rapid.T) {
		added := rapid.MapOf(name, rapid.String()).Draw(t, "env")
		l := &agentv1.Launch{
			Key: &agentv1.AttemptKey{RunId: "r1", Attempt: 2}, Fence: 3, Namespace: "n", Job: "j",
			ScheduledAt: &timestamppb.Timestamp{Seconds: 86400}, Task: &agentv1.Task{Env: added},
		}
		want := map[string]string{"PATH": runner.DefaultPath}
		maps.Copy(want, added)
		maps.Copy(want, map[string]string{
			"SCHEDD_RUN_ID": "r1", "SCHEDD_ATTEMPT": "2", "SCHEDD_FENCE": "3", "SCHEDD_NAMESPACE": "n", "SCHEDD_JOB": "j",
			"SCHEDD_TRIGGER": "", "SCHEDD_SCHEDULED_AT": "1970-01-02T00:00:00Z", "SCHEDD_WORKER": "w-1",
		})
		list := environment(l, "w-1")
		got := map[string]string{}
		for _, entry := range list {
			k, v, _ := strings.Cut(entry, "=")
			got[k] = v
		}
		if !maps.Equal(got, want) || len(list) != len(want) || !slices.IsSorted(list) {
			t.Fatalf("environment %q, want %q", list, want)
		}
	})
}

// A policy that lets jobs set nothing does not stand in the way of what an agent adds.
func TestEnvironmentUnderAPolicy(t *testing.T) {
	list := environment(&agentv1.Launch{Key: &agentv1.AttemptKey{RunId: "r1", Attempt: 1}}, "w-1")
	if err := (policy.Policy{Env: []string{}}).CheckEnv(list, "PATH="+runner.DefaultPath); err != nil {
		t.Error(err)
	}
}

func TestEnvironmentOfARunByHand(t *testing.T) {
	list := environment(&agentv1.Launch{Key: &agentv1.AttemptKey{RunId: "r1", Attempt: 1}}, "w-1")
	for _, want := range []string{"SCHEDD_TRIGGER=", "SCHEDD_SCHEDULED_AT="} {
		if !slices.Contains(list, want) {
			t.Errorf("%q has no empty %s", list, want)
		}
	}
	if slices.ContainsFunc(list, func(e string) bool { return strings.HasPrefix(e, "HOME=") }) {
		t.Errorf("%q: whose home?", list)
	}
}
