package policy_test

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/schedd/schedd/agent/runner/cgroup"
	"github.com/schedd/schedd/agent/runner/policy"
)

func write(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, mode); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestRead(t *testing.T) {
	text := "users: [report, 'app-*']\ndefault_user: jobs\nprograms:\n  - /usr/local/bin/*\nenv: []\nmax_timeout: 1h30m\n"
	got, err := policy.Read(write(t, text, 0o644))
	want := policy.Policy{
		Users: []string{"report", "app-*"}, DefaultUser: "jobs", Programs: []string{"/usr/local/bin/*"}, Env: []string{}, MaxTimeout: 90 * time.Minute,
	}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
	if got, err := policy.Read(write(t, "# nothing yet\n", 0o600)); err != nil || !cmp.Equal(got, policy.Policy{}) {
		t.Errorf("an empty one is %+v, %v", got, err)
	}
}

// What can't be understood allows nothing, and the operator is told what is wrong.
func TestUnreadable(t *testing.T) {
	for text, want := range map[string]string{
		"user: [a]":                    "user",
		"users: a":                     "line 1",
		"programs: [bin/x]":            "no clean path",
		"programs: [/bin/../x]":        "no clean path",
		"users: ['[']":                 "no pattern",
		"max_timeout: 4":               "no duration",
		"max_timeout: -1h":             "no duration",
		"users: []\n---\nusers: ['*']": "second document",
		"users: [a":                    "line 1",
		"programs:\n#  - /bin/x":       "programs: it says nothing",
		"users: ~":                     "users: it says nothing",
		"max_timeout:":                 "max_timeout: it says nothing",
	} {
		name := write(t, text, 0o600)
		if _, err := policy.Read(name); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), name) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := policy.Read(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("one that is not there is read")
	}
	if _, err := policy.Read(write(t, "", 0o666)); err == nil || !strings.Contains(err.Error(), "chmod go-w") {
		t.Errorf("one that all may write: %v", err)
	}
	name := write(t, "", 0o600)
	if err := os.Chmod(filepath.Dir(name), 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := policy.Read(name); err == nil || !strings.Contains(err.Error(), "could be replaced by others") {
		t.Errorf("one in a directory that all may write to: %v", err)
	}
}

func TestChecks(t *testing.T) {
	open := policy.Policy{}
	strict := policy.Policy{Users: []string{"report", "app-*"}, DefaultUser: "jobs", Programs: []string{"/opt/jobs/*"}, Env: []string{"REPORT_*"}}
	none := policy.Policy{Users: []string{}, Programs: []string{}, Env: []string{}}
	for _, test := range []struct {
		name string
		err  error
		want string // empty: it is allowed
	}{
		{"any user", open.CheckUser("root"), ""},
		{"a user of the list", strict.CheckUser("app-7"), ""},
		{"the default user", strict.CheckUser("jobs"), ""},
		{"another user", strict.CheckUser("root"), `as user "root", only as jobs, report, app-*`},
		{"no user at all", none.CheckUser("root"), "none at all"},
		{"any program", open.CheckProgram("/bin/sh"), ""},
		{"a program of the list", strict.CheckProgram("/opt/jobs/nightly"), ""},
		{"below the list", strict.CheckProgram("/opt/jobs/sub/nightly"), "only /opt/jobs/*"},
		{"another program", strict.CheckProgram("/bin/sh"), `"/bin/sh"`},
		{"no program at all", none.CheckProgram("/bin/sh"), "none at all"},
		{"any variable", open.CheckEnv([]string{"LD_PRELOAD=x"}), ""},
		{"variables of the list, the run and the user", strict.CheckEnv([]string{"REPORT_DAY=1", "SCHEDD_RUN_ID=r", "HOME=/", "PATH=/bin"}, "PATH=/bin", "HOME=/"), ""},
		{"another HOME", strict.CheckEnv([]string{"HOME=/tmp/evil"}, "HOME=/"), `"HOME"`},
		{"a variable that only looks like the run's", strict.CheckEnv([]string{"SCHEDD_HOOK=/tmp/evil"}), `"SCHEDD_HOOK"`},
		{"another PATH", strict.CheckEnv([]string{"PATH=/tmp"}, "PATH=/bin"), `"PATH"`},
		{"another variable", strict.CheckEnv([]string{"LD_PRELOAD=x"}), `"LD_PRELOAD", only REPORT_*`},
	} {
		if test.want == "" && test.err != nil || test.want != "" && (test.err == nil || !strings.Contains(test.err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", test.name, test.err, test.want)
		}
	}
	if strict.User("") != "jobs" || strict.User("a") != "a" || open.User("") != "" {
		t.Error("the default user is not for those who name nobody")
	}
	capped := policy.Policy{MaxTimeout: time.Hour}
	for _, test := range []struct{ asked, grace, timeout, spared time.Duration }{
		{0, 0, time.Hour, 0},
		{time.Minute, 0, time.Minute, 0},
		{2 * time.Hour, 0, time.Hour, 0},
		{0, 10 * time.Second, time.Hour - 10*time.Second, 10 * time.Second},
		{time.Hour, 10 * time.Second, time.Hour - 10*time.Second, 10 * time.Second},
		{time.Minute, 10 * time.Second, time.Minute, 10 * time.Second},
		{0, time.Hour, 30 * time.Minute, 30 * time.Minute},
		{time.Minute, time.Hour, time.Minute, 59 * time.Minute},
		{50 * time.Minute, time.Hour, 30 * time.Minute, 30 * time.Minute},
		{-1, math.MaxInt64, 30 * time.Minute, 30 * time.Minute},
	} {
		if timeout, spared := capped.Timeout(test.asked, test.grace); timeout != test.timeout || spared != test.spared {
			t.Errorf("of %v and a grace of %v it makes %v and %v, want %v and %v", test.asked, test.grace, timeout, spared, test.timeout, test.spared)
		}
	}
	if timeout, spared := open.Timeout(0, time.Hour); timeout != 0 || spared != time.Hour {
		t.Errorf("without a rule, of no timeout and a grace of an hour it makes %v and %v", timeout, spared)
	}
}

// Whatever is in the file: it is refused, or what it says is what is checked.
func FuzzPolicy(f *testing.F) {
	f.Add("users: [report, 'app-*']\ndefault_user: jobs\nprograms: [/usr/local/bin/*]\nenv: []\nmax_timeout: 1h30m\n")
	f.Add("users: []\n")
	f.Add("max_memory: 4G\nmax_cpus: 0.5\nmax_pids: 9\n")
	f.Add("programs:\n  - '/[a-z]*/\\*'\n")
	f.Add("users: &a [x]\nenv: *a\n")
	f.Add("users:\n")
	name := filepath.Join(f.TempDir(), "policy.yaml")
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := policy.Read(name)
		if err != nil {
			return
		}
		for key, patterns := range map[string][]string{"users": p.Users, "programs": p.Programs, "env": p.Env} {
			if patterns == nil && strings.HasPrefix(text, key+":") {
				t.Errorf("%s stands in it and forbids nothing:\n%s", key, text)
			}
		}
		for _, grace := range []time.Duration{0, time.Second, math.MaxInt64} {
			timeout, spared := p.Timeout(0, grace)
			if p.MaxTimeout < 0 || p.MaxTimeout > 0 && (timeout <= 0 || spared < 0 || timeout+spared != p.MaxTimeout) {
				t.Errorf("with at most %v nothing, and a grace of %v, become %v and %v", p.MaxTimeout, grace, timeout, spared)
			}
		}
		if l := p.MaxLimits; l.Memory < 0 || l.CPUMillis < 0 || l.PIDs < 0 || p.Limits(cgroup.Limits{}) != l {
			t.Errorf("with at most %+v no limits become %+v", l, p.Limits(cgroup.Limits{}))
		}
		if err := p.CheckUser("nobody of that name"); err == nil && p.Users != nil && !slices.ContainsFunc(p.Users, mayBeMany) && p.DefaultUser != "nobody of that name" {
			t.Errorf("anybody is let in by %q", p.Users)
		}
	})
}

// mayBeMany reports whether a pattern may stand for a name that is not written in it.
func mayBeMany(pattern string) bool {
	return strings.ContainsAny(pattern, `*?[\`) || pattern == "nobody of that name"
}

// The limits of a host are the most that any job has, those with none of their own too.
func TestLimits(t *testing.T) {
	p, err := policy.Read(write(t, "max_memory: 2G\nmax_cpus: 1.5\nmax_pids: 100\n", 0o600))
	most := cgroup.Limits{Memory: 2 << 30, CPUMillis: 1500, PIDs: 100}
	if err != nil || p.MaxLimits != most {
		t.Fatalf("%+v, %v", p, err)
	}
	for asked, want := range map[cgroup.Limits]cgroup.Limits{
		{}: most,
		{Memory: 1 << 20, CPUMillis: 10, PIDs: 1}:          {Memory: 1 << 20, CPUMillis: 10, PIDs: 1},
		{Memory: 4 << 30, CPUMillis: 2000, PIDs: 101}:      most,
		{Memory: -1, CPUMillis: math.MinInt64, PIDs: -100}: most,
	} {
		if got := p.Limits(asked); got != want {
			t.Errorf("asked for %+v: %+v, want %+v", asked, got, want)
		}
	}
	asked := cgroup.Limits{Memory: 5}
	if got := (policy.Policy{}).Limits(asked); got != asked {
		t.Errorf("without a policy: %+v", got)
	}
	for text, want := range map[string]string{
		"max_memory: 2g": "no size", "max_memory: G": "no size", "max_memory: -1G": "no size", "max_memory: 0": "no size", "max_memory: 9999999T": "no size", "max_memory: 1.5G": "no size",
		"max_memory: 1GG": "no size", "max_memory: ''": "no size", "max_cpus: 0": "between 0.01", "max_cpus: .nan": "between 0.01", "max_cpus: -1": "between 0.01", "max_pids: 0": "less than 1", "max_pids: x": "line 1",
	} {
		if _, err := policy.Read(write(t, text, 0o600)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
